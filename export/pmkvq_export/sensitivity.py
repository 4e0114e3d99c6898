"""The paper's sensitivities: what the loss would change, to first order, if K or V of a layer were stored with fewer bits.

PM-KVQ (arXiv 2505.18610), section 4.2: for each layer, side and width the mean over all elements of
|(Q(x) - x) * dL/dx|, and then over the samples; L is the language-modelling loss (nats per token). K is taken after RoPE.
Every token is quantized: there are no sinks and no window.
"""
import math
from functools import partial

import torch
import torch.nn.functional as F

from transformers.modeling_layers import GradientCheckpointingLayer

from .capture import captured
from .errors import ExportError
from .quantizer import WIDTHS, group_size, quantize
from .samples import positions

METHOD = "gradient: mean |(Q(x) - x) * dL/dx|"


class Taylor:
    """Collects the sums while gradients arrive.

    Each K and V gets a hook of its own that knows its layer, so a gradient can't be taken for another layer's (the
    reference implementation collects two lists, which run in opposite order: docs/export.md). A gradient is reduced to
    its numbers as soon as it arrives and never kept.
    """

    def __init__(self, widths=WIDTHS, group=128, sixteen="bf16"):
        self.widths, self.group, self.sixteen = list(widths), group, sixteen
        self.sums = {}      # il -> side -> [sum over the samples, per width]
        self.shapes = {}    # il -> (n_head_kv, head_dim_k, head_dim_v)
        self.samples = 0
        self.arrived = set()

    def see(self, il, module, q, k, v, attend):
        if not torch.is_grad_enabled():
            return
        self.shapes[il] = (k.shape[1], k.shape[-1], v.shape[-1])
        for side, x in (("k", k), ("v", v)):
            x.register_hook(partial(self.gradient, il, side, x.detach()))

    @torch.no_grad()
    def gradient(self, il, side, x, grad):
        """x, grad [1, n_head_kv, T, head_dim]: arithmetic in float32, sums in float64, in whatever dtype the model runs."""
        x, grad = x.float(), grad.float()
        if not grad.isfinite().all():
            raise ExportError(f"layer {il}: the gradient of {side.upper()} is not finite. In bfloat16 try --dtype float32; "
                              "otherwise look at the checkpoint or use other text")
        group = group_size(x.shape[-1], self.group)
        row = self.sums.setdefault(il, {}).setdefault(side, [0.0] * len(self.widths))
        for j, bits in enumerate(self.widths):
            row[j] += ((quantize(x, bits, group, self.sixteen) - x) * grad).abs().mean(dtype=torch.float64).item()
        self.arrived.add((il, side))

    def end_of_sample(self):
        missing = {(il, side) for il in self.shapes for side in "kv"} - self.arrived
        if missing:
            il, side = min(missing)
            raise ExportError(f"layer {il}: no gradient reaches {side.upper()}; the loss does not depend on it")
        self.arrived.clear()
        self.samples += 1

    def table(self):
        """{il: {"k": [per width], "v": [..]}}, the mean over the samples. Raises ExportError if all numbers are zero."""
        table = {il: {side: [x / self.samples for x in row] for side, row in sides.items()}
                 for il, sides in sorted(self.sums.items())}
        if not any(x for sides in table.values() for row in sides.values() for x in row):
            raise ExportError("all sensitivities are zero: the loss depends on no K and no V. Look at the checkpoint "
                              "(weights that are all zero?)")
        return {il: {"k": sides["k"], "v": sides["v"]} for il, sides in table.items()}


def loss_of(model, ids, step):
    """Mean cross-entropy (nats per token) of the next token over one window, a scalar tensor.

    ids [1, T]; step: distance between positions. The mask is given in full: without one, transformers takes positions
    that don't follow each other for the borders of packed texts, and no token would see another.
    """
    ids = ids.to(model.device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False,
                   position_ids=positions(ids.shape[1], step).to(ids.device)).logits
    return F.cross_entropy(logits[0, :-1].float(), ids[0, 1:])


def measure(model, samples, step=1, widths=WIDTHS, group=128, sixteen="bf16", kernel="auto", recompute=False,
            progress=None):
    """Sensitivities of `model` over `samples` (token windows [1, T]), one window at a time.

    Returns the Taylor with the sums, and the loss of each sample. No more than one window's graph is alive. The model's
    parameters are frozen (requires_grad off). recompute: layers are computed again in the backward pass instead of keeping
    their intermediate results (less memory, more time; the numbers are the same). Raises ExportError where a loss or
    gradient is not finite.
    """
    model.eval().requires_grad_(False)
    if recompute:
        recompute_layers(model)
    taylor, losses = Taylor(widths, group, sixteen), []
    # Nothing but the embeddings' output needs a gradient for a graph to exist from there on.
    entry = model.get_input_embeddings().register_forward_hook(lambda module, args, out: out.requires_grad_(True))
    try:
        with captured(model, taylor.see, kernel):
            for i, ids in enumerate(samples):
                loss = loss_of(model, ids, step)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise ExportError(f"sample {i}: the loss is {losses[-1]}. In bfloat16 try --dtype float32; otherwise look "
                                      "at the checkpoint")
                if not taylor.shapes:
                    break
                loss.backward()
                del loss
                taylor.end_of_sample()
                if progress:
                    progress(i, losses[-1])
    finally:
        entry.remove()
        model.eval()
    if not taylor.shapes:
        raise ExportError("no layer of this model has a progressive cache: there is nothing to calibrate")
    return taylor, losses


def recompute_layers(model):
    """Switch gradient checkpointing on, which transformers does only for modules in training mode: of the layers
    themselves and nothing in them, so that no dropout comes alive."""
    # the second name is that of older releases
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as e:
        raise ExportError(f"--recompute: {e}") from None
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
