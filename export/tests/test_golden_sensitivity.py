"""The golden model's sensitivities, to float32 accuracy.

What that is was measured: against the same computation in float64, the golden numbers are off by up to 2.0e-4 (relative;
effective length 384, layer 0: the loss of a random model answers to its first layer's rounding), ours by up to 9.1e-5.
"""
import functools

import pytest
import torch

import golden
from pmkvq_export.quantizer import WIDTHS
from pmkvq_export.sensitivity import measure


@functools.cache
def ours(case, kernel, dtype=torch.float32):
    taylor, losses = measure(golden.model(dtype), golden.samples(), golden.CASES[case], kernel=kernel)
    return taylor.table(), losses


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("case", golden.CASES)
def test_correct(case, kernel):
    table, losses = ours(case, kernel)
    assert losses == pytest.approx(golden.losses(case), rel=1e-6)
    correct = golden.sensitivity("correct", case)
    assert list(table) == list(range(golden.N_LAYER))
    for side in "kv":
        for j, bits in enumerate(WIDTHS):
            row = [table[il][side][j] for il in table]
            assert row == pytest.approx(correct[side][bits], rel=2e-4), (side, bits)


@pytest.mark.parametrize("case", golden.CASES)
def test_no_worse_than_the_golden_numbers(case):
    """Measured from float64, the largest error of our float32 is not above that of the golden float32."""
    exact, _ = ours(case, "eager", torch.float64)
    table, _ = ours(case, "eager")
    correct = golden.sensitivity("correct", case)
    errors = {"golden": 0.0, "ours": 0.0}
    for side in "kv":
        for j, bits in enumerate(WIDTHS):
            for il in table:
                truth = exact[il][side][j]
                errors["golden"] = max(errors["golden"], abs(correct[side][bits][il] / truth - 1))
                errors["ours"] = max(errors["ours"], abs(table[il][side][j] / truth - 1))
    assert errors["ours"] <= errors["golden"], errors


def test_sixteen_bits_are_bfloat16_in_the_reference():
    """Only the rounding to bfloat16 gives the golden numbers at 16 bits. An f16 cache, pmkvq's own, has three bits more of
    mantissa and loses about an eighth."""
    f16 = measure(golden.model(), golden.samples(), widths=[16], sixteen="f16")[0].table()
    correct = golden.sensitivity("correct", "None")
    for side in "kv":
        for il in f16:
            assert 1 / 9 < f16[il][side][0] / correct[side][16][il] < 1 / 7


def test_same_numbers_twice():
    a, b = (measure(golden.model(), golden.samples())[0].table() for _ in range(2))
    assert a == b
