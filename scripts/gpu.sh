#!/bin/sh
# What is run on a machine with a GPU that has no Rust: what scripts/gpu_pack.sh put into .gpu/, in the stages that are named.
#
#   scripts/gpu.sh all [SECONDS]       everything, the most valuable first, in so many seconds (500)
#   scripts/gpu.sh STAGE...            smi tests sanitize same kernels model steps variants deep
#   scripts/gpu.sh --dry-run all       without a GPU: that every file, program and option is there, at tiny sizes
#
#   smi                 the card and its clocks, as found
#   tests [FILTER]      tests/cuda on the card
#   sanitize            compute-sanitizer on the tests named small_*
#   bench quick|full|prefill   the tables of tests/cuda/bench.rs alone
#   kernels             those, upstream's attention at the same shapes, and both side by side
#   model               an 8B model at 8,192 and 32,768 with every cache; deep: a quarter of its layers at 131,072
#   variants            the decode's benchmark with each of the kernels that gpu_pack.sh's VARIANTS named, tests first
#   steps               the slowest step of a generation, everything shrinking at once, how often CUDA graphs are captured
#   same                answers on the GPU, with half of the layers there, with the KV cache on the CPU, with shifted positions and
#                       from saved states, against the CPU's
#
# Logs go to $OUT as they come, a summary to stdout and $OUT/summary.txt: eight files in all, and no more come back. Nothing of the card is changed.

cd "$(dirname "$0")/.." || exit 1
out=${OUT:-.gpu/out}
work=${TMPDIR:-/tmp}/pmkvq-gpu
bin=$work/bin
mkdir -p "$out" "$bin"
dry=
tiny=
failed=
deadline=

say() { echo "== $*" | show; }
show() { tee -a "$out/summary.txt"; }
now() { date +%s; }

if [ "${1:-}" = --dry-run ]; then
    dry=1
    tiny=--tiny
    shift
fi

# a packed file, unpacked once; its path
unpacked() {
    if [ ! "$bin/$1" -nt ".gpu/$1.xz" ]; then
        xz -dc ".gpu/$1.xz" > "$bin/$1.part" && chmod +x "$bin/$1.part" && mv "$bin/$1.part" "$bin/$1"
    fi
    echo "$bin/$1"
}

# the programs: one file by many names; CUDA's libraries, wherever this machine has them
programs() {
    program=$(unpacked gpu)
    for name in pmkvq steps llama-bench llama-completion llama-perplexity upstream; do
        ln -sf gpu "$bin/$name"
    done
    cp .gpu/graphs.so "$bin/graphs.part" && mv "$bin/graphs.part" "$bin/graphs.so"
    if ldd "$program" | grep -q 'not found'; then
        for d in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib /opt/torch/.venv/lib/python3*/site-packages/nvidia/*/lib \
            "$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"/nvidia/*/lib; do
            [ -d "$d" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$d
        done
        export LD_LIBRARY_PATH
        ldd "$program" | grep 'not found' | show
    fi
    "$bin/pmkvq" --version > /dev/null
}

# seconds that a stage may take: what it asks for, or what is left
limit() {
    if [ -z "$deadline" ]; then
        # a busy machine without a GPU is given time
        [ -n "$dry" ] && echo 900 || echo "$1"
        return
    fi
    left=$((deadline - $(now)))
    [ "$left" -lt "$1" ] && echo "$left" || echo "$1"
}

# stage NAME LOG SECONDS COMMAND...: appended to $OUT/LOG, no longer than that
stage() {
    name=$1 log=$out/$2 seconds=$(limit "$3")
    shift 3
    if [ "$seconds" -lt 5 ]; then
        say "$name: no time left"
        failed="$failed $name"
        return 1
    fi
    start=$(now)
    echo "##### $name: $*" >> "$log"
    timeout -k 5 "$seconds" "$@" >> "$log" 2>&1
    rc=$?
    say "$name: rc $rc, $(($(now) - start)) s"
    [ $rc -eq 0 ] || failed="$failed $name"
    return $rc
}

# what a stage printed, without the programs' own talk
tables() { sed -n "/^##### $1:/,\$p" "$out/$2" | grep -vE '^(\$ |#####|$)' | cut -c1-400 | tail -"${3:-40}" | show; }

do_smi() {
    command -v nvidia-smi > /dev/null || { say "smi: there is no nvidia-smi"; return; }
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,temperature.gpu,power.draw,power.limit \
        --format=csv | show
}

do_tests() {
    if [ -n "$dry" ]; then
        # the library opens, and has what the tests look for; they run where it is the shim
        python3 -c 'import ctypes, re, sys
lib = ctypes.CDLL(sys.argv[1])
names = set(re.findall(r"get!\(\"(\w+)\"\)", open("tests/cuda/device.rs").read()))
missing = [n for n in names if not hasattr(lib, n)]
sys.exit(f"{sys.argv[1]} lacks {missing}" if missing or not names else 0)' "$PMKVQ_CUDA_LIB" || failed="$failed library"
        "$tests" --list | grep -c '^.*small_.*: test$' | sed 's/$/ tests named small_*/' | show
        case $PMKVQ_CUDA_LIB in *shim*) set -- small_ ;; *) return ;; esac
    fi
    stage tests tests.log "${TESTS_S:-90}" "$tests" --test-threads="${THREADS:-8}" $1 && rc=0 || rc=1
    grep -E '^test .* FAILED|panicked at|above|^test result' -A1 "$out/tests.log" | cut -c1-400 | head -60 | show
    [ $rc -eq 0 ] || alone
}

# After an error of the device all tests of a process fail: some that failed, or did not end, each in a process of its own. The first that fails there, too,
# without early launches, and under memcheck
alone() {
    checked=
    for failed_test in $(sed -nE 's/^test (\S+) (\.\.\. FAILED|has been running for over .*)$/\1/p' "$out/tests.log" | sort -u | head -6); do
        stage "alone:$failed_test" tests.log 15 "$tests" --test-threads=1 --exact "$failed_test" && continue
        [ -z "$checked" ] || continue
        checked=1
        stage "without_early_launches:$failed_test" tests.log 15 env GGML_CUDA_PDL=0 "$tests" --test-threads=1 --exact "$failed_test"
        command -v compute-sanitizer > /dev/null || continue
        stage "memcheck:$failed_test" tests.log 40 env PMKVQ_GUARDS=0 compute-sanitizer --tool memcheck --print-limit 5 "$tests" --test-threads=1 --exact "$failed_test"
        sed -n "/^##### memcheck:/,\$p" "$out/tests.log" | grep '=========' | cut -c1-200 | head -16 | show
    done
}

# The checkers side by side: they look at small kernels, and wait for the host most of the time. Without guards around buffers,
# so that memcheck sees the first byte beyond one
do_sanitize() {
    command -v compute-sanitizer > /dev/null || { say "sanitize: there is no compute-sanitizer"; [ -n "$dry" ] || failed="$failed sanitize"; return; }
    tools="memcheck racecheck synccheck initcheck"
    start=$(now)
    seconds=$(limit "${SANITIZE_S:-90}")
    # 0 would be no limit
    [ "$seconds" -ge 5 ] || { say "sanitize: no time left"; failed="$failed sanitize"; return; }
    for tool in $tools; do
        (
            PMKVQ_GUARDS=0 timeout -k 5 "$seconds" compute-sanitizer --tool $tool --error-exitcode 9 --print-limit 20 \
                "$tests" --test-threads=1 small_ > "$work/$tool.log" 2>&1
            echo $? > "$work/$tool.rc"
        ) &
    done
    wait
    say "sanitize: $(($(now) - start)) s"
    for tool in $tools; do
        [ "$(cat "$work/$tool.rc")" = 0 ] || failed="$failed $tool"
    done
    for tool in $tools; do
        echo "$tool: rc $(cat "$work/$tool.rc"), $(grep -E 'SUMMARY' "$work/$tool.log" | tail -1), $(grep '^test result' "$work/$tool.log")"
        grep '=========' "$work/$tool.log" | grep -vE 'COMPUTE-SANITIZER|SUMMARY' | cut -c1-200 | head -8
    done | show
    for tool in $tools; do
        echo "##### $tool"
        cat "$work/$tool.log"
    done > "$out/sanitize.log"
}

# bench SIZE: only its log; a library for GPUs does not run without one
bench() {
    case $dry$PMKVQ_CUDA_LIB in 1*_gpu.so) return ;; esac
    stage "bench_$1" kernels.log "${BENCH_S:-90}" env PMKVQ_BENCH="$1" "$tests" --test-threads=1 --ignored --nocapture bench
}

do_bench() {
    bench "$1" && tables "bench_$1" kernels.log 200
}

do_kernels() {
    rm -f "$out/kernels.log"
    programs || { say "kernels: the programs don't run"; failed="$failed kernels"; return; }
    bench full
    bench prefill
    # are its answers right; the times of these are looked at only where there are no others
    right=tests.log
    [ -z "$dry" ] || right=kernels.log
    stage upstream_right $right 30 "$bin/upstream" --tiny --check
    stage upstream_prefill_right $right 30 "$bin/upstream" --tiny --check --tokens 64
    if [ -z "$dry" ]; then
        stage upstream kernels.log 60 "$bin/upstream" --seqs 1
        stage upstream_prefill kernels.log 60 "$bin/upstream" --seqs 1 --tokens 512
        stage upstream_sequences kernels.log 90 "$bin/upstream" --seqs 4,16
    fi
    stage kernels kernels.log 10 python3 scripts/gpu_kernels.py "$out/kernels.log"
    tables kernels kernels.log 60
    # prefill as GPUs with less shared memory do it, by this one: 8.6, 8.9 and 12.0, and Turing
    for kib in 99 64; do
        [ -z "$dry" ] || break
        stage "prefill_$kib" kernels.log 30 env PMKVQ_BENCH=prefill PMKVQ_BENCH_SHARED=$kib PMKVQ_BENCH_ONLY='32/8 32768 1 4' \
            "$tests" --test-threads=1 --ignored --nocapture bench && tables "prefill_$kib" kernels.log 3
    done
}

do_variants() {
    [ -z "$dry" ] || return 0 # they run on a GPU only
    for packed in .gpu/libpmkvq_variant_*.so.xz; do
        [ -f "$packed" ] || continue
        variant=$(basename "$packed" .so.xz)
        library=$(unpacked "$variant.so")
        stage "$variant" tests.log 60 env PMKVQ_CUDA_LIB="$library" "$tests" --test-threads="${THREADS:-8}" small_
        stage "bench_$variant" tests.log 60 env PMKVQ_CUDA_LIB="$library" PMKVQ_BENCH=quick "$tests" --test-threads=1 --ignored --nocapture bench
        tables "bench_$variant" tests.log 60
    done
}

# whole NAME LOG SECONDS SCRIPT ARGUMENTS...: one of the scripts that run programs
whole() {
    whole=$1 log_name=$2 most=$3 script=$4
    shift 4
    programs || { say "$whole: the programs don't run"; failed="$failed $whole"; return; }
    stage "$whole" "$log_name" "$most" python3 "scripts/$script" --bin "$bin" $tiny "$@"
    tables "$whole" "$log_name"
}

# what one program may take, so that one that hangs leaves time for the others
each() { [ -n "$dry" ] || echo "--limit $1"; }

do_model() {
    whole model model.log "${MODEL_S:-180}" bench_gpu.py speed --folder "$work/model" --caches f16,4,8,2,16,4t,q8_0,q4_0 --repeat "${REPEAT:-2}" $(each 60)
}
do_deep() {
    # reading so many tokens is what takes the time: once for each cache
    set -- --layers "${DEEP_LAYERS:-8}" --depth 131072
    [ -z "$dry" ] || set --
    whole deep model.log "${DEEP_S:-240}" bench_gpu.py speed --folder "$work/model" --caches f16,4,2,8,16,q8_0,q4_0 --repeat 1 --prefill 0 $(each 90) "$@"
}
do_steps() { whole steps steps.log "${STEPS_S:-120}" bench_gpu.py steps --folder "$work/model" --csv "$out/steps.csv.gz" $(each 80); }
do_same() { whole same same.log "${SAME_S:-120}" gpu_same.py $(each 30); }

do_all() {
    # answers before speed
    for s in smi tests sanitize same kernels model steps variants deep; do
        "do_$s"
    done
}

for library in libpmkvq_gpu.so libpmkvq_shim.so; do
    if [ -z "${PMKVQ_CUDA_LIB:-}" ] && [ -f ".gpu/$library.xz" ]; then
        PMKVQ_CUDA_LIB=$(unpacked $library)
    fi
done
export PMKVQ_CUDA_LIB
for part in gpu.xz cuda_tests.xz graphs.so; do
    [ -n "$PMKVQ_CUDA_LIB" ] && [ -f ".gpu/$part" ] || { echo "gpu.sh: .gpu/ is not whole: run scripts/gpu_pack.sh" >&2; exit 2; }
done
tests=$(unpacked cuda_tests)
[ $# -gt 0 ] || { echo "gpu.sh: no stage" >&2; exit 2; }
: > "$out/summary.txt"
while [ $# -gt 0 ]; do
    case $1 in
        all)
            case ${2:-} in
                *[!0-9]* | '') most=500 ;;
                *) most=$2; shift ;;
            esac
            [ -n "$dry" ] || deadline=$(($(now) + most))
            do_all ;;
        smi | sanitize | kernels | variants | model | steps | same | deep) "do_$1" ;;
        tests)
            case ${2:-smi} in
                smi | sanitize | bench | kernels | variants | model | steps | same | deep) do_tests ;;
                *) do_tests "$2"; shift ;;
            esac ;;
        bench)
            case ${2:-} in
                quick | full | prefill) do_bench "$2"; shift ;;
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
