"""Sees Q, K and V of every attention layer of a model, whatever its class.

transformers' models call their attention through one interface (`AttentionInterface`), with Q and K after RoPE and V
before K and V are repeated for grouped queries: what a cache would hold. A function registered there sees them all.
"""
import sys
from contextlib import contextmanager

from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from .arch import why_left_out
from .errors import ExportError

NAME = "pmkvq_capture"


@contextmanager
def captured(model, see, kernel="auto", masked=True):
    """While this lasts, `see(il, module, q, k, v, attend)` is called for each attention layer with a progressive cache,
    before its attention is computed.

    il      the layer's index in the model (module.layer_idx)
    q       [1, n_head, T, head_dim_k], after RoPE
    k       [1, n_head_kv, T, head_dim_k], after RoPE
    v       [1, n_head_kv, T, head_dim_v]
    attend  attend(q, k, v) -> [1, T, n_head, head_dim_v], the layer's own attention, with its mask, scale and so on

    kernel  "sdpa" (little memory), "eager" (the formula of the model's own file, with soft-capping and sinks), or
            "auto": sdpa where the model has no soft-capping and transformers says that it may
    masked  False: every token sees all others, with the eager kernel. Only to reproduce the reference (see key_scales)

    Raises ExportError if the model doesn't use the interface.
    """
    config = model.config.get_text_config()
    if kernel == "auto":
        capped = getattr(config, "attn_logit_softcapping", None) is not None
        kernel = "sdpa" if getattr(model, "_supports_sdpa", False) and not capped else "eager"
    if not masked and kernel != "eager":
        raise ValueError("masked=False needs the eager kernel")     # sdpa masks by itself when it is given no mask
    calls = set()

    def attention(module, query, key, value, attention_mask, **kwargs):
        attention_mask = attention_mask if masked else None

        def attend(q, k, v):
            return function(module, kernel)(module, q, k, v, attention_mask, **kwargs)

        il = getattr(module, "layer_idx", None)
        if il is None:
            raise ExportError(f"{type(module).__name__} has no layer index: this kind of model is not supported")
        calls.add(il)
        if why_left_out(config, module) is None:
            see(il, module, query, key, value, lambda q, k, v: attend(q, k, v)[0])
        return attend(query, key, value)

    AttentionInterface.register(NAME, attention)
    # Without a mask function of the same name, transformers makes no mask at all for an attention it doesn't know.
    AttentionMaskInterface.register(NAME, sdpa_mask if kernel == "sdpa" else eager_mask)
    before = model.config._attn_implementation
    unsupported = (f"{type(model).__name__} does not compute its attention through transformers' attention interface; "
                   "profile its GGUF instead (pmkvq profile)")
    try:
        model.set_attn_implementation(NAME)
    except ValueError as e:
        raise ExportError(f"{unsupported} ({e})") from None
    try:
        yield
        if not calls:
            raise ExportError(unsupported)
    finally:
        model.set_attn_implementation(before)
        AttentionInterface._global_mapping.pop(NAME)
        AttentionMaskInterface._global_mapping.pop(NAME)


def function(module, kernel):
    """transformers' scaled-dot-product attention, or the eager one in the file of the module's class."""
    if kernel == "sdpa":
        return sdpa_attention_forward
    own = sys.modules[type(module).__module__]
    try:
        return own.eager_attention_forward
    except AttributeError:
        raise ExportError(f"{type(module).__name__} has no eager attention in its file; try --attention sdpa") from None
