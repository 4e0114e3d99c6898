import pytest

import by_hand
import golden
import mistake


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_crossed_gradients_give_the_reference_output(case, bits):
    step = golden.CASES[case]
    crossed = mistake.crossed(golden.model(), golden.samples(), bits, step)
    expected = golden.sensitivity("reference_output", case)
    straight = by_hand.sensitivities(golden.model(), golden.samples(), bits, step)
    correct = golden.sensitivity("correct", case)
    for side in "kv":
        assert crossed[side] == pytest.approx(expected[side][bits], rel=2e-4)
        assert straight[side] == pytest.approx(correct[side][bits], rel=2e-4)


@pytest.mark.parametrize("case", golden.CASES)
def test_it_turns_the_order_of_the_layers_round(case):
    for side in "kv":
        assert mistake.ranks(golden.sensitivity("correct", case)[side][4]) == [0, 1, 2, 3]
        assert mistake.ranks(golden.sensitivity("reference_output", case)[side][4]) == [3, 2, 1, 0]
