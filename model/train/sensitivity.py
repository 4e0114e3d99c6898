"""Measure how much it costs to store one side (K or V) of one layer with fewer bits, in two ways:

  gradient   the paper's (PM-KVQ, arXiv 2505.18610): mean over the elements of |(Q(x) - x) * dL/dx|, where Q has no
             window: every token is quantized; L is the mean loss over text plus the mean loss over answers
  kl         KL divergence (nats per byte) of the model with that side at that width from the model at 16 bits; token 0
             and the last 128 tokens stay at 16 bits, as in evaluate.py

  python3 model/train/sensitivity.py --gguf-py <llama.cpp>/gguf-py --corpus <folder from corpus.py> \\
                                     --method kl --out model/sensitivity.json
  python3 model/train/sensitivity.py --gguf-py <llama.cpp>/gguf-py --corpus <folder from corpus.py> --compare

Both are measured on documents of the training distribution; nothing that is held out is read, except by --compare,
which lets both tables choose widths under a budget and measures what the choices cost on questions.jsonl.
"""
import argparse
import itertools
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
import numpy as np
import torch
import torch.nn.functional as F

import data
from evaluate import MODEL, as_tokens, attention, load_gguf, quantized
from model import keep_memory, rope_tables

WIDTHS = [16, 8, 4, 2]
SEED = 20261125
BYTES = [16384, 8192, 4096]     # one document each


def documents(text):
    docs = []
    for i, n in enumerate(BYTES):
        d = data.document(np.random.default_rng((SEED, i)), n, text, text_share=0.76, first_share=0.45, ask_share=0.12,
                          max_keys=200, once=True)
        docs.append((as_tokens(d.text), torch.tensor(d.weight)))
    return docs


def finish(model, x):
    return model.head(F.rms_norm(x, (model.cfg.n_embd,), model.norm, model.cfg.norm_eps))


def gradient(model, docs):
    """[layer][side][width], the mean over the documents."""
    total = np.zeros((model.cfg.n_layer, 2, len(WIDTHS)))
    for tok, weight in docs:
        cos, sin = rope_tables(model.cfg, torch.arange(len(tok))[None])
        x, kept = model.embed(tok)[None], []
        for b in model.blocks:
            q, k, v = b.qkv(x, cos, sin)
            k.retain_grad(), v.retain_grad()
            kept.append((k, v))
            r = q.shape[1] // k.shape[1]
            x = b.finish(x, F.scaled_dot_product_attention(q, k.repeat_interleave(r, 1), v.repeat_interleave(r, 1),
                                                           is_causal=True))
        ce = F.cross_entropy(finish(model, x)[0, :-1], tok[1:], reduction="none")
        w = weight[1:]
        (ce[w == 1].mean() + ce[w == 2].mean()).backward()
        for i, sides in enumerate(kept):
            for s, y in enumerate(sides):
                for j, bits in enumerate(WIDTHS):
                    total[i, s, j] += ((quantized(y.detach(), bits) - y.detach()) * y.grad).abs().mean().item()
        model.zero_grad(set_to_none=True)
    return total / len(docs)


@torch.no_grad()
def run(model, x, cos, sin, bits, first=0):
    """Log-probabilities after layers first.., and the input of every layer."""
    inputs = []
    for b, (bits_k, bits_v) in list(zip(model.blocks, bits))[first:]:
        inputs.append(x)
        q, k, v = b.qkv(x, cos, sin)
        x = b.finish(x, attention(q, k, v, bits_k, bits_v))
    return finish(model, x)[0].log_softmax(-1), inputs


def kl_between(a, b):
    return (a.exp() * (a - b)).sum(-1).mean().item()


@torch.no_grad()
def divergence(model, docs):
    """[layer][side][width], the mean over the bytes of all documents."""
    n = model.cfg.n_layer
    total, length = np.zeros((n, 2, len(WIDTHS))), sum(len(tok) for tok, _ in docs)
    for tok, _ in docs:
        cos, sin = rope_tables(model.cfg, torch.arange(len(tok))[None])
        exact, inputs = run(model, model.embed(tok)[None], cos, sin, [(16, 16)] * n)
        for i, s, j in itertools.product(range(n), range(2), range(1, len(WIDTHS))):
            bits = [(16, 16)] * n
            bits[i] = (WIDTHS[j], 16) if s == 0 else (16, WIDTHS[j])
            other, _ = run(model, inputs[i], cos, sin, bits, first=i)
            total[i, s, j] += max(0.0, kl_between(exact, other)) * len(tok) / length
    return total


def allocate(table, mean_bits):
    """The widths (8, 4 or 2 per side) of least summed sensitivity whose mean is at most `mean_bits`."""
    sides = table.reshape(-1, len(WIDTHS))
    best = {0: (0.0, ())}                               # bits used -> (cost, widths)
    for row in sides:
        step = {}
        for used, (cost, widths) in best.items():
            for j, w in enumerate(WIDTHS[1:], 1):
                at, c = used + w, cost + row[j]
                if at <= mean_bits * len(sides) and (at not in step or c < step[at][0]):
                    step[at] = (c, widths + (w,))
        best = step
    widths = min(best.values())[1]
    return [(widths[2 * i], widths[2 * i + 1]) for i in range(len(table))]


@torch.no_grad()
def compare(model, tables, docs, budgets=(4, 3, 2.5)):
    inputs = []
    for d in docs:
        tok = as_tokens(d["text"])
        cos, sin = rope_tables(model.cfg, torch.arange(len(tok))[None])
        x = model.embed(tok)[None]
        inputs.append((tok, x, cos, sin, run(model, x, cos, sin, [(16, 16)] * model.cfg.n_layer)[0]))
    for mean_bits in budgets:
        for name, table in tables.items():
            widths, kl, hits = allocate(table, mean_bits), 0.0, []
            for d, (tok, x, cos, sin, exact) in zip(docs, inputs):
                other, _ = run(model, x, cos, sin, widths)
                kl += kl_between(exact, other) / len(docs)
                hit = (other[:-1].argmax(-1) == tok[1:]).tolist()
                hits += [all(hit[q["answer_start"] - 1:q["answer_start"] - 1 + len(q["answer"])])
                         for q in d["questions"] if q["kind"] == "recall" and q["answer_start"] - q["key_at"] > 4000]
            print(f"{mean_bits:>4} bits, {name:>8}: KL {kl:.5f}, far recall {100 * sum(hits) / len(hits):.1f}% "
                  f"of {len(hits)}, widths (K, V) {widths}", flush=True)


def show(name, table):
    print(name + "\nlayer  side " + " ".join(f"{w:>10}" for w in WIDTHS))
    for i, s in itertools.product(range(len(table)), range(2)):
        print(f"{i:>5}  {'KV'[s]:>4} " + " ".join(f"{x:>10.3e}" for x in table[i, s]), flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--gguf-py", type=Path, required=True, help="folder gguf-py of the pinned llama.cpp tree")
    ap.add_argument("--corpus", type=Path, required=True)
    ap.add_argument("--model", type=Path, default=MODEL / "pmkvq-tiny.gguf")
    ap.add_argument("--method", choices=["gradient", "kl"], default="kl")
    ap.add_argument("--out", type=Path)
    ap.add_argument("--compare", action="store_true")
    a = ap.parse_args()
    keep_memory()
    model = load_gguf(a.model, a.gguf_py)
    docs = documents(data.Text.training(a.corpus))
    measure = {"gradient": gradient, "kl": divergence}
    tables = {m: measure[m](model, docs) for m in (measure if a.compare else [a.method])}
    for name, table in tables.items():
        show(name, table)
    if a.out:
        c = model.cfg
        table = tables[a.method].tolist()
        made = {
            "pmkvq_sensitivity": 1,
            "model": {"arch": "llama", "name": "pmkvq-tiny", "n_ctx_train": c.n_ctx, "layers": [
                {"il": i, "n_head_kv": c.n_head_kv, "head_dim_k": c.head_dim, "head_dim_v": c.head_dim}
                for i in range(c.n_layer)]},
            "source": f"model/train/sensitivity.py, {len(docs)} documents of the training distribution, "
                      f"{sum(BYTES)} bytes",
            "method": {"gradient": "gradient: mean |(Q(x) - x) * dL/dx|",
                       "kl": "KL divergence in nats per byte, one side of one layer at a time"}[a.method],
            "widths": WIDTHS,
        }
        fields = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in made.items()]
        layers = ",\n".join("    " + json.dumps({"il": i, "k": k, "v": v}) for i, (k, v) in enumerate(table))
        a.out.write_text("{\n" + ",\n".join(fields) + f',\n  "layers": [\n{layers}\n  ]\n}}\n')
    if a.compare:
        compare(model, tables, [json.loads(line) for line in (MODEL / "questions.jsonl").open()][:2])


if __name__ == "__main__":
    main()
