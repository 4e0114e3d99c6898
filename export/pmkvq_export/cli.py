"""Command line: python -m pmkvq_export {sensitivity,key-scales} (docs/export.md)."""
import argparse
import os
import sys
import time
from pathlib import Path

from .errors import ExportError


def whole(most):
    def parse(text):
        n = int(text)
        if not 1 <= n <= most:
            raise ValueError
        return n
    parse.__name__ = f"number from 1 to {most}"
    return parse


def widths(text):
    from .quantizer import WIDTHS
    chosen = sorted({int(w) for w in text.split(",")}, reverse=True)
    if not set(chosen) <= set(WIDTHS):
        raise ValueError
    return chosen


widths.__name__ = "list of widths out of 16,8,4,2,1"


def group(text):
    n = int(text)
    if n % 16 or not 16 <= n <= 128:
        raise ValueError
    return n


group.__name__ = "multiple of 16 from 16 to 128"


def parser():
    ap = argparse.ArgumentParser(prog="pmkvq_export", description="Calibrate pmkvq from a Hugging Face checkpoint.")
    commands = ap.add_subparsers(dest="command", required=True)
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--model", required=True, metavar="DIR", help="folder of the checkpoint")
    both.add_argument("--text", required=True, metavar="FILE", help="calibration text, UTF-8")
    both.add_argument("-o", "--out", required=True, metavar="FILE")
    both.add_argument("--samples", type=whole(1 << 20), default=512, metavar="N",
                      help="windows, spread evenly over the text (default: 512, or all that the text has)")
    both.add_argument("--length", type=whole(1 << 20), default=2048, metavar="N", help="tokens per window (default: 2048)")
    span = both.add_mutually_exclusive_group()
    span.add_argument("--effective-length", type=whole(1 << 27), metavar="N",
                      help="positions are stepped so that a window spans N positions (a multiple of --length)")
    span.add_argument("--rope-stretch", type=whole(1 << 17), metavar="S", help="the step itself (default: 1)")
    both.add_argument("--group", type=group, default=128, metavar="N",
                      help="most values along the head dimension that share a range (default: 128)")
    both.add_argument("--bytes", action="store_true", help="the bytes of the text are the tokens (no tokenizer)")
    both.add_argument("--bos", action="store_true", help="begin each window with the tokenizer's BOS token")
    both.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    both.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    both.add_argument("--attention", choices=["auto", "sdpa", "eager"], default="auto",
                      help="how attention is computed (default: sdpa where the model allows it)")
    s = commands.add_parser("sensitivity", parents=[both], help="the paper's gradient sensitivities")
    s.add_argument("--widths", type=widths, default=[16, 8, 4, 2, 1], metavar="LIST", help="default: 16,8,4,2,1")
    s.add_argument("--sixteen", choices=["bf16", "f16"], default="bf16",
                   help="what 16 bits are: bf16 as in the reference (default), or f16 as in pmkvq's cache")
    s.add_argument("--recompute", action="store_true", help="less memory, more time (gradient checkpointing)")
    k = commands.add_parser("key-scales", parents=[both], help="factors that smooth K (SmoothAttention)")
    k.add_argument("--width", type=int, choices=[8, 4, 2], default=4, help="bits to choose the factors for (default: 4)")
    k.add_argument("--order", choices=["auto", "interleaved", "half"], default="auto",
                   help="order of a head's dimensions in the GGUF (default: by architecture)")
    return ap


def main(argv=None):
    a = parser().parse_args(argv)
    try:
        return run(a)
    except ExportError as e:
        print(f"pmkvq_export: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("pmkvq_export: interrupted; nothing was written", file=sys.stderr)
        return 130


def run(a):
    from . import output, samples
    output.writable(a.out)
    text = samples.read_text(a.text)
    step = samples.stretch(a.length, a.effective_length, a.rope_stretch)

    import torch

    from . import checkpoint
    tokenizer = None if a.bytes else checkpoint.load_tokenizer(a.model)
    first = None
    if a.bos:
        first = getattr(tokenizer, "bos_token_id", None)
        if first is None:
            raise ExportError("--bos: there is no tokenizer with a BOS token")
    windows = samples.windows(samples.tokens(text, tokenizer), a.length, a.samples, first)
    try:
        calibrate(a, windows, step)
    except torch.OutOfMemoryError:
        raise ExportError(f"not enough memory on {a.device}: use a smaller --length, --dtype bfloat16"
                          + (" or --recompute" if a.command == "sensitivity" else "")) from None
    return 0


def calibrate(a, windows, step):
    from . import checkpoint
    model = checkpoint.load_model(a.model, a.dtype, a.device)
    config = model.config.get_text_config()
    top = max(int(w.max()) for w in windows)
    if top >= config.vocab_size:
        raise ExportError(f"--bytes: the model has {config.vocab_size} tokens, so its tokens are not bytes" if a.bytes else
                          f"--text: token {top} is not in the model's vocabulary of {config.vocab_size}; does the tokenizer "
                          "belong to this model?")
    trained = getattr(config, "max_position_embeddings", None)
    if trained and (a.length - 1) * step >= trained:
        note(f"positions go up to {(a.length - 1) * step}, the model was trained for {trained}")
    source = (f"{Path(a.text).name}: {len(windows)} windows of {a.length} tokens"
              + (f", positions stepped by {step}" if step > 1 else "") + f", {a.dtype}")
    (sensitivity if a.command == "sensitivity" else key_scales)(a, model, windows, step, source)


def sensitivity(a, model, windows, step, source):
    from . import checkpoint, output
    from .sensitivity import METHOD, measure
    taylor, losses = measure(model, windows, step, a.widths, a.group, a.sixteen, a.attention, a.recompute,
                             Progress(len(windows)))
    table = taylor.table()
    for il, sides in table.items():
        for side, row in sides.items():
            # a width that costs nothing is believed by the planner, so it must be seen by somebody
            none = [str(w) for w, x in zip(a.widths, row) if x == 0 and w < 16]
            if none:
                note(f"layer {il}, {side.upper()}: zero at {', '.join(none)} bits (the loss doesn't depend on it, or it is "
                     "constant along the head); the planner takes this as free")
    sixteen = {"bf16": "", "f16": "; 16 bits are f16"}[a.sixteen]
    source += f", loss {sum(losses) / len(losses):.4f}"
    identity = checkpoint.identity(model, a.model, taylor.shapes)
    output.write(a.out, *output.sensitivity_file(source, METHOD + sixteen, a.widths, table, identity))
    left_out(model, table)


def key_scales(a, model, windows, step, source):
    from . import arch, output
    from .gguf_order import to_gguf
    from .key_scales import factors, largest_keys, search
    config = model.config.get_text_config()
    order = a.order
    if order == "auto":
        known = arch.arch_of(config)
        if known is None:
            raise ExportError(f"--order auto: the order of dimensions in a GGUF of {config.model_type} is not known here; "
                              "give --order interleaved (llama.cpp's rope type NORM) or --order half (NEOX)")
        order = known.order
    maxima = largest_keys(model, windows, step, a.attention, Progress(len(windows), "largest keys, "))
    alpha, error = search(model, windows, maxima, a.width, a.group, step, a.attention,
                          progress=Progress(len(windows), "search, "))
    scales = {}
    for il, m in maxima.items():
        before, after = error[il]
        print(f"layer {il}: alpha {alpha[il]:.2f}, squared error of the attention's output {before:.3e} -> {after:.3e}",
              file=sys.stderr)
        rotary = arch.rotary_dims(config, m.shape[-1])
        scales[il] = [to_gguf(head, order, rotary) for head in factors(m, alpha[il]).tolist()]
    method = (f"SmoothAttention at {a.width} bits, alpha " + " ".join(f"{x:.2f}" for x in alpha.values())
              + f", dimensions {order}")
    output.write(a.out, *output.transforms_file(source, method, scales))
    left_out(model, maxima)


def left_out(model, kept):
    n = model.config.get_text_config().num_hidden_layers
    missing = [str(il) for il in range(n) if il not in kept]
    if missing:
        note(f"left out, as they have no progressive cache: layers {', '.join(missing)}")


def note(text):
    print(f"pmkvq_export: {text}", file=sys.stderr)


class Progress:
    """One line per sample on a terminal, over itself; ten lines in all elsewhere."""

    def __init__(self, n, what=""):
        self.n, self.what, self.start = n, what, time.monotonic()
        self.terminal = os.isatty(2)

    def __call__(self, i, loss):
        done, last = i + 1, i + 1 == self.n
        if not self.terminal and not last and done * 10 // self.n == i * 10 // self.n:
            return
        left = (time.monotonic() - self.start) / done * (self.n - done)
        print(f"{self.what}window {done}/{self.n}, loss {loss:.4f}, {left:.0f} s left", file=sys.stderr,
              end="\n" if last or not self.terminal else "   \r")
