"""Train pmkvq-tiny on the CPU.

  python3 model/train/train.py --corpus <folder from corpus.py> --out <folder> --gguf-py <llama.cpp>/gguf-py \\
                               [--bf16] [--resume]

Stages go from short windows to long ones: reading far back is learned on short windows first. Seeds are fixed;
every batch is drawn from (seed, step), so a resumed run sees what an unbroken one would have seen. <out>/last.pt and
<out>/snapshot.gguf are written every two minutes and at the end. Where other programs use the same cores, set
OMP_WAIT_POLICY=passive.
"""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
import numpy as np
import torch
import torch.nn.functional as F

import data
import export_gguf
from model import Config, Llama, keep_memory

SEED = 1
# name, window, rows, up to this step, chance of stretched positions
STAGES = [
    ("256", 256, 16, 800, 0.0),
    ("1024", 1024, 4, 1800, 0.5),
    ("2048", 2048, 4, 2200, 0.7),
    ("4096", 4096, 2, 2500, 0.5),
    ("16384", 16384, 1, 2560, 0.0),
]
WARMUP, DECAY_FROM, FLOOR = 60, 1700, 0.03
MUON_LR, ADAM_LR = 0.012, 3e-3
SAVE_EVERY = 120    # seconds


def lr_scale(step):
    if step < WARMUP:
        return (step + 1) / WARMUP
    if step < DECAY_FROM:
        return 1.0
    last = STAGES[-1][3]
    return max(FLOOR, 1 - (1 - FLOOR) * (step - DECAY_FROM) / max(1, last - DECAY_FROM))


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration on a stack of matrices [n, rows, cols], rows <= cols (the Muon optimiser)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.transpose(1, 2)
        x = a * x + (b * s + c * s @ s) @ x
    return x.float()


class Muon:
    """Momentum, made orthogonal, for the matrices of the blocks; same-shaped matrices go through as one stack."""

    def __init__(self, params):
        self.groups = {}
        for p in params:
            self.groups.setdefault(tuple(sorted(p.shape)), []).append(p)
        self.mom = {s: [torch.zeros_like(p) for p in ps] for s, ps in self.groups.items()}

    @torch.no_grad()
    def step(self, lr, momentum=0.95, decay=0.02):
        for shape, ps in self.groups.items():
            stack = []
            for p, m in zip(ps, self.mom[shape]):
                m.mul_(momentum).add_(p.grad)
                u = p.grad + momentum * m
                stack.append(u if u.shape[0] <= u.shape[1] else u.T)
            for p, u in zip(ps, orthogonalise(torch.stack(stack))):
                if p.shape[0] > p.shape[1]:
                    u = u.T
                p.mul_(1 - lr * decay).add_(u, alpha=-lr * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)


def losses(model, tok, wgt, pos, bf16):
    """Mean loss over text bytes and over answer bytes (the two halves of the diet weigh the same)."""
    x, y, w = tok[:, :-1].long(), tok[:, 1:].long(), wgt[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = model(x, pos)
    ce = F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), reduction="none").view_as(y)
    t, a = (w == 1), (w == 2)
    text = ce[t].mean() if t.any() else ce.sum() * 0
    ans = ce[a].mean() if a.any() else ce.sum() * 0
    return text, ans


@torch.no_grad()
def recall(model, n, docs, text, bf16, seed=7):
    """Teacher-forced accuracy (every byte of the answer is the greedy byte) on fresh documents of n bytes."""
    right = {"near": [], "far": [], "reasoning": []}
    for i in range(docs):
        rng = np.random.default_rng((seed, n, i))
        d = data.document(rng, n, text, 0.0 if n <= 256 else 0.76, first_share=0.45, ask_share=0.5 if n <= 256 else 0.12,
                          max_keys=None if n <= 4096 else 200, once=n > 256)
        tok = torch.from_numpy(data.to_rows(d.text, len(d.text)).copy()).long()[None]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            out = model(tok)[0].argmax(-1)
        hit = (out[:-1] == tok[0, 1:]).tolist()
        for q in d.questions:
            s = q["answer_start"]
            kind = "reasoning" if q["kind"] == "reasoning" else "far" if s - q["key_at"] > n // 2 else "near"
            right[kind].append(all(hit[s - 1:s - 1 + len(q["answer"])]))
    return {k: (round(float(np.mean(v)), 3) if v else None) for k, v in right.items()}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--corpus", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--gguf-py", type=Path, required=True, help="folder gguf-py of the pinned llama.cpp tree")
    ap.add_argument("--bf16", action="store_true", help="bf16 arithmetic, for a CPU that has it (avx512_bf16 or amx_bf16)")
    ap.add_argument("--resume", action="store_true", help="go on from <out>/last.pt")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.manual_seed(SEED)
    text = data.Text.training(a.corpus)
    model = Llama(Config())
    print("parameters:", sum(p.numel() for p in model.parameters()), flush=True)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n.startswith("blocks")]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and n.startswith("blocks"))]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.95), weight_decay=0.0)
    step, spent = 0, 0.0
    ckpt = a.out / "last.pt"
    if a.resume and ckpt.exists():
        c = torch.load(ckpt)
        model.load_state_dict(c["model"]), adam.load_state_dict(c["adam"])
        muon.mom, step, spent = c["muon"], c["step"], c["spent"]

    def save():
        c = {"model": model.state_dict(), "adam": adam.state_dict(), "muon": muon.mom, "step": step,
             "spent": spent + time.time() - t_last, "config": model.cfg.as_dict()}
        tmp = ckpt.with_suffix(".tmp")
        torch.save(c, tmp)
        tmp.replace(ckpt)
        export_gguf.write(c, a.out / "snapshot.gguf", a.gguf_py)

    log = open(a.out / "train.log", "a")
    t_last = t_saved = time.time()
    tokens, sums, n_sum = 0, np.zeros(2), 0
    for name, n, rows, until, stretch in STAGES:
        every = 50 if n <= 4096 else 10
        while step < until:
            tok, wgt, pos = (torch.from_numpy(x) for x in data.batch(SEED, step, rows, n, text, stretch))
            lt, la = losses(model, tok, wgt, pos, a.bf16)
            (lt + la).backward()
            torch.nn.utils.clip_grad_norm_(others, 1.0)
            muon.step(MUON_LR * lr_scale(step))
            for g in adam.param_groups:
                g["lr"] = ADAM_LR * lr_scale(step)
            adam.step()
            model.zero_grad(set_to_none=True)
            sums += (lt.item(), la.item())
            n_sum += 1
            tokens += rows * n
            step += 1
            if step % every == 0 or step == until:
                dt = time.time() - t_last
                spent += dt
                t_last = time.time()
                check = step % (2 * every) == 0 or step == until
                acc = recall(model, n, 8 if n <= 1024 else 4 if n <= 4096 else 1, text, a.bf16) if check else ""
                line = (f"{time.strftime('%H:%M:%S')} spent {spent / 60:.1f}min step {step} window {name} "
                        f"text {sums[0] / n_sum:.3f} answers {sums[1] / n_sum:.3f} {tokens / dt:.0f} tok/s {acc}")
                print(line, flush=True)
                print(line, file=log, flush=True)
                tokens, sums, n_sum = 0, np.zeros(2), 0
            if time.time() - t_saved > SAVE_EVERY:
                save()
                t_saved = time.time()
    save()


if __name__ == "__main__":
    main()
