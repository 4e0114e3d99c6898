"""Write a checkpoint of train.py as a GGUF (weights F16, byte-level vocabulary of 256).

  python3 model/train/export_gguf.py --gguf-py <llama.cpp>/gguf-py --checkpoint <out>/last.pt --out model/pmkvq-tiny.gguf
"""
import argparse
import sys
from pathlib import Path

import numpy as np
import torch


def byte_names():
    """The printable stand-in of each byte in a GPT-2 vocabulary; the token's id is the byte's value."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names, extra = {b: chr(b) for b in plain}, 256
    for b in range(256):
        if b not in names:
            names[b] = chr(extra)
            extra += 1
    return [names[b] for b in range(256)]


def interleave(w, heads):
    """Reorder rotary pairs (i, i + d/2) of each head to (2i, 2i + 1), as llama.cpp's llama architecture has them."""
    rows, cols = w.shape
    return w.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write(checkpoint, out, gguf_py):
    """Write a checkpoint of train.py, already loaded, to the file `out`."""
    if str(gguf_py) not in sys.path:
        sys.path.insert(0, str(gguf_py))
    import gguf

    c, m = checkpoint["config"], {k: v.float().numpy() for k, v in checkpoint["model"].items()}
    tmp = out.with_suffix(".tmp")
    w = gguf.GGUFWriter(str(tmp), "llama")
    w.add_name("pmkvq-tiny")
    w.add_description("Tiny byte-level Llama trained from scratch to measure KV caches: it looks up values far back.")
    w.add_license("MIT")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_context_length(c["n_ctx"])
    w.add_embedding_length(c["n_embd"])
    w.add_block_count(c["n_layer"])
    w.add_feed_forward_length(c["n_ff"])
    w.add_head_count(c["n_head"])
    w.add_head_count_kv(c["n_head_kv"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["norm_eps"])
    w.add_vocab_size(c["n_vocab"])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    names = byte_names()
    w.add_token_list(names)
    # Byte 0 never occurs in text: it stands for every special token. It is a control token, all others are normal.
    w.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * 255)
    # A loader wants at least one merge. This one joins byte 0 to itself, so it never applies to text.
    w.add_token_merges([f"{names[0]} {names[0]}"])
    w.add_bos_token_id(0)
    w.add_eos_token_id(0)
    w.add_add_bos_token(False)
    w.add_add_eos_token(False)

    def put(name, x):
        w.add_tensor(name, np.ascontiguousarray(x, dtype=np.float16 if x.ndim == 2 else np.float32))

    put("token_embd.weight", m["embed.weight"])
    put("output_norm.weight", m["norm"])
    put("output.weight", m["head.weight"])
    for i in range(c["n_layer"]):
        b = f"blocks.{i}."
        put(f"blk.{i}.attn_norm.weight", m[b + "attn_norm"])
        put(f"blk.{i}.attn_q.weight", interleave(m[b + "wq.weight"], c["n_head"]))
        put(f"blk.{i}.attn_k.weight", interleave(m[b + "wk.weight"], c["n_head_kv"]))
        put(f"blk.{i}.attn_v.weight", m[b + "wv.weight"])
        put(f"blk.{i}.attn_output.weight", m[b + "wo.weight"])
        put(f"blk.{i}.ffn_norm.weight", m[b + "ffn_norm"])
        put(f"blk.{i}.ffn_gate.weight", m[b + "gate.weight"])
        put(f"blk.{i}.ffn_up.weight", m[b + "up.weight"])
        put(f"blk.{i}.ffn_down.weight", m[b + "down.weight"])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    tmp.replace(out)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--gguf-py", type=Path, required=True, help="folder gguf-py of the pinned llama.cpp tree")
    ap.add_argument("--checkpoint", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    checkpoint = torch.load(a.checkpoint, map_location="cpu")
    write(checkpoint, a.out, a.gguf_py)
    print(f"{a.out}: {a.out.stat().st_size} bytes, step {checkpoint['step']}")


if __name__ == "__main__":
    main()
