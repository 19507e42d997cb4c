#!/bin/sh
# Fuzzes what reads the proxy's bytes and the module's for FUZZ_SECONDS, divided over the targets of tests/fuzz (or
# those that are given), with the extension modules built for AddressSanitizer and UBSan in build/fuzz.
# With atheris and clang the coverage of the Python code and of the compiled code guides it; where one of them is
# missing, hypothesis searches blindly. It says which.
# What breaks a target is kept in tests/fuzz/findings, where `make test` replays it; what reaches new code is kept
# in build/fuzz-corpus.
# Then the normaliser is compared with the Python path on NORMALISER_MUTATIONS changed events: a million, or none where
# FUZZ_SECONDS or targets are given.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
mutations=${NORMALISER_MUTATIONS:-1000000}
[ -z "${FUZZ_SECONDS:-}$*" ] || mutations=${NORMALISER_MUTATIONS:-0}
[ $# -gt 0 ] || set -- frames normaliser connection results guest_calls msgpack protobuf
seconds=$((${FUZZ_SECONDS:-60} / $#))
[ "$seconds" -gt 0 ] || seconds=1
checks="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1 -UNDEBUG"

with_atheris() {
    [ -d "$(clang -print-runtime-dir 2>/dev/null)" ] ||
        { echo "ci/fuzz.sh: no clang with sanitizers (apt-get install clang libclang-rt-dev)"; return 1; }
    # Cython adds 0 to NULL, which clang calls an overflow.
    ci/sanitized.sh fuzz clang "$checks -fsanitize=fuzzer-no-link -fno-sanitize=pointer-overflow" || exit 1
    build/fuzz/venv/bin/python -c 'import atheris' 2>/dev/null ||
        .venv/bin/python -m pip --python build/fuzz/venv/bin/python install --quiet --disable-pip-version-check \
            --only-binary :all: --group fuzz || { echo "ci/fuzz.sh: no wheel of atheris"; return 1; }
    # The targets' mutators are found by the engine where both are preloaded (google/atheris issue 54).
    site=$(build/fuzz/venv/bin/python -c 'import atheris; print(atheris.path())')
    runtime=$site/asan_with_fuzzer.so:$(echo "$site"/atheris/custom_mutator.*.so)
    [ -f "$site/asan_with_fuzzer.so" ] || { echo "ci/fuzz.sh: this atheris has no asan_with_fuzzer.so"; return 1; }
}

mkdir -p build/fuzz-logs
if with_atheris; then
    how="guided by coverage (atheris)"
    python=$root/build/fuzz/venv/bin/python tree=build/fuzz/tree
else
    how="by chance (hypothesis)"
    ci/sanitized.sh asan gcc "$checks"
    runtime=$(gcc -print-file-name=libasan.so)
    python=$root/build/asan/venv/bin/python tree=build/asan/tree
fi
echo "fuzzing $how, $seconds s a target: $*"

status=0
# sanitized LOG TARGET ARGUMENT...: python -m ARGUMENT..., whose findings are inputs of the target.
sanitized() {
    log=build/fuzz-logs/$1.log findings=$root/tests/fuzz/findings/$2
    shift 2
    mkdir -p "$findings"
    (
        cd "$tree"
        # No leak detection here: ci/asan.sh does that.
        LD_PRELOAD=$runtime PYTHONMALLOC=malloc \
            ASAN_OPTIONS=detect_leaks=0:use_sigaltstack=0:quarantine_size_mb=64 UBSAN_OPTIONS=print_stacktrace=1 \
            "$python" -m "$@" --findings "$findings"
    ) >"$log" 2>&1 || {
        status=1
        grep -v '^#' "$log" | tail -n 40
        echo "ci/fuzz.sh: $* ended early; what broke it is in ${findings#"$root/"}, the log in $log"
    }
    rmdir "$findings" 2>/dev/null || true
}

for target; do
    sanitized "$target" "$target" tests.fuzz "$target" --seconds "$seconds" --corpus "$root/build/fuzz-corpus/$target"
    grep -E '^#[0-9]+.*DONE|^Done|runs by chance' "build/fuzz-logs/$target.log" | sed "s/^/$target: /" || true
done
if [ "$mutations" -gt 0 ]; then
    export NORMALISER_MUTATIONS="$mutations"
    sanitized mutating normaliser tests.fuzz.mutating
    [ "$status" != 0 ] || cat build/fuzz-logs/mutating.log
fi
rmdir tests/fuzz/findings 2>/dev/null || true
exit "$status"
