#!/bin/sh
# Finds the real proxies for the end-to-end tests, installs with cargo what is missing, and prints the shell line
# that names them: eval "$(ci/proxies.sh)". The first install compiles for many minutes; .proxies/ keeps it.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cache=$root/.proxies

# The caller evals what we print: without this line it would go on after a failure.
trap '[ $? -eq 0 ] || echo false' EXIT

fail() {
    echo "ci/proxies.sh: $1" >&2
    exit 1
}

# --locked: the crates' own lock files name the releases that were tested together. Without it sentinel panics at
# its first connection, and zentinel is built from newer parts than its version says.
install_proxy() {
    command -v cargo >/dev/null || fail "no $2, and no cargo to install it with (https://rustup.rs); or set $1"
    mkdir -p "$cache"
    echo '*' >"$cache/.gitignore"
    echo "ci/proxies.sh: installing $3 $4 to $cache" >&2
    cargo install --locked "$3" --version "$4" --root "$cache" >&2 || fail "cargo could not install $3 $4"
}

# find_proxy variable binary crate version: prints the binary's path.
find_proxy() {
    eval "given=\${$1:-}"
    # shellcheck disable=SC2154
    if [ -n "$given" ]; then
        [ -x "$given" ] || fail "$1=$given is not a program"
        echo "$given"
        return
    fi
    for found in "$root/../shared/bin/$2" "$cache/bin/$2"; do
        if [ -x "$found" ]; then
            echo "$found"
            return
        fi
    done
    install_proxy "$@"
    echo "$cache/bin/$2"
}

zentinel=$(find_proxy ZENTINEL_BIN zentinel zentinel-proxy 0.6.45)
sentinel=$(find_proxy SENTINEL_BIN sentinel sentinel-proxy 0.2.5)
echo "export ZENTINEL_BIN='$zentinel' SENTINEL_BIN='$sentinel'"
