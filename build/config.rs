//! Everything that the environment says, read in one place.

use std::env;
use std::path::PathBuf;

pub struct Config {
    /// Feature `llama`.
    pub llama: bool,
    /// Feature `cuda`.
    pub cuda: bool,
    /// Feature `upstream-attention`.
    pub upstream_attention: bool,
    pub root: PathBuf,
    pub out: PathBuf,
    /// `PMKVQ_CACHE_DIR`: staged tree, build folder, tools. Shared by all cargo profiles. Default `.cache` in the repository.
    pub cache: PathBuf,
    /// `PMKVQ_LLAMA_BUILD`: an own build folder of the patched tree; nothing is built.
    pub own_build: Option<PathBuf>,
    /// `PMKVQ_CMAKE_ARGS`: further arguments for cmake, separated by spaces.
    pub cmake_args: Vec<String>,
    /// `PMKVQ_OFFLINE=1`: nothing is downloaded.
    pub offline: bool,
    /// `CMAKE`, `NINJA`: programs to use.
    pub cmake: Option<PathBuf>,
    pub ninja: Option<PathBuf>,
    /// `NUM_JOBS`, as cargo sets it.
    pub jobs: String,
}

impl Config {
    pub fn from_env() -> Config {
        let path = |name: &str| {
            println!("cargo:rerun-if-env-changed={name}");
            env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
        };
        let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
        // read by scripts/upstream.py
        for name in ["PMKVQ_LLAMA_SRC", "PMKVQ_LLAMA_ALLOW_OTHER"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        // read by scripts/cuda_toolkit.py and by cmake
        let cuda = env::var_os("CARGO_FEATURE_CUDA").is_some();
        for name in ["PMKVQ_CUDA_HOME", "CUDACXX", "CUDA_PATH", "CUDA_HOME", "CUDAARCHS", "CUDAHOSTCXX"] {
            if cuda {
                println!("cargo:rerun-if-env-changed={name}");
            }
        }
        println!("cargo:rerun-if-env-changed=PMKVQ_CMAKE_ARGS");
        println!("cargo:rerun-if-env-changed=PMKVQ_OFFLINE");
        Config {
            llama: env::var_os("CARGO_FEATURE_LLAMA").is_some(),
            cuda,
            upstream_attention: env::var_os("CARGO_FEATURE_UPSTREAM_ATTENTION").is_some(),
            cache: path("PMKVQ_CACHE_DIR").unwrap_or_else(|| root.join(".cache")),
            root,
            out: PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()),
            own_build: path("PMKVQ_LLAMA_BUILD"),
            cmake_args: env::var("PMKVQ_CMAKE_ARGS")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_string)
                .collect(),
            offline: env::var("PMKVQ_OFFLINE").is_ok_and(|v| v == "1"),
            cmake: path("CMAKE"),
            ninja: path("NINJA"),
            jobs: env::var("NUM_JOBS").unwrap_or_else(|_| "2".to_string()),
        }
    }
}
