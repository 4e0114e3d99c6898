//! Writes `src/ffi/bindings.rs` from the patched `llama.h`, or checks that the committed file still says the same.
//!
//! ```text
//! cargo run --profile once --no-default-features --features bindgen --bin pmkvq-bindings -- --llama DIR [--check]
//! ```
//!
//! Needs libclang (`LIBCLANG_PATH` names its folder) and a C compiler, whose own headers (`stddef.h`) are used, since
//! libclang from a package registry comes without any. Users of the crate need neither: the result is committed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

/// Regenerate the committed bindings of the patched llama.h.
#[derive(Parser)]
struct Args {
    /// A patched llama.cpp tree (the folder that has include/ and ggml/include/)
    #[arg(long, value_name = "DIR")]
    llama: PathBuf,
    /// Compare with the committed file and change nothing; exit code 1 if they differ
    #[arg(long)]
    check: bool,
}

const HEADER: &str = "// Generated from the patched llama.h by pmkvq-bindings; do not edit.";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("pmkvq-bindings: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<String, String> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi/bindings.rs");
    let fresh = generate(&args.llama)?;
    if args.check {
        let committed = std::fs::read_to_string(&target).map_err(|e| format!("{}: {e}", target.display()))?;
        return match first_difference(&committed, &fresh) {
            None => Ok(format!("{} is what {} gives", target.display(), args.llama.display())),
            Some((line, old, new)) => Err(format!(
                "{} is out of date: line {line} is '{old}', the header gives '{new}'; run pmkvq-bindings without --check \
                 and commit the result",
                target.display()
            )),
        };
    }
    // beside it, then renamed: an interrupted run leaves the old file
    let beside = target.with_extension("rs.new");
    std::fs::write(&beside, fresh)
        .and_then(|()| std::fs::rename(&beside, &target))
        .map_err(|e| format!("{}: {e}", target.display()))?;
    Ok(format!("wrote {}", target.display()))
}

fn generate(llama: &Path) -> Result<String, String> {
    let header = llama.join("include/llama.h");
    let text = std::fs::read_to_string(&header).map_err(|e| format!("{}: {e}", header.display()))?;
    if !text.contains("llama_pmkvq_describe") {
        return Err(format!(
            "{} is not patched: give the tree that pmkvq's build made, not a pristine one",
            header.display()
        ));
    }
    let builder = bindgen::Builder::default()
        .header(header.display().to_string())
        .clang_arg(format!("-I{}", llama.join("include").display()))
        .clang_arg(format!("-I{}", llama.join("ggml/include").display()))
        .clang_args(compiler_headers()?)
        .allowlist_function("llama_.*")
        .allowlist_type("llama_.*")
        .allowlist_var("LLAMA_.*")
        // only passed on as pointers; the C library's own layout is not ours to describe
        .opaque_type("FILE")
        .prepend_enum_name(false)
        .derive_default(false)
        .generate_comments(false)
        .use_core()
        .formatter(bindgen::Formatter::Prettyplease)
        .disable_header_comment()
        .raw_line(HEADER);
    let bindings = builder.generate().map_err(|e| format!("{}: {e}", header.display()))?;
    Ok(bindings.to_string())
}

/// Where the compiler keeps `stddef.h` and its like. `CC` names another compiler than `cc`.
fn compiler_headers() -> Result<Vec<String>, String> {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
    let output = Command::new(&cc)
        .arg("-print-file-name=include")
        .output()
        .map_err(|e| format!("the C compiler '{cc}' does not run ({e}); CC names another"))?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_string();
    // clang answers with the bare word, and libclang then has headers of its own
    Ok(if Path::new(&folder).is_absolute() { vec!["-isystem".to_string(), folder] } else { Vec::new() })
}

/// The first line in which two texts differ: its number, counted from 1, and both versions.
fn first_difference<'a>(old: &'a str, new: &'a str) -> Option<(usize, &'a str, &'a str)> {
    if old == new {
        return None;
    }
    let (mut a, mut b) = (old.lines(), new.lines());
    let mut line = 0;
    loop {
        line += 1;
        match (a.next(), b.next()) {
            (Some(x), Some(y)) if x == y => {}
            (None, None) => return Some((line, "(line ends differ)", "")),
            (x, y) => return Some((line, x.unwrap_or("(end)"), y.unwrap_or("(end)"))),
        }
    }
}
