#!/usr/bin/env python3
"""Upstream's own tests on the patched tree, and: without a plan, the patched library is the pristine one, bit for bit.

    upstream_tests.py [ctest] [models] [bits]      all three by default

ctest   the tests that touch what the patches touch (src/, common/) and need neither a model nor a network
models  tests that need a model, with the shipped one
bits    tests/upstream/logits.cpp against both libraries, with the shipped model and random models of other architectures

docs/upstream.md says which tests are not run and why. Uses the build folder of the last 'cargo build'
(PMKVQ_CACHE_DIR, CMAKE and NINJA as there).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("PMKVQ_CACHE_DIR") or ROOT / ".cache").resolve()
BUILD = Path(os.environ.get("PMKVQ_LLAMA_BUILD") or CACHE / "build").resolve()
MODEL = ROOT / "model/pmkvq-tiny.gguf"
JOBS = str(os.cpu_count() or 2)

# executables, and the names under which ctest runs them
CTEST = {
    "test-llama-archs": ["test-generate-models"],
    "test-recurrent-state-rollback": ["test-recurrent-state-rollback"],
    "test-save-load-state": ["test-save-load-state"],
    "test-batch-alloc": ["test-batch-alloc"],
    "test-arg-parser": [],  # run apart: it ends with a download
    "test-sampling": ["test-sampling"],
    "test-log": ["test-log"],
    "test-c": [],  # llama.h is C: it has to compile
    "test-tokenizer-0": ["test-tokenizer-0-gpt-2", "test-tokenizer-0-llama-spm", "test-tokenizer-0-llama-bpe"],
}

# with the shipped model in place of the one that upstream downloads
MODELS = {
    "test-thread-safety": ["-p", "The meaning of life is", "-n", "128", "-c", "256", "-ub", "32", "-np", "4", "-t", "2"],
    "test-state-restore-fragmented": [],
}

# random models of upstream's test-llama-archs: plain, sliding window, attention sinks, hybrid, MLA, ALiBi
ARCHS = ["qwen3-dense", "gemma3-dense", "gpt-oss-moe", "jamba-dense", "deepseek2-moe", "mpt-dense", "llama4-moe"]


def fail(message):
    sys.exit(f"upstream tests: {message}")


def program(name, variable, place):
    own = os.environ.get(variable)
    if own:
        return own
    found = shutil.which(name) or shutil.which(str(CACHE / "tools" / place))
    return found or fail(f"{name} is neither installed nor in {CACHE / 'tools'}: run 'cargo build --release' first")


def run(*command, **options):
    print("$", " ".join(map(str, command)), flush=True)
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if result.returncode != 0:
        fail(f"'{command[0]}' failed with {result.returncode}:\n{result.stdout[-6000:]}")
    return result.stdout


def build(folder, targets):
    run(CMAKE, "--build", folder, "--parallel", JOBS, "--target", *targets)


def ctest():
    build(BUILD, CTEST)
    names = [name for names in CTEST.values() for name in names]
    beside = str(Path(CMAKE).with_name("ctest"))
    out = run(beside if Path(beside).exists() else "ctest", "--test-dir", BUILD, "--output-on-failure", "--no-tests=error",
              "--parallel", JOBS, "-R", f"^({'|'.join(names)})$")
    print(out[out.find("Test project"):])
    if f"out of {len(names)}" not in out:
        fail(f"expected {len(names)} tests")
    # its checks of arguments and environment come first, then downloads, which need the network
    out = subprocess.run([BUILD / "bin/test-arg-parser"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    if "test-arg-parser: test download functions" not in out:
        fail(f"test-arg-parser:\n{out[-3000:]}")
    print("test-arg-parser: all before its downloads passed")


def models():
    build(BUILD, MODELS)
    for name, args in MODELS.items():
        run(BUILD / "bin" / name, "-m", MODEL, *args)
        print(f"{name}: passed with {MODEL.name}")


def logits(library, tree, into):
    """tests/upstream/logits.cpp with the static libraries of a build folder."""
    archives = sorted([library / "src/libllama.a", *library.glob("ggml/src/*.a")])
    run(os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-I", tree / "include", "-I", tree / "ggml/include",
        ROOT / "tests/upstream/logits.cpp", "-Wl,--start-group", *archives, "-Wl,--end-group", "-fopenmp", "-lpthread", "-ldl",
        "-o", into)


def bits():
    source = Path(run(sys.executable, ROOT / "scripts/upstream.py", "pristine").strip())
    pristine = CACHE / "build-pristine"
    run(CMAKE, "-S", source, "-B", pristine, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}",
        "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_APP=OFF",
        "-DLLAMA_OPENSSL=OFF", *os.environ.get("PMKVQ_CMAKE_ARGS", "").split())
    build(pristine, ["llama"])
    build(BUILD, ["test-llama-archs"])
    folder = CACHE / "bits"
    folder.mkdir(parents=True, exist_ok=True)
    logits(BUILD, CACHE / "tree", folder / "patched")
    logits(pristine, source, folder / "pristine")
    run(BUILD / "bin/test-llama-archs", "--seed", "1", "--out", folder)
    for path, n in [(MODEL, 500), *((folder / f"{a}.gguf", 200) for a in ARCHS)]:
        ours, theirs = (run(folder / p, path, n) for p in ("patched", "pristine"))
        if ours != theirs:
            fail(f"{path.name}: other logits than the pristine library's\npatched:\n{ours}pristine:\n{theirs}")
        hashes = [line.split()[-1] for line in ours.splitlines() if len(line.split()[-1]) == 16]
        if not any(int(h, 16) for h in hashes):
            fail(f"{path.name}: no cache type worked, so nothing was compared:\n{ours}")
        print(f"{path.name}: the same logits, bit for bit, with {sum(h != '0' * 16 for h in hashes)} of {len(hashes)} caches "
              "(others are refused by both)")


if __name__ == "__main__":
    steps = {"ctest": ctest, "models": models, "bits": bits}
    wanted = sys.argv[1:] or list(steps)
    if any(w not in steps for w in wanted):
        sys.exit(__doc__)
    CMAKE = program("cmake", "CMAKE", "cmake/data/bin/cmake")
    NINJA = program("ninja", "NINJA", "bin/ninja")
    for step in wanted:
        steps[step]()
