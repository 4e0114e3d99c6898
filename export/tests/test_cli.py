"""The commands from outside: files, messages, exit codes."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig

import families
import golden
from pmkvq_export import output
from pmkvq_export.cli import main
from pmkvq_export.errors import ExportError
from pmkvq_export.gguf_order import to_gguf
from pmkvq_export.key_scales import factors, largest_keys, search

TEXT = bytes(range(32, 96)) * 4     # every byte is a token of the tiny models


@pytest.fixture
def work(tmp_path):
    (tmp_path / "text").write_bytes(TEXT)
    return tmp_path


def save(work, family="llama", change=None, **own):
    model = families.make(family, **own)
    if change:
        with torch.no_grad():
            change(model)
    model.save_pretrained(work / "model")
    return work / "model"


def run(work, command, *options, length=24):
    return main([command, "--model", str(work / "model"), "--text", str(work / "text"), "-o", str(work / "out.json"), "--bytes",
                 "--length", str(length), *options])


def refused(capsys, work, command, *options, says, code=1, **more):
    """One line that names the thing; the file that was there is untouched, and nothing lies beside it."""
    (work / "out.json").write_text("old")
    files = sorted(os.listdir(work))
    assert run(work, command, *options, **more) == code
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("pmkvq_export: ") and "positions go up" not in x]
    assert len(lines) == 1 and all(x in lines[0] for x in says), lines
    assert (work / "out.json").read_text() == "old" and sorted(os.listdir(work)) == files


def strict(path):
    """JSON without NaN and Infinity."""
    return json.loads(path.read_text(), parse_constant=lambda x: pytest.fail(x))


def test_sensitivity_file(work):
    save(work)
    assert run(work, "sensitivity", "--rope-stretch", "4", "--widths", "2,8,4") == 0
    made = strict(work / "out.json")
    assert list(made) == ["pmkvq_sensitivity", "model", "source", "method", "widths", "layers"]
    assert made["pmkvq_sensitivity"] == 1
    assert made["model"] == {"arch": "llama", "name": "model", "n_ctx_train": 256, "layers": [
        {"il": il, "n_head_kv": 2, "head_dim_k": 32, "head_dim_v": 32} for il in range(3)]}
    assert made["source"].startswith("text: 10 windows of 24 tokens, positions stepped by 4, float32, loss ")
    assert made["method"] == "gradient: mean |(Q(x) - x) * dL/dx|"
    assert made["widths"] == [8, 4, 2]
    for il, layer in enumerate(made["layers"]):
        assert list(layer) == ["il", "k", "v"] and layer["il"] == il
        for side in "kv":
            a, b, c = layer[side]
            assert 0 < a < b < c


def test_effective_length_is_a_stretch(work):
    save(work)
    run(work, "sensitivity", "--rope-stretch", "3")
    a = (work / "out.json").read_text()
    run(work, "sensitivity", "--effective-length", "72")
    assert (work / "out.json").read_text() == a


def test_sliding_layers_are_left_out(work, capsys):
    save(work, "gemma3_text")
    assert run(work, "sensitivity") == 0
    made = strict(work / "out.json")
    assert made["model"]["arch"] == "gemma3"
    assert [x["il"] for x in made["layers"]] == [x["il"] for x in made["model"]["layers"]] == [1, 2]
    assert "left out, as they have no progressive cache: layers 0" in capsys.readouterr().err


def test_model_without_a_gguf_name(work):
    save(work, "helium", hidden_size=128)     # a class that pmkvq_export.arch doesn't know
    assert run(work, "sensitivity") == 0
    assert "model" not in strict(work / "out.json")


def test_golden_command(work):
    """The whole way, from a checkpoint and token windows: golden sensitivities in the file. Tokens above 255 need a
    tokenizer: this one gives the golden ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(golden.MODEL, work / "model")
    tokenizer = Tokenizer(WordLevel({f"t{i}": i for i in range(300)}, unk_token="t0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(work / "model")
    (work / "text").write_text(" ".join(f"t{i}" for ids in golden.samples() for i in ids[0].tolist()))
    argv = ["--model", str(work / "model"), "--text", str(work / "text"), "-o", str(work / "out.json"), "--length", "96",
            "--effective-length", "384"]
    assert main(["sensitivity", *argv]) == 0
    layers, correct = strict(work / "out.json")["layers"], golden.sensitivity("correct", "384")
    for il, layer in enumerate(layers):
        for side in "kv":
            assert layer[side] == pytest.approx([correct[side][w][il] for w in (16, 8, 4, 2, 1)], rel=2e-4)


@pytest.mark.parametrize("family, order", [("llama", "interleaved"), ("qwen3", "half")])
def test_transforms_file(work, family, order):
    save(work, family)
    assert run(work, "key-scales", "--width", "2") == 0
    made = strict(work / "out.json")
    assert list(made) == ["pmkvq_transforms", "source", "method", "layers"] and made["pmkvq_transforms"] == 1
    model, samples = families.make(family), [torch.tensor([list(TEXT[i * 24:i * 24 + 24])]) for i in range(10)]
    maxima = largest_keys(model, samples)
    alpha, _ = search(model, samples, maxima, width=2)
    for il, layer in enumerate(made["layers"]):
        assert list(layer) == ["il", "k", "v"] and layer["il"] == il and layer["v"] == "none"
        scales = layer["k"]["scales"]
        assert [len(head) for head in scales] == [32, 32] and all(x > 0 for head in scales for x in head)
        for head, m in zip(scales, factors(maxima[il], alpha[il]).tolist()):
            assert head == to_gguf(m, order, 32)
            if order == "interleaved":
                assert head[0::2] == head[1::2]
            else:
                assert head[:16] == head[16:]


def test_order_can_be_given(work):
    save(work)
    assert run(work, "key-scales", "--order", "half") == 0
    half = strict(work / "out.json")["layers"][0]["k"]["scales"][0]
    assert run(work, "key-scales") == 0
    assert strict(work / "out.json")["layers"][0]["k"]["scales"][0] == to_gguf(half, "interleaved", 32)


def test_bfloat16(work):
    save(work)
    assert run(work, "sensitivity", "--dtype", "bfloat16") == 0
    assert run(work, "key-scales", "--dtype", "bfloat16") == 0


@pytest.mark.parametrize("command", ["sensitivity", "key-scales"])
def test_short_text(work, capsys, command):
    save(work)
    refused(capsys, work, command, says=["--text", "256 tokens", "window of 300", "--length"], length=300)


def test_missing_things(work, capsys):
    refused(capsys, work, "sensitivity", says=["--model", "no such folder"])
    (work / "model").mkdir()
    refused(capsys, work, "sensitivity", says=["--model", "no config.json"])
    save(work)
    (work / "model/model.safetensors").unlink()
    refused(capsys, work, "sensitivity", says=["--model", "model.safetensors"])
    (work / "text").unlink()
    refused(capsys, work, "sensitivity", says=["--text", "No such file"])


def test_truncated_weights(work, capsys):
    weights = save(work) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(capsys, work, "sensitivity", says=["--model"])


def test_missing_tensor(work, capsys):
    from safetensors.torch import load_file, save_file
    weights = save(work) / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    refused(capsys, work, "sensitivity", says=["--model", "lacks 1 tensors", "layers.1.mlp.up_proj"])


def test_no_tokenizer(work, capsys):
    save(work)
    (work / "out.json").write_text("old")
    assert main(["sensitivity", "--model", str(work / "model"), "--text", str(work / "text"), "-o", str(work / "out.json")]) == 1
    err = capsys.readouterr().err
    assert "no usable tokenizer" in err and "--bytes" in err and err.count("\n") == 1
    assert (work / "out.json").read_text() == "old"


def test_no_attention(work, capsys):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)) \
        .save_pretrained(work / "model")
    for command in ("sensitivity", "key-scales"):
        refused(capsys, work, command, *(["--order", "half"] if command == "key-scales" else []),
                says=["MambaForCausalLM", "attention interface", "pmkvq profile"])


def test_compressed_cache(work, capsys):
    save(work)
    config = json.loads((work / "model/config.json").read_text())
    config |= {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 32}
    (work / "model/config.json").write_text(json.dumps(config))
    refused(capsys, work, "sensitivity", says=["deepseek_v3", "MLA", "pmkvq profile"])


def test_unknown_order(work, capsys):
    save(work, "helium", hidden_size=128)
    refused(capsys, work, "key-scales", says=["helium", "--order interleaved", "--order half"])


def nan_in_loss(model):
    model.lm_head.weight[3, 3] = float("nan")


def infinite_gradient(model):
    """The last layer's V is tiny and its output projection huge. What comes out is ordinary, but on the way back the
    gradient (large, as the residual stream is small) meets the projection first and overflows."""
    model.model.embed_tokens.weight.mul_(1e-3)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(0)
        layer.mlp.down_proj.weight.mul_(0)
    last = model.model.layers[2].self_attn
    last.v_proj.weight.mul_(1e-41)
    last.o_proj.weight.fill_(3e38)


def test_nan(work, capsys):
    save(work, change=nan_in_loss)
    refused(capsys, work, "sensitivity", says=["sample 0", "loss is nan"])


def test_gradient_that_is_not_finite(work, capsys):
    save(work, change=infinite_gradient)
    refused(capsys, work, "sensitivity", says=["not finite", "--dtype float32"])


def test_zero_sensitivities(work, capsys):
    def cut(model):
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    save(work, change=cut)
    refused(capsys, work, "sensitivity", says=["all sensitivities are zero"])


def test_some_zeros_are_said(work, capsys):
    save(work, change=lambda model: model.model.layers[2].self_attn.o_proj.weight.zero_())
    assert run(work, "sensitivity") == 0
    assert "layer 2, K: zero at 8, 4, 2, 1 bits" in capsys.readouterr().err


def test_vocabulary(work, capsys):
    save(work)
    (work / "text").write_bytes(b"\xff" * 64)
    refused(capsys, work, "sensitivity", says=["--bytes", "97 tokens"])


def test_head_dimension(work, capsys):
    save(work, head_dim=24)
    refused(capsys, work, "sensitivity", says=["head dimension 24", "16 bits"])


def test_effective_length(work, capsys):
    save(work)
    refused(capsys, work, "sensitivity", "--effective-length", "100", says=["--effective-length 100", "24"])


def test_no_gpu(work, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    save(work)
    refused(capsys, work, "sensitivity", "--device", "cuda", says=["--device cuda", "--device cpu"])


@pytest.mark.parametrize("options", [["--widths", "3"], ["--group", "40"], ["--length", "0"], ["--samples", "x"],
                                     ["--rope-stretch", "2", "--effective-length", "48"]])
def test_wrong_options(work, capsys, options):
    with pytest.raises(SystemExit) as e:
        run(work, "sensitivity", *options)
    assert e.value.code == 2
    assert options[-2] in capsys.readouterr().err


def test_output_folder(work, capsys):
    save(work)
    assert main(["sensitivity", "--model", str(work / "model"), "--text", str(work / "text"), "--bytes",
                 "-o", str(work / "none/out.json")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_written_beside_then_renamed(tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    out.write_text("old")

    def power_cut(a, b):
        assert Path(a).parent == tmp_path and json.loads(Path(a).read_text())["a"] == 1
        assert out.read_text() == "old"
        raise KeyboardInterrupt
    monkeypatch.setattr(output.os, "replace", power_cut)
    with pytest.raises(KeyboardInterrupt):
        output.write(out, {"a": 1}, [])
    assert out.read_text() == "old" and os.listdir(tmp_path) == ["out.json"]


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        output.write(tmp_path / "out.json", {"a": 1}, [{"il": 0, "k": [float("nan")], "v": [0.0]}])
    assert os.listdir(tmp_path) == []


def test_full_disk(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(output.os, "fsync", full)
    with pytest.raises(ExportError, match="No space left"):
        output.write(tmp_path / "out.json", {"a": 1}, [])
    assert os.listdir(tmp_path) == []


def test_as_a_module(work):
    """python -m pmkvq_export, in a process of its own: no traceback."""
    p = subprocess.run([sys.executable, "-m", "pmkvq_export", "sensitivity", "--model", "nowhere", "--text", str(work / "text"),
                        "-o", str(work / "out.json"), "--bytes", "--length", "24"], cwd=Path(__file__).parents[1], text=True,
                       capture_output=True)
    assert p.returncode == 1 and p.stdout == "" and p.stderr.startswith("pmkvq_export: --model nowhere: no such folder")
    assert p.stderr.count("\n") == 1
