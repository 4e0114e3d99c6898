"""GGUF models with random weights, for measuring speed: written as a stream, valid, and good for nothing else.

`write_attention`: the attention of an 8B model (32 heads, 8 KV heads of 128) with small matrices elsewhere, weights f16.
`write_8b`: the shape of Llama 3.1 8B, weights Q4_0, 4.5 GB with all 32 layers.
"""

import random
import shutil
import struct
from math import prod

N_HEAD, N_HEAD_KV, HEAD_DIM = 32, 8, 128
F32, F16, Q4_0 = 0, 1, 2
# bytes of a block, and its values
BLOCKS = {F32: (4, 1), F16: (2, 1), Q4_0: (18, 32)}


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def tensor_bytes(shape, kind):
    size, values = BLOCKS[kind]
    return prod(shape) // values * size


def fill(kind):
    """Bytes that data of a kind is cut from: whole blocks."""
    rng = random.Random(1)
    if kind == F32:
        return struct.pack("<f", 1.0) * 4096
    if kind == F16:
        return struct.pack("<4096e", *(rng.gauss(0, 0.05) for _ in range(4096)))
    # random nibbles, less 8, times scales of 0.0034 to 0.0039: a standard deviation near 1 / sqrt(4096)
    data = bytearray(rng.randbytes(18 << 19))
    data[1::18] = b"\x1b" * (1 << 19)
    return bytes(data)


def write(path, n_layer, n_embd, n_ff, n_vocab, kind):
    """A GGUF of the Llama architecture with matrices of one kind, norms of ones, no tokenizer. Returns the bytes of weights
    that a decoded token reads: all but the embeddings, of which it reads a row."""
    kv = [text("general.architecture") + struct.pack("<I", 8) + text("llama"),
          text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("no_vocab"),
          text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5),
          text("llama.rope.freq_base") + struct.pack("<If", 6, 500000.0)]
    for key, value in [("vocab_size", n_vocab), ("context_length", 1 << 20), ("embedding_length", n_embd), ("block_count", n_layer),
                       ("feed_forward_length", n_ff), ("attention.head_count", N_HEAD), ("attention.head_count_kv", N_HEAD_KV),
                       ("attention.key_length", HEAD_DIM), ("attention.value_length", HEAD_DIM),
                       ("rope.dimension_count", HEAD_DIM)]:
        kv.append(text(f"llama.{key}") + struct.pack("<II", 4, value))

    tensors = [("token_embd", (n_embd, n_vocab), kind), ("output_norm", (n_embd,), F32), ("output", (n_embd, n_vocab), kind)]
    for i in range(n_layer):
        tensors += [(f"blk.{i}.{name}", shape, of) for name, shape, of in [
            ("attn_norm", (n_embd,), F32), ("attn_q", (n_embd, N_HEAD * HEAD_DIM), kind),
            ("attn_k", (n_embd, N_HEAD_KV * HEAD_DIM), kind), ("attn_v", (n_embd, N_HEAD_KV * HEAD_DIM), kind),
            ("attn_output", (N_HEAD * HEAD_DIM, n_embd), kind), ("ffn_norm", (n_embd,), F32),
            ("ffn_gate", (n_embd, n_ff), kind), ("ffn_up", (n_embd, n_ff), kind), ("ffn_down", (n_ff, n_embd), kind)]]

    head, at = b"", 0
    for name, shape, of in tensors:
        head += text(name + ".weight") + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", of, at)
        at += tensor_bytes(shape, of)
        at += -at % 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)) + b"".join(kv) + head
    head += bytes(-len(head) % 32)

    needed, free = len(head) + at, shutil.disk_usage(path.parent).free
    if needed + (1 << 30) > free:
        raise SystemExit(f"{path.parent}: the model takes {needed / 1e9:.1f} GB, of which {free / 1e9:.1f} GB are free (and 1 GiB "
                         "should stay so): give another --folder, or fewer --layers")
    cut = {of: fill(of) for of in {t[2] for t in tensors}}
    with open(path, "wb") as f:
        f.write(head)
        for _, shape, of in tensors:
            n = tensor_bytes(shape, of)
            whole, rest = divmod(n, len(cut[of]))
            for _ in range(whole):
                f.write(cut[of])
            f.write(cut[of][:rest])
            f.write(bytes(-n % 32))
    return sum(tensor_bytes(shape, of) for name, shape, of in tensors if name != "token_embd")


def write_attention(path, n_layer):
    return write(path, n_layer, n_embd=256, n_ff=256, n_vocab=256, kind=F16)


def write_8b(path, n_layer):
    return write(path, n_layer, n_embd=4096, n_ff=14336, n_vocab=128256, kind=Q4_0)
