"""The golden data: what the authors' reference implementation yields on a small Llama (golden/calibration_llama)."""
import json
from pathlib import Path

import torch

from pmkvq_export.checkpoint import load_model

FOLDER = Path(__file__).parent / "golden/calibration_llama"
MODEL = FOLDER / "model"
N_LAYER = 4
CASES = {"None": 1, "384": 4}       # effective length -> step between positions (windows of 96 tokens)


def samples():
    return [torch.tensor([ids]) for ids in json.loads((FOLDER / "input_ids.json").read_text())]


def sensitivity(which, case):
    """{side: {width: [per layer]}}; which: "correct" or "reference_output"."""
    table = json.loads((FOLDER / "sensitivity.json").read_text())[which][case]
    return {side: {int(w): row for w, row in table[side].items()} for side in "kv"}


def losses(case):
    return json.loads((FOLDER / "sensitivity.json").read_text())["correct"][case]["losses"]


def key_scales(case):
    return json.loads((FOLDER / "key_scales.json").read_text())[case]


def model(dtype=torch.float32):
    return load_model(MODEL).to(dtype)
