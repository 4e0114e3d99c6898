import pytest

import golden
from pmkvq_export.key_scales import factors, largest_keys, search


@pytest.mark.parametrize("case", golden.CASES)
def test_golden(case):
    """The golden factors were made with eager attention, where the reference's search masks nothing: hence masked=False.
    `max_keys` come from an ordinary, masked pass."""
    step, expected = golden.CASES[case], golden.key_scales(case)
    model, samples = golden.model(), golden.samples()
    maxima = largest_keys(model, samples, step)
    alpha, _ = search(model, samples, maxima, 4, step=step, kernel="eager", masked=False)
    assert list(alpha.values()) == expected["alpha"]
    for il, m in maxima.items():
        head = m[0].tolist()
        assert head[:64] == head[64:]
        assert head[:64] == pytest.approx(expected["max_keys"][il], rel=1e-5)
        assert factors(m, alpha[il])[0, :64].tolist() == pytest.approx(expected["rep_scales"][il], rel=1e-5)


@pytest.mark.parametrize("case", golden.CASES)
def test_factors_lower_the_error(case):
    step = golden.CASES[case]
    model, samples = golden.model(), golden.samples()
    _, error = search(model, samples, largest_keys(model, samples, step), 4, step=step)
    for il, (before, after) in error.items():
        assert after < before / 3, (il, before, after)
