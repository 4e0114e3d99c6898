//! Running the programs, and plans for them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub use super::temporary::Temporary;

macro_rules! program {
    ($name:literal) => {
        ($name, env!(concat!("CARGO_BIN_EXE_", $name)))
    };
}

/// Programs with a KV cache: name and path.
pub const WITH_CACHE: [(&str, &str); 7] = [
    program!("llama-cli"),
    program!("llama-server"),
    program!("llama-perplexity"),
    program!("llama-bench"),
    program!("llama-completion"),
    program!("llama-batched-bench"),
    program!("llama-fit-params"),
];

pub const QUANTIZE: &str = env!("CARGO_BIN_EXE_llama-quantize");

pub fn path_of(name: &str) -> &'static str {
    WITH_CACHE.iter().find(|p| p.0 == name).map(|p| p.1).unwrap()
}

pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/pmkvq-tiny.gguf")
}

/// A plan for the shipped model by `pmkvq plan`.
pub fn plan(n_ctx: u32, args: &[&str]) -> Temporary {
    Temporary::plan(&model(), n_ctx, args)
}

/// A program without the environment's plans, input or terminal.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(path_of(name));
    for variable in ["LLAMA_ARG_PMKVQ_PLAN", "LLAMA_ARG_PMKVQ_BUDGET", "LLAMA_ARG_PMKVQ_RULE"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `llama-completion` on the shipped model, greedily.
pub fn complete(prompt: &str, n: u32, args: &[&str]) -> Output {
    command("llama-completion")
        .arg("-m")
        .arg(model())
        .args(["-p", prompt, "-n", &n.to_string(), "--temp", "0", "-no-cnv", "--no-warmup", "-t", "1", "--simple-io"])
        .args(args)
        .output()
        .unwrap()
}
