"""The files that pmkvq reads: sensitivities (docs/plan.md) and transforms (docs/export.md)."""
import json
import os
import tempfile
from pathlib import Path

from .errors import ExportError


def sensitivity_file(source, method, widths, table, model=None):
    """table: {il: {"k": [one number per width], "v": [..]}}; model: the `model` object of docs/plan.md, or None."""
    head = {"pmkvq_sensitivity": 1} | ({"model": model} if model else {})
    head |= {"source": source, "method": method, "widths": list(widths)}
    return head, [{"il": il, **table[il]} for il in sorted(table)]


def transforms_file(source, method, scales):
    """scales: {il: [n_head_kv][head_dim] numbers, in the GGUF's order}."""
    return ({"pmkvq_transforms": 1, "source": source, "method": method},
            [{"il": il, "k": {"scales": scales[il]}, "v": "none"} for il in sorted(scales)])


def write(path, head, layers):
    """Write the file beside `path`, then rename it: `path` is the old file or the whole new one, never a part."""
    fields = [f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in head.items()]
    rows = ",\n".join("    " + json.dumps(layer, allow_nan=False) for layer in layers)
    text = "{\n" + ",\n".join(fields) + f',\n  "layers": [\n{rows}\n  ]\n}}\n'
    path = Path(path)
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "w", encoding="utf-8") as f:
                os.fchmod(f.fileno(), 0o666 & ~_umask())
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise
    except OSError as e:
        raise ExportError(f"-o {path}: {e.strerror}") from None


def writable(path):
    """Refuse an output path before hours of work are spent. Raises ExportError."""
    path = Path(path)
    if path.is_dir() or not path.name:
        raise ExportError(f"-o {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise ExportError(f"-o {path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise ExportError(f"-o {path}: the folder {path.parent} is not writable")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
