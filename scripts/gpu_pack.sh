#!/bin/sh
# Put what scripts/gpu.sh needs into .gpu/, a folder that git ignores: the tests of the CUDA operations, the library with the
# kernels, a counter of CUDA graphs, and all programs in one (examples/gpu), stripped and compressed. For sm_90, or ARCH.
#
#   scripts/gpu_pack.sh            with nvcc and feature cuda, for a machine with a GPU
#   CPU=1 scripts/gpu_pack.sh      without: the shim and a build for the CPU, to try scripts/gpu.sh --dry-run
#
# VARIANTS: names and flags of kernels that are compared with the others by gpu.sh variants, "ctas3=-DPMKVQ_DECODE_CTAS=3 ...".
# TREE: a llama.cpp tree with ggml's headers, else the build's own. PMKVQ_CUDA_HOME, PMKVQ_LLAMA_BUILD and so on as in docs/build.md.
# GPU_PROGRAM: a program that is built already.

set -eu
cd "$(dirname "$0")/.."
most=$((64 * 1024 * 1024)) # bytes that are carried to the machine in one call
mkdir -p .gpu
rm -rf .gpu/bin .gpu/*.so .gpu/cuda_tests .gpu/*.xz
exclude=$(git rev-parse --git-path info/exclude)
mkdir -p "$(dirname "$exclude")"
grep -qsx '/.gpu/' "$exclude" || echo '/.gpu/' >> "$exclude"

# the path of what cargo built
built() {
    python3 -c 'import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable") and m["target"]["name"] == sys.argv[1]:
        print(m["executable"])' "$1"
}

tests=$(cargo test --release --no-default-features --test cuda --no-run --message-format=json | built cuda)
# debug information stays behind, names of functions do not: a panic's trace is of use
strip --strip-debug -o .gpu/cuda_tests "$tests"

if [ -n "${CPU:-}" ]; then
    library=$(python3 scripts/cuda_lib.py shim)
else
    library=$(python3 scripts/cuda_lib.py gpu --arch "${ARCH:-90}" ${TREE:+--tree "$TREE"})
fi
cp "$library" .gpu/
if [ -z "${CPU:-}" ]; then
    for variant in ${VARIANTS:-}; do
        name=${variant%%=*}
        library=$(PMKVQ_CUDA_FLAGS=${variant#*=} python3 scripts/cuda_lib.py gpu --arch "${ARCH:-90}" ${TREE:+--tree "$TREE"} --out "target/cuda-$name")
        cp "$library" ".gpu/libpmkvq_variant_$name.so"
    done
fi
${CC:-cc} -shared -fPIC -O2 -o .gpu/graphs.so tests/cuda/graphs.c -ldl

if [ -n "${CPU:-}" ]; then
    cuda=
else
    cuda=,cuda
    # without a list of GPUs it would be built for all of them: hours, more than can be carried, and for some only what the driver compiles at start
    export CUDAARCHS="${CUDAARCHS:-${ARCH:-90}}"
    # the other machine's processor need not have what this one's has
    export PMKVQ_CMAKE_ARGS="-DGGML_NATIVE=OFF ${PMKVQ_CMAKE_ARGS:-}"
    options=${PMKVQ_LLAMA_BUILD:-/nowhere}/CMakeCache.txt
    if [ -z "${GPU_PROGRAM:-}" ] && [ -f "$options" ]; then
        if grep -qx 'GGML_NATIVE:BOOL=ON' "$options"; then
            echo "gpu_pack.sh: $PMKVQ_LLAMA_BUILD is for this machine's processor alone: configure it with -DGGML_NATIVE=OFF" >&2
            exit 1
        fi
        if ! grep -qE "^CMAKE_CUDA_ARCHITECTURES:[A-Z]+=(.*;)?${ARCH:-90}a?(-real)?(;|\$)" "$options"; then
            echo "gpu_pack.sh: $PMKVQ_LLAMA_BUILD has no code for sm_${ARCH:-90}: configure it with -DCMAKE_CUDA_ARCHITECTURES=${ARCH:-90}" >&2
            exit 1
        fi
    fi
fi
program=${GPU_PROGRAM:-$(cargo build --release --features=upstream-attention$cuda --example gpu --message-format=json | built gpu)}
strip -o .gpu/gpu "$program"
xz -T0 -6 -f .gpu/gpu .gpu/cuda_tests .gpu/libpmkvq_*.so

du -ah .gpu | sort -k2
# What travels at a time is the repository and what is carried: the programs first, in a call of their own. What was carried before stays there
bytes() { du -cb "$@" | tail -1 | cut -f1; }
repository=$(git ls-files -z --cached --others --exclude-standard | du -cb --files0-from=- | tail -1 | cut -f1)
rest=$(cd .gpu && find . -type f ! -name gpu.xz -printf '".gpu/%P", ' | sed 's/, $//')
first=$((repository + $(bytes .gpu/gpu.xz)))
second=$((repository + $(bytes .gpu/*) - $(bytes .gpu/gpu.xz)))
echo "1. ls -l .gpu                   carry [\".gpu/gpu.xz\"], $((first / 1024 / 1024)) MiB of $((most / 1024 / 1024))"
echo "2. scripts/gpu.sh all 520       carry [$rest], $((second / 1024 / 1024)) MiB"
if [ "$first" -gt "$most" ] || [ "$second" -gt "$most" ]; then
    echo "gpu_pack.sh: that is more than can be carried" >&2
    exit 1
fi
