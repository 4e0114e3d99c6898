//! A stand-in for the GPU: it runs the PTX that nvcc made of the kernels, on the host (`python3 scripts/cuda_lib.py ptx`).
//!
//! nvcc's own host code registers the kernels and launches them; `runtime.cpp` is the CUDA runtime that it meets, and this library is
//! behind that. A kernel's PTX is parsed when it is launched first, CTAs run one after another in a random order, their warps in
//! turns, the lanes of a warp together. What a GPU would punish is an error that names kernel and line.

mod access;
mod allocate;
mod atomics;
mod convert;
mod copies;
mod decode;
mod effects;
mod exchange;
mod fatbin;
mod float;
mod grid;
mod half;
mod integer;
mod lanes;
mod matrix;
mod memory;
mod module;
mod program;
mod races;
mod report;
mod runtime;
mod shared;
mod special;
mod text;
mod values;
mod warp;

/// Codes of `cudaError_t`.
pub mod code {
    pub const INVALID_VALUE: i32 = 1;
    pub const INVALID_CONFIGURATION: i32 = 9;
    pub const INVALID_FUNCTION: i32 = 98;
    pub const ILLEGAL_ADDRESS: i32 = 700;
    pub const TIMEOUT: i32 = 702;
    pub const MISALIGNED: i32 = 716;
    pub const ILLEGAL_INSTRUCTION: i32 = 715;
    pub const LAUNCH_FAILURE: i32 = 719;
}

/// What ended a kernel.
pub struct Fault {
    pub code: i32,
    pub text: String,
}

pub type Done = Result<(), Box<Fault>>;

#[cold]
pub fn fault<T>(code: i32, text: impl Into<String>) -> Result<T, Box<Fault>> {
    Err(Box::new(Fault { code, text: text.into() }))
}

/// Where something random comes from (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n as u64) as usize
    }
}
