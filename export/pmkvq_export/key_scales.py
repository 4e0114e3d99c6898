"""SmoothAttention: factors that take outlier channels out of K before it is quantized (QServe, arXiv 2405.04532, as
PM-KVQ, arXiv 2505.18610, uses it, with positional interpolation). K is divided by them and Q multiplied, after RoPE, so scores stay what they are.

The factor of a channel is m^alpha, where m is the largest |K| of its rotary pair over all tokens. alpha is chosen per
layer, out of 1.0, 0.95, ... 0.05, by the squared error of the attention's output when K and V are quantized.
"""
import torch

from .arch import rotary_dims
from .capture import captured
from .errors import ExportError
from .quantizer import group_size, quantize
from .sensitivity import loss_of

STEPS = 20
LIMITS = (1e-4, 1e4)    # of a factor; as the reference has them


def pair_maxima(keys, rotary):
    """The largest |K| of each rotary pair, at both of its dimensions; of dimensions that aren't rotated their own.

    keys float [1, n_head_kv, T, head_dim], rotary pair i at dims i and i + rotary/2. Returns float32 [n_head_kv, head_dim].
    """
    m = keys[0].float().abs().amax(dim=1)
    pairs = torch.maximum(m[:, :rotary // 2], m[:, rotary // 2:rotary])
    return torch.cat([pairs, pairs, m[:, rotary:]], dim=-1)


def factors(maxima, alpha):
    """m^alpha within LIMITS; shapes as `maxima`."""
    return (maxima ** alpha).clamp(*LIMITS)


def output_of(module, heads):
    """The output of an attention module from that of its heads ([1, T, n_head, head_dim_v] -> [1, T, n_embd])."""
    flat = heads.flatten(-2)
    for name in ("o_proj", "out_proj", "dense", "c_proj"):
        projection = getattr(module, name, None)
        if projection is not None:
            return projection(flat)
    raise ExportError(f"{type(module).__name__}: no output projection under a name that is known (o_proj, out_proj, dense, "
                      "c_proj)")


@torch.no_grad()
def largest_keys(model, samples, step=1, kernel="auto", progress=None):
    """{il: float32 [n_head_kv, head_dim]}, the largest |K| of each rotary pair over all samples (Hugging Face's order)."""
    config, maxima = model.config.get_text_config(), {}

    def see(il, module, q, k, v, attend):
        if not k.isfinite().all():
            raise ExportError(f"layer {il}: K is not finite. In bfloat16 try --dtype float32; otherwise look at the "
                              "checkpoint")
        m = pair_maxima(k, rotary_dims(config, k.shape[-1]))
        maxima[il] = torch.maximum(maxima[il], m) if il in maxima else m

    with captured(model.eval(), see, kernel):
        for i, ids in enumerate(samples):
            loss = loss_of(model, ids, step).item()
            if progress:
                progress(i, loss)
    if not maxima:
        raise ExportError("no layer of this model has a progressive cache: there is nothing to calibrate")
    return dict(sorted(maxima.items()))


@torch.no_grad()
def search(model, samples, maxima, width=4, group=128, step=1, kernel="auto", masked=True, progress=None):
    """Choose alpha for each layer: the grid of m^alpha, the least mean squared error of the attention's output.

    K, divided by the factors, and V are quantized at `width` bits; each layer gets what the exact model gives it.
    Returns ({il: alpha}, {il: (error without factors, error with the chosen ones)}), errors as means over the samples.
    Of equal errors the largest alpha wins.

    masked=False, with kernel="eager", lets every token see all others, in this search and in what the layers get. The
    reference's search does so with eager attention, because it calls its layers without a mask; the golden factors were
    made that way.
    """
    alphas = [1 - n / STEPS for n in range(STEPS)]
    errors = {il: torch.zeros(STEPS + 1, dtype=torch.float64) for il in maxima}     # the last is alpha = 0: no factors

    def see(il, module, q, k, v, attend):
        exact = output_of(module, attend(q, k, v)).float()
        rows = q.shape[1] // k.shape[1]
        group_k, group_v = group_size(k.shape[-1], group), group_size(v.shape[-1], group)
        v = quantize(v.float(), width, group_v).to(v.dtype)
        for n, alpha in enumerate([*alphas, 0.0]):
            s = factors(maxima[il], alpha)[None, :, None]
            small = quantize(k.float() / s, width, group_k).to(k.dtype)
            large = (q.float() * s.repeat_interleave(rows, dim=1)).to(q.dtype)
            output = output_of(module, attend(large, small, v)).float()
            errors[il][n] += (output - exact).square().mean().item()

    with captured(model.eval(), see, kernel, masked):
        for i, ids in enumerate(samples):
            loss = loss_of(model, ids, step).item()
            if progress:
                progress(i, loss)
    chosen = {il: int(e[:STEPS].argmin()) for il, e in errors.items()}
    return ({il: alphas[n] for il, n in chosen.items()},
            {il: (errors[il][STEPS].item() / len(samples), errors[il][n].item() / len(samples)) for il, n in chosen.items()})
