#!/bin/sh
# Compiles the SDK's tests with the host's compiler, with its sanitizers, and runs them.
set -eu
cd "$(dirname "$0")"
program=$(mktemp)
trap 'rm -f "$program"' EXIT
# -no-pie: a result packs an address into 32 bits, and only then are they below 4 GiB.
"${CC:-cc}" -std=c11 -Wall -Wextra -Werror -g -no-pie -fsanitize=address,undefined -fno-sanitize-recover=all \
    -o "$program" test.c
"$program"
