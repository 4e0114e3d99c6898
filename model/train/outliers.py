"""Write the shipped model with outlier channels in K: the same function, harder to quantize.

  python3 model/train/outliers.py --gguf-py <llama.cpp>/gguf-py --out outliers.gguf [--factor 8] [--pairs 4]

In each layer some rotary pairs of K are multiplied by a factor, and the same pairs of Q divided by it, so that every score
and every answer stays what it was. Needs numpy alone.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

SEED = 20261124


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--gguf-py", type=Path, required=True, help="folder gguf-py of the pinned llama.cpp tree")
    ap.add_argument("--model", type=Path, default=Path(__file__).resolve().parent.parent / "pmkvq-tiny.gguf")
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--factor", type=float, default=8.0, help="a power of two changes no rounding in f16")
    ap.add_argument("--pairs", type=int, default=4, help="rotary pairs of each layer")
    a = ap.parse_args()
    sys.path.insert(0, str(a.gguf_py))
    import gguf

    # the same bytes, with the rows of some tensors scaled in place
    data = bytearray(a.model.read_bytes())
    reader = gguf.GGUFReader(a.model)
    meta = lambda key: reader.fields[key].contents()
    dim = meta("llama.attention.key_length")
    tensors = {t.name: t for t in reader.tensors}
    rng = np.random.default_rng(SEED)
    for i in range(meta("llama.block_count")):
        # pair p is at rows 2p and 2p + 1 of a head, as llama.cpp keeps them
        rows = np.ravel([[2 * p, 2 * p + 1] for p in rng.choice(dim // 2, a.pairs, replace=False)])
        for name, factor in ((f"blk.{i}.attn_k.weight", a.factor), (f"blk.{i}.attn_q.weight", 1 / a.factor)):
            t = tensors[name]
            w = t.data.copy()
            assert w.dtype == np.float16, f"{name}: {w.dtype}"
            for head in range(w.shape[0] // dim):
                w[head * dim + rows] *= np.float16(factor)
            assert np.isfinite(w).all(), f"{name}: too large for f16"
            data[t.data_offset:t.data_offset + w.nbytes] = w.tobytes()
    a.out.write_bytes(data)


if __name__ == "__main__":
    main()
