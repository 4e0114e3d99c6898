#!/usr/bin/env python3
"""Tests of cuda_toolkit.py with toolkits that are empty files and an nvcc that only talks, of cuda_check.py's parser, of what a session
on a GPU runs: tables put side by side, steps judged, graphs counted (`scripts/gpu.sh --dry-run all` tries the whole of it), of what goes
to a device, and of how kernels load."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import bench_gpu
import cuda_check
import cuda_toolkit
import gpu_kernels
import gpu_same
from steps import Run, Series

NVCC = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
case "$1" in
    --version) echo "Cuda compilation tools, release {short}, V{version}" ;;
    -v) echo '#$ _HERE_='"$here"; echo '#$ TOP='"{top}" ;;
esac
"""
SMI = """#!/bin/sh
printf '{}'
"""
LIBRARIES = ["libcudart.so", "libcublas.so", "libcublasLt.so"]


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp()).resolve()
        self.addCleanup(shutil.rmtree, self.folder)
        # nothing of this machine is seen but what the fake nvcc runs
        environment = {"PATH": f"{self.folder}/path:/usr/bin:/bin", "PMKVQ_CACHE_DIR": str(self.folder / "cache"), "PMKVQ_OFFLINE": "1"}

        def which(name):
            path = self.folder / "path" / name
            return str(path) if os.access(path, os.X_OK) else None

        for patch in [mock.patch.dict(os.environ, environment, clear=True), mock.patch("shutil.which", which),
                      mock.patch.object(cuda_toolkit, "USUAL", self.folder / "usual"),
                      mock.patch.object(sys, "path", [str(self.folder / "packages")]),
                      mock.patch("sysconfig.get_paths", return_value={})]:
            patch.start()
            self.addCleanup(patch.stop)

    def toolkit(self, name, version="12.8.93", lib="lib64", libraries=LIBRARIES, top="$here/..", include="include"):
        root = self.folder / name
        program(root / "bin/nvcc", NVCC.format(short=version.rsplit(".", 1)[0], version=version, top=top))
        for path in [*(f"{include}/{h}" for h in ("cuda_runtime.h", "cublas_v2.h")), *(f"{lib}/{n}" for n in libraries)]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        return root

    def wheels(self, name, version="13.0.88"):
        root = self.toolkit(name, version, "lib", [f"{n}.13" for n in LIBRARIES])
        for path in ["bin/nvcc.profile", "bin/ptxas", "nvvm/bin/cicc"]:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        return root

    def refused(self, *words):
        with self.assertRaises(cuda_toolkit.Error) as caught:
            cuda_toolkit.find()
        for word in words:
            self.assertIn(str(word), str(caught.exception))


class Order(Case):
    def test_each_place_comes_before_the_next(self):
        cached = self.wheels("cache/cuda-wheels/nvidia/cu13")
        (self.folder / "cache/cuda-wheels/wheels.txt").write_text("\n".join(cuda_toolkit.WHEELS))
        kit = cuda_toolkit.find()
        self.assertEqual((kit.origin, kit.version), ("wheels in the cache", (13, 0, 88)))

        installed = self.wheels("packages/nvidia/cu13")
        self.assertEqual(cuda_toolkit.find().origin, f"wheels in {installed}")

        self.assertEqual(self.toolkit("usual"), cuda_toolkit.find().root)

        on_path = self.toolkit("somewhere")
        (self.folder / "path").mkdir()
        (self.folder / "path/nvcc").symlink_to(on_path / "bin/nvcc")
        self.assertEqual(cuda_toolkit.find().root, on_path)

        for name in ["CUDA_HOME", "CUDA_PATH", "CUDACXX", "PMKVQ_CUDA_HOME"]:
            root = self.toolkit(name)
            os.environ[name] = str(root / "bin/nvcc" if name == "CUDACXX" else root)
            self.assertEqual(cuda_toolkit.find().root, root)

        os.environ["PMKVQ_CUDA_HOME"] = "wheels"
        self.assertEqual(cuda_toolkit.find().origin, f"wheels in {installed}")
        self.assertTrue(cached.is_dir())

    def test_nothing_is_there(self):
        self.refused("PMKVQ_OFFLINE=1", "PMKVQ_CUDA_HOME", "pip install nvidia-cuda-nvcc==")
        del os.environ["PMKVQ_OFFLINE"]
        with self.assertRaisesRegex(cuda_toolkit.Error, "no CUDA toolkit was found: install CUDA 12.4 or newer"):
            cuda_toolkit.find(may_fetch=False)

    def test_fetched_once_and_linked(self):
        del os.environ["PMKVQ_OFFLINE"]
        calls = []
        really = subprocess.run

        def run(command, **options):
            if "pip" not in command:
                return really(command, **options)
            calls.append(command)
            shutil.copytree(self.wheels("packed"), Path(command[command.index("--target") + 1], "nvidia/cu13"))
            return subprocess.CompletedProcess(command, 0, "", "")

        with mock.patch("subprocess.run", run):
            kits = {cuda_toolkit.find(), cuda_toolkit.find()}
        self.assertEqual((len(calls), len(kits)), (1, 1))
        self.assertTrue(set(cuda_toolkit.WHEELS) <= set(calls[0]))


class Refused(Case):
    def test_too_old(self):
        root = self.toolkit("usual", "12.3.107")
        self.refused(root / "bin/nvcc", "CUDA 12.3.107", "older than 12.4", "PMKVQ_CUDA_HOME=wheels")
        self.toolkit("usual", "12.4.99")
        self.assertEqual(cuda_toolkit.find().version, (12, 4, 99))

    def test_named_but_not_there(self):
        self.toolkit("usual")
        for name in ["PMKVQ_CUDA_HOME", "CUDACXX", "CUDA_PATH", "CUDA_HOME"]:
            with mock.patch.dict(os.environ, {name: str(self.folder / "nowhere")}):
                self.refused(f"{name}={self.folder / 'nowhere'}")

    def test_parts_are_missing(self):
        self.toolkit("usual", libraries=LIBRARIES[:2])
        self.refused("no libraries")
        shutil.rmtree(self.folder / "usual")
        self.toolkit("usual", include="other")
        self.refused("no headers")

    def test_nvcc_does_not_run(self):
        program(self.folder / "usual/bin/nvcc", "#!/bin/sh\nexit 1\n")
        self.refused("says no version")


class Layout(Case):
    def test_targets_folder(self):
        root = self.toolkit("usual", lib="targets/x86_64-linux/lib", include="targets/x86_64-linux/include")
        self.assertEqual(cuda_toolkit.find().lib, root / "targets/x86_64-linux/lib")

    def test_nvcc_says_where_its_toolkit_is(self):
        root = self.toolkit("real")
        program(self.folder / "path/nvcc", f'#!/bin/sh\nexec {root}/bin/nvcc "$@"\n')
        kit = cuda_toolkit.find()
        self.assertEqual((kit.root, kit.nvcc), (root, self.folder / "path/nvcc"))

    def test_wheels_get_names_to_link_with_and_stay_as_they_are(self):
        root = self.wheels("packages/nvidia/cu13")
        before = sorted(root.rglob("*"))
        kit = cuda_toolkit.find()
        self.assertEqual(kit.root.parent, self.folder / "cache")
        for name in ["lib64/libcublas.so", "lib/libcublasLt.so", "lib/libcudart.so", "lib/libcudart.so.13", "nvvm/bin/cicc",
                     "bin/ptxas", "include/cublas_v2.h"]:
            self.assertTrue((kit.root / name).is_file(), name)
        self.assertFalse(kit.nvcc.is_symlink())
        self.assertEqual(sorted(root.rglob("*")), before)

    def debian(self):
        """The package nvidia-cuda-toolkit as Debian and Ubuntu have it: bin/nvcc is a script, the other says nothing of a toolkit."""
        usr = self.folder / "usr"
        own = program(usr / "lib/nvidia-cuda-toolkit/bin/nvcc", NVCC.format(short="12.4", version="12.4.131", top="").replace("TOP=", "X="))
        program(usr / "bin/nvcc", f'#!/bin/sh\nexec {own} "$@"\n')
        libraries = usr / "lib/x86_64-linux-gnu"
        for path in [*(usr / "include" / h for h in ("cuda_runtime.h", "cublas_v2.h")), *(libraries / n for n in LIBRARIES),
                     libraries / "stubs/libcuda.so", usr / "lib/cuda/include/cuda.h"]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return usr

    def test_debian_has_its_toolkit_all_over_usr(self):
        usr = self.debian()
        (self.folder / "path").mkdir()
        (self.folder / "path/nvcc").symlink_to(usr / "bin/nvcc")
        where = {}
        with mock.patch.object(cuda_toolkit, "SYSTEM", usr):
            where["PATH"] = cuda_toolkit.find()
            for name, value in [("CUDACXX", usr / "lib/nvidia-cuda-toolkit/bin/nvcc"), ("CUDA_PATH", usr)]:
                with mock.patch.dict(os.environ, {name: str(value)}):
                    where[name] = cuda_toolkit.find()
            # the folder that Debian has for CUDA_HOME holds cuda.h alone
            with mock.patch.dict(os.environ, {"CUDA_HOME": str(usr / "lib/cuda")}):
                self.refused("there is no", usr / "lib/cuda/bin/nvcc", f"without CUDA_HOME it would be {self.folder / 'path/nvcc'}")
        for name, kit in where.items():
            libraries = usr / "lib/x86_64-linux-gnu"
            self.assertEqual((kit.version, kit.include, kit.lib, kit.stub), ((12, 4, 131), usr / "include", libraries, str(libraries / "stubs")), name)
        self.assertEqual([kit.root for kit in where.values()], [usr, usr / "lib/nvidia-cuda-toolkit", usr])

    def test_stub_and_nccl(self):
        root = self.toolkit("usual")
        self.assertEqual((cuda_toolkit.find().stub, cuda_toolkit.find().nccl), ("", False))
        for path in ["lib64/stubs/libcuda.so", "lib64/libnccl.so", "include/nccl.h"]:
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).touch()
        self.assertEqual((cuda_toolkit.find().stub, cuda_toolkit.find().nccl), (str(root / "lib64/stubs"), True))


class Architectures(Case):
    def test_order(self):
        self.assertEqual(cuda_toolkit.archs((12, 4, 0)), ("75-virtual;80-virtual;86-real;89-real;90-virtual", "default"))
        self.assertTrue(cuda_toolkit.archs((13, 0, 88))[0].endswith(";120a-real;121a-real"))
        program(self.folder / "path/nvidia-smi", SMI.format("no devices were found\\n"))
        self.assertEqual(cuda_toolkit.archs((13, 0, 88))[1], "default")
        program(self.folder / "path/nvidia-smi", SMI.format("12.0\\n9.0\\n9.0\\n"))
        self.assertEqual(cuda_toolkit.archs((13, 0, 88)), ("90;120", "the GPU of this machine"))
        os.environ["CUDAARCHS"] = "80;90-real"
        self.assertEqual(cuda_toolkit.archs((13, 0, 88)), ("80;90-real", "CUDAARCHS"))


class Resources(unittest.TestCase):
    TEXT = """ptxas info    : 88 bytes cmem[4]
ptxas info    : Compiling entry function '_Z8k_decodeILi128ELb1EEvPf' for 'sm_120a'
ptxas info    : Function properties for _Z8k_decodeILi128ELb1EEvPf
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]
ptxas info    : Function properties for helper
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function '_Z5k_twoPf' for 'sm_75'
ptxas info    : Function properties for _Z5k_twoPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""

    def test_parse(self):
        uses = cuda_check.parse(self.TEXT)
        decode = uses["_Z8k_decodeILi128ELb1EEvPf", 120]
        self.assertEqual((decode.registers, decode.shared, decode.stack, decode.stores, decode.loads), (10, 512, 16, 4, 8))
        two = uses["_Z5k_twoPf", 75]
        self.assertEqual((two.registers, two.shared, two.spills()), (255, 0, False))

    def test_a_decode_kernel_that_spills_is_named(self):
        for name in ["pmkvq-decode.cu", "pmkvq-decode-groups.cu"]:
            lines, bad = cuda_check.table([(Path(name), self.TEXT)], [75, 120])
            self.assertEqual(len(bad), 1)
            self.assertIn(f"{name}: k_decode", bad[0])
            self.assertIn("sm_120 spills 4 bytes, reads 8 back", bad[0])
            self.assertTrue(any("**spill 4/8**" in line for line in lines))
        lines, bad = cuda_check.table([(Path("pmkvq-prefill.cu"), self.TEXT)], [75, 120])
        self.assertEqual(bad, [])
        self.assertTrue(any("**spill 4/8**" in line for line in lines))


class Kernels(unittest.TestCase):
    OURS = """copies: 3012 GB/s, read and written
| heads | depth | sequences | tokens | bits | chunks | layers | MiB | us | GB/s | target | time/target |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 32/8 | 131072 | 1 | 1 | 16 | 33 | 1 | 512.0 | 200.0 | 2552 | 217.7 | 0.97 |
| 32/8 | 131072 | 1 | 1 | 4 | 33 | 1 | 136.7 | 80.0 | 2552 | 217.7 | 0.97 |
| 32/8 | 8192 | 4 | 1 | 8 | 33 | 1 | 136.7 | 50.0 | 2552 | 217.7 | 0.97 |

| side | step | MiB read and written | us | GB/s | time/copy |
| --- | --- | ---: | ---: | ---: | ---: |
| K | 16 to 8 | 388.0 | 214.2 | 1900 | 1.56 |
"""
    UPSTREAM = """ggml_cuda_init: found 1 device
| heads | depth | sequences | tokens | layout | type | layers | MiB | us | GB/s |
| --- | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |
| 32/8 | 131072 | 1 | 1 | - | f16 | 1 | 512.0 | 230.0 | 1 |
| 32/8 | 131072 | 1 | 1 | - | q4_0 | 1 | 144.0 | 200.0 | 1 |
| 32/8 | 8192 | 4 | 1 | unified | q8_0 | 4 | 68.0 | 300.0 | 1 |
| 32/8 | 8192 | 4 | 1 | streams | q8_0 | 4 | 68.0 | 90.0 | 1 |
| 32/8 | 8192 | 1 | 512 | - | f16"""  # stopped in the middle of a line

    def test_side_by_side(self):
        found = gpu_kernels.read([self.OURS, self.UPSTREAM])
        self.assertEqual(found["32/8", 8192, 4, 1], {"8": 50.0, "q8_0": 90.0})
        self.assertIn("| 32/8 | 131,072 | 1 | 1 | 230.0 |  | 200.0 | 200.0 (1.15) |  | 80.0 (2.88, 2.50) |  |", gpu_kernels.table(found))
        said = gpu_kernels.verdicts(found)
        self.assertEqual(len(said), 4)
        self.assertTrue(said[0].startswith("16 bits") and said[0].endswith("1.15 times as fast as f16, asked 1.1: met"), said)
        self.assertTrue(said[1].startswith("4 bits") and said[1].endswith("2.88 times as fast as f16, asked 3.0: missed"), said)
        self.assertIn("in 0 of 1 shapes", said[2])
        self.assertIn("in 1 of 1 shapes", said[3])

    def test_the_benchmarks_print_what_is_read(self):
        root = Path(bench_gpu.ROOT)
        for path in ["tests/cuda/bench/attention.rs", "examples/gpu/upstream.cpp"]:
            heads = [line for line in (root / path).read_text().splitlines() if "| heads | depth | sequences | tokens |" in line]
            self.assertEqual(len(heads), 1, path)
            self.assertTrue("| bits |" in heads[0] or "| type |" in heads[0], path)


class Steps(unittest.TestCase):
    def csv(self, rows):
        head = "position,ns,s16_8,s8_4,s4_2,narrow,held,past,bits,captures,launches"
        return "\n".join([head, *(f"{i},{ns},{s},0,0,0,1,1.0,8.0,{c},{n}" for i, (ns, s, c, n) in enumerate(rows))])

    def test_everything_at_once(self):
        text = self.csv([(1000000, 0, 0, 1)] * 40 + [(2500000, 512, 0, 1)] + [(1000000, 0, 0, 1)] * 40)
        said = bench_gpu.all_at_once(Series("x", [Run(text)], 0))
        self.assertIn("512 blocks of a side narrowed in 1 steps from 40 on: 2.50 ms beside 1.00 ms, 1.50 decode steps more", said)

    def test_graphs(self):
        text = self.csv([(1, 0, int(i % 10 == 3), int(i % 10 != 2)) for i in range(40)])
        said = bench_gpu.Graphs(text).line()
        self.assertIn("4 captured in 4 of 40 steps, 36 launched, 4 steps without one; steps between captures: 10", said)
        self.assertIn("no CUDA graph", bench_gpu.Graphs(self.csv([(1, 0, 0, 0)] * 3)).line())


class Session(unittest.TestCase):
    def test_no_more_files_than_come_back(self):
        text = (bench_gpu.ROOT / "scripts/gpu.sh").read_text()
        logs = set(re.findall(r"(?:[ /=])(\w+\.log)\b", text))
        others = set(re.findall(r"\$out/(\w+(?:\.\w+)+)", text))
        self.assertEqual(len(logs | others), 8, logs | others)

    def test_what_fails_does_not_hide_the_rest(self):
        bin_ = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, bin_)
        sample = '{{"n_prompt":0,"n_depth":8,"samples_ts":[{}],"gpu_info":"GPU","cpu_info":""}}'
        program(bin_ / "llama-bench", "#!/bin/sh\ncase \"$*\" in *q8_0*) exec sleep 60;; *q4_0*) echo '" + sample.format(5.0)
                + "';; *) echo '" + sample.format(10.0) + "';; esac\n")
        a = mock.Mock(bin=bin_, layers=1, tiny=True, depth="8", prefill=0, generate=1, repeat=1, threads=1, caches="f16,q8_0,q4_0", limit=2)
        (bin_ / "tiny-1.gguf").touch()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as end:
            bench_gpu.speed(a, bin_)
        self.assertEqual(str(end.exception), "failed: q8_0")
        self.assertIn("q8_0: ended after 2 s", said.getvalue())
        self.assertIn("| q8_0 |  |\n| q4_0 | 5.0 (0.50) |", said.getvalue())


class Same(unittest.TestCase):
    def test_where_texts_part(self):
        same = gpu_same.Same(mock.Mock(jobs=1), ".")
        like = "a" * 200
        self.assertEqual(same.beside(like, like), "equal")
        self.assertEqual(same.beside("a" * 150 + "b", like), "150 of 200")
        self.assertEqual(same.marked, 0)
        self.assertEqual(same.beside("ab", like), "1 of 200 (!)")
        self.assertEqual(same.marked, 1)
        self.assertIn("rc 1", same.beside(gpu_same.Refused("rc 1"), like))
        with mock.patch.object(same, "run", return_value=("\n", "")), self.assertRaisesRegex(gpu_same.Refused, "no text"):
            same.completion(512, 160, [], [], {})

    def test_what_is_off_is_made_again(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        same = gpu_same.Same(mock.Mock(jobs=1, tiny=True), folder)

        def run(program, *args, env=None):
            off = "99" in map(str, args) and "--no-kv-offload" not in args and not (env and "GGML_CUDA_PDL" in env)
            return f"Final estimate: PPL = {4.0 if off else 3.0}", ""

        with mock.patch.object(same, "run", run), contextlib.redirect_stdout(io.StringIO()) as said:
            same.perplexity()
        self.assertIn("| f16 | 3.0000 | 4.0000 (!) | 4.0000 (!) | 3.0000 | 3.0000 |\n| f16, GPU without early launches | 3.0000 |\n"
                      "| f16, GPU without launches that nodes share | 4.0000 (!) |\n| 4 static |", said.getvalue())


class Counter(unittest.TestCase):
    """tests/cuda/graphs.c between a program and a cudart that does nothing."""

    CUDART = "int cudaStreamBeginCapture(void*s,int m){return 0;} int cudaGraphLaunch(void*e,void*s){return 7;}"
    PROGRAM = """int cudaStreamBeginCapture(void*,int); int cudaGraphLaunch(void*,void*);
int main(void) { cudaStreamBeginCapture(0, 0); cudaGraphLaunch(0, 0); return cudaGraphLaunch(0, 0); }"""

    def test_counts(self):
        cc = shutil.which("cc")
        if not cc:
            self.skipTest("no C compiler")
        with tempfile.TemporaryDirectory() as folder:
            at = lambda name: str(Path(folder, name))
            for name, text in [("cudart.c", self.CUDART), ("program.c", self.PROGRAM)]:
                Path(folder, name).write_text(text)
            compile_ = lambda *args: subprocess.run([cc, *args], check=True)
            compile_("-shared", "-fPIC", "-o", at("libcudart.so"), at("cudart.c"))
            compile_("-o", at("program"), at("program.c"), at("libcudart.so"))
            compile_("-shared", "-fPIC", "-o", at("graphs.so"), str(bench_gpu.ROOT / "tests/cuda/graphs.c"), "-ldl")
            r = subprocess.run([at("program")], env={"LD_PRELOAD": at("graphs.so"), "LD_LIBRARY_PATH": folder}, capture_output=True, text=True)
        self.assertEqual(r.returncode, 7)
        self.assertIn("captured 1, instantiated 0, updated 0, launched 2", r.stderr)


class Outbox(unittest.TestCase):
    def test_sources_may_change(self):
        cxx = shutil.which("c++")
        staged = subprocess.run([sys.executable, bench_gpu.ROOT / "scripts/upstream.py", "stage"], capture_output=True, text=True)
        if not cxx or staged.returncode != 0:
            self.skipTest("no C++ compiler, or no ggml")
        sources = [bench_gpu.ROOT / "tests/cuda/outbox.cpp", bench_gpu.ROOT / "llama/pmkvq-outbox.cpp"]
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "outbox")
            subprocess.run([cxx, "-std=c++17", "-g", "-fsanitize=address", f"-I{bench_gpu.ROOT / 'llama'}", f"-I{staged.stdout.strip()}/ggml/include",
                            *sources, "-o", program], check=True)
            r = subprocess.run([program], capture_output=True, text=True)
        self.assertEqual((r.returncode, r.stdout), (0, "ok\n"), r.stderr)


class Loads(unittest.TestCase):
    def test_loads_are_coherent(self):
        """A kernel that is launched early may be on the device while what it reads is written: not a case for non-coherent loads."""
        for path in sorted((bench_gpu.ROOT / "ggml-cuda").glob("*.cu*")):
            code = re.sub(r"//.*", "", path.read_text())
            self.assertNotRegex(code, r"__ldg|__restrict|ld\.global\.nc", path.name)


if __name__ == "__main__":
    unittest.main()
