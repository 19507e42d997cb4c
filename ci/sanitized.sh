#!/bin/sh
# ci/sanitized.sh NAME CC CFLAGS: a copy of the working tree in build/NAME/tree, whose extension modules are
# compiled with these flags, and an environment for it in build/NAME/venv, which has what .venv has but for
# the package. The normal .venv and its modules are left as they are.
set -eu
name=$1 cc=$2 flags=$3
root=$PWD
tree=build/$name/tree
stamp="$cc $flags $(.venv/bin/python -VV)"

[ "$(cat "build/$name/.stamp" 2>/dev/null)" = "$stamp" ] || rm -rf "build/$name"
mkdir -p "$tree"
# What was compiled stays, and is compiled anew where its source is newer.
find "$tree" -type f ! -name '*.so' ! -name '*.c' -delete
git ls-files --cached --others --exclude-standard -z | xargs -0 sh -c 'for f; do [ ! -f "$f" ] || cp -p --parents "$f" "$0"; done' "$tree"
# Cython's output is the same for every compiler; it is made anew where a source is newer.
cp -pu sentinel_wasm/*.c "$tree/sentinel_wasm/"

if [ ! -x "build/$name/venv/bin/python" ]; then
    .venv/bin/python -m venv --without-pip "build/$name/venv"
    site=$("build/$name/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/main.pth"
fi

(cd "$tree" && CC=$cc CFLAGS=$flags "$root/.venv/bin/python" setup.py --quiet build_ext --inplace --parallel 2)
echo "$stamp" >"build/$name/.stamp"
