"""Write the shipped GGUF as a Hugging Face checkpoint (config.json, model.safetensors), for the exporter (docs/export.md).

  python3 model/train/to_hf.py --gguf-py <llama.cpp>/gguf-py [--model model/pmkvq-tiny.gguf] --out <folder>

The checkpoint has no tokenizer: a token is a byte, and its id the byte's value (`pmkvq_export --bytes`). Weights are
written in float32, which holds the GGUF's F16 exactly. Rotary pairs (2i, 2i + 1) go back to (i, i + d/2).
"""
import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from evaluate import MODEL, load_gguf

# name in model.py -> name in transformers' Llama
OUTSIDE = {"embed.weight": "model.embed_tokens.weight", "norm": "model.norm.weight", "head.weight": "lm_head.weight"}
LAYER = {"attn_norm": "input_layernorm.weight", "ffn_norm": "post_attention_layernorm.weight",
         "wq.weight": "self_attn.q_proj.weight", "wk.weight": "self_attn.k_proj.weight",
         "wv.weight": "self_attn.v_proj.weight", "wo.weight": "self_attn.o_proj.weight",
         "gate.weight": "mlp.gate_proj.weight", "up.weight": "mlp.up_proj.weight", "down.weight": "mlp.down_proj.weight"}


def name_in_hf(name):
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{LAYER[rest]}"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--gguf-py", type=Path, required=True, help="folder gguf-py of the pinned llama.cpp tree")
    ap.add_argument("--model", type=Path, default=MODEL / "pmkvq-tiny.gguf")
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    model = load_gguf(a.model, a.gguf_py)
    c = model.cfg
    a.out.mkdir(parents=True, exist_ok=True)
    save_file({name_in_hf(k): v.contiguous() for k, v in model.state_dict().items()}, a.out / "model.safetensors",
              metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32", "hidden_act": "silu",
        "vocab_size": c.n_vocab, "hidden_size": c.n_embd, "intermediate_size": c.n_ff, "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head, "num_key_value_heads": c.n_head_kv, "head_dim": c.head_dim,
        "max_position_embeddings": c.n_ctx, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_theta,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 0,
    }
    (a.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
