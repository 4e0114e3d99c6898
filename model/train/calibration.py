"""Write model/calibration.txt: four documents of the training distribution, 16,384 bytes each, one after the other.

  python3 model/train/calibration.py --corpus <folder from corpus.py>

Nothing that is held out is in it, and no document of questions.jsonl.
"""
import argparse
from pathlib import Path

import numpy as np

import data

SEED, DOCUMENTS, BYTES = 20261124, 4, 16384


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--corpus", type=Path, required=True)
    ap.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "calibration.txt")
    a = ap.parse_args()
    text = data.Text.training(a.corpus)
    # a document ends with a whole line, a little short of what was asked for
    made = [data.document(np.random.default_rng((SEED, i)), BYTES + 512, text, text_share=0.76, first_share=0.45, ask_share=0.12,
                          max_keys=200, once=True).text[:BYTES] for i in range(DOCUMENTS)]
    assert all(len(d) == BYTES and d.isascii() for d in made)
    a.out.write_text("".join(made))


if __name__ == "__main__":
    main()
