import json
from pathlib import Path

import pytest
import torch

from pmkvq_export.errors import ExportError
from pmkvq_export.quantizer import group_size, quantize

ROWS = json.loads((Path(__file__).parents[2] / "tests/golden/quantizer_group128.json").read_text())


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_golden_rows(bits):
    """Codes of the reference's quantizer. It keeps a scale at 1e-5 or more, which no sensible K or V comes near."""
    checked = 0
    for row in ROWS:
        scale, zero = (x[0] if isinstance(x, list) else x for x in (row[f"scale{bits}"], row[f"zero{bits}"]))
        x = torch.tensor(row["x"], dtype=torch.float32)
        if scale <= 1.0001e-5 and x.max() > x.min():
            continue
        expected = torch.tensor(row[f"codes{bits}"], dtype=torch.float32) * torch.tensor(scale) - torch.tensor(zero)
        assert torch.equal(quantize(x, bits, 128), expected)
        checked += 1
    assert checked >= 40


def test_groups_are_apart():
    x = torch.randn(3, 64)
    assert torch.equal(quantize(x, 4, 32), torch.cat([quantize(x[:, :32], 4, 32), quantize(x[:, 32:], 4, 32)], dim=1))


def test_one_bit_gives_the_ends():
    y = quantize(torch.tensor([[-2.0] + [0.4] * 7 + [0.6] * 7 + [3.0]]), 1, 16)
    assert set(y.flatten().tolist()) == {-2.0, 3.0}


def test_constant_group_is_exact():
    x = torch.full((2, 32), -1.25)
    for bits in (16, 8, 4, 2, 1):
        assert torch.equal(quantize(x, bits, 32), x)


def test_sixteen():
    x = torch.randn(4, 128)
    assert torch.equal(quantize(x, 16, 128, "f16"), x.half().float())
    assert torch.equal(quantize(x, 16, 128), quantize(x, 16, 128).bfloat16().float())


@pytest.mark.parametrize("dim, most, size", [(128, 128, 128), (64, 128, 64), (80, 128, 80), (192, 128, 96), (576, 128, 96),
                                             (256, 128, 128), (128, 32, 32), (96, 64, 48)])
def test_group_size(dim, most, size):
    assert group_size(dim, most) == size


def test_no_group():
    with pytest.raises(ExportError, match="head dimension 72"):
        group_size(72, 128)
