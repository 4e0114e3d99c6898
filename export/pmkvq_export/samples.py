"""Text to token windows, and the positions that they are given."""
from pathlib import Path

import torch

from .errors import ExportError


def read_text(path):
    """The bytes of a text file."""
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise ExportError(f"--text {path}: {e.strerror}") from None


def tokens(text, tokenizer):
    """Token ids (a list) of the bytes `text`; without a tokenizer the bytes themselves."""
    if tokenizer is None:
        return list(text)
    try:
        text = text.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ExportError(f"--text: not UTF-8 at byte {e.start}; convert it first") from None
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def windows(ids, length, most, first=None):
    """Windows of `length` tokens that don't overlap, at most `most`, spread evenly over the text. With `first` each
    window begins with that token (and takes one less of the text).

    Returns a list of int64 tensors [1, length]. Raises ExportError when the text is shorter than one window.
    """
    lead = [] if first is None else [first]
    body = length - len(lead)
    there = len(ids) // body
    if there == 0:
        raise ExportError(f"--text has {len(ids)} tokens, less than one window of {body}: give more text or a smaller "
                          "--length")
    n = min(there, most)
    starts = [i * there // n * body for i in range(n)]
    return [torch.tensor([lead + ids[s:s + body]]) for s in starts]


def stretch(length, effective_length=None, rope_stretch=None):
    """The step between positions: positional interpolation (PM-KVQ, arXiv 2505.18610, eq. 12). With a step of s, a window
    of `length` tokens stands at positions 0, s, 2s, ... and spans the distances of a context of s * length tokens."""
    if effective_length is None:
        return rope_stretch or 1
    if effective_length % length or effective_length < length:
        raise ExportError(f"--effective-length {effective_length} is not a multiple of the window of {length} tokens "
                          "(--length)")
    return effective_length // length


def positions(length, step):
    """int64 [1, length]: 0, step, 2 * step, ..."""
    return (torch.arange(length) * step)[None]
