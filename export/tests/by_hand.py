"""The same sensitivities by another way, to compare with: no attention interface, no tensor hooks, eager attention.

Zeros that want a gradient are added to K where RoPE hands it over and to V where its projection does; the gradient of a
zero is that of the sum. Layers are told apart by the order of calls in the forward pass. Quantization is written in
numpy. It works for models whose file has `apply_rotary_pos_emb` and `v_proj`.
"""
import sys

import numpy as np
import torch


def quantized(x, bits, group):
    """x float32 [.., d] (numpy); the reference's definition (quantizer.py of the golden data's README)."""
    y = x.reshape(-1, group).astype(np.float32)
    zero = -y.min(axis=1, keepdims=True)
    scale = (y.max(axis=1, keepdims=True) + zero) / np.float32(2 ** bits - 1)
    return (np.rint((y + zero) / np.where(scale > 0, scale, 1)) * scale - zero).reshape(x.shape)


class ByHand:
    def __init__(self, model):
        self.model, self.layers = model, [m for m in model.modules() if hasattr(m, "v_proj") and hasattr(m, "layer_idx")]
        self.file = sys.modules[type(self.layers[0]).__module__]

    def run(self, ids, position_ids=None, shift=None):
        """The model's own loss. Afterwards `seen[side][il]` holds K [1, n_head_kv, T, d] and V [1, T, n_head_kv * d], and
        `zeros[side][il]` what was added to them: `shift[(side, il)]` if it is given."""
        self.seen, self.zeros = {"k": [], "v": []}, {"k": [], "v": []}
        rope, model = self.file.apply_rotary_pos_emb, self.model

        def add(side, x):
            given = (shift or {}).get((side, len(self.seen[side])))
            zero = torch.zeros_like(x, requires_grad=True) if given is None else given
            self.seen[side].append(x.detach())
            self.zeros[side].append(zero)
            return x + zero

        def rotated(q, k, *args, **kwargs):
            q, k = rope(q, k, *args, **kwargs)
            return q, add("k", k)

        handles = [m.v_proj.register_forward_hook(lambda module, args, out: add("v", out)) for m in self.layers]
        before = model.config._attn_implementation
        self.file.apply_rotary_pos_emb = rotated
        model.set_attn_implementation("eager")
        try:
            return model(input_ids=ids, labels=ids, position_ids=position_ids, attention_mask=torch.ones_like(ids),
                         use_cache=False).loss
        finally:
            self.file.apply_rotary_pos_emb = rope
            model.set_attn_implementation(before)
            for h in handles:
                h.remove()

    def gradients(self, ids, position_ids=None):
        """{side: [(x, dL/dx) per layer]} as numpy float32 [.., head_dim]."""
        loss, out = self.run(ids, position_ids), {}
        for side in "kv":
            grads = torch.autograd.grad(loss, self.zeros[side], retain_graph=True)
            out[side] = []
            for m, x, g in zip(self.layers, self.seen[side], grads):
                shape = (-1, m.head_dim)
                out[side].append((x.float().reshape(shape).numpy(), g.float().reshape(shape).numpy()))
        return out


def sensitivities(model, samples, bits, step=1, group=128, pair=lambda il: il):
    """{side: [per layer]}, the mean over the samples. pair(il): the layer whose gradient layer il gets."""
    hand, total = ByHand(model), {}
    for ids in samples:
        found = hand.gradients(ids, None if step == 1 else (torch.arange(ids.shape[1]) * step)[None])
        for side, layers in found.items():
            row = total.setdefault(side, np.zeros(len(layers)))
            for il, (x, _) in enumerate(layers):
                grad = layers[pair(il)][1]
                row[il] += np.abs((quantized(x, bits, group) - x) * grad).mean(dtype=np.float64) / len(samples)
    return total
