#!/usr/bin/env python3
"""Test the exporter (export/) in a virtual environment of its own.

    test_export.py [arguments for pytest]

The environment lies in the cache (PMKVQ_CACHE_DIR, default .cache), in export-venv. It is made anew when
export/requirements.txt or the Python version changes. That takes PyTorch's wheels: docs/export.md says how much.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("PMKVQ_CACHE_DIR") or ROOT / ".cache").resolve()
VENV = CACHE / "export-venv"
REQUIREMENTS = ROOT / "export/requirements.txt"
STAMP = VENV / "pmkvq.stamp"    # written last: an environment without it is half made


def environment():
    """The environment's Python, made if it isn't there."""
    python = VENV / "bin/python"
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "export-venv.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.is_file() and STAMP.read_text() == key:
            return python
        print(f"making {VENV}", file=sys.stderr)
        shutil.rmtree(VENV, ignore_errors=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        except subprocess.CalledProcessError:
            sys.exit("python3 -m venv failed; on Debian it is a package of its own, python3-venv")
        # no pip cache: it would hold the same 2.5 GB again
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile",
                        "--no-cache-dir", "--only-binary", ":all:", "-r", REQUIREMENTS], check=True)
        STAMP.write_text(key)
    return python


def main(args):
    python = environment()
    # MKL and PyTorch sum up in an order that depends on the CPU. The tests hold float32 results against files, to little more
    # than their rounding: so ask for the same order everywhere
    env = dict(os.environ, MKL_CBWR="COMPATIBLE", ATEN_CPU_CAPABILITY="avx2")
    return subprocess.run([python, "-m", "pytest", *args], cwd=ROOT / "export", env=env).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
