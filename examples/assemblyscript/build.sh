#!/bin/sh
# Builds security.wasm beside this script, or as the file (or into the folder) that is named.
# Exit 3: a tool is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
[ ! -d "$out" ] || out=$out/security.wasm
case $out in /*) ;; *) out=$PWD/$out ;; esac

for tool in node npm; do
    command -v "$tool" >/dev/null && continue
    echo "build.sh: $tool is missing; on Debian: apt-get install nodejs npm" >&2
    exit 3
done

cd "$here" # the module names its sources as the compiler is given them: no folder of this machine among them
# npm ci installs what package-lock.json names, and leaves a file that is older than a lock that was changed since.
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --no-audit --no-fund --loglevel=error >&2
node node_modules/assemblyscript/bin/asc.js assembly/index.ts --runtime minimal --optimizeLevel 3 --outFile "$out"
