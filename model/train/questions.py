"""Write the shipped documents: held-out text that nobody trained on, with assignments and questions between.

  python3 model/train/questions.py        (writes questions.jsonl, demo.txt and demo.questions.json into model/)

Each line of questions.jsonl is one document of at most 16,300 bytes (= tokens):
  {"text", "questions": [{"answer_start", "answer", "key_at", "kind"}]}
answer_start and key_at are byte offsets into text; kind is "recall" (the value of a key) or "reasoning" (a pointer
followed, a sum worked out). For a sum, key_at is the older of its two keys. The answers stand in the text, so both
teacher forcing and generation can be scored.
"""
import json
from pathlib import Path

import numpy as np

import data

MODEL = Path(__file__).resolve().parent.parent
SEED, DOCUMENTS, BYTES = 20261124, 8, 16300


def main():
    text = data.Reader((MODEL / "heldout.txt").read_text(encoding="ascii"))
    docs = []
    for i in range(DOCUMENTS + 1):
        d = data.document(np.random.default_rng((SEED, i)), BYTES, text, text_share=0.76, first_share=0.45,
                          ask_share=0.12, max_keys=200, once=True)
        for q in d.questions:
            s = q["answer_start"]
            assert d.text[s:s + len(q["answer"])] == q["answer"] and d.text[q["key_at"] - 1] == "@"
        docs.append({"text": d.text, "questions": d.questions})
    (MODEL / "questions.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs[:-1]), encoding="ascii")
    (MODEL / "demo.txt").write_text(docs[-1]["text"], encoding="ascii")
    (MODEL / "demo.questions.json").write_text(json.dumps(docs[-1]) + "\n", encoding="ascii")
    for d in docs:
        far = sum(q["kind"] == "recall" and q["answer_start"] - q["key_at"] > 4000 for q in d["questions"])
        print(f"{len(d['text'])} bytes, {d['text'].count('@')} '@', {len(d['questions'])} questions, "
              f"{far} recall questions more than 4,000 bytes back")


if __name__ == "__main__":
    main()
