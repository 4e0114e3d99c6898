# Everything is fetched and built by these targets; nothing has to be installed first but Rust, a C++ compiler, Python 3, make.

.PHONY: demo test test-export bench bench-steps bench-kernels build series-import series-export series-check upstream-test aarch64-test asan-test lint bindings-check cuda cuda-check cuda-test cuda-ptx clean

build:
	cargo build --release

demo: build
	target/release/pmkvq demo

test: build series-check
	cargo test --release
	python3 scripts/cuda_lib.py selftest
	python3 scripts/test_cuda_scripts.py
	$(MAKE) upstream-test
	$(MAKE) bindings-check
	$(MAKE) lint

# pristine + series is exactly what is built
series-check:
	python3 scripts/upstream.py check

# edit the patches: import into a git repository, commit there, export
series-import:
	python3 scripts/upstream.py import $(DIR)

series-export:
	python3 scripts/upstream.py export $(DIR)

# upstream's own tests on the patched tree (docs/upstream.md says which and why)
upstream-test: build
	python3 scripts/upstream_tests.py

# the kernels' tests for aarch64, under emulation (docs/build.md)
aarch64-test:
	scripts/aarch64_tests.sh

# the kernels' tests under AddressSanitizer (docs/build.md)
asan-test:
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --release --no-default-features --test kernels --test state \
		--target $$(rustc -vV | sed -n 's/^host: //p') --target-dir target/asan

# with the CUDA backend and our kernels in it; a toolkit is fetched if there is none (docs/build.md)
cuda:
	cargo build --release --features cuda

# every kernel compiled for every GPU generation, and what it takes; fails if one that decodes spills registers.
# WRITE=1 writes the table to docs/results/cuda-resources.md
cuda-check:
	python3 scripts/cuda_check.py $(if $(WRITE),--write)

# the kernels' tests, on the host in place of a GPU; GPU=1: on the GPU
cuda-test:
	python3 scripts/cuda_lib.py $(if $(GPU),gpu,selftest)
	$(if $(GPU),PMKVQ_CUDA_LIB="$$(python3 scripts/cuda_lib.py gpu)") cargo test --release --no-default-features --test cuda

# the kernels' tests with the PTX that nvcc makes of them, on the host (docs/cuda-testing.md); BARE=--no-default-features: without llama.cpp.
cuda-ptx:
	for arch in 75 90; do \
		python3 scripts/cuda_lib.py selftest --arch $$arch && \
		lib="$$(python3 scripts/cuda_lib.py ptx --arch $$arch)" && \
		PMKVQ_CUDA_LIB="$$lib" cargo test --release $(BARE) --test cuda -- --skip bench || exit 1; \
	done

# the committed bindings are what the patched header gives (libclang comes as a wheel into the cache)
bindings-check: build
	python3 scripts/bindings.py --check

lint:
	cargo fmt --check
	rustfmt --check --edition 2021 tests/cuda/ptx/lib.rs
	cargo clippy --release --all-targets -- -D warnings

# the offline exporter, in a virtual environment of its own that it makes in the cache (docs/export.md)
test-export:
	python3 scripts/test_export.py

# the speed of all caches side by side, and the machine's ceilings (docs/speed.md); more options: make bench BENCH='--cpu avx2'
bench: build
	cargo build --release --example ceilings
	python3 scripts/bench.py --output target/bench.md $(BENCH)

# step time against position over a whole context, as a picture (docs/speed.md)
bench-steps: build
	cargo build --release --example steps
	python3 scripts/steps.py --output target/steps.md --svg target/steps.svg $(STEPS)

# the kernels one by one: make bench-kernels FILTER='decode.*avx2'
bench-kernels:
	cargo bench --no-default-features --bench kernels -- $(if $(FILTER),'$(FILTER)')

clean:
	rm -rf target .cache
