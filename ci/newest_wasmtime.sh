#!/bin/sh
# ci/newest_wasmtime.sh [VERSION]: the package with the newest wasmtime (or this one), whatever pyproject.toml pins:
# a copy of the working tree in build/newest-wasmtime, built against it, and the tests that wasmtime can break.
# Fails where something does; what it says first is what a new pin would have to mend.
set -eu
cd "$(dirname "$0")/.."
wanted=${1:-}
tree=build/newest-wasmtime/tree
rm -rf build/newest-wasmtime
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --no-dereference --target-directory "$tree"
python=${PYTHON:-python3}
"$python" -m venv build/newest-wasmtime/venv
bin=$PWD/build/newest-wasmtime/venv/bin
"$bin/pip" install --quiet --disable-pip-version-check --upgrade "pip>=25.1" "wasmtime${wanted:+==$wanted}"
version=$("$bin/python" -c 'from importlib.metadata import version; print(version("wasmtime"))')
major=${version%%.*}

cd "$tree"
echo "wasmtime $version in place of $(sed -n 's/^ *"wasmtime\(.*\)",$/\1/p' pyproject.toml)"
sed -i "s/\"wasmtime>=.*\"/\"wasmtime==$version\"/" pyproject.toml
# The major version that the compiled code is written for is checked at import.
sed -i "s/^\(WASMTIME_MAJOR = \).*/\1$major/" sentinel_wasm/guest/capi.py
"$bin/pip" install --quiet --disable-pip-version-check --group dev
CFLAGS=-O0 "$bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --editable .
"$bin/python" -m pytest -q -m "not e2e and not load and not templates" tests/guest tests/hostile tests/test_examples.py tests/test_api.py
