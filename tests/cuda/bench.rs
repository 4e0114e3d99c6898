//! How fast the device is, against its own copies: `cargo test --release --test cuda bench -- --ignored --nocapture`.
//!
//! `PMKVQ_BENCH`: `quick` (the default on a GPU), `full`, or `prefill` (512 queries); the shim has no clock and only shows that
//! everything runs (`tiny`). `scripts/gpu_kernels.py` puts upstream's times beside these.
//! `PMKVQ_BENCH_ONLY`: one line of the attention's table and nothing else, '32/8 131072 1 2', for a profiler.
//! `PMKVQ_BENCH_TOKENS`: queries of one sequence, for prefill.
//! `PMKVQ_BENCH_SHARED`: KiB of shared memory that a CTA can have, no more than there are: a prefill as a smaller GPU would do it.
//! `PMKVQ_BENCH_CHUNKS`: chunk counts to try instead of what `pmkvq_cuda_n_chunk` says, with commas.

mod attention;
mod changes;
mod memory;

use crate::device::{self, Buffer, Device, Op};

/// What a time is compared with.
struct Copies {
    /// Bytes read and written in a second by a large copy.
    bandwidth: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Size {
    Tiny,
    Quick,
    Full,
    Prefill,
}

#[test]
#[ignore = "measures, and takes gigabytes of device memory"]
fn bench() {
    let device = Device::get();
    let size = match std::env::var("PMKVQ_BENCH").as_deref() {
        _ if device.is_shim() => Size::Tiny,
        Ok("full") => Size::Full,
        Ok("prefill") => Size::Prefill,
        Ok("quick") | Err(_) => Size::Quick,
        Ok(other) => panic!("PMKVQ_BENCH is quick, full or prefill, not {other}"),
    };
    let started = std::time::Instant::now();
    println!("{}, {} multiprocessors", device.name, device.n_sm);
    let copies = Copies::measure(if size == Size::Tiny { 1 << 16 } else { 1 << 30 });
    println!("copies: {:.0} GB/s, read and written", copies.bandwidth / 1e9);
    attention::table(size, &copies);
    if size != Size::Prefill && std::env::var_os("PMKVQ_BENCH_ONLY").is_none() {
        changes::table(size, &copies);
    }
    println!("{:.1} s in all", started.elapsed().as_secs_f32());
}

impl Copies {
    fn measure(bytes: usize) -> Copies {
        Copies { bandwidth: 2.0 * bytes as f64 / copy_seconds(bytes, 20) }
    }

    /// Seconds of a copy that reads and writes as many bytes as this in all.
    fn seconds(&self, bytes: usize) -> f64 {
        copy_seconds(bytes / 2, 20)
    }
}

fn copy_seconds(bytes: usize, n_runs: usize) -> f64 {
    let (a, b) = (Buffer::new(bytes), Buffer::new(bytes));
    median(device::time_copy(&a, &b, n_runs).unwrap_or_default())
}

/// Of a list of operations, with the first runs left out by the device's clock.
fn seconds(ops: &[Op], n_runs: usize) -> f64 {
    median(device::time(ops, n_runs).unwrap_or_default())
}

/// 1 second where there is no clock.
fn median(mut seconds: Vec<f32>) -> f64 {
    seconds.sort_by(f32::total_cmp);
    seconds.get(seconds.len() / 2).copied().filter(|s| *s > 0.0).unwrap_or(1.0).into()
}
