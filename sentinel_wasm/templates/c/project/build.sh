#!/bin/sh
# Builds filter.wasm; sdk/build.sh says how. Exit 3: a tool is missing.
set -eu
cd "$(dirname "$0")"
sh sdk/build.sh filter.c filter.wasm
