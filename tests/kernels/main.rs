//! The kernels against their scalar reference, on every level of instructions that this CPU has, over pools that held garbage.

mod attention;
mod codes;
mod common;
mod hard;
mod layout;
mod limits;
mod load;
mod merge;
mod ranges;
#[path = "../shared/rng.rs"]
mod rng;
mod shrink;
mod store;
mod transform;
#[path = "../shared/transforms.rs"]
mod transforms;
