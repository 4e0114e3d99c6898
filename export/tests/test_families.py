"""One hook for all: K, V and gradients are found in each family, and compared with another way to them (by_hand.py)."""
import gc

import pytest
import torch

import by_hand
import families
from pmkvq_export.key_scales import largest_keys, search
from pmkvq_export.sensitivity import measure

BITS = [8, 4, 2, 1]


@pytest.mark.parametrize("kernel", ["eager", "auto"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_same_as_by_hand(family, kernel):
    model, samples = families.make(family), families.samples()
    taylor, _ = measure(model, samples, widths=BITS, kernel=kernel)
    table = taylor.table()
    assert list(table) == families.KEPT[family]
    assert set(taylor.shapes.values()) == {(2, 32, 32)}
    for j, bits in enumerate(BITS):
        expected = by_hand.sensitivities(model, samples, bits, group=32)
        for side in "kv":
            assert [table[il][side][j] for il in table] == pytest.approx([expected[side][il] for il in table], rel=2e-4)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_key_maxima_by_hand(family):
    """Pairs, and K after RoPE and after the key norms that some have."""
    model, samples = families.make(family), families.samples()
    maxima = largest_keys(model, samples)
    hand, seen = by_hand.ByHand(model), []
    for ids in samples:
        hand.run(ids)
        seen.append(hand.seen["k"])
    for il, m in maxima.items():
        for head in range(2):
            for i in range(16):
                both = torch.stack([k[il][0, head, :, [i, i + 16]] for k in seen])
                assert m[head, i] == m[head, i + 16] == pytest.approx(both.abs().max().item(), rel=1e-5)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_factors_change_nothing_by_themselves(family):
    """K divided and Q multiplied leaves attention as it is, and a factor that a whole KV head shares leaves its codes as
    they are: the error is that without factors. The two KV heads differ, so each must meet its own query heads."""
    model, samples = families.make(family), families.samples(1)
    maxima = {il: torch.tensor([[3.0], [0.2]]).expand(2, 32) for il in families.KEPT[family]}
    _, error = search(model, samples, maxima, width=4)
    for without, chosen in error.values():
        assert chosen == pytest.approx(without, rel=1e-2)


def test_gradient_is_a_slope():
    """The gradient that by_hand finds is what the loss does when one value of K or V changes (central differences)."""
    model, (ids,) = families.make("llama"), families.samples(1)
    hand, h = by_hand.ByHand(model), 2e-2
    hand.gradients(ids)
    loss = hand.run(ids)
    zeros = {(side, il): z for side in "kv" for il, z in enumerate(hand.zeros[side])}
    grads = dict(zip(zeros, torch.autograd.grad(loss, list(zeros.values()))))
    with torch.no_grad():
        for key, grad in grads.items():
            for at in grad.abs().flatten().topk(3).indices:
                shift = torch.zeros(grad.numel())
                shift[at] = h
                up, down = (hand.run(ids, shift={key: s.view_as(grad)}).item() for s in (shift, -shift))
                assert (up - down) / (2 * h) == pytest.approx(grad.flatten()[at].item(), rel=0.02), key


@pytest.mark.parametrize("family", families.FAMILIES)
def test_bfloat16(family):
    """Near the float32 numbers: the same text, weights and activations with 8 bits of mantissa."""
    samples = families.samples()
    full = measure(families.make(family), samples, widths=[4])[0].table()
    half = measure(families.make(family).bfloat16(), samples, widths=[4])[0].table()
    for il in full:
        for side in "kv":
            assert half[il][side] == pytest.approx(full[il][side], rel=0.1)


def test_positions_that_are_stepped():
    """A step of 4 is a model whose rotary angles grow four times as fast (linear RoPE scaling by 1/4), and no token loses
    sight of another: transformers takes positions with gaps for packed texts unless a mask is given."""
    samples = families.samples()
    stepped = measure(families.make("llama"), samples, step=4, widths=[4])
    scaled = measure(families.make("llama", rope_parameters={"rope_type": "linear", "factor": 0.25, "rope_theta": 10000.0}),
                     samples, widths=[4])
    plain = measure(families.make("llama"), samples, widths=[4])
    assert stepped[1] == pytest.approx(scaled[1], rel=1e-5)
    for il, sides in stepped[0].table().items():
        assert sides["k"] == pytest.approx(scaled[0].table()[il]["k"], rel=1e-3)
        assert sides["k"] != pytest.approx(plain[0].table()[il]["k"], rel=1e-2)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_recompute(family):
    samples = families.samples()
    kept = measure(families.make(family, attention_dropout=0.5), samples)[0].table()
    model, runs = families.make(family, attention_dropout=0.5), []
    model.model.layers[0].self_attn.register_forward_hook(lambda *args: runs.append(1))
    assert measure(model, samples, recompute=True)[0].table() == kept
    assert len(runs) == 2 * len(samples)


def test_one_graph_at_a_time():
    """Nothing of a sample's graph, and no gradient, is alive when the next begins."""
    alive = []

    def progress(i, loss):
        gc.collect()
        alive.append([t.shape for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and (t.grad_fn or t.grad is not None)])

    measure(families.make("qwen3"), families.samples(3), progress=progress)
    assert alive == [[], [], []]


def test_the_model_is_left_as_it_was():
    model, (ids,) = families.make("gemma3_text"), families.samples(1)
    with torch.no_grad():
        before = model(ids).logits
        implementation = model.config._attn_implementation
        with torch.enable_grad():
            measure(model, [ids])
        assert model.config._attn_implementation == implementation
        assert torch.equal(model(ids).logits, before)
