#!/bin/sh
# Builds filter.wasm; sdk/build.sh says how. Exit 3: there is no toolchain for wasm32.
set -eu
cd "$(dirname "$0")"
sh sdk/build.sh . filter
