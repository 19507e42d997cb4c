#!/bin/sh
# Installs what the tests compile with, ask or open the page with, and this machine lacks (Debian, as root): the example
# modules of C and AssemblyScript are rebuilt in every run. Elsewhere it says what is missing.
set -eu
missing=""
# Debian runs a Prometheus of its own, on port 9090, where systemd runs.
for pair in cc:gcc make:make clang:clang wasm-ld:lld npm:npm systemd-analyze:systemd wrk:wrk haproxy:haproxy \
    promtool:prometheus chromium:chromium chromedriver:chromium-driver; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
[ -d "$(clang -print-runtime-dir 2>/dev/null)" ] || missing="$missing libclang-rt-dev" # the sanitizers, for ci/fuzz.sh
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing="$missing python3-dev"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "ci/toolchains.sh: install:$missing" >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
