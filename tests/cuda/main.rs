//! The CUDA operations against the CPU's. They run on a GPU if `PMKVQ_CUDA_LIB` names the library for one, else on the host by
//! the execution shim (`tests/cuda/shim`), kernels and all.

mod attention;
mod bench;
// the kernels' tests use all of it
#[allow(dead_code)]
#[path = "../kernels/common.rs"]
mod common;
mod device;
#[path = "../kernels/hard.rs"]
mod hard;
mod load;
mod merge;
#[path = "../shared/rng.rs"]
mod rng;
mod shrink;
mod store;
mod transform;
#[path = "../shared/transforms.rs"]
mod transforms;
