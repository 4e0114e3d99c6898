#!/usr/bin/env python3
"""Find a CUDA toolkit, or fetch one; what build.rs and the other scripts compile CUDA with.

    cuda_toolkit.py            print what was found, one key=value a line
    cuda_toolkit.py --no-fetch the same, but nothing is downloaded

Looked for in this order; what the environment names must work, else it is an error:

1. PMKVQ_CUDA_HOME (a folder, or the word 'wheels': go to 5), CUDACXX (a program), CUDA_PATH, CUDA_HOME
2. nvcc on PATH
3. /usr/local/cuda
4. wheels of the Python index among this python3's packages (nvidia/cu13)
5. wheels that pip puts into <cache>/cuda-wheels (PMKVQ_OFFLINE=1: only if they are there)

Keys: nvcc, root, version, include, lib, stub (folder of a libcuda to link with, or empty), nccl (1 or 0), archs (as
CMAKE_CUDA_ARCHITECTURES has them), archs_from (CUDAARCHS, the machine's GPU, or a default), origin.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (12, 4)
# a set that fits together; about 600 MB. torch's wheels for CUDA 13 lie in the same folders, but have no nvcc
WHEELS = ["nvidia-cuda-nvcc==13.0.88", "nvidia-cuda-crt==13.0.88", "nvidia-nvvm==13.0.88", "nvidia-cuda-runtime==13.0.96",
          "nvidia-cuda-cccl==13.0.85", "nvidia-cublas==13.0.2.14"]
USUAL = Path("/usr/local/cuda")
# where Linux distributions put libraries and headers of their own toolkits. Debian's nvcc is a script in bin, without a toolkit around it
SYSTEM = Path("/usr")
SYSTEM_LIB = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64"]
HINT = ("install CUDA 12.4 or newer and name its folder in PMKVQ_CUDA_HOME, or set PMKVQ_CUDA_HOME=wheels, and one is fetched "
        "with pip into the cache")


class Error(Exception):
    pass


class Toolkit(NamedTuple):
    nvcc: Path
    root: Path
    version: tuple  # (13, 0, 88)
    include: Path
    lib: Path
    stub: str
    nccl: bool
    origin: str


def cache():
    return Path(os.environ.get("PMKVQ_CACHE_DIR") or ROOT / ".cache").resolve()


def output(*command):
    try:
        result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as e:
        raise Error(f"{command[0]} does not run: {e}") from None
    return result.stdout if result.returncode == 0 else ""


def version(nvcc):
    text = output(nvcc, "--version")
    found = re.search(r"release [\d.]+, V(\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise Error(f"{nvcc} --version says no version: {text[:200]!r}")
    return tuple(map(int, found.groups()))


def toolkit_root(nvcc):
    """nvcc may be a link or a script (Debian); it knows itself where its toolkit is."""
    found = re.search(r"^#\$ TOP=(.+)$", output(nvcc, "-v", "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull), re.M)
    root = Path(found[1].strip()) if found else Path(os.path.realpath(nvcc)).parent.parent
    return Path(os.path.normpath(root))


def first_with(folders, *patterns):
    return next((f for f in folders if all(any(f.glob(p)) for p in patterns)), None)


def describe(nvcc, origin):
    """A toolkit that can build and link ggml; an Error says what it lacks."""
    nvcc = Path(nvcc)
    number = version(nvcc)
    text = ".".join(map(str, number))
    if number[:2] < OLDEST:
        raise Error(f"{origin}: CUDA {text} ({nvcc}) is older than {OLDEST[0]}.{OLDEST[1]}: {HINT}")
    root = toolkit_root(nvcc)
    targets = sorted(root.glob("targets/*-linux"))
    system_lib = [SYSTEM / name for name in SYSTEM_LIB]
    system = system_lib if root.is_relative_to(SYSTEM) else []
    include = first_with([root / "include", *(t / "include" for t in targets), *([SYSTEM / "include"] if system else [])],
                         "cuda_runtime.h", "cublas_v2.h")
    folders = [root / "lib64", root / "lib", *(t / "lib" for t in targets), *system]
    lib = first_with(folders, "libcudart.so*", "libcublas.so*", "libcublasLt.so*")
    if not include or not lib:
        what = "headers (cuda_runtime.h, cublas_v2.h)" if not include else "libraries (libcudart, libcublas, libcublasLt)"
        raise Error(f"{origin}: CUDA {text} in {root} has no {what}: {HINT}")
    if not (lib / "libcublas.so").exists() or not (lib / "libcudart.so").exists():
        # wheels have neither the names that a linker looks for nor the folder lib64
        return describe(linkable(root, include, lib, text) / "bin/nvcc", origin)
    stub = next((s for s in (lib / "stubs", *system) if (s / "libcuda.so").exists()), "")
    nccl = any((i / "nccl.h").exists() for i in (include, SYSTEM / "include")) and any(
        (f / "libnccl.so").exists() for f in (lib, *system_lib))
    return Toolkit(nvcc, root, number, include, lib, str(stub), nccl, origin)


def linkable(root, include, lib, number):
    """The toolkit once more in the cache, as links, with the names that a linker looks for. Installed wheels stay as they are."""
    view = cache() / f"cuda-{number}-{hashlib.sha256(str(root).encode()).hexdigest()[:8]}"
    if all((view / name).exists() for name in ("bin/ptxas", "include", "lib/libcudart.so", "lib/libcublasLt.so")):
        return view
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as fresh:
        link_all(root, include, lib, Path(fresh))
        replace(fresh, view)
    return view


def link_all(root, include, lib, view):
    (view / "bin").mkdir()
    (view / "lib").mkdir()
    for path in (root / "bin").iterdir():
        # nvcc looks for its other parts beside itself, so these two can't be links
        if path.name in ("nvcc", "nvcc.profile"):
            shutil.copy2(path, view / "bin" / path.name)
        else:
            (view / "bin" / path.name).symlink_to(path)
    for path in lib.iterdir():
        (view / "lib" / path.name).symlink_to(path)
        plain = view / "lib" / re.sub(r"\.so\.[\d.]+$", ".so", path.name)
        if not plain.is_symlink() and not (lib / plain.name).exists():
            plain.symlink_to(path)
    (view / "lib64").symlink_to("lib")
    (view / "include").symlink_to(include)
    if (root / "nvvm").is_dir():
        (view / "nvvm").symlink_to(root / "nvvm")


def replace(fresh, folder):
    """A temporary folder takes its place; another process may have been faster."""
    shutil.rmtree(folder, ignore_errors=True)
    os.chmod(fresh, 0o755)
    shutil.move(fresh, folder)
    os.mkdir(fresh)  # for its owner to remove


def named():
    """(nvcc, which variable) if the environment names a toolkit."""
    for name in ("PMKVQ_CUDA_HOME", "CUDACXX", "CUDA_PATH", "CUDA_HOME"):
        value = os.environ.get(name)
        if not value:
            continue
        if name == "CUDACXX":
            nvcc = Path(shutil.which(value) or value).absolute()
        else:
            nvcc = Path(value).absolute() / "bin/nvcc"
        if not nvcc.is_file():
            other = shutil.which("nvcc")
            instead = f"without {name} it would be {other}; or " if other else ""
            raise Error(f"{name}={value}: there is no {nvcc}; {instead}{HINT}")
        return nvcc, f"{name}={value}"
    return None


def installed_wheels():
    """Folders of this python3's packages that hold nvcc as a wheel."""
    folders = dict.fromkeys([*(sysconfig.get_paths().get(k, "") for k in ("purelib", "platlib")), *sys.path])
    return [Path(f) / "nvidia/cu13" for f in folders if f and (Path(f) / "nvidia/cu13/bin/nvcc").is_file()]


def fetched(may_fetch):
    """nvcc of the wheels in the cache, which are downloaded if they are not there."""
    folder = cache() / "cuda-wheels"
    stamp, wanted, nvcc = "wheels.txt", "\n".join(WHEELS), "nvidia/cu13/bin/nvcc"
    if (folder / stamp).is_file() and (folder / stamp).read_text() == wanted:
        return folder / nvcc
    if os.environ.get("PMKVQ_OFFLINE") == "1":
        raise Error("PMKVQ_OFFLINE=1, and no CUDA toolkit was found: install CUDA 12.4 or newer and name its folder in "
                    f"PMKVQ_CUDA_HOME, or 'pip install {' '.join(WHEELS)}'")
    if not may_fetch:
        raise Error(f"no CUDA toolkit was found: {HINT}")
    print("fetching the CUDA toolkit as wheels (about 600 MB) ...", file=sys.stderr, flush=True)
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as fresh:
        result = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary",
             ":all:", "--no-compile", "--target", fresh, *WHEELS], capture_output=True, text=True)
        if result.returncode != 0 or not Path(fresh, nvcc).is_file():
            raise Error(f"no CUDA toolkit was found, and it could not be fetched with pip: {result.stderr[-1500:]}\n"
                        "Install CUDA 12.4 or newer and name its folder in PMKVQ_CUDA_HOME.")
        Path(fresh, stamp).write_text(wanted)
        replace(fresh, folder)
    return folder / nvcc


def find(may_fetch=True):
    if os.environ.get("PMKVQ_CUDA_HOME") != "wheels":
        found = named()
        if found:
            return describe(*found)
        on_path = shutil.which("nvcc")
        if on_path:
            return describe(on_path, "nvcc on PATH")
        if (USUAL / "bin/nvcc").is_file():
            return describe(USUAL / "bin/nvcc", str(USUAL))
    for folder in installed_wheels():
        return describe(folder / "bin/nvcc", f"wheels in {folder}")
    return describe(fetched(may_fetch), "wheels in the cache")


def archs(number):
    """(architectures, where from)"""
    own = os.environ.get("CUDAARCHS")
    if own:
        return own, "CUDAARCHS"
    smi = shutil.which("nvidia-smi")
    if smi:
        caps = re.findall(r"^\s*(\d+)\.(\d)\s*$", output(smi, "--query-gpu=compute_cap", "--format=csv,noheader"), re.M)
        if caps:
            return ";".join(sorted({a + b for a, b in caps}, key=int)), "the GPU of this machine"
    # upstream's list for builds without a GPU, from Turing on, where our kernels start
    listed = ["75-virtual", "80-virtual", "86-real", "89-real", "90-virtual"]
    if number[:2] >= (12, 8):
        listed.append("120a-real")
    if number[:2] >= (12, 9):
        listed.append("121a-real")
    return ";".join(listed), "default"


def main(args):
    if args not in ([], ["--no-fetch"]):
        sys.exit(__doc__)
    try:
        kit = find(may_fetch=not args)
        wanted, origin = archs(kit.version)
    except Error as e:
        sys.exit(str(e))
    values = {**kit._asdict(), "version": ".".join(map(str, kit.version)), "nccl": int(kit.nccl), "archs": wanted,
              "archs_from": origin}
    for key, value in values.items():
        print(f"{key}={value}")


if __name__ == "__main__":
    main(sys.argv[1:])
