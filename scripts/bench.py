#!/usr/bin/env python3
"""Speed of the KV caches side by side: llama.cpp's f16, q8_0 and q4_0, and plans at 16, 8, 4 and 2 bits, in one run of llama-bench.

    bench.py [--depth N,N,...] [--prefill N] [--threads N] [--repeat N] [--layers N]

The model has random weights, and the attention of an 8B model (32 heads, 8 KV heads of 128) in few layers with small matrices
elsewhere, so that attention is what is timed. Prints the tokens per second, medians, and their ratio to f16.
"""

import argparse
import json
import random
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "target/release"
N_EMBD, N_VOCAB, N_FF, N_HEAD, N_HEAD_KV, HEAD_DIM = 256, 256, 256, 32, 8, 128


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def write_model(path, n_layer):
    """A GGUF of the Llama architecture, weights f16."""
    kv = []

    def u32(key, value):
        kv.append(text(f"llama.{key}") + struct.pack("<II", 4, value))

    kv.append(text("general.architecture") + struct.pack("<I", 8) + text("llama"))
    kv.append(text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("no_vocab"))
    for key, value in [("vocab_size", N_VOCAB), ("context_length", 1 << 20), ("embedding_length", N_EMBD), ("block_count", n_layer),
                       ("feed_forward_length", N_FF), ("attention.head_count", N_HEAD), ("attention.head_count_kv", N_HEAD_KV),
                       ("attention.key_length", HEAD_DIM), ("attention.value_length", HEAD_DIM),
                       ("rope.dimension_count", HEAD_DIM)]:
        u32(key, value)
    kv.append(text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5))

    f32, f16 = 0, 1
    tensors = [("token_embd", (N_EMBD, N_VOCAB), f16), ("output_norm", (N_EMBD,), f32), ("output", (N_EMBD, N_VOCAB), f16)]
    for i in range(n_layer):
        tensors += [(f"blk.{i}.{name}", shape, kind) for name, shape, kind in [
            ("attn_norm", (N_EMBD,), f32), ("attn_q", (N_EMBD, N_HEAD * HEAD_DIM), f16),
            ("attn_k", (N_EMBD, N_HEAD_KV * HEAD_DIM), f16), ("attn_v", (N_EMBD, N_HEAD_KV * HEAD_DIM), f16),
            ("attn_output", (N_HEAD * HEAD_DIM, N_EMBD), f16), ("ffn_norm", (N_EMBD,), f32),
            ("ffn_gate", (N_EMBD, N_FF), f16), ("ffn_up", (N_EMBD, N_FF), f16), ("ffn_down", (N_FF, N_EMBD), f16)]]

    rng = random.Random(1)
    noise = struct.pack("<4096e", *(rng.gauss(0, 0.05) for _ in range(4096)))
    head, data = b"", b""
    for name, shape, kind in tensors:
        n = 1
        for d in shape:
            n *= d
        head += text(name + ".weight") + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, len(data))
        data += struct.pack(f"<{n}f", *[1.0] * n) if kind == f32 else (noise * (2 * n // len(noise) + 1))[:2 * n]
        data += bytes(-len(data) % 32)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)) + b"".join(kv) + head
    path.write_bytes(out + bytes(-len(out) % 32) + data)


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"'{' '.join(map(str, command))}' failed:\n{result.stderr[-3000:]}")
    return result.stdout


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--depth", default="8192")
    ap.add_argument("--prefill", type=int, default=512, help="tokens; 0: decode only")
    ap.add_argument("--generate", type=int, default=32)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--repeat", type=int, default=3)
    ap.add_argument("--layers", type=int, default=1)
    a = ap.parse_args()
    depths = [int(d) for d in a.depth.split(",")]
    n_ctx = max(depths) + a.prefill + a.generate
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "attention.gguf")
        write_model(model, a.layers)
        plans = {}
        for width in (16, 8, 4, 2):
            plan = Path(folder, f"{width}.json")
            run(BIN / "pmkvq", "plan", "--uniform", width, "--static", "--ctx", n_ctx, "-m", model, "-o", plan)
            plans[str(plan)] = f"plan, {width} bits"
        common = ["-m", model, "-p", a.prefill, "-n", a.generate, "-d", a.depth, "-r", a.repeat, "-t", a.threads, "-fa", 1,
                  "-o", "json"]
        rows = json.loads(run(BIN / "llama-bench", *common, "--pmkvq-plan", "none," + ",".join(plans)))
        for kind in ("q8_0", "q4_0"):
            rows += json.loads(run(BIN / "llama-bench", *common, "-ctk", kind, "-ctv", kind))
    speed = {}
    for r in rows:
        name = plans.get(r["pmkvq_plan"], r["type_k"])
        what = "prefill" if r["n_prompt"] else "decode"
        speed[name, what, r["n_depth"]] = statistics.median(r["samples_ts"])
    print(f"{rows[0]['cpu_info']}, {a.threads} threads, llama.cpp {rows[0]['build_commit']}; tokens/s, median of {a.repeat}, "
          "and the ratio to f16\n")
    columns = [(what, d) for what in ("decode", "prefill") for d in depths if what == "decode" or a.prefill]
    print("| cache | " + " | ".join(f"{what}{f' of {a.prefill}' if what == 'prefill' else ''} at depth {d:,}" for what, d in columns)
          + " |")
    print("| --- |" + " --- |" * len(columns))
    for name in ["f16", "q8_0", "q4_0", *plans.values()]:
        cells = [f"{speed[name, w, d]:.1f} ({speed[name, w, d] / speed['f16', w, d]:.2f}x)" for w, d in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
