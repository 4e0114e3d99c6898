"""The order of a head's dimensions in the GGUF, against what the converter does to the weights."""
import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import families
from pmkvq_export import arch
from pmkvq_export.gguf_order import to_gguf


def test_interleaved_is_what_the_converter_does():
    """llama.cpp's converter (conversion/llama.py, `permute`) does this to the rows of K's weights."""
    n_head, d = 3, 16
    rows = torch.arange(n_head * d)
    converted = rows.reshape(n_head, 2, d // 2).swapaxes(1, 2).reshape(n_head, d)
    for head in range(n_head):
        assert to_gguf(rows.reshape(n_head, d)[head].tolist(), "interleaved", d) == converted[head].tolist()


def test_half_stays():
    assert to_gguf(range(8), "half", 8) == list(range(8))


def test_dimensions_that_are_not_rotated_stay():
    assert to_gguf(range(8), "interleaved", 4) == [0, 2, 1, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("family, name, order", [
    ("llama", "llama", "interleaved"), ("mistral", "llama", "interleaved"), ("qwen2", "qwen2", "half"),
    ("qwen3", "qwen3", "half"), ("gemma", "gemma", "half"), ("gemma2", "gemma2", "half"), ("gemma3_text", "gemma3", "half")])
def test_families(family, name, order):
    found = arch.arch_of(families.make(family).config)
    assert (found.name, found.order) == (name, order)


def test_partial_rotation():
    config = CONFIG_MAPPING["llama"](rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5})
    assert arch.rotary_dims(config, 64) == 32
    assert arch.rotary_dims(families.make("gemma3_text").config, 32) == 32
