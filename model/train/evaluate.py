"""Measure the shipped GGUF: loss on the held-out text, and recall by distance with a 16-bit cache and with a
simulated static cache of 8, 4 or 2 bits.

  python3 model/train/evaluate.py --gguf-py <llama.cpp>/gguf-py [--bits 16,8,4,2] [--documents 8]

The simulation quantizes K (after the rotation) and V of every token in groups of 128 (= one head), with the codes that
the cache has. A query sees the 16-bit values of token 0 and of the last 128 tokens, and the quantized values of all
older ones. Accuracy is teacher-forced: an answer counts when the greedy choice at each of its bytes is that byte.
"""
import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
import torch
import torch.nn.functional as F

from model import Config, Llama, keep_memory, rope_tables

MODEL = Path(__file__).resolve().parent.parent
WINDOW = 128
EDGES = [0, 128, 512, 2048, 4096, 8192, 16384]


def load_gguf(path, gguf_py):
    sys.path.insert(0, str(gguf_py))
    import gguf

    r = gguf.GGUFReader(path)
    t = {x.name: torch.from_numpy(x.data.copy()).float() for x in r.tensors}

    def meta(key):
        return r.fields[key].contents()

    c = Config(n_vocab=t["output.weight"].shape[0], n_embd=meta("llama.embedding_length"),
               n_layer=meta("llama.block_count"), n_head=meta("llama.attention.head_count"),
               n_head_kv=meta("llama.attention.head_count_kv"), head_dim=meta("llama.attention.key_length"),
               n_ff=meta("llama.feed_forward_length"), n_ctx=meta("llama.context_length"),
               rope_theta=meta("llama.rope.freq_base"), norm_eps=meta("llama.attention.layer_norm_rms_epsilon"))

    def halves(w, heads):   # rotary pairs (2i, 2i + 1) back to (i, i + d/2)
        rows, cols = w.shape
        return w.view(heads, rows // heads // 2, 2, cols).transpose(1, 2).reshape(rows, cols)

    state = {"embed.weight": t["token_embd.weight"], "norm": t["output_norm.weight"], "head.weight": t["output.weight"]}
    for i in range(c.n_layer):
        g, b = f"blk.{i}.", f"blocks.{i}."
        state |= {b + "attn_norm": t[g + "attn_norm.weight"], b + "ffn_norm": t[g + "ffn_norm.weight"],
                  b + "wq.weight": halves(t[g + "attn_q.weight"], c.n_head),
                  b + "wk.weight": halves(t[g + "attn_k.weight"], c.n_head_kv),
                  b + "wv.weight": t[g + "attn_v.weight"], b + "wo.weight": t[g + "attn_output.weight"],
                  b + "gate.weight": t[g + "ffn_gate.weight"], b + "up.weight": t[g + "ffn_up.weight"],
                  b + "down.weight": t[g + "ffn_down.weight"]}
    m = Llama(c)
    m.load_state_dict(state)
    return m.eval()


def quantized(x, bits):
    """x [.., 128] -> the values that a cache of that many bits gives back (src/kernels/codes.rs): 16-bit floats, or
    codes between the group's minimum and maximum, rounded half to even; narrower codes are made from the 8-bit ones."""
    x = x.half().float()
    if bits == 16:
        return x
    low, high = x.aminmax(dim=-1, keepdim=True)
    code = ((x - low) / ((high - low) / 255).clamp_min(1e-12)).round().clamp(0, 255)
    if bits <= 4:
        code = (code / 17).round()
    if bits == 2:
        code = (code / 5).round()
    return low + code * ((high - low) / (2 ** bits - 1))


def attention(q, k, v, bits_k, bits_v, block=128):
    """Causal attention, [1, heads, T, 128], where old tokens are seen through the quantized cache."""
    r = q.shape[1] // k.shape[1]
    k, v, kq, vq = k.half().float(), v.half().float(), quantized(k, bits_k), quantized(v, bits_v)
    kq[:, :, 0], vq[:, :, 0] = k[:, :, 0], v[:, :, 0]
    k, v, kq, vq = (x.repeat_interleave(r, 1) for x in (k, v, kq, vq))
    if bits_k == bits_v == 16:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    out, scale, n = torch.empty_like(q), q.shape[-1] ** -0.5, q.shape[2]
    for t0 in range(0, n, block):
        end = min(n, t0 + block)
        near = max(0, t0 - WINDOW)          # from here on a key is recent for at least some query of the block
        qb = q[:, :, t0:end]
        s = qb @ kq[:, :, :end].transpose(-1, -2) * scale
        sn = qb @ k[:, :, near:end].transpose(-1, -2) * scale
        age = torch.arange(t0, end)[:, None] - torch.arange(near, end)[None]
        recent = age < WINDOW
        s[..., near:] = torch.where(recent, sn, s[..., near:]).masked_fill(age < 0, -math.inf)
        p = s.softmax(-1)
        pn = p[..., near:] * recent
        p[..., near:] -= pn
        out[:, :, t0:end] = p @ vq[:, :, :end] + pn @ v[:, :, near:end]
    return out


@torch.no_grad()
def logits(model, tokens, bits):
    """Logits [T, 256] for tokens [T]; `bits` is one number, or a (K, V) pair per layer."""
    if isinstance(bits, int):
        bits = [(bits, bits)] * model.cfg.n_layer
    cos, sin = rope_tables(model.cfg, torch.arange(len(tokens))[None])
    x = model.embed(tokens)[None]
    for b, (bits_k, bits_v) in zip(model.blocks, bits):
        q, k, v = b.qkv(x, cos, sin)
        x = b.finish(x, attention(q, k, v, bits_k, bits_v))
    return model.head(F.rms_norm(x, (model.cfg.n_embd,), model.norm, model.cfg.norm_eps))[0]


def as_tokens(s):
    return torch.tensor(list(s.encode("ascii")))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--gguf-py", type=Path, required=True, help="folder gguf-py of the pinned llama.cpp tree")
    ap.add_argument("--model", type=Path, default=MODEL / "pmkvq-tiny.gguf")
    ap.add_argument("--bits", default="16,8,4,2")
    ap.add_argument("--documents", type=int, default=8)
    ap.add_argument("--text-window", type=int, default=4096, help="window for the loss on the held-out text; 0: skip")
    a = ap.parse_args()
    keep_memory()
    model = load_gguf(a.model, a.gguf_py)
    docs = [json.loads(line) for line in (MODEL / "questions.jsonl").open()][:a.documents]
    held = as_tokens((MODEL / "heldout.txt").read_text())
    print(f"{'bits':>4} {'held-out loss':>13} " + " ".join(f"{f'<{e}':>11}" for e in EDGES[1:])
          + f" {'far >4000':>11} {'reasoning':>11} {'document loss':>13}")
    for bits in map(int, a.bits.split(",")):
        t0, text = time.time(), []
        if a.text_window:
            for i in range(0, len(held) - a.text_window, a.text_window):
                w = held[i:i + a.text_window]
                text.append(F.cross_entropy(logits(model, w, bits)[:-1], w[1:]).item())
        recall = [[] for _ in EDGES[1:]]
        far, reasoning, doc_loss = [], [], []
        for d in docs:
            tok = as_tokens(d["text"])
            out = logits(model, tok, bits)
            doc_loss.append(F.cross_entropy(out[:-1], tok[1:]).item())
            hit = (out[:-1].argmax(-1) == tok[1:]).tolist()
            for q in d["questions"]:
                s = q["answer_start"]
                ok = all(hit[s - 1:s - 1 + len(q["answer"])])
                dist = s - q["key_at"]
                if q["kind"] == "reasoning":
                    reasoning.append(ok)
                else:
                    recall[next(i for i, e in enumerate(EDGES[1:]) if dist < e)].append(ok)
                    if dist > 4000:
                        far.append(ok)

        def show(v):
            return f"{100 * sum(v) / len(v):.1f}% /{len(v)}" if v else "-"
        print(f"{bits:>4} {sum(text) / len(text) if text else float('nan'):>13.4f} "
              + " ".join(f"{show(v):>11}" for v in recall) + f" {show(far):>11} {show(reasoning):>11} "
              f"{sum(doc_loss) / len(doc_loss):>13.4f}   ({time.time() - t0:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
