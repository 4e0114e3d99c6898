#!/usr/bin/env python3
"""Whether answers on a GPU are the CPU's, with the shipped model.

    gpu_same.py [--only perplexity|shift|state] [--jobs 4]

perplexity  of model/heldout.txt with plans at 16 to 2 bits, static and shrinking, and with f16, which shows what devices differ by anyway
shift       a text that is written on beyond its context, so that llama.cpp shifts positions (--context-shift)
state       a text that goes on from a saved state (--prompt-cache), against the same one without; and on the GPU from the CPU's file

On the CPU, on the GPU, there without CUDA graphs, with half of the layers there, with all but the KV cache there. Texts are drawn with a
fixed seed, so two runs part where a difference of a logit first matters: f16's line says how soon that is to be expected.

--bin: the folder of llama-perplexity, llama-completion and pmkvq. --tiny: sizes that a CPU does in seconds.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "model/pmkvq-tiny.gguf"  # 6 layers, a token is a byte
ALL = ["-ngl", "99"]
PLACES = {"CPU": (["-ngl", "0", "--device", "none"], {}), "GPU": (ALL, {}), "GPU without graphs": (ALL, {"GGML_CUDA_DISABLE_GRAPHS": "1"}),
          "half of the layers": (["-ngl", "3"], {}), "KV on the CPU": ([*ALL, "--no-kv-offload"], {})}
OFF = 0.001  # a perplexity that is further off the CPU's than this share is marked
EARLY = 16  # so is a text that parts from its like within so many characters
# where the GPU's perplexity is off: with these it says which part of it
WITHOUT = {"early launches": {"GGML_CUDA_PDL": "0"}, "launches that nodes share": {"GGML_CUDA_DISABLE_FUSION": "1"}}


class Refused(Exception):
    pass


class Same:
    def __init__(self, a, folder):
        self.a, self.folder = a, Path(folder)
        self.pool = ThreadPoolExecutor(a.jobs)
        self.marked = self.failed = 0

    def run(self, program, *args, env=None):
        command = [str(self.a.bin / program), *map(str, args)]
        r = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, **(env or {})}, timeout=self.a.limit)
        out, err = (x.decode(errors="replace") for x in (r.stdout, r.stderr))
        if r.returncode != 0:
            said = [line for line in (out + err).splitlines() if line.strip()]
            # what a program says as it aborts is followed by where it was
            why = [line for line in said if re.search(r"error|assert|abort|failed", line, re.I)][:1] or said[-1:]
            raise Refused(f"rc {r.returncode}: {' '.join(why)[:100]}")
        return out, err

    def plan(self, cache, n_ctx):
        """Flags of a cache: f16, 4, '4 static', or '4 transformed'."""
        if cache == "f16":
            return []
        path = self.folder / f"{cache.replace(' ', '-')}-{n_ctx}.json"
        width, *kind = cache.split()
        of = {"static": ["--static"], "transformed": ["--transforms", ROOT / "model/transforms.json"]}
        self.run("pmkvq", "plan", "--uniform", width, *(flag for k in kind for flag in of[k]), "--ctx", n_ctx, "-m", MODEL, "-o", path)
        return ["--pmkvq-plan", path]

    def everywhere(self, of):
        """Results of of(flags, env) for every place, or why there is none."""
        jobs = {name: self.pool.submit(of, *place) for name, place in PLACES.items()}
        return {name: self.outcome(job) for name, job in jobs.items()}

    def outcome(self, job):
        try:
            return job.result()
        except Refused as e:
            self.failed += 1
            return e
        except subprocess.TimeoutExpired:
            self.failed += 1
            return Refused("took too long")

    def mark(self, bad):
        self.marked += bad
        return " (!)" if bad else ""

    def perplexity(self):
        n, n_ctx = (1500, 512) if self.a.tiny else (32000, 4096)
        text = self.folder / "text.txt"
        text.write_bytes((ROOT / "model/heldout.txt").read_bytes()[:n])
        caches = ["f16", "4 static"] if self.a.tiny else ["f16", "16 static", "8 static", "4 static", "2 static", "4", "2", "4 transformed"]
        asked = False
        print("perplexity\n\n| cache | " + " | ".join(PLACES) + " |\n| --- |" + " ---: |" * len(PLACES), flush=True)
        for cache in caches:
            flags = self.plan(cache, n_ctx)

            def one(place, env):
                out = "".join(self.run("llama-perplexity", "-m", MODEL, "-f", text, "-c", n_ctx, "-b", 512, "-ub", self.a.ubatch, "-t", self.a.threads,
                                       *flags, *place, env=env))
                m = re.search(r"Final estimate: PPL = ([0-9.]+)", out)
                if not m:
                    raise Refused("no perplexity")
                return float(m.group(1))

            found = self.everywhere(one)
            cells = {name: self.number(x, found["CPU"]) for name, x in found.items()}
            print(f"| {cache} | " + " | ".join(cells.values()) + " |", flush=True)
            # the first time: it is the same part for all, mostly
            if not asked and isinstance(found["CPU"], float) and (cells["GPU"].endswith("(!)") or isinstance(found["GPU"], Refused)):
                asked = True
                for what, env in WITHOUT.items():
                    again = self.outcome(self.pool.submit(one, ALL, env))
                    print(f"| {cache}, GPU without {what} | {self.number(again, found['CPU'])} |", flush=True)

    def number(self, x, cpu):
        """A perplexity, marked if it is off the CPU's."""
        return str(x) if isinstance(x, Refused) else f"{x:.4f}" + self.mark(isinstance(cpu, float) and abs(x / cpu - 1) > OFF)

    def completion(self, n_ctx, n, flags, place, env):
        prompt = self.folder / f"prompt-{n_ctx}.txt"
        args = ["-m", MODEL, "-f", prompt, "-c", n_ctx, "-n", n, "--temp", 0.8, "--seed", 1, "-no-cnv", "--no-display-prompt", "--ignore-eos", "-t",
                self.a.threads, *flags, *place]
        text = self.run("llama-completion", *args, env=env)[0]
        if n > 1 and not text.strip():
            raise Refused("no text")
        return text

    def sizes(self, n_ctx, n):
        """A context of which a prompt takes three quarters, and how much is written."""
        n_ctx, n = (512, 160) if self.a.tiny else (n_ctx, n)
        (self.folder / f"prompt-{n_ctx}.txt").write_bytes((ROOT / "model/heldout.txt").read_bytes()[:n_ctx * 3 // 4])
        return n_ctx, n

    def caches(self):
        return ["f16", "4 static", "4 transformed"] if self.a.tiny else ["f16", "16", "8", "4", "2", "4 transformed"]

    def beside(self, text, like):
        """How far a text is the other."""
        if isinstance(text, Refused) or isinstance(like, Refused):
            return str(text if isinstance(text, Refused) else f"nothing to compare with: {like}")
        equal = next((i for i, (a, b) in enumerate(zip(text, like)) if a != b), min(len(text), len(like)))
        return ("equal" if text == like else f"{equal} of {len(like)}") + self.mark(text != like and equal < min(EARLY, len(like)))

    def shift(self):
        n_ctx, n = self.sizes(1024, 800)
        print(f"\ntexts of {n} tokens that shift a context of {n_ctx}: characters until they part from the CPU's\n\n| cache | "
              + " | ".join(PLACES) + " |\n| --- |" + " ---: |" * len(PLACES), flush=True)
        for cache in self.caches():
            flags = ["--context-shift", *self.plan(cache, n_ctx)]
            found = self.everywhere(lambda place, env: self.completion(n_ctx, n, flags, place, env))
            print(f"| {cache} | " + " | ".join(self.beside(x, found["CPU"]) for x in found.values()) + " |", flush=True)

    def state(self):
        n_ctx, n = self.sizes(2048, 300)
        columns = [*PLACES, "GPU, from the CPU's file"]
        print(f"\ntexts of {n} tokens from a saved state: characters until they part from those without\n\n| cache | " + " | ".join(columns)
              + " |\n| --- |" + " ---: |" * len(columns), flush=True)
        for cache in self.caches():
            flags = self.plan(cache, n_ctx)
            file_of = {str(place): self.folder / f"{cache.replace(' ', '-')}-{i}.state" for i, place in enumerate(PLACES.values())}

            def one(place, env, cache_file=None):
                direct = self.completion(n_ctx, n, flags, place, env)
                state = cache_file or file_of[str((place, env))]
                if not cache_file:
                    self.completion(n_ctx, 1, [*flags, "--prompt-cache", state], place, env)
                if not state.exists():
                    raise Refused("no state was saved")
                return self.completion(n_ctx, n, [*flags, "--prompt-cache", state, "--prompt-cache-ro"], place, env), direct

            found = self.everywhere(one)
            crossed = self.pool.submit(one, *PLACES["GPU"], file_of[str(PLACES["CPU"])])
            found["GPU, from the CPU's file"] = self.outcome(crossed)
            cells = [str(x) if isinstance(x, Refused) else self.beside(*x) for x in found.values()]
            print(f"| {cache} | " + " | ".join(cells) + " |", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--bin", type=Path, default=ROOT / "target/release")
    ap.add_argument("--only", choices=["perplexity", "shift", "state"])
    ap.add_argument("--tiny", action="store_true")
    ap.add_argument("--jobs", type=int, help="programs at once (default: 4; tiny: 1)")
    ap.add_argument("--threads", type=int, help="of each (default: 4; tiny: 1)")
    ap.add_argument("--ubatch", type=int, default=64)
    ap.add_argument("--limit", type=int, help="seconds that one program may take")
    a = ap.parse_args()
    a.jobs, a.threads = a.jobs or (1 if a.tiny else 4), a.threads or (1 if a.tiny else 4)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    with tempfile.TemporaryDirectory() as folder:
        same = Same(a, folder)
        for what in [a.only] if a.only else ["perplexity", "shift", "state"]:
            getattr(same, what)()
    print(f"\n{same.marked} marked (!), {same.failed} failed")
    sys.exit(1 if same.marked or same.failed else 0)


if __name__ == "__main__":
    main()
