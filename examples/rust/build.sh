#!/bin/sh
# Builds the modules of all filters into the folder given, or else into this one; sdk/build.sh says how.
# Exit 3: there is no toolchain for wasm32.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
cd "$here"
sdk/build.sh "$out" security published_admin published_bot bare
