//! The patched programs as their users run them: flags, environment, bad input, and the server.
#![cfg(feature = "llama")]

mod bad_input;
mod bench;
mod common;
mod eval;
mod flags;
mod generate;
#[path = "../shared/gguf.rs"]
mod gguf;
mod perplexity;
#[path = "../shared/rng.rs"]
mod rng;
mod server;
#[path = "../shared/temporary.rs"]
mod temporary;
