"""What the model reads: ordinary text, and documents whose answers a program can check.

Line forms of a document (keys are 4 upper-case letters, each assigned once in a document):

  @KQZM=4821            an assignment: a number of 2 to 4 digits
  @WXYZ=KQZM            an assignment that points at another key
  ?KQZM=4821            recall: the value of a key assigned earlier
  ?WXYZ=KQZM=4821       two steps written out: follow the pointer, then recall
  +ABCD=12+EFGH=34=46   three steps written out: recall, recall, add

Between them lie lines of ordinary text (the haystack).
"""
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

CONTEXT = 16384
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Text:
    """Ordinary text to draw pieces from; kinds are drawn with fixed weights."""

    def __init__(self, parts):
        self.parts = [(w, t) for w, t in parts]
        total = sum(w for w, _ in self.parts)
        self.p = [w / total for w, _ in self.parts]

    @classmethod
    def training(cls, folder: Path):
        return cls([(w, (folder / f"{n}.txt").read_text(encoding="ascii"))
                    for n, w in (("prose", 0.6), ("docs", 0.15), ("code", 0.25))])

    def piece(self, rng, n):
        t = self.parts[rng.choice(len(self.parts), p=self.p)][1]
        i = int(rng.integers(0, max(1, len(t) - n)))
        return t[i:i + n]


class Reader:
    """Reads one text from front to back, whole lines at a time: the haystack of the shipped documents."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def piece(self, _rng, n):
        end = self.text.find("\n", self.at + n)
        if end < 0:
            raise ValueError("the held-out text is used up: ask for fewer documents")
        s, self.at = self.text[self.at:end], end + 1
        return s


@dataclass
class Document:
    text: str = ""
    weight: list = field(default_factory=list)     # per byte: 0 none, 1 text, 2 answer
    questions: list = field(default_factory=list)

    def add(self, s, w):
        self.text += s
        self.weight += [w] * len(s)


def document(rng, size, text, text_share, first_share=0.0, ask_share=0.5, reasoning=0.35, max_keys=None,
             once=False, text_len=(40, 260)):
    """One document of at most `size` bytes.

    text_share   share of the bytes that is haystack
    first_share  share of the document after which no new keys are assigned is 1 - first_share (0: never stops)
    ask_share    chance that a line asks rather than assigns
    reasoning    chance that a question is one of the written-out kinds
    once         ask for a key at most once, so that its answer stands nowhere but in its assignment
    """
    d, keys, taken = Document(), [], set()      # keys: (name, value, byte offset, points at index or None)
    open_, small = [], []                       # indices of keys to ask for; of those with two-digit values
    text_bytes = 0
    while True:
        n = len(d.text)
        late = n > size * (1 - first_share)
        full = max_keys is not None and len(keys) >= max_keys
        done = (late or full) and not open_     # nothing left to ask for, and no new keys either
        if text_share > 0 and (done or text_bytes < text_share * (n + 60)) and (done or rng.random() < 0.7):
            k = int(rng.integers(*text_len))
            s = text.piece(rng, k).strip("\n") + "\n"
            if n + len(s) > size:
                break
            d.add(s, 1)
            text_bytes += len(s)
            continue
        if n + 30 > size:
            break
        if len(keys) >= 2 and open_ and (late or full or rng.random() < ask_share):
            ask(rng, d, keys, open_, small, reasoning, once)
        elif late or full:
            break
        else:
            while True:
                name = "".join(LETTERS[i] for i in rng.integers(0, 26, 4))
                if name not in taken:
                    break
            taken.add(name)
            d.add("@", 1)
            at = len(d.text)
            plain = [i for i, k in enumerate(keys) if k[3] is None]
            if plain and rng.random() < 0.35 * reasoning:
                target = plain[int(rng.integers(len(plain)))]
                value, points = keys[target][0], target
            else:
                digits = int(rng.choice([2, 3, 4], p=[0.4, 0.2, 0.4]))
                value, points = str(int(rng.integers(10 ** (digits - 1), 10 ** digits))), None
                if digits == 2:
                    small.append(len(keys))
            open_.append(len(keys))
            d.add(name, 0)
            d.add("=", 1)
            d.add(value, 0)
            d.add("\n", 1)
            keys.append((name, value, at, points))
    return d


def ask(rng, d, keys, open_, small, reasoning, once):
    """Append one question. Half of them take any key with equal chance, the others lean to the oldest."""
    def pick(indices):
        n = len(indices)
        i = rng.integers(n) if rng.random() < 0.5 else int(n * rng.random() ** 2)
        return indices[int(i)]

    def used(i):
        if once:
            for pool in (open_, small):
                if i in pool:
                    pool.remove(i)

    def answer(s, key, kind):
        d.questions.append({"answer_start": len(d.text), "answer": s, "key_at": key[2], "kind": kind})
        d.add(s, 2)

    if rng.random() < reasoning and len(small) >= 2:
        a = pick(small)
        b = pick([i for i in small if i != a])
        used(a), used(b)
        d.add("+", 1), d.add(keys[a][0], 0), d.add("=", 1)
        answer(keys[a][1], keys[a], "recall")
        d.add("+", 2), d.add(keys[b][0], 0), d.add("=", 1)
        answer(keys[b][1], keys[b], "recall")
        d.add("=", 2)
        answer(str(int(keys[a][1]) + int(keys[b][1])), keys[min(a, b)], "reasoning")
    else:
        i = pick(open_)
        k = keys[i]
        used(i)
        d.add("?", 1), d.add(k[0], 0), d.add("=", 1)
        if k[3] is None:
            answer(k[1], k, "recall")
        else:
            answer(k[1], k, "reasoning")
            d.add("=", 2)
            used(k[3])
            answer(keys[k[3]][1], keys[k[3]], "reasoning")
    d.add("\n", 2)


def to_rows(s, n):
    a = np.frombuffer(s.encode("ascii"), dtype=np.uint8)
    return np.pad(a[:n], (0, max(0, n - len(a))), constant_values=10)


def stretched(rng, n, span=CONTEXT):
    """Increasing positions for n tokens, with jumps, so that a short row shows distances of the whole window."""
    room = int(rng.integers(0, span - n + 1)) if span > n else 0
    jumps = int(rng.integers(1, 9))
    cuts = np.sort(rng.integers(1, n, jumps))
    share = rng.dirichlet(np.ones(jumps + 1)) * room
    pos = np.arange(n, dtype=np.int64)
    pos += int(share[0])
    for c, s in zip(cuts, share[1:]):
        pos[c:] += int(s)
    return pos


def batch(seed, step, rows, n, text, stretch):
    """Tokens [rows, n + 1], weights [rows, n + 1] and positions [rows, n]; a quarter of the rows is text alone,
    and in the long windows most of the bytes of the others are text too (the haystack)."""
    rng = np.random.default_rng((seed, step))
    tok = np.zeros((rows, n + 1), dtype=np.uint8)
    wgt = np.zeros((rows, n + 1), dtype=np.uint8)
    pos = np.tile(np.arange(n, dtype=np.int64), (rows, 1))
    n_text = rows // 4
    for r in range(rows):
        if r < n_text or (rows == 1 and step % 4 == 0):
            tok[r] = to_rows(text.piece(rng, n + 1), n + 1)
            wgt[r] = 1
        else:
            share = float(rng.choice([0.0, 0.3, 0.6, 0.85]))
            if n <= 256:
                share = float(rng.choice([0.0, 0.0, 0.0, 0.4]))
            d = document(rng, n + 1, text, share, first_share=float(rng.choice([0.0, 0.3, 0.5])),
                         ask_share=float(rng.uniform(0.35, 0.65)),
                         max_keys=None if n <= 4096 else int(rng.integers(60, 400)),
                         once=n > 256 and rng.random() < 0.5)
            tok[r] = to_rows(d.text, n + 1)
            wgt[r, :len(d.weight)] = d.weight[:n + 1]
        if rng.random() < stretch:
            pos[r] = stretched(rng, n)
    return tok, wgt, pos
