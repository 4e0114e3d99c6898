"""Tiny models with random weights, made from a config: nothing is downloaded."""
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCAB, T = 97, 24
# 4 query heads on 2 KV heads of 32: grouped queries. The windows of 5 tokens are shorter than a sample.
COMMON = dict(vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
              num_key_value_heads=2, head_dim=32, max_position_embeddings=256, initializer_range=0.15, pad_token_id=0)
WINDOWS = dict(layer_types=["sliding_attention", "full_attention", "full_attention"], sliding_window=5)
FAMILIES = {
    "llama": {},
    "mistral": dict(sliding_window=None),
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "gemma2": dict(WINDOWS, query_pre_attn_scalar=32),
    "gemma3_text": dict(WINDOWS, query_pre_attn_scalar=32),
}
KEPT = {name: [1, 2] if "layer_types" in own else [0, 1, 2] for name, own in FAMILIES.items()}


def make(family, seed=1, **own):
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[family](**(COMMON | FAMILIES.get(family, {}) | own))
    return AutoModelForCausalLM.from_config(config).eval()


def samples(n=2, length=T, seed=2):
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCAB, (1, length), generator=g) for _ in range(n)]
