#!/bin/sh
# Builds security.wasm and bare.wasm into the folder given, or else into this one.
# One version of Go gives the same bytes wherever the checkout is. Exit 3: there is no Go that can build them.
set -eu

absolute() { mkdir -p "$1" && (cd "$1" && pwd); }
here=$(cd "$(dirname "$0")" && pwd)
out=$(absolute "${1:-$here}")
cd "$here"

export GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 GOFLAGS= GOWORK=off
export GOTOOLCHAIN=local # else an old Go downloads a newer one in silence
if ! go list -m >/dev/null 2>&1; then
    echo "build.sh: Go 1.24 or later is missing: see https://go.dev/dl/" >&2
    exit 3
fi
build() {
    go build -buildmode=c-shared -trimpath -buildvcs=false -ldflags="-s -w -buildid=" -o "$out/$1.wasm" "$2"
}
build security .
build bare ./bare
