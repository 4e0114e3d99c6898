#!/usr/bin/env python3
"""An 8B model on a GPU, with random weights: how fast it is with each cache, and its slowest step.

    bench_gpu.py speed [--layers 32] [--depth 8192,32768] [--caches f16,16,8,4,2,4t,q8_0,q4_0] [--repeat 3]
    bench_gpu.py steps [--layers 32] [--ctx 8192] [--at 32768] [--csv FILE.gz]

speed  decode and prefill by llama-bench, with plans that are static (4t: with transforms as a calibration makes them); ratios to f16
steps  every step of a generation: one that shrinks from 16 to 2 bits block by block, f16, and one under the rule `layer` in which
       everything shrinks from 16 to 8 bits at once at --at. With graphs.so of --bin preloaded, CUDA graphs are counted, too

--bin: the folder of llama-bench, pmkvq and steps, built with the feature cuda. --tiny: sizes that a CPU does in seconds.
"""

import argparse
import csv
import gzip
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from random_models import HEAD_DIM, N_HEAD_KV, write_8b, write_attention
from steps import AROUND, ASKED, Run, Series, neighbours

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = ("16", "8", "4", "2")
SKIP = 64  # steps: the first ones, in which graphs are captured and memory is touched for the first time


class Failed(Exception):
    """A program that a row needs."""


def tell(command):
    print("$", *[Path(command[0]).name, *map(str, command[1:])], file=sys.stderr, flush=True)


def lines_of(*command, limit=None):
    """What a program prints, as it comes; after so many seconds it is ended."""
    tell(command)
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=errors, text=True)
        timer = threading.Timer(limit or threading.TIMEOUT_MAX, process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield from process.stdout
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
            process.stdout.close()
        if process.wait() != 0:
            errors.seek(0)
            why = f"ended after {limit} s" if limit and process.returncode == -signal.SIGKILL else f"failed ({process.returncode})"
            raise Failed(f"{why}:\n{errors.read()[-2500:]}")


def run(*command, env=None, limit=None):
    tell(command)
    r = subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=limit)
    if r.returncode != 0:
        raise Failed(f"failed ({r.returncode}):\n{r.stdout[-1500:]}\n{r.stderr[-2500:]}")
    return r


class Attempts:
    """What fails is said and does not keep the rest from being measured."""

    def __init__(self):
        self.failed = []

    def __call__(self, name, measure):
        try:
            return measure()
        except (Failed, subprocess.TimeoutExpired) as e:
            self.failed.append(name)
            print(f"{name}: {e}", flush=True)

    def end(self):
        if self.failed:
            sys.exit(f"failed: {', '.join(self.failed)}")


def transforms(a, folder):
    """Of every layer: a center, scales and the rotation of K, a center and the rotation of V."""
    out = Path(folder, f"transforms-{a.layers}.json")
    draw = random.Random(1)

    def rows(f):
        return [[round(f(), 4) for _ in range(HEAD_DIM)] for _ in range(N_HEAD_KV)]

    def center():
        return rows(lambda: draw.gauss(0, 0.1))

    out.write_text(json.dumps({"pmkvq_transforms": 1, "source": "random", "method": "random", "layers": [
        {"il": il, "k": {"center": center(), "scales": rows(lambda: draw.uniform(0.5, 2)), "hadamard": True}, "v": {"center": center(), "hadamard": True}}
        for il in range(a.layers)]}))
    return out


def plan(a, model, width, n_ctx, folder, static=True, rule="block"):
    out = Path(folder, f"{width}-{n_ctx}-{rule}{'-static' if static else ''}.json")
    of = ["--transforms", transforms(a, folder)] if width.endswith("t") else []
    run(a.bin / "pmkvq", "plan", "--uniform", width.rstrip("t"), *of, *(["--static"] if static else []), "--rule", rule, "--ctx", n_ctx, "-m", model, "-o", out)
    return out


def model_of(a, folder):
    """Written once: a folder that is named keeps it."""
    path = Path(folder, f"{'tiny' if a.tiny else '8b'}-{a.layers}.gguf")
    if not path.exists():
        part = path.with_suffix(".part")
        (write_attention if a.tiny else write_8b)(part, a.layers)
        part.rename(path)
    return path


def speed(a, folder):
    depths = [int(d) for d in a.depth.split(",")]
    model = model_of(a, folder)
    n_ctx = max(depths) + a.prefill + a.generate + 256
    rows, gpu = {}, "?"
    attempt = Attempts()

    def one(c):
        nonlocal gpu
        of = ["--pmkvq-plan", plan(a, model, c, n_ctx, folder)] if c.rstrip("t") in WIDTHS else ["-ctk", c, "-ctv", c]
        for line in lines_of(a.bin / "llama-bench", "-m", model, "-ngl", 99, "-fa", 1, "-p", a.prefill, "-n", a.generate, "-d",
                             ",".join(map(str, depths)), "-r", a.repeat, "-t", a.threads, "-o", "jsonl", *of, limit=a.limit):
            if line.startswith("{"):
                j = json.loads(line)
                rows[c, "prefill" if j["n_prompt"] else "decode", j["n_depth"]] = statistics.median(j["samples_ts"])
                gpu = j["gpu_info"] or j["cpu_info"]
        print(c, {f"{k[1]} {k[2]}": round(v, 1) for k, v in rows.items() if k[0] == c}, flush=True)

    try:
        for c in a.caches.split(","):
            attempt(c, lambda: one(c))
    finally:
        # also where time runs out
        speed_table(a, depths, rows, gpu)
    attempt.end()


def speed_table(a, depths, rows, gpu):
    shape = "attention of an 8B model" if a.tiny else "8B shape, Q4_0"
    print(f"\n{gpu}, {shape}, {a.layers} layers, tokens per second (ratio to f16), medians of {a.repeat}\n")
    columns = [(kind, d) for kind in ("decode", "prefill") if a.prefill or kind == "decode" for d in depths]
    print("| cache | " + " | ".join(f"{k} at {d:,}" for k, d in columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for c in a.caches.split(","):
        cells = []
        for k, d in columns:
            x, base = rows.get((c, k, d)), rows.get(("f16", k, d))
            cells.append("" if x is None else f"{x:.1f}" + (f" ({x / base:.2f})" if base else ""))
        print(f"| {c} | " + " | ".join(cells) + " |")
    sys.stdout.flush()


class Graphs:
    """CUDA graphs over the steps of a generation, from the same rows."""

    def __init__(self, text):
        rows = list(csv.DictReader(text.splitlines()))
        self.captures = [int(r["captures"]) for r in rows]
        self.launches = [int(r["launches"]) for r in rows]
        self.first = int(rows[0]["position"])

    def line(self):
        if not any(self.launches):
            return "no CUDA graph was launched (or none was counted)"
        captured = [i for i, n in enumerate(self.captures) if n]
        gaps = [b - a for a, b in zip(captured, captured[1:])]
        without = sum(n == 0 for n in self.launches)
        return (f"CUDA graphs: {sum(self.captures):,} captured in {len(captured):,} of {len(self.launches):,} steps, {sum(self.launches):,} launched, "
                f"{without:,} steps without one; steps between captures: {statistics.median(gaps) if gaps else '-'} (median); captured at "
                f"{', '.join(str(self.first + i) for i in captured[:8])}{' ...' if len(captured) > 8 else ''}")


def all_at_once(series):
    """What shrinking everything in one step takes beyond the step itself, in steps around it."""
    totals = [sum(s.values()) for s in series.shrinks]
    if not any(totals):
        return "nothing shrank: the budget is not reached where it should be"
    # a shrink may be spread over several steps
    busy = [i for i, n in enumerate(totals) if n >= max(totals) / 8]
    quiet = statistics.median(t for t, n in zip(series.ms, totals) if n == 0)
    beyond = sum(series.ms[i] - quiet for i in busy)
    return (f"{sum(totals[i] for i in busy):,} blocks of a side narrowed in {len(busy)} steps from {series.position[busy[0]]:,} on: "
            f"{', '.join(f'{series.ms[i]:.2f}' for i in busy[:8])} ms beside {quiet:.2f} ms, {beyond / quiet:.2f} decode steps more (asked: less than 2)")


def one_generation(a, model, name, cache, ctx, begin, end, kept):
    preload = a.bin / "graphs.so"
    env = {"LD_PRELOAD": str(preload)} if preload.exists() else {}
    text = run(a.bin / "steps", "--model", model, "--cache", cache, "--ctx", ctx, "--from", begin, "--to", end, "--threads", a.threads, env=env,
               limit=a.limit).stdout
    if kept:
        with gzip.open(kept, "at") as f:
            f.write(f"# {name}\n{text}")
    series = Series(name, [Run(text)], min(SKIP, (end - begin) // 4))
    worst = max(range(len(series.ratio)), key=series.ratio.__getitem__)
    busy = [r for r, s in zip(series.ratio, series.shrinks) if any(s.values())]
    print(f"{name}, positions {begin:,} to {end:,}: median step {statistics.median(series.ms):.3f} ms; slowest {series.ratio[worst]:.2f} of its "
          f"{AROUND} neighbours' median (asked: {ASKED}) at {series.position[worst]:,}, {series.ms[worst]:.3f} ms beside "
          f"{statistics.median(neighbours(series.ms, worst)):.3f}; {sum(r > ASKED for r in series.ratio)} of {len(series.ratio):,} above {ASKED}; "
          f"{len(busy):,} steps with shrinks{f', the slowest {max(busy):.2f}' if busy else ''}", flush=True)
    print("   " + Graphs(text).line(), flush=True)
    return series


def steps(a, folder):
    model = model_of(a, folder)
    begin = min(512, a.ctx // 4)
    if a.csv:
        a.csv.unlink(missing_ok=True)
    attempt = Attempts()
    name = "16 to 2 bits, rule block"
    attempt(name, lambda: one_generation(a, model, name, plan(a, model, "2", a.ctx, folder, static=False), a.ctx, begin, a.ctx, a.csv))
    # 8 bits for twice as many tokens: what a side may have is full when they are all at 16, and a few hundred more
    layers = "16 to 8 bits, rule layer"
    at_once = attempt(layers, lambda: one_generation(a, model, layers, plan(a, model, "8", 2 * a.at, folder, static=False, rule="layer"), 2 * a.at,
                                                     a.at - 256, a.at + 640, a.csv))
    if at_once:
        print("   " + all_at_once(at_once), flush=True)
    attempt("f16", lambda: one_generation(a, model, "f16", "f16", a.ctx, a.ctx // 2, a.ctx, a.csv))
    attempt.end()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["speed", "steps"])
    ap.add_argument("--bin", type=Path, default=ROOT / "target/release")
    ap.add_argument("--folder", type=Path, help="for the model (4.5 GB with all layers), which stays there, and plans")
    ap.add_argument("--tiny", action="store_true")
    ap.add_argument("--layers", type=int)
    ap.add_argument("--depth")
    ap.add_argument("--caches", default="f16,16,8,4,2,4t,q8_0,q4_0")
    ap.add_argument("--prefill", type=int, help="tokens; 0: decode only")
    ap.add_argument("--generate", type=int)
    ap.add_argument("--repeat", type=int)
    ap.add_argument("--ctx", type=int)
    ap.add_argument("--at", type=int)
    ap.add_argument("--csv", type=Path, help="steps: where the times of all steps go, compressed")
    ap.add_argument("--threads", type=int)
    ap.add_argument("--limit", type=int, help="seconds that one cache or generation may take")
    a = ap.parse_args()
    usual = {"layers": (32, 2), "depth": ("8192,32768", "256,512"), "prefill": (512, 64), "generate": (64, 4), "repeat": (3, 1), "ctx": (8192, 1024),
             "at": (32768, 1024), "threads": (2, 1)}
    for name, sizes in usual.items():
        if getattr(a, name) is None:
            setattr(a, name, sizes[a.tiny])
    # so that what was measured until then is printed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped: no time left"))
    folder = a.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        {"speed": speed, "steps": steps}[a.what](a, folder)
    finally:
        if not a.folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
