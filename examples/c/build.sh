#!/bin/sh
# Builds the modules beside this script, or into the folder that is named; sdk/build.sh says how.
# Exit 3: a tool is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out"
for filter in security bare websocket guardrail; do
    "$here/sdk/build.sh" "$here/$filter.c" "$out/$filter.wasm"
done
