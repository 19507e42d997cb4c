#!/bin/sh
# Builds filter.wasm beside this script. Exit 3: a tool is missing.
set -eu
cd "$(dirname "$0")"

for tool in node npm; do
    command -v "$tool" >/dev/null && continue
    echo "build.sh: $tool is missing; on Debian: apt-get install nodejs npm" >&2
    exit 3
done

# npm ci installs what package-lock.json names, and leaves a file that is older than a lock that was changed since.
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --loglevel=error >&2
node node_modules/assemblyscript/bin/asc.js assembly/index.ts --runtime minimal --optimizeLevel 3 --outFile filter.wasm
