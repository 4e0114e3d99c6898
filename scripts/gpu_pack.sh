#!/bin/sh
# Put what scripts/gpu.sh needs into .gpu/, a folder that git ignores: the tests of the CUDA operations, the library with the
# kernels (for sm_90, or ARCH), and the programs that are named, stripped and compressed.
#
#   scripts/gpu_pack.sh [PROGRAM...]
#
# TREE: a llama.cpp tree with ggml's headers, else the build's own. PMKVQ_CUDA_HOME: CUDA's toolkit.

set -eu
cd "$(dirname "$0")/.."
mkdir -p .gpu/bin
exclude=$(git rev-parse --git-path info/exclude)
mkdir -p "$(dirname "$exclude")"
grep -qsx '/.gpu/' "$exclude" || echo '/.gpu/' >> "$exclude"

tests=$(cargo test --release --no-default-features --test cuda --no-run --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable") and m["target"]["name"] == "cuda":
        print(m["executable"])')
# debug information stays behind, names of functions do not: a panic's trace is of use
strip --strip-debug -o .gpu/cuda_tests "$tests"

library=$(python3 scripts/cuda_lib.py gpu --arch "${ARCH:-90}" ${TREE:+--tree "$TREE"})
cp "$library" .gpu/libpmkvq_gpu.so

for program in "$@"; do
    name=$(basename "$program")
    strip -o ".gpu/bin/$name" "$program"
    xz -T0 -3 -f ".gpu/bin/$name"
done
du -ah .gpu | sort -k2
