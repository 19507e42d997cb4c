#!/bin/sh
# Builds security.wasm beside this script, or as the file (or into the folder) that is named.
# Exit 3: a tool is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
[ ! -d "$out" ] || out=$out/security.wasm

for tool in clang wasm-ld; do
    command -v "$tool" >/dev/null && continue
    echo "build.sh: $tool is missing; on Debian: apt-get install clang lld" >&2
    exit 3
done

# --stack-first: a stack that overflows traps, instead of running into the data. 16 KiB of it let the memory begin with
# one page: with --isolation request each page costs time.
clang --target=wasm32 -std=c11 -O2 -Wall -Wextra -ffreestanding -fno-builtin -nostdlib \
    -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=16384 -Wl,--strip-all -o "$out" "$here/security.c"
chmod a-x "$out" # the linker takes it for a program
