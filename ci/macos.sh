#!/bin/sh
# What can be seen of macOS without a Mac: whether each extension compiles for it, by zig's clang and headers, and
# whether the Python modules use what their system's modules have there, by mypy. zig goes to build/macos.
set -eu
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
tools=$PWD/build/macos
if [ ! -x "$tools/bin/python" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "ziglang==0.17.1"
fi
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
for processor in aarch64 x86_64; do
    for source in sentinel_wasm/*.pyx; do
        "$tools/bin/python" -m ziglang cc -target "$processor-macos.11.0" -O0 -Wall -Wextra -Werror \
            -Wno-unused-parameter -isystem "$headers" -c "${source%.pyx}.c" -o "$tools/compiled.o"
    done
done
"$python" -m mypy --platform darwin sentinel_wasm
echo "everything compiles for macOS, on aarch64 and x86_64"
