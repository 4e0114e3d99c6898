#!/usr/bin/env python3
"""Step time against position over a whole context, while a plan's budget forces blocks to shrink: a table and a picture.

    steps.py [--ctx N] [--width W] [--repeat N] [--output FILE.md] [--svg FILE.svg]

The attention model of scripts/bench.py generates a whole context, one token at a time (examples/steps.rs). The plan is a
progressive one with final width W throughout and no more memory than that takes, so the cache is full at 16 bits after W / 16
of the context and shrinks from there to the end. A second plan with the same tokens at 16 bits never shrinks: what its steps
do is the machine's noise and llama.cpp's own. All runs take turns; blocks shrink at the same positions in each, so the median
over runs keeps what belongs to a position and drops what came from elsewhere.
"""

import argparse
import csv
import datetime
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import ROOT, run, say
from random_models import write_attention

AROUND = 15  # steps that a step is compared with: 7 before it, 8 after it where there are
ASKED = 1.3
SHRINKS = [("s16_8", "16 to 8 bits", "#3b75af"), ("s8_4", "8 to 4", "#4f9a47"), ("s4_2", "4 to 2", "#c0504d"), ("narrow", "new, narrow", "#8064a2")]


class Run:
    """One generation: positions, seconds, shrinks of every step."""

    def __init__(self, text):
        rows = list(csv.DictReader(text.splitlines()))
        self.position = [int(r["position"]) for r in rows]
        self.ms = [int(r["ns"]) / 1e6 for r in rows]
        self.shrinks = [{name: int(r[name]) for name, _, _ in SHRINKS} for r in rows]
        self.bits = float(rows[-1]["bits"])
        self.past = float(rows[-1]["past"])


def neighbours(times, i):
    """The AROUND steps nearest to i, itself left out."""
    first = max(0, min(i - AROUND // 2, len(times) - AROUND - 1))
    return times[first:i] + times[i + 1:first + AROUND + 1]


def ratios(times):
    return [t / statistics.median(neighbours(times, i)) for i, t in enumerate(times)]


class Series:
    """Several runs of one cache; the first steps, in which memory is touched for the first time, are left out."""

    def __init__(self, name, runs, skip):
        self.name, self.runs = name, runs
        self.position = runs[0].position[skip:]
        self.shrinks = runs[0].shrinks[skip:]
        self.single = [ratios(r.ms[skip:]) for r in runs]
        self.ms = [statistics.median(x) for x in zip(*(r.ms[skip:] for r in runs))]
        self.ratio = ratios(self.ms)

    def row(self):
        worst = max(range(len(self.ratio)), key=self.ratio.__getitem__)
        n = sum(any(s.values()) for s in self.shrinks)
        quiet = [r for r, s in zip(self.ratio, self.shrinks) if not any(s.values())]
        busy = [r for r, s in zip(self.ratio, self.shrinks) if any(s.values())]
        middle = lambda x: f"{statistics.median(x):.2f}" if x else "-"
        most = max(sum(s.values()) for s in self.shrinks)
        runs = ", ".join(f"{max(r):.2f}" for r in self.single)
        above = sum(r > ASKED for r in self.ratio)
        return [self.name, f"{statistics.median(self.ms):.3f}", f"{self.ratio[worst]:.2f} at {self.position[worst]:,}",
                str(above), runs, f"{n:,} of {len(self.ratio):,}", str(most), middle(busy), middle(quiet)]


COLUMNS = ["cache", "median step, ms", "slowest / neighbours", f"steps above {ASKED}", "slowest of single runs", "steps with shrinks",
           "most in a step", "ratio with shrinks", "without"]

# of the picture
W, H, LEFT, RIGHT, TOP, LANES, BOTTOM = 960, 460, 60, 16, 40, 70, 44


def ticks(high, n):
    step = next(s * 10 ** p for p in range(-6, 9) for s in (1, 2, 5) if s * 10 ** p * n >= high)
    return [i * step for i in range(int(high / step) + 1)]


def svg(series, title):
    """Medians and extremes of the steps in each column of pixels; shrinks in lanes below."""
    n = max(s.position[-1] for s in series) + 1
    all_ms = sorted(t for s in series for t in s.ms)
    top = 1.2 * all_ms[int(0.999 * (len(all_ms) - 1))]
    base = H - BOTTOM - LANES
    x = lambda p: LEFT + (W - LEFT - RIGHT) * p / n
    y = lambda t: base - (base - TOP) * min(t, top) / top
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="sans-serif" font-size="12">',
           f'<rect width="{W}" height="{H}" fill="#fff"/>', f'<text x="{LEFT}" y="16" font-size="14">{title}</text>']
    for t in ticks(top, 6):
        out.append(f'<path d="M{LEFT} {y(t):.1f}H{W - RIGHT}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>')
    for p in ticks(n, 8):
        out.append(f'<text x="{x(p):.1f}" y="{H - BOTTOM + 16}" text-anchor="middle">{p:,}</text>')
    out.append(f'<text x="{(LEFT + W - RIGHT) / 2}" y="{H - 8}" text-anchor="middle">position</text>')
    out.append(f'<text transform="translate(14 {(TOP + base) / 2}) rotate(-90)" text-anchor="middle">ms per step</text>')
    for k, (s, colour) in enumerate(zip(series, ["#222", "#e08214"])):
        columns = {}
        for p, t in zip(s.position, s.ms):
            columns.setdefault(int(x(p)), []).append(t)
        places = sorted(columns)
        band = [f"{c} {y(max(columns[c])):.1f}" for c in places] + [f"{c} {y(min(columns[c])):.1f}" for c in reversed(places)]
        line = [f"{c} {y(statistics.median(columns[c])):.1f}" for c in places]
        out.append(f'<path d="M{"L".join(band)}Z" fill="{colour}" fill-opacity="0.25"/>')
        out.append(f'<path d="M{"L".join(line)}" fill="none" stroke="{colour}"/>')
        out.append(f'<text x="{LEFT + 10 + 260 * k}" y="34" fill="{colour}">{s.name}</text>')
    main = series[0]
    worst = max(range(len(main.ratio)), key=main.ratio.__getitem__)
    out.append(f'<circle cx="{x(main.position[worst]):.1f}" cy="{y(main.ms[worst]):.1f}" r="5" fill="none" stroke="#c00"/>'
               f'<text x="{W - RIGHT}" y="34" fill="#c00" text-anchor="end">slowest beside its neighbours: {main.ratio[worst]:.2f}</text>')
    for lane, (name, label, colour) in enumerate(SHRINKS):
        at = base + 8 + lane * 15
        columns = {}
        for p, s in zip(main.position, main.shrinks):
            if s[name]:
                columns[int(x(p))] = columns.get(int(x(p)), 0) + s[name]
        out.append(f'<text x="{LEFT - 4}" y="{at + 10}" text-anchor="end" font-size="9" fill="{colour}">{label}</text>')
        most = max(columns.values(), default=1)
        marks = "".join(f'<path d="M{c + 0.5} {at}v12" stroke-opacity="{0.25 + 0.75 * k / most:.2f}"/>' for c, k in sorted(columns.items()))
        out.append(f'<g stroke="{colour}">{marks}</g>')
    return "\n".join([*out, "</svg>"]) + "\n"


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--ctx", type=int, default=8192, help="tokens (default: %(default)s)")
    ap.add_argument("--width", type=int, choices=[8, 4, 2], default=2, help="final width of the plan (default: %(default)s)")
    ap.add_argument("--rule", choices=["block", "layer"], default="block")
    ap.add_argument("--layers", type=int, default=2)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--skip", type=int, default=64, help="first steps that are left out (default: %(default)s)")
    ap.add_argument("--cpu", help="PMKVQ_CPU: avx512, avxvnni, avx2, scalar")
    ap.add_argument("--plan", type=Path, help="a plan of one's own for the attention model, in place of --width")
    ap.add_argument("--alone", action="store_true", help="without the plan that never shrinks")
    ap.add_argument("--output", type=Path, help="the table as Markdown")
    ap.add_argument("--svg", type=Path, help="the picture")
    ap.add_argument("--csv", type=Path, help="folder for the times of all steps")
    ap.add_argument("--bin", type=Path, default=ROOT / "target/release", help="folder of pmkvq and examples/steps")
    a = ap.parse_args()
    for program in (a.bin / "pmkvq", a.bin / "examples/steps"):
        if not program.exists():
            ap.error(f"{program} is not there: cargo build --release && cargo build --release --example steps")
    if a.ctx < a.skip + 4 * AROUND:
        ap.error("the context is too short for its first steps to be left out")
    return a


def main():
    a = arguments()
    env = dict(os.environ)
    if a.cpu:
        env["PMKVQ_CPU"] = a.cpu
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "random.gguf")
        write_attention(model, a.layers)

        def plan(width):
            path = Path(folder, f"{width}.json")
            run(a.bin / "pmkvq", "plan", "--uniform", width, "--rule", a.rule, "--ctx", a.ctx, "-m", model, "-o", path)
            return path

        caches = [(f"plan, 16 to {a.width} bits" if not a.plan else str(a.plan), a.plan or plan(a.width))]
        if not a.alone:
            caches.append(("plan, 16 bits, never shrinks", plan(16)))
        runs = {name: [] for name, _ in caches}
        for i in range(a.repeat):
            for name, path in caches:
                say(f"run {i + 1} of {a.repeat}: {name}")
                text = run(a.bin / "examples/steps", "--model", model, "--cache", path, "--ctx", a.ctx, "--threads", a.threads, env=env)
                runs[name].append(Run(text))
                if a.csv:
                    a.csv.mkdir(parents=True, exist_ok=True)
                    Path(a.csv, f"{'plan' if path == caches[0][1] else '16'}-{i + 1}.csv").write_text(text)
    series = [Series(name, r, a.skip) for name, r in runs.items()]
    if any(r.shrinks != runs[caches[0][0]][0].shrinks for r in runs[caches[0][0]]):
        say("shrinks lie at other positions in each run: medians over runs mix steps that differ")
    lines = [f"{datetime.date.today()}, {cpu_name()}, {a.threads} threads of {os.cpu_count()} CPUs, load {load:.1f} at the start: "
             f"`{shlex.join(['python3', 'scripts/steps.py', *sys.argv[1:]])}`", "",
             f"{a.ctx:,} tokens one at a time, {a.layers} layers of the attention of an 8B model; times are medians of {a.repeat} runs for each "
             f"position, the first {a.skip} steps left out. A step's neighbours are the {AROUND} around it; asked is a slowest step of at most "
             f"{ASKED} times their median.", "",
             "| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(s.row()) + " |" for s in series]
    done = runs[caches[0][0]][0]
    totals = ", ".join(f"{label}: {sum(s[name] for s in done.shrinks):,}" for name, label, _ in SHRINKS)
    lines += ["", f"Blocks of a side that were narrowed: {totals}. At the end {done.past:.0f} cells a side lie in the history, at {done.bits:.2f} bits "
                  "a value with their parameters."]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if a.output:
        a.output.write_text(text)
    if a.svg:
        a.svg.write_text(svg(series, f"Step time over {a.ctx:,} tokens, {a.threads} threads, {cpu_name()}, {datetime.date.today()}"))


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(l.split(":", 1)[1].strip() for l in lines if l.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown CPU"


if __name__ == "__main__":
    main()
