#!/bin/sh
# Builds filter.wasm beside this script. Exit 3: a tool is missing.
set -eu
cd "$(dirname "$0")"

# The language still changes from version to version.
version=0.17
if command -v zig >/dev/null && zig version | grep -q "^$version\."; then
    zig=zig
elif python3 -m ziglang version 2>/dev/null | grep -q "^$version\."; then
    zig="python3 -m ziglang"
else
    echo "build.sh: Zig $version is missing: 'pip install \"ziglang==$version.*\"', or see https://ziglang.org/download/" >&2
    exit 3
fi

# A stack that overflows traps, instead of running into the data.
$zig build-exe src/filter.zig -target wasm32-freestanding -O ReleaseSafe -fstrip -fno-entry -rdynamic \
    --stack 65536 -femit-bin=filter.wasm
