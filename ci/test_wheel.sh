#!/bin/sh
# ci/test_wheel.sh TEST...: these tests on the installed wheel of dist/, in a directory without the package's sources.
set -eu
cd "$(dirname "$0")/.."
venv=$PWD/build/test-wheel/venv tree=build/test-wheel/tree
rm -rf build/test-wheel
mkdir -p "$tree"
ci/installed.sh "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
"$venv/bin/pip" install --quiet --disable-pip-version-check --group dev
git ls-files -z --cached --others --exclude-standard | grep -zv '^sentinel_wasm/' |
    xargs -0 cp --parents --no-dereference --target-directory "$tree"
cd "$tree"
exec "$venv/bin/python" -m pytest -q -m "not e2e and not load and not templates" "$@"
