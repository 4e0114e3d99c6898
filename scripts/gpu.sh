#!/bin/sh
# What is run on a machine with a GPU that has no Rust: what scripts/gpu_pack.sh put into .gpu/, in the stages that are named.
#
#   scripts/gpu.sh smi tests sanitize bench quick upstream
#
#   smi                the card and its clocks, as found
#   tests [FILTER]     tests/cuda on the card
#   sanitize           compute-sanitizer on the tests named small_*
#   bench quick|full   the tables of tests/cuda/bench.rs
#   upstream [REGEX]   upstream's flash attention, by test-backend-ops
#
# Logs go to $OUT, a short summary of each stage to stdout. Nothing of the card is changed.

cd "$(dirname "$0")/.." || exit 1
out=${OUT:-.gpu/out}
bin=${TMPDIR:-/tmp}/pmkvq-gpu
mkdir -p "$out" "$bin"
PMKVQ_CUDA_LIB=${PMKVQ_CUDA_LIB:-$PWD/.gpu/libpmkvq_gpu.so}
export PMKVQ_CUDA_LIB
failed=

# the path of a packed program; it is unpacked once
program() {
    if [ ! -x "$bin/$1" ]; then
        if [ -f ".gpu/bin/$1.xz" ]; then
            xz -dc ".gpu/bin/$1.xz" > "$bin/$1" && chmod +x "$bin/$1"
        else
            cp ".gpu/bin/$1" "$bin/$1" 2>/dev/null && chmod +x "$bin/$1"
        fi
    fi
    [ -x "$bin/$1" ] && echo "$bin/$1"
}

say() { echo "== $*"; }

# stage NAME SECONDS COMMAND...: into $OUT/NAME.log, no longer than that
stage() {
    name=$1 limit=$2
    shift 2
    start=$(date +%s)
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    rc=$?
    say "$name: rc $rc, $(($(date +%s) - start)) s"
    [ $rc -eq 0 ] || failed="$failed $name"
    return $rc
}

do_smi() {
    stage smi 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,power.limit --format=csv
    cat "$out/smi.log"
}

do_tests() {
    stage tests "${TESTS_S:-200}" .gpu/cuda_tests --test-threads="${THREADS:-8}" $1
    grep -E '^test .* FAILED|panicked at|above|^test result' -A1 "$out/tests.log" | cut -c1-400 | head -60
}

# The checkers side by side: they look at small kernels, and wait for the host most of the time. Without guards around buffers,
# so that memcheck sees the first byte beyond one
do_sanitize() {
    tools="memcheck racecheck synccheck initcheck"
    start=$(date +%s)
    for tool in $tools; do
        (
            PMKVQ_GUARDS=0 timeout -k 5 "${SANITIZE_S:-150}" compute-sanitizer --tool $tool --error-exitcode 9 --print-limit 20 \
                .gpu/cuda_tests --test-threads=1 small_ > "$bin/$tool.log" 2>&1
            echo $? > "$bin/$tool.rc"
        ) &
    done
    wait
    say "sanitize: $(($(date +%s) - start)) s"
    for tool in $tools; do
        rc=$(cat "$bin/$tool.rc")
        [ "$rc" = 0 ] || failed="$failed $tool"
        echo "$tool: rc $rc, $(grep -E 'SUMMARY' "$bin/$tool.log" | tail -1), $(grep '^test result' "$bin/$tool.log")"
        grep '=========' "$bin/$tool.log" | grep -vE 'COMPUTE-SANITIZER|SUMMARY' | cut -c1-200 | head -8
    done
    for tool in $tools; do
        echo "##### $tool"
        cat "$bin/$tool.log"
    done > "$out/sanitize.log"
}

do_bench() {
    PMKVQ_BENCH=$1 stage "bench_$1" "${BENCH_S:-150}" .gpu/cuda_tests --test-threads=1 --ignored --nocapture bench
    grep -vE '^$|^running|^test |^test result: ok' "$out/bench_$1.log" | cut -c1-300
}

do_upstream() {
    p=$(program test-backend-ops)
    if [ -z "$p" ]; then
        say "upstream: there is no test-backend-ops in .gpu/bin"
        return
    fi
    stage upstream "${UPSTREAM_S:-90}" "$p" perf -o FLASH_ATTN_EXT -p "${1:-hsk=128,.*nh=8,}"
    grep -E 'FLASH_ATTN_EXT|error' "$out/upstream.log" | cut -c1-250 | head -60
}

while [ $# -gt 0 ]; do
    case $1 in
        smi | sanitize) "do_$1" ;;
        tests | upstream)
            case ${2:-smi} in
                smi | tests | sanitize | bench | upstream) "do_$1" ;;
                *) "do_$1" "$2"; shift ;;
            esac ;;
        bench)
            case ${2:-} in
                quick | full) do_bench "$2"; shift ;;
                *) do_bench quick ;;
            esac ;;
        *) echo "gpu.sh: no stage '$1'" >&2; exit 2 ;;
    esac
    shift
done
if [ -n "$failed" ]; then
    say "failed:$failed"
    exit 1
fi
say "all stages passed"
