//! Feature `cuda`: the toolkit, what cmake is told of it, and what the programs are linked with.

use super::config::Config;
use super::tools;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `key=value` lines or `KEY:TYPE=value` lines.
struct Values(HashMap<String, String>);

impl Values {
    fn parse(text: &str) -> Values {
        let pair = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let key = key.split(':').next().unwrap_or(key);
            Some((key.trim().to_string(), value.trim().to_string()))
        };
        Values(text.lines().filter_map(pair).collect())
    }

    /// A CMakeCache.txt.
    fn of_build(build: &Path) -> Result<Values, String> {
        let path = build.join("CMakeCache.txt");
        Ok(Values::parse(&fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?))
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn on(&self, key: &str) -> bool {
        matches!(self.get(key).to_ascii_uppercase().as_str(), "ON" | "1" | "TRUE" | "YES" | "Y")
    }
}

/// What cmake is told. The toolkit is found, or fetched, by scripts/cuda_toolkit.py, which other scripts use too.
pub fn configure(config: &Config, build: &Path) -> Result<Vec<String>, String> {
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
    forget_other_compiler(build, kit.get("nvcc"))?;
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

/// cmake does not change the compiler of a build folder without losing other settings, and keeps the old libraries.
fn forget_other_compiler(build: &Path, nvcc: &str) -> Result<(), String> {
    let Ok(old) = Values::of_build(build) else { return Ok(()) };
    if old.get("CMAKE_CUDA_COMPILER") == nvcc {
        return Ok(());
    }
    let failed = |e: std::io::Error| format!("{}: {e}", build.display());
    fs::remove_file(build.join("CMakeCache.txt")).map_err(failed)?;
    fs::remove_dir_all(build.join("CMakeFiles")).map_err(failed)
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
