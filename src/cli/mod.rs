//! The command line of `pmkvq`. stdout is data, stderr is talk; exit codes: 0 done, 1 failure or mismatch, 2 usage
//! (`diff`: 0 the same, 1 different, 2 failure or usage).

#[cfg(feature = "llama")]
mod candidate;
mod check;
#[cfg(feature = "llama")]
mod demo;
mod diff;
mod doctor;
#[cfg(feature = "llama")]
mod eval;
mod model;
mod output;
mod picture;
mod plan;
#[cfg(feature = "llama")]
mod profile;
#[cfg(feature = "llama")]
mod progress;
mod show;
mod sweep;
#[cfg(feature = "llama")]
mod verify;
#[cfg(not(feature = "llama"))]
mod verify {
    //! Without llama.cpp there is nothing to measure with.
    use super::{model::Shape, plan::Args};
    use crate::plan::Plan;

    pub fn run(_: &Args, _: &std::path::Path, _: &Shape, _: &Plan) -> Result<(), String> {
        Err("--verify: this build has no llama.cpp to measure with".to_string())
    }
}

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Progressive mixed-precision KV cache for llama.cpp: plans, and what they are worth.
#[derive(Parser)]
#[command(name = "pmkvq", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a plan: the final width of K and V of every layer under a memory budget
    Plan(Box<plan::Args>),
    /// Measure a model on a text: how much each width costs each layer's K and V, and which transforms help
    #[cfg(feature = "llama")]
    Profile(profile::Args),
    /// Print a plan: layers, widths, bytes, and how widths fall as the context grows
    Show(show::Args),
    /// Does a plan fit a model?
    Check(check::Args),
    /// Compare two plans: fields, widths, bytes, expected loss. Exit code 0 if they are the same, 1 if not, 2 for errors
    Diff(diff::Args),
    /// Print what this build is made of
    Doctor,
    /// Score a text with several KV caches, read as in decoding
    #[cfg(feature = "llama")]
    Eval(eval::Args),
    /// A plan for the shipped model, and what it costs against other caches
    #[cfg(feature = "llama")]
    Demo(demo::Args),
}

pub fn main() -> ExitCode {
    // usage errors leave with 2 here
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Plan(args) => plan::run(&args),
        #[cfg(feature = "llama")]
        Command::Profile(args) => profile::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Diff(args) => {
            return match diff::run(&args) {
                Ok(same) => ExitCode::from(u8::from(!same)),
                Err(message) => {
                    sayln!("pmkvq: {message}");
                    ExitCode::from(2)
                }
            }
        }
        Command::Doctor => doctor::run(),
        #[cfg(feature = "llama")]
        Command::Eval(args) => eval::run(&args),
        #[cfg(feature = "llama")]
        Command::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            sayln!("pmkvq: {message}");
            ExitCode::FAILURE
        }
    }
}
