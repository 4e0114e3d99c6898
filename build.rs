//! Builds and links llama.cpp (feature `llama`). The steps are in `build/`.

#[path = "build/cmake.rs"]
mod cmake;
#[path = "build/config.rs"]
mod config;
#[path = "build/link.rs"]
mod link;
#[path = "build/tools.rs"]
mod tools;

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
    let tree = tools::stage(config)?;
    let build = match &config.own_build {
        Some(build) => build.clone(),
        None => cmake::build(config, &tree)?,
    };
    link::link(config, &tree, &build)
}
