#!/bin/sh
# build.sh SOURCE MODULE: compiles the filter SOURCE to the file MODULE. Exit 3: a tool is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

for tool in clang wasm-ld; do
    command -v "$tool" >/dev/null && continue
    echo "build.sh: $tool is missing; on Debian: apt-get install clang lld" >&2
    exit 3
done

# -mbulk-memory: what is copied is so by wasm's own instruction; there is no memcpy to call.
# --stack-first: a stack that overflows traps, instead of running into the data. 16 KiB of it let the memory begin with
# one page: with --isolation request each page costs time.
clang --target=wasm32 -std=c11 -O2 -Wall -Wextra -mbulk-memory -ffreestanding -fno-builtin -nostdlib "-I$here" \
    -Wl,--no-entry -Wl,--stack-first -Wl,-z,stack-size=16384 -Wl,--strip-all -o "$2" "$1"
chmod a-x "$2" # the linker takes it for a program
