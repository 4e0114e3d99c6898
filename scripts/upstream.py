#!/usr/bin/env python3
"""Fetch, verify, patch and stage llama.cpp; import, export and check the patch series.

    upstream.py stage              fetch + verify + patch into <cache>/tree (what build.rs runs)
    upstream.py import DIR         a git repository: one commit of pristine upstream, then the series as commits
    upstream.py export DIR         write the commits after the first one back to patches/, byte-stable
    upstream.py pristine           the verified tree without patches
    upstream.py check              pristine + series is what is staged, and export(import(series)) is the series
    upstream.py contents DIR       the content hash of a llama.cpp tree

Environment: PMKVQ_CACHE_DIR, PMKVQ_LLAMA_SRC (an own checkout), PMKVQ_LLAMA_ALLOW_OTHER=1 (whatever it holds),
PMKVQ_OFFLINE=1 (nothing is downloaded: the archive lies in vendor/ or in the cache).
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("PMKVQ_CACHE_DIR") or ROOT / ".cache").resolve()
# our own folders, and where they go in llama.cpp's tree
OWN = {"llama": "src/pmkvq", "ggml-cuda": "ggml/src/ggml-cuda/pmkvq"}
# files that come and go in a checkout and are not part of the source
IGNORED = {".git", ".gitignore", ".gitmodules", ".gitattributes", ".github", ".devops", "__pycache__", ".DS_Store"}


def fail(message):
    sys.exit(f"pmkvq: {message}")


def pin():
    values = {}
    for line in (ROOT / "vendor/llama.cpp.pin").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, value = line.partition("=")
            values[key.strip()] = value.strip()
    return values


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files(tree):
    """All files of a tree as relative paths, sorted; links are followed by nobody."""
    found = []
    for folder, folders, names in os.walk(tree):
        folders[:] = sorted(d for d in folders if d not in IGNORED)
        for name in names:
            if name not in IGNORED:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    found.append(path.relative_to(tree).as_posix())
    return sorted(found)


def contents(tree):
    digest = hashlib.sha256()
    for name in files(tree):
        digest.update(f"{name}\0{sha256(Path(tree, name))}\n".encode())
    return digest.hexdigest()


def run(*command, **options):
    try:
        result = subprocess.run(command, capture_output=True, text=True, **options)
    except FileNotFoundError:
        fail(f"{command[0]} is not installed, and is needed to patch llama.cpp")
    if result.returncode != 0:
        fail(f"'{' '.join(map(str, command))}' failed:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")
    return result.stdout


def archive(values):
    """The verified archive: from vendor/, from the cache, or fetched."""
    name = values["archive"]
    places = [ROOT / "vendor" / name, CACHE / name]
    for place in places:
        if place.is_file():
            if sha256(place) != values["sha256"]:
                fail(f"{place}: its sha256 is {sha256(place)}, expected {values['sha256']}: remove it or fetch it again")
            return place
    if os.environ.get("PMKVQ_OFFLINE") == "1":
        fail(f"PMKVQ_OFFLINE=1, and {name} is not there: put it into {ROOT / 'vendor'} (sha256 {values['sha256']})")
    package, version = values["release"].split()
    print(f"fetching {package} {version} ...", file=sys.stderr, flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        result = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--no-binary", package, "--dest", folder, f"{package}=={version}"],
            capture_output=True, text=True)
        found = Path(folder, name)
        if not found.is_file():
            fail(f"could not fetch {package} {version} with pip: {result.stderr[-1500:]}\n"
                 f"Put {name} (sha256 {values['sha256']}) into {ROOT / 'vendor'}, or name an own checkout of llama.cpp, "
                 f"commit {values['commit']}, in PMKVQ_LLAMA_SRC.")
        if sha256(found) != values["sha256"]:
            fail(f"the fetched {name} has sha256 {sha256(found)}, expected {values['sha256']}")
        os.replace(found, places[1])
    return places[1]


def pristine():
    """A verified, untouched tree."""
    values = pin()
    own = os.environ.get("PMKVQ_LLAMA_SRC")
    if own:
        tree = Path(own).resolve()
        if not (tree / "CMakeLists.txt").is_file():
            fail(f"PMKVQ_LLAMA_SRC={own}: no llama.cpp there")
        if contents(tree) != values["contents"] and os.environ.get("PMKVQ_LLAMA_ALLOW_OTHER") != "1":
            fail(f"PMKVQ_LLAMA_SRC={own}: not the pinned llama.cpp (commit {values['commit']}, content hash "
                 f"{values['contents'][:16]}...; set PMKVQ_LLAMA_ALLOW_OTHER=1 to build it all the same)")
        return tree
    tree = CACHE / "pristine"
    stamp = CACHE / "pristine.stamp"
    if tree.is_dir() and stamp.is_file() and stamp.read_text() == values["contents"]:
        return tree
    source = archive(values)
    print("unpacking llama.cpp ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        prefix = values["subdir"] + "/"
        with tarfile.open(source) as tar:
            members = [m for m in tar.getmembers() if m.name.startswith(prefix) and ".." not in m.name.split("/")]
            tar.extractall(folder, members)
        fresh = Path(folder, values["subdir"])
        (fresh / ".git").unlink(missing_ok=True)
        if contents(fresh) != values["contents"]:
            fail(f"the contents of {source} are not the pinned ones: {contents(fresh)}, expected {values['contents']}")
        shutil.rmtree(tree, ignore_errors=True)
        shutil.move(fresh, tree)
    stamp.write_text(values["contents"])
    return tree


def series():
    lines = (ROOT / "patches/series").read_text().splitlines()
    return [ROOT / "patches" / line.strip() for line in lines if line.strip() and not line.startswith("#")]


def touched(patch):
    return sorted({line.split(" b/", 1)[1] for line in patch.read_text().splitlines() if line.startswith("diff --git a/")})


def git(tree, *args, **env):
    """git in `tree` and nowhere else: the outer repository would make `git apply` skip every file and exit 0."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    clean.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_CEILING_DIRECTORIES=str(tree.parent),
                 GIT_AUTHOR_NAME="pmkvq", GIT_AUTHOR_EMAIL="pmkvq@localhost", GIT_AUTHOR_DATE="2026-01-01T00:00:00Z",
                 GIT_COMMITTER_NAME="pmkvq", GIT_COMMITTER_EMAIL="pmkvq@localhost",
                 GIT_COMMITTER_DATE="2026-01-01T00:00:00Z", LC_ALL="C", **env)
    return run("git", "-C", str(tree), *args, env=clean)


def stage_hash():
    digest = hashlib.sha256()
    own = os.environ.get("PMKVQ_LLAMA_SRC", "")
    parts = [ROOT / "vendor/llama.cpp.pin", ROOT / "patches/series", *series()]
    parts += [path for folder in OWN for path in sorted((ROOT / folder).glob("*"))]
    for path in parts:
        digest.update(f"{path.name}\0{sha256(path)}\n".encode())
    digest.update(own.encode())
    return digest.hexdigest()


def patched(into):
    """pristine + series + our own sources, computed from scratch."""
    source = pristine()
    shutil.copytree(source, into, ignore=shutil.ignore_patterns(*IGNORED), symlinks=True)
    git(into, "init", "--quiet")
    for patch in series():
        before = {name: sha256(into / name) if (into / name).is_file() else None for name in touched(patch)}
        git(into, "apply", "--whitespace=nowarn", str(patch))
        for name, old in before.items():
            if (sha256(into / name) if (into / name).is_file() else None) == old:
                fail(f"{patch.name} did not change {name}: git applied nothing")
    shutil.rmtree(into / ".git")
    for folder, place in OWN.items():
        (into / place).mkdir()
        for path in sorted((ROOT / folder).glob("*")):
            shutil.copy(path, into / place / path.name)


def stage():
    tree, stamp = CACHE / "tree", CACHE / "tree.stamp"
    wanted = stage_hash()
    if tree.is_dir() and stamp.is_file() and stamp.read_text() == wanted:
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        fresh = Path(folder, "tree")
        patched(fresh)
        stamp.unlink(missing_ok=True)
        # only what differs is written, so that ninja rebuilds only what changed
        new, old = set(files(fresh)), set(files(tree)) if tree.is_dir() else set()
        for name in old - new:
            (tree / name).unlink()
        for name in new:
            target = tree / name
            if not target.is_file() or sha256(target) != sha256(fresh / name):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(fresh / name, target)
    stamp.write_text(wanted)
    return tree


def import_series(folder):
    folder = Path(folder).resolve()
    if folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty")
    shutil.copytree(pristine(), folder, ignore=shutil.ignore_patterns(*IGNORED), symlinks=True, dirs_exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=series")
    (folder / ".git/info/exclude").write_text("".join(f"{place}\n" for place in OWN.values()))
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "upstream, pristine")
    git(folder, "tag", "pristine")
    for patch in series():
        git(folder, "am", "--quiet", "--keep-non-patch", "--keep-cr", str(patch))
    for name, place in OWN.items():
        if not (folder / place).exists():
            (folder / place).symlink_to(ROOT / name)
    return folder


def export_series(folder, into=None):
    folder, into = Path(folder).resolve(), into or ROOT / "patches"
    with tempfile.TemporaryDirectory(dir=into) as fresh:
        git(folder, "format-patch", "--quiet", "--zero-commit", "--no-numbered", "--no-signature", "--no-stat", "--no-renames",
            "--keep-subject", "--abbrev=12", "--output-directory", fresh, "pristine..series")
        for old in into.glob("*.patch"):
            old.unlink()
        for patch in Path(fresh).glob("*.patch"):
            os.replace(patch, into / patch.name)
    names = sorted(p.name for p in into.glob("*.patch"))
    (into / "series").write_text("# applied in this order by scripts/upstream.py\n" + "".join(f"{n}\n" for n in names))


def check():
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder, "fresh")
        patched(fresh)
        tree = stage()
        if contents(fresh) != contents(tree):
            differ = [n for n in sorted(set(files(fresh)) | set(files(tree)))
                      if not ((fresh / n).is_file() and (tree / n).is_file() and sha256(fresh / n) == sha256(tree / n))]
            fail(f"the staged tree is not pristine + series: {', '.join(differ[:5])}")
        repo = import_series(Path(folder, "repo"))
        out = Path(folder, "out")
        out.mkdir()
        export_series(repo, out)
        for path in [*series(), ROOT / "patches/series"]:
            if not (out / path.name).is_file() or (out / path.name).read_bytes() != path.read_bytes():
                fail(f"patches/{path.name} is not what export makes of it: run 'make series-import', then 'make series-export'")
        if len(list(out.glob("*.patch"))) != len(series()):
            fail("patches/series does not list what export writes")
    print(f"series: {len(series())} patches; pristine + series is what is built; export is byte-stable")


def main(args):
    if args[:1] == ["stage"] and len(args) == 1:
        print(stage())
    elif args[:1] == ["pristine"] and len(args) == 1:
        print(pristine())
    elif args[:1] == ["check"] and len(args) == 1:
        check()
    elif args[:1] == ["import"] and len(args) == 2:
        print(import_series(args[1]))
    elif args[:1] == ["export"] and len(args) == 2:
        export_series(args[1])
    elif args[:1] == ["contents"] and len(args) == 2:
        print(contents(Path(args[1])))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
