#!/usr/bin/env python3
"""Attention of ours beside upstream's, from the tables that both benchmarks print.

    gpu_kernels.py LOG...     of `cuda_tests bench` (tests/cuda/bench.rs, full or prefill) and of `upstream` (examples/gpu/upstream.cpp)

Microseconds of a layer. In brackets how many times faster ours is: than f16, and at 8 and 4 bits than q8_0 and q4_0, too. Of upstream's
two ways to hold several sequences the faster one counts.
"""

import sys
from collections import defaultdict
from pathlib import Path

PLAIN, BITS = ("f16", "q8_0", "q4_0"), ("16", "8", "4", "2")
# how many times faster: for one token at the deepest place of 32/8 heads against f16, and everywhere against the type of the same width
DEEP = ("32/8", 131072, 1, 1)
ASKED = {"16": 1.1, "8": 1.8, "4": 3.0, "2": 4.0}
SAME_WIDTH, ASKED_SAME = {"8": "q8_0", "4": "q4_0"}, 2.0


def rows(text):
    """Tables as dictionaries by their heads."""
    head = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if head is None:
            head = cells
        elif len(cells) == len(head) and not set(line) <= set("|-: "):
            yield dict(zip(head, cells))


def read(texts):
    """{(heads, depth, sequences, tokens): {type or bits: microseconds}}"""
    found = defaultdict(dict)
    for text in texts:
        for r in rows(text):
            if "depth" not in r or "us" not in r:
                continue
            key = (r["heads"], int(r["depth"]), int(r["sequences"]), int(r["tokens"]))
            name, us = r.get("type") or r["bits"], float(r["us"])
            found[key][name] = min(us, found[key].get(name, us))
    return found


def faster(at, than, ours):
    return at[than] / at[ours] if than in at and ours in at else None


def table(found):
    lines = ["| heads | depth | sequences | tokens | " + " | ".join((*PLAIN, *(f"{b} bits" for b in BITS))) + " |",
             "| --- |" + " ---: |" * (3 + len(PLAIN) + len(BITS))]
    for key in sorted(found, key=lambda k: (k[3], k[0] != DEEP[0], k[0], k[2], k[1])):
        at = found[key]
        cells = [f"{at[p]:.1f}" if p in at else "" for p in PLAIN]
        for b in BITS:
            ratios = [faster(at, than, b) for than in ("f16", SAME_WIDTH.get(b))]
            said = ", ".join(f"{r:.2f}" for r in ratios if r is not None)
            cells.append("" if b not in at else f"{at[b]:.1f}" + (f" ({said})" if said else ""))
        lines.append(f"| {key[0]} | {key[1]:,} | {key[2]} | {key[3]} | " + " | ".join(cells) + " |")
    return lines


def verdicts(found):
    lines = []
    for b, asked in ASKED.items():
        r = faster(found.get(DEEP, {}), "f16", b)
        if r is not None:
            lines.append(f"{b} bits, {DEEP[0]} heads at {DEEP[1]:,}: {r:.2f} times as fast as f16, asked {asked}: {'met' if r >= asked else 'missed'}")
    for b, plain in SAME_WIDTH.items():
        all_ = [(r, k) for k, at in found.items() if k[3] == 1 and (r := faster(at, plain, b)) is not None]
        if all_:
            least, key = min(all_)
            met = sum(r >= ASKED_SAME for r, _ in all_)
            lines.append(f"{b} bits: at least {ASKED_SAME} times as fast as {plain} in {met} of {len(all_)} shapes of one token a sequence, least "
                         f"{least:.2f} ({key[0]} heads, depth {key[1]:,}, {key[2]} sequences)")
    prefill = [(at["f16"] / at[b], b, k) for k, at in found.items() if k[3] > 1 for b in BITS if "f16" in at and b in at]
    if prefill:
        least, b, key = min(prefill)
        lines.append(f"prefill of {key[3]}: least {least:.2f} of f16's speed ({b} bits, {key[0]} heads, depth {key[1]:,})")
    return lines


def main():
    found = read(Path(p).read_text(errors="replace") for p in sys.argv[1:])
    if not found:
        sys.exit("gpu_kernels.py: no table with times in " + ", ".join(sys.argv[1:]))
    print("\n".join([*table(found), "", *verdicts(found)]))


if __name__ == "__main__":
    main()
