//! pmkvq: a KV cache for llama.cpp with a fixed memory budget and the best precision that fits at every moment.
//!
//! The cache starts at 16 bits and is shrunk in place, block by block, 16 -> 8 -> 4 -> 2 bits as the budget fills
//! (PM-KVQ, arXiv 2505.18610). This crate holds the decisions and the CPU kernels; the glue that must sit inside
//! llama.cpp is in `llama/`, its call sites in `patches/`.

#[macro_use]
mod say;

pub mod bytes;
pub mod capi;
pub mod cli;
#[cfg(feature = "llama")]
pub mod entry;
#[cfg(feature = "llama")]
pub mod eval;
#[cfg(feature = "llama")]
pub mod ffi;
pub mod geometry;
pub mod kernels;
pub mod plan;
pub mod planner;
pub mod policy;
#[cfg(feature = "llama")]
pub mod profile;
#[cfg(feature = "llama")]
pub mod report;
pub mod sensitivity;
pub mod shape;
pub mod state;
pub mod transform;

/// What was built: upstream's release and commit, patches.
pub mod build_info {
    include!(concat!(env!("OUT_DIR"), "/build_info.rs"));
}
