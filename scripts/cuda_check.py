#!/usr/bin/env python3
"""Compile every kernel of ggml-cuda/ for every GPU generation, and say what each takes. No GPU is needed.

    cuda_check.py                 print the table of registers, static shared memory, stack and spills
    cuda_check.py --write         write it to docs/results/cuda-resources.md too
    cuda_check.py --only REGEX    files whose name matches
    cuda_check.py --arch 80 90    these generations

Fails if something does not compile, or if a kernel that decodes (pmkvq-decode*.cu) spills registers: decode is bound by memory traffic, and
spills are more of it. The flags are those of ggml's own build. What ptxas said is kept in the cache until a source,
a flag or the compiler changes. The toolkit is found as for the build (scripts/cuda_toolkit.py).
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_toolkit

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs/results/cuda-resources.md"
ARCHS = [75, 80, 86, 89, 90, 100, 120]
FLAGS = ["-std=c++17", "-O3", "-use_fast_math", "-extended-lambda", "-Xptxas", "-v"]


def fail(message):
    sys.exit(f"cuda check: {message}")


class Use:
    """What one kernel takes on one architecture."""

    def __init__(self):
        self.registers = self.shared = self.stack = self.stores = self.loads = 0

    def cell(self):
        parts = [str(self.registers)]
        if self.stack:
            parts.append(f"stack {self.stack}")
        if self.spills():
            parts.append(f"**spill {self.stores}/{self.loads}**")
        return ", ".join(parts)

    def spills(self):
        return self.stores + self.loads > 0


def parse(text):
    """{(mangled name, architecture): Use} of what ptxas -v prints."""
    found, arch, use = {}, None, None
    for line in text.splitlines():
        if m := re.search(r"Compiling entry function '(\S+)' for 'sm_(\d+)[af]?'", line):
            entry, arch = m[1], int(m[2])
        elif m := re.search(r"Function properties for (\S+)", line):
            # functions that were not inlined have lines of their own
            use = found.setdefault((m[1], arch), Use())
        elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            use.stack, use.stores, use.loads = (max(a, int(b)) for a, b in zip((use.stack, use.stores, use.loads), m.groups()))
        elif m := re.search(r"Used (\d+) registers", line):
            use = found.setdefault((entry, arch), Use())
            use.registers = int(m[1])
            shared = re.search(r"(\d+) bytes smem", line)
            use.shared = int(shared[1]) if shared else 0
    return found


def demangle(names):
    """Readable names without parameters, from binutils' c++filt; mangled ones if it is missing."""
    try:
        out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True).stdout.splitlines()
    except FileNotFoundError:
        out = names
    short = []
    for name in out if len(out) == len(names) else names:
        name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|_INTERNAL_\w+::", "", name)
        name = re.sub(r"\(([a-z ]+)\)(-?\d+)", lambda m: {"bool0": "false", "bool1": "true"}.get(m[1] + m[2], m[2]), name)
        depth = 0
        for i, c in enumerate(name):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                name = name[:i]
                break
        short.append(re.sub(r"^.*? (?=[\w:]+(<|$))", "", name))
    return dict(zip(names, short))


def stage():
    """The kernels where ggml's build has them, and the folders of what they include."""
    staged = subprocess.run([sys.executable, ROOT / "scripts/upstream.py", "stage"], capture_output=True, text=True)
    if staged.returncode != 0:
        fail(staged.stderr)
    tree = Path(staged.stdout.strip())
    ggml = tree / "ggml/src/ggml-cuda"
    return ggml / "pmkvq", [ggml, tree / "src/pmkvq", tree / "ggml/src", tree / "ggml/include"]


def errors(text):
    """What follows each error, without ptxas's figures and the warnings; or the end, if no line says 'error'."""
    lines = [line for line in text.splitlines() if "ptxas info" not in line]
    shown = [i for i, line in enumerate(lines) if re.search(r"\b(error|fatal)\b", line)]
    return "\n".join("\n".join(lines[i:i + 8]) for i in shown[:10]) or "\n".join(lines[-40:])


def compile_file(kit, path, folders, archs):
    """(the file, what nvcc and ptxas said of it), from the cache or anew."""
    command = [str(kit.nvcc), *FLAGS, *(a for f in folders for a in ("-I", str(f)))]
    for arch in archs:
        command += ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    digest = hashlib.sha256(f"{kit.version} {command}".encode())
    headers = [p for f in folders[:2] for p in sorted(f.rglob("*.*h"))]
    for source in [path, *headers]:
        digest.update(source.read_bytes())
    kept = cuda_toolkit.cache() / "cuda-check" / f"{path.stem}.txt"
    key = digest.hexdigest()
    if kept.is_file() and (text := kept.read_text()).startswith(key):
        return path, text
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run([*command, "-c", str(path), "-o", f"{folder}/out.o"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)
    if result.returncode != 0:
        fail(f"{path.name} does not compile:\n{errors(result.stdout)}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(f"{key}\n{result.stdout}")
    return path, result.stdout


def table(results, archs):
    """Markdown lines, and the spills of decode kernels."""
    lines, bad = [], []
    for path, text in results:
        uses = parse(text)
        if not uses:
            continue
        names = demangle(sorted({name for name, _ in uses}))
        lines += ["", f"## {path.name}", "", "| kernel | shared | " + " | ".join(f"sm_{a}" for a in archs) + " |",
                  "| --- | ---: | " + " | ".join("---:" for _ in archs) + " |"]
        for mangled, name in sorted(names.items(), key=lambda item: natural(item[1])):
            row = [uses.get((mangled, a)) for a in archs]
            shared = sorted({u.shared for u in row if u})
            size = "" if shared == [0] else "-".join(map(str, dict.fromkeys((shared[0], shared[-1]))))
            lines.append(f"| `{name}` | {size} | " + " | ".join(u.cell() if u else "" for u in row) + " |")
            if path.name.startswith("pmkvq-decode"):
                bad += [f"{path.name}: {name} on sm_{a} spills {u.stores} bytes, reads {u.loads} back"
                        for a, u in zip(archs, row) if u and u.spills()]
    return lines, bad


def natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHS)
    args = parser.parse_args()
    if args.write and (args.only or args.arch != ARCHS):
        fail("--write is for all files and architectures")
    try:
        kit = cuda_toolkit.find()
    except cuda_toolkit.Error as e:
        fail(e)
    number = ".".join(map(str, kit.version))
    known = subprocess.run([kit.nvcc, "--list-gpu-code"], capture_output=True, text=True).stdout.split()
    archs = [a for a in args.arch if f"sm_{a}" in known]
    if archs != args.arch:
        lacking = f"CUDA {number} ({kit.nvcc}) does not know {', '.join(f'sm_{a}' for a in args.arch if a not in archs)}"
        if args.write or not archs:
            fail(f"{lacking}: PMKVQ_CUDA_HOME names a newer toolkit" + (", and --write is for all architectures" if args.write else ""))
        print(f"{lacking}: left out", file=sys.stderr)
    kernels, folders = stage()
    files = [p for p in sorted(kernels.glob("*.cu")) if re.search(args.only, p.name)]
    if not files:
        fail(f"no such kernels in {kernels}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda p: compile_file(kit, p, folders, archs), files))
    lines, bad = table(results, archs)
    text = "\n".join([
        "# What the CUDA kernels take", "",
        f"`make cuda-check`, CUDA {number}, ggml's flags. Registers per thread for each architecture, then bytes of stack and of spills",
        "(stores/loads) where there are any; shared: bytes of static shared memory (what a launch asks for is not in it).",
        *lines, ""])
    print(text)
    if bad:
        fail("\n".join(["decode kernels must not spill:", *bad]))
    if args.write:
        OUTPUT.write_text(text)
    print(f"{len(files)} files compile for {', '.join(f'sm_{a}' for a in archs)}; no decode kernel spills")


if __name__ == "__main__":
    main()
