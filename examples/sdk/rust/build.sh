#!/bin/sh
# build.sh OUT NAME…: builds the crate or workspace in the current folder, and copies each NAME.wasm to the folder OUT.
# One toolchain gives the same bytes wherever that folder is. Exit 3: there is no toolchain for wasm32.
set -eu

absolute() { mkdir -p "$1" && (cd "$1" && pwd); }
out=$(absolute "$1")
shift

triple=wasm32-unknown-unknown
has_wasm() { command -v "$1" >/dev/null && [ -d "$("$1" --print target-libdir --target "$triple" 2>/dev/null)" ]; }

if command -v cargo >/dev/null && has_wasm "${RUSTC:-rustc}"; then
    cargo=cargo
elif [ -x /usr/bin/cargo ] && has_wasm /usr/bin/rustc; then
    cargo=/usr/bin/cargo
else
    echo "build.sh: Rust for $triple is missing: 'rustup target add $triple'," \
        "or on Debian 'apt-get install cargo libstd-rust-dev-wasm32'" >&2
    exit 3
fi

target=$(absolute "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR="$target"

# Panic messages name source files: keep the folders of this machine out of the module. The crate's own are relative:
# flags that named its folder would have serde compiled anew for every project that shares a CARGO_TARGET_DIR. Memory is
# copied by wasm's own instruction, which every runtime of today has, and not byte by byte.
# The separator is cargo's own, so that a path may have blanks in it.
CARGO_ENCODED_RUSTFLAGS=$(printf -- \
    '-Ctarget-feature=+bulk-memory\037--remap-path-prefix=%s\037--remap-path-prefix=%s' \
    "${CARGO_HOME:-$HOME/.cargo}/registry/src=deps" "$target/vendor=deps")
export CARGO_ENCODED_RUSTFLAGS

modules=$*
set -- build --locked --release --target "$triple"
if [ "$cargo" = /usr/bin/cargo ]; then
    case $(command -v cargo) in
    # Debian's cargo clones the whole index of crates.io first. A newer one beside it gets what Cargo.lock names
    # and no more.
    "" | /usr/bin/cargo | /bin/cargo) ;;
    *)
        cargo vendor --quiet --locked "$target/vendor"
        set -- "$@" --offline --config 'source.crates-io.replace-with="vendor"' \
            --config "source.vendor.directory=\"$target/vendor\""
        ;;
    esac
    export RUSTC=/usr/bin/rustc
fi
"$cargo" "$@"

for module in $modules; do
    install -m 644 "$target/$triple/release/$module.wasm" "$out/"
done
