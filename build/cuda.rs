//! Feature `cuda`: the toolkit, what cmake is told of it, and what the programs are linked with.

use super::config::Config;
use super::tools;
use super::values::Values;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What cmake is told. The toolkit is found, or fetched, by scripts/cuda_toolkit.py, which other scripts use too.
pub fn configure(config: &Config) -> Result<Vec<String>, String> {
    println!("cargo:rerun-if-changed=scripts/cuda_toolkit.py");
    let script = config.root.join("scripts/cuda_toolkit.py");
    let mut find = Command::new("python3");
    find.arg(script).env("PMKVQ_CACHE_DIR", &config.cache);
    let kit = Values::parse(&tools::run(&mut find, "finding a CUDA toolkit")?);
    if kit.get("archs_from") == "default" {
        println!(
            "cargo:warning=no GPU here to build for: CUDA code is built for {} (CUDAARCHS names others, for example CUDAARCHS=90)",
            kit.get("archs")
        );
    }
    let on = |yes: bool| if yes { "ON" } else { "OFF" };
    Ok(vec![
        "-DGGML_CUDA=ON".to_string(),
        format!("-DCMAKE_CUDA_COMPILER={}", kit.get("nvcc")),
        format!("-DCUDAToolkit_ROOT={}", kit.get("root")),
        format!("-DCMAKE_CUDA_ARCHITECTURES={}", kit.get("archs")),
        // ggml's pool of virtual memory calls the driver, libcuda, which a machine without a GPU can only link with a stub.
        // Wheels have none. Without it ggml allocates its scratch in pieces
        format!("-DGGML_CUDA_NO_VMM={}", on(kit.get("stub").is_empty())),
        format!("-DGGML_CUDA_NCCL={}", on(kit.get("nccl") == "1")),
    ])
}

/// Shared libraries that a build folder's ggml needs, as its CMakeCache.txt has them; so an own build folder works too.
pub fn libraries(build: &Path) -> Result<Vec<PathBuf>, String> {
    let cache = Values::of_build(build)?;
    if !cache.on("GGML_CUDA") {
        return Err(format!("{}: feature cuda, but that is a build without -DGGML_CUDA=ON", build.display()));
    }
    let mut keys = vec!["CUDA_cublas_LIBRARY", "CUDA_cublasLt_LIBRARY", "CUDA_cudart_LIBRARY"];
    if !cache.on("GGML_CUDA_NO_VMM") {
        keys.push("CUDA_cuda_driver_LIBRARY");
    }
    if cache.on("GGML_CUDA_NCCL") && !cache.get("NCCL_LIBRARY").ends_with("NOTFOUND") {
        keys.push("NCCL_LIBRARY");
    }
    let library = |key: &str| {
        let path = PathBuf::from(cache.get(key));
        if path.is_file() {
            Ok(path)
        } else {
            Err(format!("{}: {key} in CMakeCache.txt is no library: {:?}", build.display(), cache.get(key)))
        }
    };
    keys.into_iter().map(library).collect()
}

/// Whether a build folder has ggml's CUDA backend.
pub fn is_in(build: &Path) -> bool {
    Values::of_build(build).is_ok_and(|cache| cache.on("GGML_CUDA"))
}
