#!/bin/sh
# The unit tests with the extension modules built for AddressSanitizer and UBSan, in build/asan. Arguments go to
# pytest. An error ends the process that makes it, a spawned agent too; leaks are looked for in each process
# at its end, and count where our modules or wasmtime's library allocated what is lost (CPython and orjson lose
# a few bytes of their own).
set -eu
cd "$(dirname "$0")/.."
cc=${ASAN_CC:-gcc}
runtime=$("$cc" -print-file-name=libasan.so 2>/dev/null || true)
case $runtime in
*/*) ;;
*) echo "ci/asan.sh: $cc has no AddressSanitizer; install: apt-get install gcc" >&2; exit 1 ;;
esac
ci/sanitized.sh asan "$cc" "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1 -UNDEBUG"

reports=$PWD/build/asan/reports
rm -rf "$reports"
mkdir "$reports"
cd build/asan/tree
# wasmtime takes SIGSEGV for its traps and passes on to ASan what no guest did (the defaults allow that), and it
# brings its own signal stacks. Small freed blocks are kept, but not 256 MiB of them: tests measure memory.
options=detect_leaks=1:exitcode=0:abort_on_error=1:use_sigaltstack=0:quarantine_size_mb=16:log_path=$reports/report
tests() {
    NORMALISER_MUTATIONS=${NORMALISER_MUTATIONS:-20000} \
        LD_PRELOAD=$runtime PYTHONMALLOC=malloc ASAN_OPTIONS=$options UBSAN_OPTIONS=print_stacktrace=1:$options \
        ../venv/bin/python -m pytest -q --capture=sys -p no:faulthandler "$@"
}
# Left out: what builds wheels (not sanitized), what runs compilers, what limits the address space (ASan wants
# terabytes of it), what asks whole agents for minutes or measures milliseconds, and what has no compiled code of ours
# in it. The sanitizers slow the agent down, and some tests give it milliseconds: what failed has a second go.
left_out=""
for file in hostile soak load guest/test_result_mapping.py test_bench.py test_benchmarks.py test_cli.py \
    test_completion.py test_configuration.py test_deploy.py test_documentation.py test_gate.py test_logs.py \
    test_module_config.py test_new.py \
    test_page.py test_page_browser.py test_page_loop.py test_prometheus.py test_pytest_plugin.py test_reload.py \
    test_sdk.py test_sdk_c.py test_systemd.py test_toml.py test_traffic.py test_wheel.py test_workers.py; do
    left_out="$left_out --ignore tests/$file"
done
status=0
chosen="not test_the_source_builds and not address_space and not test_lone_events and not idle_costs and not holds_after"
# shellcheck disable=SC2086
tests -m "not e2e" -k "$chosen" $left_out "$@" || status=$?
if [ "$status" = 1 ]; then
    status=0
    tests --last-failed "$@" || status=$?
fi

errors=$(grep -lE "ERROR: AddressSanitizer|runtime error:" "$reports"/* 2>/dev/null || true)
leaks=$(cat "$reports"/* /dev/null 2>/dev/null | awk 'BEGIN { RS = ""; ORS = "\n\n" } /leak of/ && /sentinel_wasm\/_|_libwasmtime/')
if [ -n "$errors" ]; then
    # shellcheck disable=SC2086
    cat $errors
    status=1
fi
if [ -n "$leaks" ]; then
    printf 'Leaks:\n\n%s\n' "$leaks"
    status=1
fi
exit "$status"
