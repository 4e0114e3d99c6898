#!/usr/bin/env python3
"""An 8B model on a GPU: decode and prefill with f16, q8_0, q4_0 and plans at 16, 8, 4 and 2 bits, with llama-bench, and whether
answers on the GPU are the CPU's.

    bench_gpu.py speed [--layers 32] [--depth 8192,32768] [--caches f16,16,8,4,2,q8_0,q4_0] [--repeat 3]
    bench_gpu.py same                      perplexity of the shipped model, GPU with and without CUDA graphs, against the CPU

--bin: the folder of llama-bench, llama-perplexity and pmkvq, built with the feature cuda.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from random_models import write_8b

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = ("16", "8", "4", "2")


def run(*command, env=None, limit=None):
    print("$", *[Path(command[0]).name, *map(str, command[1:])], file=sys.stderr, flush=True)
    r = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=limit)
    if r.returncode != 0:
        raise SystemExit(f"failed ({r.returncode}):\n{r.stdout[-1500:]}\n{r.stderr[-2500:]}")
    return r


def plan(a, model, width, n_ctx, folder, static=True):
    out = Path(folder, f"{width}.json")
    run(a.bin / "pmkvq", "plan", "--uniform", width, *(["--static"] if static else []), "--ctx", n_ctx, "-m", model, "-o", out)
    return out


def speed(a):
    depths = [int(d) for d in a.depth.split(",")]
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        model = Path(folder, "8b.gguf")
        write_8b(model, a.layers)
        n_ctx = max(depths) + 2048
        rows = {}
        for c in a.caches.split(","):
            of = ["--pmkvq-plan", plan(a, model, c, n_ctx, folder)] if c in WIDTHS else ["-ctk", c, "-ctv", c]
            r = run(a.bin / "llama-bench", "-m", model, "-ngl", 99, "-fa", 1, "-p", a.prefill, "-n", a.generate, "-d", ",".join(map(str, depths)),
                    "-r", a.repeat, "-o", "jsonl", *of, limit=a.limit)
            for line in r.stdout.splitlines():
                if line.startswith("{"):
                    j = json.loads(line)
                    rows[c, "prefill" if j["n_prompt"] else "decode", j["n_depth"]] = statistics.median(j["samples_ts"])
                    gpu = j["gpu_info"]
            print(c, {f"{k[1]} {k[2]}": round(v, 1) for k, v in rows.items() if k[0] == c}, flush=True)
    print(f"\n{gpu}, 8B shape with {a.layers} layers, Q4_0, tokens per second (ratio to f16), medians of {a.repeat}\n")
    columns = [(kind, d) for kind in ("decode", "prefill") for d in depths]
    print("| cache | " + " | ".join(f"{k} at {d:,}" for k, d in columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for c in a.caches.split(","):
        cells = []
        for k, d in columns:
            x, base = rows.get((c, k, d)), rows.get(("f16", k, d))
            cells.append("" if x is None else f"{x:.1f}" + (f" ({x / base:.2f})" if base else ""))
        print(f"| {c} | " + " | ".join(cells) + " |")


def same(a):
    model = ROOT / "model/pmkvq-tiny.gguf"
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        text = Path(folder, "text.txt")
        text.write_text((ROOT / "model/heldout.txt").read_text()[:32000])
        for width, static in [("16", True), ("8", True), ("4", True), ("2", True), ("2", False), ("4", False)]:
            p = plan(a, model, width, 4096, folder, static)
            found = {}
            for name, flags, env in [("CPU", ["-ngl", 0, "--device", "none"], {}), ("GPU", ["-ngl", 99], {}),
                                     ("GPU without graphs", ["-ngl", 99], {"GGML_CUDA_DISABLE_GRAPHS": "1"}),
                                     ("GPU, KV on the CPU", ["-ngl", 99, "--no-kv-offload"], {})]:
                r = run(a.bin / "llama-perplexity", "-m", model, "-f", text, "-c", 4096, "-b", 512, "-ub", a.ubatch, "--pmkvq-plan", p, *flags, env=env,
                        limit=a.limit)
                m = re.search(r"Final estimate: PPL = ([0-9.]+)", r.stdout + r.stderr)
                found[name] = m.group(1) if m else "?"
            print(f"{width} bits{'' if static else ', shrinking'}: " + ", ".join(f"{k} {v}" for k, v in found.items()), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["speed", "same"])
    ap.add_argument("--bin", type=Path, default=ROOT / "target/release")
    ap.add_argument("--folder", help="for the model (4.5 GB with all layers) and plans")
    ap.add_argument("--layers", type=int, default=32)
    ap.add_argument("--depth", default="8192,32768")
    ap.add_argument("--caches", default="f16,16,8,4,2,q8_0,q4_0")
    ap.add_argument("--prefill", type=int, default=512)
    ap.add_argument("--generate", type=int, default=64)
    ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--ubatch", type=int, default=64)
    ap.add_argument("--limit", type=int, help="seconds that one command may take")
    a = ap.parse_args()
    {"speed": speed, "same": same}[a.what](a)


if __name__ == "__main__":
    main()
