#!/bin/sh
# Builds filter.wasm beside this script. Exit 3: there is no Go that can build it.
set -eu
cd "$(dirname "$0")"

export GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 GOWORK=off
export GOTOOLCHAIN=local # else an old Go downloads a newer one in silence
if ! go list -m >/dev/null 2>&1; then
    echo "build.sh: Go 1.24 or later is missing: see https://go.dev/dl/" >&2
    exit 3
fi
# A small module, and the same bytes wherever this folder is.
go build -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w -buildid=" -o filter.wasm .
