#!/usr/bin/env python3
"""Build the library that the tests of the CUDA operations load, and print its path.

    cuda_lib.py shim                       the kernels on the host, with the execution shim of tests/cuda/shim (no CUDA needed)
    cuda_lib.py gpu [--arch 90]            the kernels for a GPU, with nvcc
    cuda_lib.py ptx [--arch 90]            the kernels' PTX as nvcc makes it, and a stand-in for the GPU that runs it (tests/cuda/ptx)
    cuda_lib.py selftest                   build and run the shim's own tests
    cuda_lib.py selftest --arch 90         those of the stand-in

    --out DIR     where it is put (target/cuda)
    --tree DIR    gpu, ptx: the llama.cpp tree with ggml's headers (default: what 'upstream.py stage' prints)

Nothing is built that is newer than its sources. nvcc is found, or fetched, as for the build
(scripts/cuda_toolkit.py); --arch is that of the machine's GPU, or 90. CXX is the C++ compiler of the shim. PMKVQ_SHIM_CHECK=1 builds a
shim that looks at every access to memory (slower; its name is libpmkvq_shim_check.so). PMKVQ_CUDA_FLAGS: more flags for nvcc, to compare
variants of a kernel.
"""

import argparse
import ctypes
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_toolkit

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "tests/cuda/shim"
PTX = ROOT / "tests/cuda/ptx"
INCLUDES = [ROOT / "ggml-cuda", ROOT / "llama", ROOT / "tests/cuda", SHIM]


def fail(message):
    sys.exit(f"pmkvq: {message}")


def run(command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    output = result.stdout + result.stderr
    if result.returncode != 0:
        fail(f"'{shlex.join(map(str, command))}' failed:\n{output[-8000:]}")
    if output.strip():
        print(output.strip(), file=sys.stderr)


def kernels():
    """All sources but the one that calls them from ggml."""
    own = [p for p in sorted((ROOT / "ggml-cuda").glob("*.cu")) if p.name != "pmkvq-ggml.cu"]
    return [*own, ROOT / "tests/cuda/device.cu"]


def is_old(target, sources):
    return not target.exists() or any(not p.exists() or p.stat().st_mtime >= target.stat().st_mtime for p in sources)


def dependencies(object_file, source):
    """What the compiler read when it made the object."""
    listed = object_file.with_suffix(".d")
    if not listed.exists():
        return [source, listed]  # which makes it old
    _, _, names = listed.read_text().replace("\\\n", " ").partition(":")
    return [source, *map(Path, shlex.split(names))]


def build(library, sources, command, link, n_jobs):
    """Compile what is older than what it was made from, or was made by another command, and link."""
    objects = library.parent / (library.name + ".o")
    objects.mkdir(parents=True, exist_ok=True)

    def make(pair):
        source, target = pair
        began = time.time()
        run([*command(source), "-MD", "-MF", target.with_suffix(".d"), "-c", source, "-o", target])
        os.utime(target, (began, began))  # a source that was changed meanwhile is newer

    with open(library.parent / (library.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        stamp = objects / "command"
        pairs = [(p, objects / (p.name + ".o")) for p in sources]
        link_command = link(library.with_suffix(".new"), [o for _, o in pairs])
        wanted = "\n".join(shlex.join(map(str, c)) for c in [*map(command, sources), link_command])
        if not stamp.exists() or stamp.read_text() != wanted:
            for path in [library, *objects.iterdir()]:
                path.unlink(missing_ok=True)
            stamp.write_text(wanted)
        old = [pair for pair in pairs if is_old(pair[1], dependencies(pair[1], pair[0]))]
        with ThreadPoolExecutor(n_jobs) as pool:
            list(pool.map(make, old))
        if is_old(library, [o for _, o in pairs]):
            run(link_command)
            library.with_suffix(".new").replace(library)  # a process that has the old one open keeps it
    return library


class Shim:
    """How the shim is compiled; check: every access to memory is looked at."""

    def __init__(self, check):
        self.cxx = shlex.split(os.environ.get("CXX") or "c++")
        if not shutil.which(self.cxx[0]):
            fail(f"there is no C++ compiler '{self.cxx[0]}': install one (g++), or name it in CXX")
        self.common = ["-std=c++17", "-O2", "-g1", "-fPIC", "-fno-semantic-interposition", "-march=native", "-Wall", "-Wextra", "-DPMKVQ_SHIM"]
        self.common += [f"-I{p}" for p in INCLUDES]
        # As nvcc does with fast-math: products and sums are fused and divisions by constants become products, so that code
        # which must give the CPU's bytes and forgot to use the *_rn functions is found out
        self.kernel = ["-x", "c++", "-ffp-contract=fast", "-freciprocal-math", "-fno-math-errno"]
        self.kernel += ["-Wno-unknown-pragmas", "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-sign-compare"]
        self.name = "libpmkvq_shim.so"
        if check:
            # the compiler reports each access to functions of check.cpp; its own library is not used
            self.common.append("-DPMKVQ_SHIM_CHECK")
            self.kernel += ["-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0"]
            self.name = "libpmkvq_shim_check.so"

    def compile(self, source):
        return [*self.cxx, *self.common, *(self.kernel if source.suffix == ".cu" else ["-ffp-contract=off"])]

    def link(self, target, objects):
        return [*self.cxx, "-shared", "-Wl,-Bsymbolic", "-Wl,-z,defs", *objects, "-o", target, "-lm", "-ldl", "-lpthread"]

    def link_program(self, target, objects):
        return [*self.cxx, *objects, "-o", target, "-lm", "-ldl", "-lpthread"]

    def build(self, out):
        return build(out / self.name, kernels() + sorted(SHIM.glob("*.cpp")), self.compile, self.link, os.cpu_count() or 1)

    def selftest(self, out):
        sources = [SHIM / "selftest.cu", *sorted(SHIM.glob("*.cpp"))]
        program = build(out / self.name.replace("lib", "").replace(".so", "_selftest"), sources, self.compile, self.link_program, os.cpu_count() or 1)
        sys.exit(subprocess.run([program]).returncode)


def find_toolkit():
    try:
        return cuda_toolkit.find()
    except cuda_toolkit.Error as e:
        fail(e)


def default_arch(kit):
    """The first GPU of this machine, or what CUDAARCHS starts with; without either 90."""
    archs, origin = cuda_toolkit.archs(kit.version)
    return "90" if origin == "default" else archs.split(";")[0].split("-")[0]


def find_tree(named):
    if named:
        tree = Path(named).resolve()
    else:
        result = subprocess.run([sys.executable, ROOT / "scripts/upstream.py", "stage"], stdout=subprocess.PIPE, text=True)
        if result.returncode != 0:
            fail("llama.cpp, whose headers are needed, could not be staged (see above): name an own tree with --tree")
        tree = Path(result.stdout.strip().splitlines()[-1])
    if not (tree / "ggml/src/ggml-cuda/common.cuh").exists():
        fail(f"{tree} is not a llama.cpp tree: there is no ggml/src/ggml-cuda/common.cuh")
    return tree


def nvcc_flags(tree):
    """ggml's own flags, and the folders."""
    includes = [f"-I{p}" for p in [*INCLUDES[:3], *(tree / "ggml" / f for f in ("src/ggml-cuda", "src", "include"))]]
    own = shlex.split(os.environ.get("PMKVQ_CUDA_FLAGS") or "")
    return ["-std=c++17", "-O3", "-use_fast_math", "-extended-lambda", "-lineinfo", "-Xcompiler", "-fPIC", *own, *includes]


def n_jobs():
    return int(os.environ.get("PMKVQ_JOBS") or os.cpu_count() or 1)


def build_gpu(out, arch, tree_name):
    kit = find_toolkit()
    nvcc, arch = kit.nvcc, arch or default_arch(kit)
    flags = [f"-arch=sm_{arch}", *nvcc_flags(find_tree(tree_name))]

    def compile_one(_):
        return [nvcc, *flags]

    def link(target, objects):
        return [nvcc, "-shared", f"-arch=sm_{arch}", "-cudart", "static", *objects, "-o", target, f"-L{kit.lib}"]

    return build(out / "libpmkvq_gpu.so", kernels(), compile_one, link, n_jobs())


class Ptx:
    """The kernels' PTX with nvcc's host code, and a stand-in for the GPU and its runtime (tests/cuda/ptx)."""

    def __init__(self, arch, tree):
        self.kit = find_toolkit()
        self.arch = arch or default_arch(self.kit)
        # PTX as it is: ptxas does not run
        self.device = [self.kit.nvcc, *nvcc_flags(find_tree(tree)), "-DPMKVQ_PTX", "--no-compress",
                       "-gencode", f"arch=compute_{self.arch},code=compute_{self.arch}"]

    def compile(self, source):
        return self.device if source.suffix == ".cu" else [self.kit.nvcc, "-std=c++17", "-O2", "-Xcompiler", "-fPIC,-Wall"]

    def machine(self, out):
        """The stand-in, for linking; rustc alone compiles it."""
        target = out / "libptx.a"
        with open(out / "libptx.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if is_old(target, [*PTX.glob("*.rs"), Path(__file__)]):
                run([os.environ.get("RUSTC") or "rustc", "--edition", "2021", "-O", "-C", "target-cpu=native", "-C", "panic=abort", "-D", "warnings",
                     "--crate-type", "staticlib", "--crate-name", "ptx", PTX / "lib.rs", "-o", target.with_suffix(".new")])
                target.with_suffix(".new").replace(target)
        return target

    def make(self, target, sources, *flags):
        machine = self.machine(target.parent)
        if target.exists() and target.stat().st_mtime < machine.stat().st_mtime:
            target.unlink()

        def link(new, objects):
            return [self.kit.nvcc, *flags, "-cudart", "none", *objects, machine, "-o", new, "-Xlinker", "-Bsymbolic", "-lm", "-ldl", "-lpthread"]

        return build(target, [*sources, PTX / "runtime.cpp"], self.compile, link, n_jobs())

    def library(self, out):
        library = self.make(out / f"libpmkvq_ptx_{self.arch}.so", kernels(), "-shared")
        # all of them, also what no test launches
        unknown = ctypes.CDLL(str(library)).ptx_decode_all()
        if unknown != 0:
            fail(f"{unknown} kernels have instructions that the stand-in of tests/cuda/ptx does not know (see above)")
        return library

    def selftest(self, out):
        program = self.make(out / f"pmkvq_ptx_selftest_{self.arch}", [PTX / "selftest.cu"])
        sys.exit(subprocess.run([program]).returncode)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["shim", "gpu", "ptx", "selftest"])
    parser.add_argument("--arch", help="gpu, ptx: compute capability without the dot")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "cuda")
    parser.add_argument("--tree")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if args.what == "gpu":
        print(build_gpu(out, args.arch, args.tree))
        return
    if args.what == "ptx":
        print(Ptx(args.arch, args.tree).library(out))
        return
    if args.what == "selftest" and args.arch:
        Ptx(args.arch, args.tree).selftest(out)
    shim = Shim(os.environ.get("PMKVQ_SHIM_CHECK") == "1")
    if args.what == "shim":
        print(shim.build(out))
    else:
        shim.selftest(out)


if __name__ == "__main__":
    main()
