//! Every program that a session on a GPU needs, in one: ggml's kernels alone take 37 MB in each program that is linked with them,
//! compressed, and 64 MiB is all that is carried to such a machine (`scripts/gpu_pack.sh`).
//!
//! The name that it is called by says which it is: links to it are made by `scripts/gpu.sh`.

use std::ffi::{c_char, c_int, CString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;

#[path = "../steps.rs"]
mod steps;

type Entry = unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int;

extern "C" {
    fn pmkvq_entry_llama_bench(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn pmkvq_entry_llama_completion(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn pmkvq_entry_llama_perplexity(argc: c_int, argv: *mut *mut c_char) -> c_int;
    fn pmkvq_upstream_attention(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

fn call(entry: Entry) -> ExitCode {
    pmkvq::capi::register();
    let args: Vec<CString> = std::env::args_os().filter_map(|a| CString::new(a.into_vec()).ok()).collect();
    let mut argv: Vec<*mut c_char> = args.iter().map(|a| a.as_ptr().cast_mut()).collect();
    let argc = argv.len() as c_int;
    argv.push(std::ptr::null_mut());
    // SAFETY: arguments as a C program's main gets them, once and before anything else runs; they live until it returns
    let status = unsafe { entry(argc, argv.as_mut_ptr()) };
    // as a C program ends: what it registered with atexit runs
    std::process::exit(status)
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|n| n.to_str()).unwrap_or("") {
        "pmkvq" => pmkvq::cli::main(),
        "steps" => steps::main(),
        "llama-bench" => call(pmkvq_entry_llama_bench),
        "llama-completion" => call(pmkvq_entry_llama_completion),
        "llama-perplexity" => call(pmkvq_entry_llama_perplexity),
        "upstream" => call(pmkvq_upstream_attention),
        other => {
            eprintln!(
                "gpu: '{other}' is none of its programs: call it by a link that is named pmkvq, steps, llama-bench, \
                 llama-completion, llama-perplexity or upstream"
            );
            ExitCode::from(2)
        }
    }
}
