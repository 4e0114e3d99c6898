"""Loading a checkpoint from a folder. Nothing is fetched and no code of the checkpoint is executed."""
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from .arch import arch_of
from .errors import ExportError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def folder_of(path):
    path = Path(path)
    if not path.is_dir():
        raise ExportError(f"--model {path}: no such folder. Give the folder of a Hugging Face checkpoint (config.json, "
                          "*.safetensors); download it first")
    if not (path / "config.json").is_file():
        raise ExportError(f"--model {path}: no config.json in it, so it is not a Hugging Face checkpoint")
    return path


def load_model(path, dtype="float32", device="cpu"):
    """The causal language model in the folder `path`, in eval mode."""
    path = folder_of(path)
    if device == "cuda" and not torch.cuda.is_available():
        raise ExportError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        if getattr(config.get_text_config(), "kv_lora_rank", None) is not None:
            raise ExportError(f"--model {path}: {config.model_type} caches a compressed K and V (MLA), which transformers "
                              "does not show to its attention; profile its GGUF instead (pmkvq profile)")
        model, info = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=DTYPES[dtype], local_files_only=True,
                                                           trust_remote_code=False, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
        raise ExportError(f"--model {path}: {first_line(e)}") from None
    missing = sorted(info["missing_keys"])
    if missing:     # transformers fills these with random numbers and goes on
        raise ExportError(f"--model {path}: the checkpoint lacks {len(missing)} tensors, {missing[0]} among them; is the "
                          "download complete?")
    return model.to(device).eval()


def load_tokenizer(path):
    path = folder_of(path)
    try:
        if not any((path / name).is_file() for name in TOKENIZERS):     # some releases make up an empty one then
            raise OSError(f"none of {', '.join(TOKENIZERS)}")
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as e:     # tokenizers raise what they like
        raise ExportError(f"--model {path}: no usable tokenizer in it ({first_line(e)}); if its tokens are bytes, "
                          "give --bytes") from None


def identity(model, path, shapes):
    """The `model` object of a sensitivity file (docs/plan.md), or None if pmkvq_export.arch has no GGUF name for it.

    shapes: {il: (n_head_kv, head_dim_k, head_dim_v)} of the layers with a progressive cache.
    """
    config = model.config.get_text_config()
    arch = arch_of(config)
    if arch is None:
        return None
    return {"arch": arch.name, "name": Path(path).resolve().name, "n_ctx_train": config.max_position_embeddings,
            "layers": [{"il": il, "n_head_kv": h, "head_dim_k": k, "head_dim_v": v}
                       for il, (h, k, v) in sorted(shapes.items())]}


def first_line(e):
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
