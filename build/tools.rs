//! Programs that the build needs: python3 for staging, cmake and ninja, which come as wheels where they are missing.

use super::config::Config;
use std::path::{Path, PathBuf};
use std::process::Command;

const CMAKE: &str = "cmake==3.31.6";
const NINJA: &str = "ninja==1.11.1.4";
/// Lines of a failed program's output.
const SHOWN: usize = 40;

/// What ninja's output says of the first failure, or the end of another program's. Steps that ran beside the one that failed
/// print their warnings behind it.
fn telling(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let failed = lines.iter().position(|l| l.starts_with("FAILED:"));
    let from = failed.unwrap_or(lines.len().saturating_sub(SHOWN));
    let (first, rest) = lines[from..].split_at(SHOWN.min(lines.len() - from));
    let errors = rest.iter().filter(|l| l.contains("error:")).take(SHOWN);
    first.iter().chain(errors).copied().collect::<Vec<_>>().join("\n")
}

/// Runs a command; an error is a message with what it printed.
pub fn run(command: &mut Command, what: &str) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{what}: can't run {:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{what} failed:\n{}", telling(&String::from_utf8_lossy(&text))))
}

fn works(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// The patched tree.
pub fn stage(config: &Config) -> Result<PathBuf, String> {
    for path in ["vendor/llama.cpp.pin", "patches", "llama", "ggml-cuda", "scripts/upstream.py"] {
        println!("cargo:rerun-if-changed={path}");
    }
    if !works(Path::new("python3")) {
        return Err("python3 is needed to fetch and patch llama.cpp: install Python 3.9 or newer".to_string());
    }
    let script = config.root.join("scripts/upstream.py");
    let out = run(
        Command::new("python3").arg(script).arg("stage").env("PMKVQ_CACHE_DIR", &config.cache),
        "staging llama.cpp",
    )?;
    let tree = PathBuf::from(out.trim());
    Ok(tree)
}

/// A program from the environment, from PATH, or as a wheel in the cache.
fn program(config: &Config, name: &str, own: &Option<PathBuf>, package: &str) -> Result<PathBuf, String> {
    if let Some(own) = own {
        return if works(own) { Ok(own.clone()) } else { Err(format!("{}: does not run", own.display())) };
    }
    if works(Path::new(name)) {
        return Ok(PathBuf::from(name));
    }
    // wheels put the real programs here; the scripts in bin/ need the right PYTHONPATH
    let tools = config.cache.join("tools");
    let data = match name {
        "cmake" => tools.join("cmake/data/bin/cmake"),
        _ => tools.join("bin/ninja"),
    };
    if works(&data) {
        return Ok(data);
    }
    if config.offline {
        return Err(format!(
            "PMKVQ_OFFLINE=1, and {name} is not installed: install it, or name one in {}",
            name.to_uppercase()
        ));
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    run(pip.arg(&tools).arg(package), &format!("{name} is not installed, and installing it with pip"))?;
    if works(&data) {
        Ok(data)
    } else {
        Err(format!("{name} was installed to {} but does not run", data.display()))
    }
}

pub fn cmake(config: &Config) -> Result<PathBuf, String> {
    program(config, "cmake", &config.cmake, CMAKE)
}

pub fn ninja(config: &Config) -> Result<PathBuf, String> {
    program(config, "ninja", &config.ninja, NINJA)
}
