"""A tiny Llama: RMSNorm, SwiGLU, rotary positions, grouped-query attention; nothing that llama.cpp's llama
architecture does not have. Rotary pairs are (i, i + 64) here; export_gguf.py reorders them."""
import ctypes
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


def keep_memory():
    """Keep freed memory in the process (M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX of glibc): fresh pages for
    every tensor cost more than the arithmetic on some machines."""
    for option, value in ((-4, 0), (-1, 2 ** 31 - 1), (-2, 64 << 20), (-8, 1)):
        ctypes.CDLL("libc.so.6").mallopt(option, value)


@dataclass
class Config:
    n_vocab: int = 256
    n_embd: int = 256
    n_layer: int = 6
    n_head: int = 2
    n_head_kv: int = 1
    head_dim: int = 128
    n_ff: int = 512
    n_ctx: int = 16384
    rope_theta: float = 1_000_000.0
    norm_eps: float = 1e-5

    def as_dict(self):
        return asdict(self)


def rope_tables(cfg: Config, positions):
    """cos and sin, shape [rows, 1, T, head_dim / 2], for integer positions [rows, T]."""
    i = torch.arange(0, cfg.head_dim, 2, dtype=torch.float64) / cfg.head_dim
    angle = positions.double()[:, None, :, None] * cfg.rope_theta ** -i
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


def causal_attention(q, k, v, block=256):
    """Attention of q [rows, heads, T, d] over the one shared head k, v [rows, 1, T, d].

    Same sums as F.scaled_dot_product_attention, a block of queries at a time; all heads of a block go through one
    matrix product, since they share their keys. In bf16 on a CPU this trains up to twice as fast on short windows."""
    b, h, t, d = q.shape
    k, v, out = k[:, 0].transpose(1, 2), v[:, 0], []
    for t0 in range(0, t, block):
        end = min(t, t0 + block)
        n = end - t0
        mask = torch.zeros(n, end, dtype=q.dtype)
        mask[:, t0:] = torch.full((n, n), -1e30, dtype=q.dtype).triu(1)
        s = torch.baddbmm(mask.repeat(h, 1).expand(b, -1, -1), q[:, :, t0:end].reshape(b, h * n, d), k[:, :, :end],
                          alpha=d ** -0.5)
        out.append((s.softmax(-1).to(q.dtype) @ v[:, :end]).view(b, h, n, d))
    return torch.cat(out, 2)


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.attn_norm = nn.Parameter(torch.ones(c.n_embd))
        self.wq = nn.Linear(c.n_embd, c.n_head * c.head_dim, bias=False)
        self.wk = nn.Linear(c.n_embd, c.n_head_kv * c.head_dim, bias=False)
        self.wv = nn.Linear(c.n_embd, c.n_head_kv * c.head_dim, bias=False)
        self.wo = nn.Linear(c.n_head * c.head_dim, c.n_embd, bias=False)
        self.ffn_norm = nn.Parameter(torch.ones(c.n_embd))
        self.gate = nn.Linear(c.n_embd, c.n_ff, bias=False)
        self.up = nn.Linear(c.n_embd, c.n_ff, bias=False)
        self.down = nn.Linear(c.n_ff, c.n_embd, bias=False)
        for w in (self.wq, self.wk, self.wv, self.gate, self.up):
            nn.init.normal_(w.weight, std=c.n_embd ** -0.5 * 0.7)
        for w in (self.wo, self.down):
            nn.init.normal_(w.weight, std=0.01)

    def qkv(self, x, cos, sin):
        """q [rows, heads, T, 128] and k, v [rows, kv heads, T, 128]; q and k after the rotation."""
        c, (b, t, _) = self.c, x.shape
        h = F.rms_norm(x, (c.n_embd,), self.attn_norm.to(x.dtype), c.norm_eps)
        q = self.wq(h).view(b, t, c.n_head, c.head_dim).transpose(1, 2)
        k = self.wk(h).view(b, t, c.n_head_kv, c.head_dim).transpose(1, 2)
        v = self.wv(h).view(b, t, c.n_head_kv, c.head_dim).transpose(1, 2)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def finish(self, x, attended):
        """Attention output [rows, heads, T, 128] back into the stream, then the feed-forward part."""
        b, t, _ = x.shape
        x = x + self.wo(attended.transpose(1, 2).reshape(b, t, -1))
        h = F.rms_norm(x, (self.c.n_embd,), self.ffn_norm.to(x.dtype), self.c.norm_eps)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))

    def forward(self, x, cos, sin):
        q, k, v = self.qkv(x, cos, sin)
        if self.c.n_head_kv == 1 and x.shape[1] <= 1024 and x.dtype == torch.bfloat16:
            return self.finish(x, causal_attention(q, k, v))
        r = self.c.n_head // self.c.n_head_kv
        k, v = k.repeat_interleave(r, 1), v.repeat_interleave(r, 1)
        return self.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=True))


class Llama(nn.Module):
    def __init__(self, cfg: Config):
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.n_vocab, cfg.n_embd)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layer))
        self.norm = nn.Parameter(torch.ones(cfg.n_embd))
        self.head = nn.Linear(cfg.n_embd, cfg.n_vocab, bias=False)
        nn.init.normal_(self.embed.weight, std=0.5)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens, positions=None):
        """Logits [rows, T, 256] for tokens [rows, T]."""
        if positions is None:
            positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
        cos, sin = rope_tables(self.cfg, positions)
        x = self.embed(tokens)
        if torch.is_autocast_enabled("cpu"):
            x = x.bfloat16()
        for b in self.blocks:
            x = b(x, cos, sin)
        return self.head(F.rms_norm(x, (self.cfg.n_embd,), self.norm.to(x.dtype), self.cfg.norm_eps))
