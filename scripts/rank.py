#!/usr/bin/env python3
"""Spearman's rank correlation of two sensitivity files over sides (K or V of a layer), width by width.

    rank.py A.json B.json
"""
import json
import sys


def ranks(values):
    """Ranks from 0; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for i in order[at:end]:
            out[i] = (at + end - 1) / 2
        at = end
    return out


def correlation(a, b):
    a, b = ranks(a), ranks(b)
    mean = (len(a) - 1) / 2
    both = sum((x - mean) * (y - mean) for x, y in zip(a, b))
    square = sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b)
    return both / square ** 0.5 if square else float("nan")


def main():
    a, b = (json.load(open(path)) for path in sys.argv[1:3])
    print(f"{'bits':>4} {'K and V':>8} {'K':>6} {'V':>6}")
    for width in a["widths"]:
        if width == 16 or width not in b["widths"]:
            continue
        of = lambda f, sides: [l[s][f["widths"].index(width)] for l in f["layers"] for s in sides]
        row = [correlation(of(a, sides), of(b, sides)) for sides in ("kv", "k", "v")]
        print(f"{width:>4} {row[0]:>8.2f} {row[1]:>6.2f} {row[2]:>6.2f}")


if __name__ == "__main__":
    main()
