//! One Release build of the patched tree for all cargo profiles.

use super::config::Config;
use super::tools;
use std::env;
use std::ffi::OsString;
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

const OPTIONS: [&str; 6] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=ON",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
];

/// What a build folder was configured with.
const TOLD: &str = "pmkvq-arguments.txt";

/// cmake remembers each option that it was ever given, and libraries of a compiler that is no longer used. Objects stay; ninja
/// knows which are still right.
fn forget_other_arguments(build: &Path, arguments: &[String]) -> Result<(), String> {
    if fs::read_to_string(build.join(TOLD)).is_ok_and(|told| told == arguments.join("\n")) {
        return Ok(());
    }
    for path in [build.join("CMakeCache.txt"), build.join("CMakeFiles")] {
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", path.display())),
            _ => {}
        }
    }
    Ok(())
}

pub fn build(config: &Config, tree: &Path) -> Result<PathBuf, String> {
    // a folder each, so that neither build undoes the other
    let build = config.cache.join(if config.cuda { "build-cuda" } else { "build" });
    fs::create_dir_all(&build).map_err(|e| format!("{}: {e}", build.display()))?;
    let (cmake, ninja) = (tools::cmake(config)?, tools::ninja(config)?);
    let commit = super::link::pin(config)?.1;
    let mut arguments = vec![
        format!("-DCMAKE_MAKE_PROGRAM={}", which(&ninja).display()),
        format!("-DLLAMA_BUILD_COMMIT={commit}"),
        format!("-DLLAMA_BUILD_NUMBER={BUILD_NUMBER}"),
    ];
    arguments.extend(OPTIONS.map(str::to_string));
    if config.cuda {
        arguments.extend(super::cuda::configure(config)?);
    }
    arguments.extend(config.cmake_args.iter().cloned());
    forget_other_arguments(&build, &arguments)?;
    let path = path_with(&ninja)?;
    let mut configure = Command::new(&cmake);
    configure.env("PATH", &path).arg("-S").arg(tree).arg("-B").arg(&build).args(["-G", "Ninja"]).args(&arguments);
    tools::run(&mut configure, "configuring llama.cpp (is a C++ compiler installed?)")?;
    let told = build.join(TOLD);
    fs::write(&told, arguments.join("\n")).map_err(|e| format!("{}: {e}", told.display()))?;
    let mut make = Command::new(&cmake);
    make.env("PATH", &path).arg("--build").arg(&build).args(["--parallel", &config.jobs, "--target"]).args(TARGETS);
    tools::run(&mut make, "building llama.cpp")?;
    Ok(build)
}

/// PATH with this program's folder in front: ggml's Vulkan backend has a build of its own within, which looks for ninja there.
fn path_with(program: &Path) -> Result<OsString, String> {
    let old = env::var_os("PATH").unwrap_or_default();
    let folder = program.parent().filter(|f| !f.as_os_str().is_empty()).map(Path::to_path_buf);
    env::join_paths(folder.into_iter().chain(env::split_paths(&old)))
        .map_err(|e| format!("PATH with {}: {e}", program.display()))
}

/// A path for a name on PATH.
pub fn which(program: &Path) -> PathBuf {
    if program.components().count() > 1 {
        return program.to_path_buf();
    }
    env::var_os("PATH")
        .and_then(|path| env::split_paths(&path).map(|dir| dir.join(program)).find(|p| p.is_file()))
        .unwrap_or_else(|| program.to_path_buf())
}
