//! The command line of `pmkvq`. stdout is data, stderr is talk; exit codes: 0 done, 1 failure or mismatch, 2 usage.

#[cfg(feature = "llama")]
mod candidate;
mod check;
#[cfg(feature = "llama")]
mod demo;
mod doctor;
#[cfg(feature = "llama")]
mod eval;
mod model;
mod output;
mod plan;
#[cfg(feature = "llama")]
mod progress;
mod show;

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
    Plan(plan::Args),
    /// Print a plan: layers, widths, bytes, and how widths fall as the context grows
    Show(show::Args),
    /// Does a plan fit a model?
    Check(check::Args),
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
        Command::Show(args) => show::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor => doctor::run(),
        #[cfg(feature = "llama")]
        Command::Eval(args) => eval::run(&args),
        #[cfg(feature = "llama")]
        Command::Demo(args) => demo::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pmkvq: {message}");
            ExitCode::FAILURE
        }
    }
}
