"""What a Hugging Face model is called in llama.cpp, in which order its heads' dimensions stand there, and which of its
layers have a progressive cache."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Arch:
    name: str           # general.architecture of the GGUF
    order: str          # "interleaved": rotary pairs at dims 2i, 2i + 1; "half": at i, i + d/2
    windowed: bool      # llama.cpp gives its sliding-window layers a cache of their own, which is not progressive


# Hugging Face's model_type -> llama.cpp. The converter of the llama family permutes Q and K (conversion/llama.py,
# `permute`), because llama.cpp rotates these architectures in neighbouring pairs (llama_model_rope_type: NORM). The
# others keep Hugging Face's halves (NEOX). llama.cpp knows no sliding windows for Mistral and Qwen2: all their layers
# have a full cache there.
ARCHS = {
    "llama": Arch("llama", "interleaved", False),
    "mistral": Arch("llama", "interleaved", False),
    "mixtral": Arch("llama", "interleaved", False),
    "granite": Arch("granite", "interleaved", False),
    "qwen2": Arch("qwen2", "half", False),
    "qwen2_moe": Arch("qwen2moe", "half", False),
    "qwen3": Arch("qwen3", "half", False),
    "qwen3_moe": Arch("qwen3moe", "half", False),
    "gemma": Arch("gemma", "half", False),
    "gemma2": Arch("gemma2", "half", True),
    "gemma3_text": Arch("gemma3", "half", True),
}


def arch_of(config):
    """The Arch of a (text) config, or None if this table doesn't have it."""
    return ARCHS.get(config.model_type)


def why_left_out(config, module):
    """Why the attention module's layer has no progressive cache: a word for people, or None if it has one."""
    if getattr(module, "is_kv_shared_layer", False):
        return "reads another layer's K and V"
    arch, kinds = arch_of(config), getattr(config, "layer_types", None)
    kind = kinds[module.layer_idx] if kinds else "full_attention"
    if kind == "full_attention" or (arch is not None and not arch.windowed):
        return None
    return kind


def rotary_dims(config, head_dim):
    """How many of a head's first dimensions are rotated."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope and all(isinstance(v, dict) for v in rope.values()):    # one set per kind of layer
        rope = rope.get("full_attention", {})
    part = rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    return int(head_dim * part)
