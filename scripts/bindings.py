#!/usr/bin/env python3
"""Regenerate src/ffi/bindings.rs from the patched llama.h, or check it.

    bindings.py [--check]

Needs libclang: where LIBCLANG_PATH says, or as a wheel that is fetched into the cache.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("PMKVQ_CACHE_DIR") or ROOT / ".cache").resolve()
PACKAGE = "libclang==18.1.1"


def main(args):
    if args not in ([], ["--check"]):
        sys.exit(__doc__)
    env = dict(os.environ)
    if not env.get("LIBCLANG_PATH"):
        folder = CACHE / "libclang"
        native = folder / "clang/native"
        if not native.is_dir():
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder,
                            PACKAGE], check=True)
        env["LIBCLANG_PATH"] = str(native)
    return subprocess.run(["cargo", "run", "--quiet", "--profile", "once", "--no-default-features", "--features", "bindgen", "--bin", "pmkvq-bindings",
                           "--", "--llama", CACHE / "tree", *args], cwd=ROOT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
