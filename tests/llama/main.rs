//! The cache inside llama.cpp, on the shipped model and on models of every architecture that upstream's tests can make.
//! All pools are filled with 0xFF bytes before every context. Seeds are printed; `PMKVQ_SEED=n` runs that seed alone.
#![cfg(feature = "llama")]

mod aborted;
mod architectures;
mod common;
mod emptied;
mod equality;
#[path = "../shared/gguf.rs"]
mod gguf;
mod images;
mod models;
mod probe;
mod profile;
mod reuse;
#[path = "../shared/rng.rs"]
mod rng;
mod shapes;
mod states;
#[path = "../shared/temporary.rs"]
mod temporary;
mod transforms;
mod walk;
