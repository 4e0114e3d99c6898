//! One Release build of the patched tree for all cargo profiles.

use super::config::Config;
use super::tools;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The libraries that the programs are made of (see upstream's app/CMakeLists.txt).
const TARGETS: [&str; 8] = [
    "llama-server-impl",
    "llama-cli-impl",
    "llama-completion-impl",
    "llama-bench-impl",
    "llama-batched-bench-impl",
    "llama-fit-params-impl",
    "llama-quantize-impl",
    "llama-perplexity-impl",
];

/// Upstream's own number for its builds means nothing here; the commit is what the pin says.
const BUILD_NUMBER: &str = "0";

pub fn build(config: &Config, tree: &Path) -> Result<PathBuf, String> {
    // a folder each, so that neither build undoes the other
    let build = config.cache.join(if config.cuda { "build-cuda" } else { "build" });
    fs::create_dir_all(&build).map_err(|e| format!("{}: {e}", build.display()))?;
    let (cmake, ninja) = (tools::cmake(config)?, tools::ninja(config)?);
    let commit = super::link::pin(config)?.1;
    let mut configure = Command::new(&cmake);
    configure.arg("-S").arg(tree).arg("-B").arg(&build).args(["-G", "Ninja"]);
    configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", which(&ninja).display()));
    configure.arg(format!("-DLLAMA_BUILD_COMMIT={commit}")).arg(format!("-DLLAMA_BUILD_NUMBER={BUILD_NUMBER}"));
    configure.args([
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_BUILD_TESTS=ON",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_OPENSSL=OFF",
    ]);
    if config.cuda {
        configure.args(super::cuda::configure(config, &build)?);
    }
    configure.args(&config.cmake_args);
    tools::run(&mut configure, "configuring llama.cpp (is a C++ compiler installed?)")?;
    let mut make = Command::new(&cmake);
    make.arg("--build").arg(&build).args(["--parallel", &config.jobs, "--target"]).args(TARGETS);
    tools::run(&mut make, "building llama.cpp")?;
    Ok(build)
}

/// A path for a name on PATH.
pub fn which(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_path_buf();
    }
    std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file()))
        .unwrap_or_else(|| program.to_path_buf())
}
