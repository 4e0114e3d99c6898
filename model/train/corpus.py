"""Gather the ordinary text: three kinds, all of them with a licence that allows training and shipping.

  prose  the King James Bible (copyright expired), the Jargon File 4.4.7 (public domain) and The Devil's
         Dictionary (public domain), as the Debian packages bible-kjv(-text), dict-jargon and dict-devil hold them
  docs   the Markdown files of the pinned llama.cpp tree (MIT)
  code   the modules of CPython's standard library, with their docstrings (PSF licence)

Whole files (for the Bible: whole books) are held out; they are written to heldout.txt and never trained on.
Everything is reduced to printable ASCII and newlines, so that one byte is one character is one token.

  python3 corpus.py --llama-cpp <tree> --debs <folder with the unpacked Debian packages> \
                    --out <folder> --heldout ../heldout.txt
"""
import argparse
import gzip
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

# Held out, whole: books of the Bible, documents, modules.
HELD_BOOKS = ["Ruth", "Esther", "Jonah", "Philippians", "James"]
HELD_DOCS = ["docs/multimodal.md", "docs/function-calling.md", "tools/quantize/README.md", "docs/android.md",
             "docs/development/HOWTO-add-model.md"]
HELD_CODE = ["textwrap.py", "heapq.py", "fractions.py"]
# Folders of the standard library that hold tests, tables or third-party code rather than prose and programs.
SKIP_DIRS = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "encodings", "__pycache__",
             "pydoc_data", "turtledemo", "ensurepip"}


def ascii_text(raw: bytes) -> str:
    text = raw.decode("utf-8", "ignore")
    for a, b in (("\u2018", "'"), ("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"'), ("\u2013", "-"), ("\u2014", "--"),
                 ("\t", "    "), ("\r", "")):
        text = text.replace(a, b)
    text = "".join(c for c in text if c == "\n" or " " <= c <= "~")
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def bible(debs: Path) -> dict:
    """Book name -> text, chapters and verses as the bible program prints them."""
    out = subprocess.run([debs / "usr/bin/bible", "gen1:1-rev22:21"], check=True, capture_output=True,
                         stdin=subprocess.DEVNULL, cwd=debs / "usr/lib").stdout
    books, name = {}, None
    for line in ascii_text(out).splitlines():
        if m := re.fullmatch(r"((?:[1-3] )?[A-Z][A-Za-z ]*?) \d+ *", line):
            name = m[1]
        if name:
            books.setdefault(name, []).append(line)
    if len(books) != 66:
        sys.exit(f"expected 66 books from the bible program, got {len(books)}: {sorted(books)}")
    return {b: "\n".join(v) + "\n" for b, v in books.items()}


def dictionary(debs: Path, name: str) -> str:
    return ascii_text(gzip.decompress((debs / f"usr/share/dictd/{name}.dict.dz").read_bytes()))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--llama-cpp", type=Path, required=True)
    ap.add_argument("--debs", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--heldout", type=Path, required=True)
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    held = []

    books = bible(a.debs)
    held += [(b, books.pop(b)) for b in HELD_BOOKS]
    prose = "\n".join(books.values()) + dictionary(a.debs, "jargon") + dictionary(a.debs, "devil")

    docs = []
    for p in sorted(a.llama_cpp.rglob("*.md")):
        rel = p.relative_to(a.llama_cpp).as_posix()
        text = ascii_text(p.read_bytes())
        if rel in HELD_DOCS:
            held.append((rel, text))
        elif not rel.startswith("docs/ops"):  # a table of numbers, no text
            docs.append(text)

    code, root = [], Path(sysconfig.get_paths()["stdlib"])
    for p in sorted(root.rglob("*.py")):
        rel = p.relative_to(root)
        if SKIP_DIRS & set(rel.parts):
            continue
        text = ascii_text(p.read_bytes())
        if rel.as_posix() in HELD_CODE:
            held.append((rel.as_posix(), text))
        else:
            code.append(text)

    for name, text in (("prose", prose), ("docs", "\n".join(docs)), ("code", "\n".join(code))):
        (a.out / f"{name}.txt").write_text(text, encoding="ascii")
        print(f"{name}: {len(text)} bytes")
    missing = set(HELD_BOOKS + HELD_DOCS + HELD_CODE) - {n for n, _ in held}
    if missing:
        sys.exit(f"held-out files not found: {sorted(missing)}")
    a.heldout.write_text("\n".join(t for _, t in held), encoding="ascii")
    for n, t in held:
        print(f"held out {n}: {len(t)} bytes")
    print(f"held out in all: {sum(len(t) for _, t in held)} bytes; CPython {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
