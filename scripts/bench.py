#!/usr/bin/env python3
"""Speed of the KV caches side by side: llama.cpp's f16, q8_0 and q4_0, and plans at 16, 8, 4 and 2 bits, with llama-bench.

    bench.py [--output FILE.md]                     attention, depths 8,192 and 32,768, prefill of 512
    bench.py --cpu avx2                             ours with no more than AVX2
    bench.py --depth 8192 --caches f16,4,2          some of it
    bench.py --model 8b [--layers 8]                an 8B model at Q4_0, decode only

The attention model has random weights, and the attention of an 8B model (32 heads, 8 KV heads of 128) in few layers with small
matrices elsewhere, so that attention is what is timed. Plans are static, so that the history is at one width throughout.

Every case is held against what this machine gives at the same number of threads: bytes read per second, and multiply-adds per
second of a dot-product loop in registers (examples/ceilings.rs), measured before and after everything else.
"""

import argparse
import datetime
import functools
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from random_models import HEAD_DIM, N_HEAD, N_HEAD_KV, write_8b, write_attention

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {"16": 16, "8": 8, "4": 4, "2": 2}
PLAIN = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}  # bytes per value
WINDOW, BLOCK = 128, 128
# ratios to f16 that are asked for, at two threads: with all that a CPU has beyond AVX2, and with AVX2
ASKED = {("decode", 8192): {"16": 4, "8": 8, "4": 10, "2": 10}, ("decode", 32768): {"16": 5, "8": 10, "4": 16, "2": 16},
         ("prefill", 8192): {"16": 2, "8": 3, "4": 3, "2": 3}}
ASKED_AVX2 = 3
# upstream's attention of quantized caches is so slow in batches that their prefills, and depths beyond this, take many minutes
QUANTIZED_DEPTH = 8192
QUANTIZED = ("q8_0", "q4_0")

begun = time.monotonic()


def say(line):
    print(f"[{time.monotonic() - begun:6.0f} s] {line}", file=sys.stderr, flush=True)


def run(*command, env=None):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
    if result.returncode != 0:
        sys.exit(f"'{' '.join(map(str, command))}' failed:\n{result.stderr[-3000:]}")
    return result.stdout


def llama_bench(command, env, names):
    """Rows of one run of llama-bench, told of as they come."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        rows = []
        try:
            for line in process.stdout:
                r = json.loads(line)
                rows.append(r)
                what = f"prefill of {r['n_prompt']}" if r["n_prompt"] else "decode"
                say(f"{names(r):>5} {what} at depth {r['n_depth']:,}: {statistics.median(r['samples_ts']):.1f} tokens/s")
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            sys.exit(f"'{' '.join(map(str, command))}' failed:\n{errors.read()[-3000:]}")
    return rows


class Ceilings:
    """Bytes per second and multiply-adds per second at a number of threads: the best of all passes."""

    def __init__(self, threads):
        self.threads, self.runs = threads, []

    def measure(self, program, env):
        say("ceilings")
        self.runs.append(json.loads(run(program, self.threads, env=env)))

    def of_run(self, r, kind, value="best"):
        """(rate, instructions)"""
        rows = r["read"] if kind == "read" else [d for d in r["dot"] if d["kind"] == kind]
        return max((x[value], x["instructions"]) for x in rows if x["threads"] == self.threads)

    def best(self, kind):
        return max(self.of_run(r, kind)[0] for r in self.runs)

    def lines(self):
        out = [f"Ceilings, {self.threads} threads, instructions up to {self.runs[0]['level']}; the best of "
               f"{self.runs[0]['passes']} passes (median), before and after the caches:", "",
               "| | instructions | " + " | ".join(["before", "after"][:len(self.runs)]) + " |", "| --- | --- |" + " ---: |" * len(self.runs)]
        for kind, name, unit in [("read", "reads", "GB/s"), ("int8", "int8 dot product", "Gmac/s"), ("f32", "f32 dot product", "Gmac/s")]:
            cells = [f"{self.of_run(r, kind)[0] / 1e9:.1f} ({self.of_run(r, kind, 'median')[0] / 1e9:.1f}) {unit}" for r in self.runs]
            out.append(f"| {name} | {self.of_run(self.runs[0], kind)[1]} | " + " | ".join(cells) + " |")
        return out


def history(n):
    """Cells of n that a static plan has at its final width: whole blocks with at least a window of newer tokens. The first
    token, a sink, lies in a block of its own."""
    return max(0, n - 1 - WINDOW) // BLOCK * BLOCK


class Work:
    """What attention must read and compute for one token, or one batch of a prefill: bytes of K and V with their parameters,
    useful multiply-adds in f32 and in int8. A score takes HEAD_DIM of them, a weighted value as many."""

    def __init__(self, nbytes=0.0, f32=0.0, int8=0.0):
        self.nbytes, self.f32, self.int8 = nbytes, f32, int8

    def __sub__(self, other):
        return Work(self.nbytes - other.nbytes, self.f32 - other.f32, self.int8 - other.int8)

    @property
    def macs(self):
        return self.f32 + self.int8

    def add(self, cache, layers, read, seen, past):
        """`read` cells are read, `seen` cells are attended to by one query; `past` of them are a plan's history."""
        pair = layers * 2 * HEAD_DIM
        if cache in PLAIN:
            width_bytes = recent_bytes = PLAIN[cache]
        else:
            # (min, max) in f16 for every 128 values
            width_bytes = WIDTHS[cache] / 8 + (0 if cache == "16" else 4 / HEAD_DIM)
            recent_bytes = 2.0
        read_past = min(past, read)
        self.nbytes += pair * N_HEAD_KV * (read_past * width_bytes + (read - read_past) * recent_bytes)
        past_macs, recent_macs = pair * N_HEAD * past, pair * N_HEAD * (seen - past)
        if cache in ("f16", "16"):
            self.f32 += past_macs + recent_macs
        elif cache in PLAIN:
            self.int8 += past_macs + recent_macs
        else:
            self.int8 += past_macs
            self.f32 += recent_macs


def work(cache, layers, what, n, depth):
    """Per token of a decode of n, per batch of a prefill of n."""
    w = Work()
    if what == "decode":
        for i in range(n):
            seen = depth + i + 1
            w.add(cache, layers, seen, seen, history(seen))
        return Work(w.nbytes / n, w.f32 / n, w.int8 / n)
    # the cache is read at least once for the batch; the batch's own K and V come from where they were computed
    for i in range(n):
        w.add(cache, layers, depth if i == 0 else 0, depth + i + 1, history(depth))
    return w


class Share:
    """Work done in some seconds, beside the ceilings."""

    def __init__(self, work, seconds, ceilings):
        self.gb, self.gmac = work.nbytes / seconds / 1e9, work.macs / seconds / 1e9
        self.read = work.nbytes / ceilings.best("read") / seconds
        self.compute = (work.f32 / ceilings.best("f32") + work.int8 / ceilings.best("int8")) / seconds

    @property
    def roofline(self):
        return max(self.read, self.compute)


def percent(x):
    return f"{100 * x:.0f}%"


class Bench:
    def __init__(self, a):
        self.a = a
        self.speed = {}  # (cache, what, depth) -> tokens/s of every repetition
        self.cpu = self.commit = ""
        self.weights = 0
        self.env = dict(os.environ)
        if a.cpu:
            self.env["PMKVQ_CPU"] = a.cpu
        self.ceilings = Ceilings(a.threads)
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")

    def measure(self):
        a = self.a
        plans = [c for c in a.caches if c in WIDTHS]
        n_ctx = max(*a.depths, a.prefill_depth if a.prefill else 0) + max(a.prefill, a.generate)
        with tempfile.TemporaryDirectory(dir=a.folder) as folder:
            model = Path(folder, "random.gguf")
            say(f"writing the model: {a.model}, {a.layers} layers")
            self.weights = (write_8b if a.model == "8b" else write_attention)(model, a.layers)
            self.check_memory(model, n_ctx)
            files = {}
            for c in plans:
                files[c] = Path(folder, f"{c}.json")
                run(a.bin / "pmkvq", "plan", "--uniform", c, "--static", "--ctx", n_ctx, "-m", model, "-o", files[c])
            self.ceilings.measure(a.ceilings, self.env)

            def cases(caches, prefill, depths):
                """All caches at some depths; f16 and plans in one run, the others in one each."""
                common = [a.bin / "llama-bench", "-m", model, "-n", a.generate, "-d", ",".join(map(str, depths)),
                          "-r", a.repeat, "-t", a.threads, "-fa", 1, "-o", "jsonl"]
                ours = ["none"] * ("f16" in caches) + [str(files[c]) for c in plans if c in caches]
                if ours:
                    self.keep(llama_bench([*common, "-p", prefill, "--pmkvq-plan", ",".join(ours)], self.env, self.name))
                for kind in [c for c in caches if c in QUANTIZED]:
                    prompt = prefill if a.full else 0
                    self.keep(llama_bench([*common, "-p", prompt, "-ctk", kind, "-ctv", kind], self.env, self.name))

            base = sorted({0, a.prefill_depth}) if a.prefill else [0]
            cases(a.caches, a.prefill, base)
            for depth in a.depths:
                if depth not in base:
                    deep = depth > QUANTIZED_DEPTH and not a.full
                    cases([c for c in a.caches if not (deep and c in QUANTIZED)], 0, [depth])
            self.ceilings.measure(a.ceilings, self.env)

    def check_memory(self, model, n_ctx):
        """A warning before a long run that the widest cache can't end."""
        wide = max((2.0 if c in WIDTHS else PLAIN[c]) for c in self.a.caches)
        cache = self.a.layers * n_ctx * 2 * N_HEAD_KV * HEAD_DIM * wide
        try:
            lines = Path("/proc/meminfo").read_text().splitlines()
            free = next(int(l.split()[1]) * 1024 for l in lines if l.startswith("MemAvailable:"))
        except (OSError, StopIteration):
            return
        say(f"the model takes {model.stat().st_size / 1e9:.2f} GB, the widest cache up to {cache / 1e9:.2f}, available are {free / 1e9:.2f}")
        # llama-bench keeps a copy of f16's state between repetitions
        if model.stat().st_size + 2 * cache > free:
            say("that may be too little memory: fewer --layers, or less --depth")

    @staticmethod
    def name(row):
        return row["type_k"] if row["pmkvq_plan"] in ("", "none") else Path(row["pmkvq_plan"]).stem

    def keep(self, rows):
        for r in rows:
            self.cpu, self.commit = r["cpu_info"], r["build_commit"]
            self.speed[self.name(r), "prefill" if r["n_prompt"] else "decode", r["n_depth"]] = r["samples_ts"]

    def seconds(self, cache, what, depth):
        """Of a token, or of a batch of a prefill; the median."""
        samples = self.speed.get((cache, what, depth))
        return (self.a.prefill if what == "prefill" else 1) / statistics.median(samples) if samples else None

    @functools.cache
    def kernels(self):
        """The instructions that ours use: those of --cpu, or the best that the CPU has."""
        said = run(self.a.bin / "pmkvq", "doctor", env=self.env).splitlines()
        return next((line.split()[1] for line in said if line.startswith("kernels ")), "?")

    def table(self, what, depth):
        a = self.a
        n = a.prefill if what == "prefill" else a.generate
        if a.model != "attention":
            asked = {}
        elif self.kernels() == "Avx2":
            asked = dict.fromkeys(WIDTHS, ASKED_AVX2) if what == "decode" and (what, depth) in ASKED else {}
        else:
            asked = ASKED.get((what, depth), {}) if not a.cpu else {}
        yield f"### {'Prefill of ' + format(n, ',') if what == 'prefill' else 'Decode'} at depth {depth:,}"
        yield ""
        yield ("| cache | tokens/s | all repetitions | ratio to f16 | asked | K and V, GB/s | with weights, GB/s | Gmac/s "
               "| of reads | of arithmetic | roofline | roofline, attention alone |")
        yield "| --- |" + " ---: |" * 11
        f16 = self.seconds("f16", what, depth)
        for cache in a.caches:
            t, t0 = self.seconds(cache, what, depth), self.seconds(cache, what, 0)
            if t is None:
                continue
            samples = self.speed[cache, what, depth]
            w = work(cache, a.layers, what, n, depth)
            s = Share(w, t, self.ceilings)
            alone = "-"
            # a small difference of two large times says nothing
            if depth and t0 is not None and t > 1.5 * t0:
                alone = percent(Share(w - work(cache, a.layers, what, n, 0), t - t0, self.ceilings).roofline)
            ratio = f"{f16 / t:.2f}x" if f16 else "-"
            cells = [f"plan, {cache} bits" if cache in WIDTHS else cache, f"{statistics.median(samples):.2f}",
                     f"{min(samples):.2f} - {max(samples):.2f}", ratio, f"{asked[cache]}x" if cache in asked else "",
                     f"{s.gb:.2f}", f"{(w.nbytes + self.weights) / t / 1e9:.2f}", f"{s.gmac:.2f}", percent(s.read), percent(s.compute),
                     percent(s.roofline), alone]
            yield "| " + " | ".join(cells) + " |"
        yield ""

    def report(self, command):
        a = self.a
        yield (f"{datetime.date.today()}, {self.cpu}, {a.threads} threads of {os.cpu_count()} CPUs, load {self.load:.1f} at the start; "
               f"llama.cpp {self.commit}, kernels {self.kernels()}: `{command}`")
        yield ""
        shape = "8B shape, Q4_0" if a.model == "8b" else "attention of an 8B model, small matrices"
        yield (f"Model: {shape}, random weights, {a.layers} layer{'s' * (a.layers != 1)}. Flash attention on, {a.generate} tokens, medians of "
               f"{a.repeat}.")
        yield ""
        yield from self.ceilings.lines()
        yield ""
        for depth in a.depths:
            yield from self.table("decode", depth)
        if a.prefill:
            yield from self.table("prefill", a.prefill_depth)
        yield from NOTES
        bases = ", ".join(f"{c} {statistics.median(self.speed[c, 'decode', 0]):.1f}" for c in a.caches if (c, "decode", 0) in self.speed)
        yield f"- Tokens/s at depth 0, which are taken off for *attention alone*: {bases}."


NOTES = """\
- *K and V* are the codes and the parameters (min, max) of all visible cells in all layers: the history at the plan's width,
  the latest 128 to 255 tokens and the first at 16 bits. Of a prefill each byte is counted once for the whole batch.
- *Gmac/s* are useful multiply-adds: head_dim for a score and as many for a weighted value, per key and query head. At 8 bits
  the kernels may multiply twice (queries and weights as two planes of bytes, for accuracy): that is counted once, so half of
  the int8 ceiling is all that can be reached there.
- *of arithmetic*: the time that the multiply-adds would take at the ceilings, in f32 for what lies at 16 bits, in int8 for the
  rest, as a share of the time taken. *roofline* is the larger of the two shares.
- *attention alone*: the same with the time and the work at depth 0 taken off, so without the matrices and the calls; where
  that leaves a third of the time or more.
- A cache that fits the last-level cache can be read faster than memory, so its share of reads can exceed 100%.""".splitlines()


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", choices=["attention", "8b"], default="attention")
    ap.add_argument("--layers", type=int, help="default: 2, of the 8B model 32")
    ap.add_argument("--depth", help="of decode, tokens, a list (default: 8192,32768; with the 8B model 8192)")
    ap.add_argument("--prefill", type=int, help="tokens; 0: decode only (default: 512; with the 8B model 0)")
    ap.add_argument("--prefill-depth", type=int, default=8192)
    ap.add_argument("--generate", type=int, help="tokens (default: 32; with the 8B model 16)")
    ap.add_argument("--caches", default="f16,q8_0,q4_0,16,8,4,2", help="llama.cpp's types and widths of plans (default: %(default)s)")
    ap.add_argument("--full", action="store_true", help=f"prefill of q8_0 and q4_0, and their depths above {QUANTIZED_DEPTH}, too")
    ap.add_argument("--cpu", help="PMKVQ_CPU for our kernels and the ceilings: avx512, avxvnni, avx2, scalar")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeat", type=int, help="default: 5; with the 8B model 3")
    ap.add_argument("--output", type=Path, help="the tables as Markdown")
    ap.add_argument("--json", type=Path, help="every sample and both ceilings")
    ap.add_argument("--folder", type=Path, help="where the model is written for the time (default: the system's)")
    ap.add_argument("--bin", type=Path, default=ROOT / "target/release", help="folder of llama-bench and pmkvq")
    ap.add_argument("--ceilings", type=Path, help="default: examples/ceilings there")
    a = ap.parse_args()
    whole = a.model == "8b"

    def default(name, attention, of_8b):
        if getattr(a, name) is None:
            setattr(a, name, of_8b if whole else attention)

    default("layers", 2, 32)
    default("depth", "8192,32768", "8192")
    default("prefill", 512, 0)
    default("generate", 32, 16)
    default("repeat", 5, 3)
    default("ceilings", a.bin / "examples/ceilings", a.bin / "examples/ceilings")
    try:
        a.depths = [int(d) for d in a.depth.split(",")]
    except ValueError:
        ap.error(f"--depth {a.depth}: expected numbers")
    a.caches = a.caches.split(",")
    unknown = [c for c in a.caches if c not in PLAIN and c not in WIDTHS]
    if unknown:
        ap.error(f"--caches: no such cache: {', '.join(unknown)}")
    if min(a.depths) < 0 or a.generate < 1 or a.layers < 1 or a.repeat < 1 or a.threads < 1 or a.prefill < 0:
        ap.error("numbers must be positive")
    for program in (a.bin / "llama-bench", a.bin / "pmkvq", a.ceilings):
        if not program.exists():
            ap.error(f"{program} is not there: cargo build --release && cargo build --release --example ceilings")
    return a


def main():
    # whoever is ended takes llama-bench and the model along
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    a = arguments()
    bench = Bench(a)
    bench.measure()
    text = "\n".join(bench.report(shlex.join(["python3", "scripts/bench.py", *sys.argv[1:]]))) + "\n"
    print(text, end="")
    if a.output:
        a.output.write_text(text)
    if a.json:
        samples = [{"cache": c, "what": w, "depth": d, "tokens_per_s": s} for (c, w, d), s in bench.speed.items()]
        a.json.write_text(json.dumps({"cpu": bench.cpu, "ceilings": bench.ceilings.runs, "samples": samples}, indent=1) + "\n")
    say("done")


if __name__ == "__main__":
    main()
