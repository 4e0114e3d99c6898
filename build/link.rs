//! Linker arguments, the C++ shims of the programs, and what `pmkvq doctor` tells of the build.

use super::config::Config;
use super::cuda;
use super::values::Values;
use std::fs;
use std::path::{Path, PathBuf};

fn archives(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            archives(&path, found);
        } else if path.extension().is_some_and(|e| e == "a") {
            found.push(path);
        }
    }
}

pub fn link(config: &Config, tree: &Path, build: &Path) -> Result<(), String> {
    let mut libs = Vec::new();
    archives(build, &mut libs);
    libs.sort();
    if !libs.iter().any(|l| l.ends_with("libllama.a")) {
        return Err(format!("{}: no static libllama there (built with -DBUILD_SHARED_LIBS=OFF?)", build.display()));
    }
    if !config.cuda && cuda::is_in(build) {
        return Err(format!("{}: a build with CUDA, which needs --features cuda", build.display()));
    }
    let mut entry = cc::Build::new();
    if config.upstream_attention {
        entry.file(config.root.join("examples/gpu/upstream.cpp"));
        println!("cargo:rerun-if-changed=examples/gpu/upstream.cpp");
        println!("cargo:rerun-if-changed=examples/gpu/upstream-attention.h");
    }
    entry
        .cpp(true)
        .std("c++17")
        .file(config.root.join("src/entry/entry.cpp"))
        .include(tree.join("common"))
        .include(tree.join("include"))
        .include(tree.join("ggml/include"))
        .warnings(false)
        .compile("pmkvq_entry");
    println!("cargo:rerun-if-changed=src/entry/entry.cpp");
    // the libraries refer to each other in circles
    println!("cargo:rustc-link-arg=-Wl,--start-group");
    for lib in &libs {
        // our own build is newer than the start of this script, which cargo would take for a change
        if config.own_build.is_some() {
            println!("cargo:rerun-if-changed={}", lib.display());
        }
        println!("cargo:rustc-link-arg={}", lib.display());
    }
    println!("cargo:rustc-link-arg=-Wl,--end-group");
    if config.cuda {
        link_cuda(build)?;
    }
    link_vulkan(build);
    for lib in ["stdc++", "gomp", "m", "pthread", "dl"] {
        println!("cargo:rustc-link-arg=-l{lib}");
    }
    Ok(())
}

/// CUDA's own libraries are shared ones; programs find them where they were when they were built.
fn link_cuda(build: &Path) -> Result<(), String> {
    let mut folders = Vec::new();
    // cublas needs cublasLt, which our RUNPATH finds only if the program needs it itself
    println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed");
    for lib in cuda::libraries(build)? {
        println!("cargo:rustc-link-arg={}", lib.display());
        // the driver comes with the system: what is linked is a stub
        let folder = lib.parent().unwrap_or(Path::new("/")).to_path_buf();
        if !lib.ends_with("libcuda.so") && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    println!("cargo:rustc-link-arg=-Wl,--pop-state");
    for folder in folders {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
    Ok(())
}

/// The loader, where ggml was built with GGML_VULKAN.
fn link_vulkan(build: &Path) {
    if let Some(cache) = Values::of_build(build).ok().filter(|cache| cache.on("GGML_VULKAN")) {
        println!("cargo:rustc-link-arg={}", cache.get("Vulkan_LIBRARY"));
    }
}

/// (release, commit)
pub fn pin(config: &Config) -> Result<(String, String), String> {
    let path = config.root.join("vendor/llama.cpp.pin");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let value = |key: &str| {
        text.lines()
            .filter_map(|l| l.split_once('='))
            .find(|(k, _)| k.trim() == key)
            .map(|(_, v)| v.trim().to_string())
            .ok_or(format!("{}: no '{key}'", path.display()))
    };
    Ok((value("release")?, value("commit")?))
}

/// `build_info.rs`: constants for `pmkvq doctor`.
pub fn write_build_info(config: &Config) -> Result<(), String> {
    let (release, commit) = pin(config)?;
    let folder = config.root.join("patches");
    let series = fs::read_to_string(folder.join("series")).unwrap_or_default();
    let mut patches = String::new();
    for name in series.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        let text = fs::read_to_string(folder.join(name)).map_err(|e| format!("patches/{name}: {e}"))?;
        let subject = text.lines().find_map(|l| l.strip_prefix("Subject: ")).unwrap_or("").to_string();
        patches.push_str(&format!("    ({name:?}, {subject:?}),\n"));
    }
    let text = format!(
        "pub const RELEASE: &str = {release:?};\npub const COMMIT: &str = {commit:?};\n\
         pub const PATCHES: &[(&str, &str)] = &[\n{patches}];\n"
    );
    fs::write(config.out.join("build_info.rs"), text).map_err(|e| format!("build_info.rs: {e}"))
}
