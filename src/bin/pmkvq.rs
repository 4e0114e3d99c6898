//! The tool `pmkvq`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pmkvq::cli::main()
}
