#!/bin/sh
# ci/wheel.sh [PYTHON...]: the sdist, and from it a wheel for each of these interpreters (else for python3.10 to
# python3.14, where they are here), in dist/. auditwheel gives each the tag of the oldest glibc it runs on, which on a new
# Debian is a new one; .github/workflows/wheels.yml builds on old ones.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
# What is in an archive has the time of the commit, so that the same commit gives the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
export CFLAGS=-g0 # debug information has the name of the directory in it

at_hand() {
    for version in 3.10 3.11 3.12 3.13 3.14; do
        for python in "$(command -v "python$version" || true)" "$HOME/.pyenv/versions/$version".*/bin/python3; do
            ! "$python" -c 'import ensurepip' 2>/dev/null || { echo "$python"; break; }
        done
    done
}
# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(at_hand)

rm -rf build/wheel dist
mkdir -p build/wheel/tree
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference --target-directory build/wheel/tree
"$bin/python" -m pip install --quiet --disable-pip-version-check --group wheel
"$bin/python" -m build --quiet --sdist --no-isolation --outdir dist build/wheel/tree
wheel() {
    "$bin/python" -m pip --python "$1" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$2" "$3"
}
for python; do
    wheel "$python" build/wheel dist/*.tar.gz
done
for wheel in build/wheel/*.whl; do
    PATH="$bin:$PATH" auditwheel repair --strip --wheel-dir dist "$wheel"
done
"$bin/python" -m ci.wheels dist/*.whl
# The first of them once more, not by way of the sdist.
wheel "$1" build/wheel/direct build/wheel/tree
same=$(basename build/wheel/direct/*.whl)
"$bin/python" -m ci.wheels --same "build/wheel/$same" "build/wheel/direct/$same" >/dev/null
echo "the sdist builds the wheel that the checkout builds, byte for byte: $same"
