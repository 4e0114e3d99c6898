"""Groups of values along the head dimension, stored as codes between the group's minimum and maximum.

The definition is the cache's (docs/plan.md, "group"; PM-KVQ, arXiv 2505.18610, section 3): asymmetric, one pair of
(minimum, maximum) per token and group, codes rounded half to even.
"""
import torch

from .errors import ExportError

WIDTHS = (16, 8, 4, 2, 1)


def group_size(head_dim, most):
    """The largest multiple of 16 up to `most` that divides `head_dim`, the rule of docs/plan.md.

    Raises ExportError where there is none: the cache leaves such a side at 16 bits, so it has no price.
    """
    for size in range(most - most % 16, 0, -16):
        if head_dim % size == 0:
            return size
    raise ExportError(f"head dimension {head_dim}: no multiple of 16 up to {most} divides it, so the cache keeps it at "
                      "16 bits and there is nothing to calibrate")


def quantize(x, bits, group, sixteen="bf16"):
    """What a cache of `bits` bits gives back for `x`.

    x        float32 [.., head_dim]
    bits     16, 8, 4, 2 or 1
    group    values that share a minimum and a maximum; divides head_dim
    sixteen  what 16 bits are. "bf16": codes of 16 bits whose values are then rounded to bfloat16, as the reference
             implementation has it (the golden sensitivities at 16 bits are that rounding). "f16": the value rounded
             to a 16-bit IEEE float, which is what pmkvq's cache holds

    Returns float32 of the shape of `x`.
    """
    if bits == 16 and sixteen == "f16":
        return x.half().float()
    groups = x.unflatten(-1, (-1, group))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    scale = (high - low) / (2 ** bits - 1)
    scale = torch.where(scale > 0, scale, 1.0)      # a constant group has code 0 throughout, at any scale
    code = ((groups - low) / scale).round().clamp(0, 2 ** bits - 1)
    # `code * scale + low` in float32 like the reference: at 16 bits its rounding is part of the golden numbers
    y = (code * scale + low).flatten(-2)
    return y.bfloat16().float() if bits == 16 else y
