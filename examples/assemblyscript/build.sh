#!/bin/sh
# Builds security.wasm and bare.wasm into the folder given, or else into this one.
# One version of the compiler gives the same bytes wherever the checkout is. Exit 3: a tool is missing.
set -eu

absolute() { mkdir -p "$1" && (cd "$1" && pwd); }
here=$(cd "$(dirname "$0")" && pwd)
out=$(absolute "${1:-$here}")

for tool in node npm; do
    command -v "$tool" >/dev/null && continue
    echo "build.sh: $tool is missing; on Debian: apt-get install nodejs npm" >&2
    exit 3
done

cd "$here" # the module names its sources as the compiler is given them: no folder of this machine among them
# npm ci installs what package-lock.json names, and leaves a file that is older than a lock that was changed since.
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --loglevel=error >&2
build() {
    node node_modules/assemblyscript/bin/asc.js "$2" --runtime minimal --optimizeLevel 3 --outFile "$out/$1.wasm"
}
build security assembly/index.ts
build bare assembly/bare.ts
