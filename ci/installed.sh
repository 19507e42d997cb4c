#!/bin/sh
# ci/installed.sh VENV: a virtual environment of PYTHON with the wheel of dist/ that fits it and what that brings along.
set -eu
venv=$1
python=${PYTHON:-python3}
rm -rf "$venv"
"$python" -m venv "$venv"
install="$venv/bin/pip install --quiet --disable-pip-version-check"
# First the wheel and from here alone, then what it needs.
$install --no-index --find-links dist --only-binary :all: --no-deps sentinel-wasm
$install sentinel-wasm
