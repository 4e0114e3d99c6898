//! Builds and links llama.cpp (feature `llama`). The steps are in `build/`.

#[path = "build/cmake.rs"]
mod cmake;
#[path = "build/config.rs"]
mod config;
#[path = "build/cuda.rs"]
mod cuda;
#[path = "build/link.rs"]
mod link;
#[path = "build/tools.rs"]
mod tools;
#[path = "build/values.rs"]
mod values;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    let config = config::Config::from_env();
    if let Err(message) = run(&config) {
        // one message, not a panic with a backtrace
        eprintln!("\npmkvq: {message}\n");
        std::process::exit(1);
    }
}

fn run(config: &config::Config) -> Result<(), String> {
    link::write_build_info(config)?;
    if !config.llama {
        return Ok(());
    }
    // cargo may run several build scripts at once (check and build, two profiles)
    let failed = |e: std::io::Error| format!("{}: {e}", config.cache.display());
    std::fs::create_dir_all(&config.cache).map_err(failed)?;
    let lock = std::fs::File::create(config.cache.join("build.lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let tree = tools::stage(config)?;
    let build = match &config.own_build {
        Some(build) => build.clone(),
        None => cmake::build(config, &tree)?,
    };
    // tests build more of the tree
    println!("cargo:rustc-env=PMKVQ_CMAKE={}", cmake::which(&tools::cmake(config)?).display());
    println!("cargo:rustc-env=PMKVQ_BUILD_DIR={}", build.display());
    link::link(config, &tree, &build)
}
