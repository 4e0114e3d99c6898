//! What this machine gives at most: bytes read per second, and multiply-adds per second of dot products held in registers.
//!
//! `cargo run --release --example ceilings [-- THREADS [--mib N] [--passes N]]` prints one JSON object:
//!
//! ```json
//! { "level": "avx512", "mib_per_thread": 512, "passes": 7,
//!   "read": [ { "threads": 1, "instructions": "...", "best": 1.2e10, "median": 1.1e10 }, ... ],
//!   "dot":  [ { "threads": 1, "kind": "int8", "instructions": "...", "best": 1.2e11, "median": 1.1e11 }, ... ] }
//! ```
//!
//! `read` is in bytes per second, `dot` in multiply-adds per second, both of all threads together, for 1 to THREADS threads
//! that start each pass together. `scripts/bench.py` holds the attention against these. The kinds are those that attention
//! kernels use: int8 (codes times rounded queries or weights, summed in i32) and f32. `PMKVQ_CPU` caps the instructions as it
//! does in the kernels; whatever lies below the cap is measured too.
//!
//! With AVX2 alone the int8 loop widens every product to i32 at once (maddubs, madd, add), which is right for 8-bit codes. For
//! narrower ones a kernel may sum a few products in 16 bits first and so come out above this loop.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::Instant;

/// Instructions up to which is measured, narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Scalar,
    Avx2,
    AvxVnni,
    Avx512,
}

impl Level {
    const ALL: [Level; 4] = [Level::Scalar, Level::Avx2, Level::AvxVnni, Level::Avx512];

    fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512 => "avx512",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn available(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Level::Scalar => true,
            Level::Avx2 => avx2,
            Level::AvxVnni => avx2 && is_x86_feature_detected!("avxvnni"),
            Level::Avx512 => avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn available(self) -> bool {
        self == Level::Scalar
    }

    /// What `PMKVQ_CPU` says, or the best that the CPU has.
    fn selected() -> Result<Level, String> {
        let best = || Level::ALL.into_iter().rev().find(|l| l.available()).unwrap_or(Level::Scalar);
        match std::env::var("PMKVQ_CPU") {
            Err(_) => Ok(best()),
            Ok(name) if name.is_empty() => Ok(best()),
            // the kernels that are written for reading have no instructions of their own
            Ok(name) if name == "reference" => Ok(Level::Scalar),
            Ok(name) => Level::ALL
                .into_iter()
                .find(|l| l.name() == name && l.available())
                .ok_or_else(|| format!("PMKVQ_CPU={name}: no such level, or this CPU lacks it")),
        }
    }
}

/// A loop of multiply-adds on values that stay in registers.
struct Dot {
    kind: &'static str,
    instructions: &'static str,
    level: Level,
    /// Multiply-adds of a round.
    per_round: u64,
    /// Runs so many rounds.
    ///
    /// # Safety
    /// The CPU has `level`.
    run: unsafe fn(u64),
}

/// A loop that reads a buffer once.
struct Read {
    instructions: &'static str,
    level: Level,
    /// The sum of all values, which nobody needs.
    ///
    /// # Safety
    /// The CPU has `level`.
    run: unsafe fn(&[u64]) -> u64,
}

/// Products of 64 bytes in plain Rust.
fn dot_i8_portable(rounds: u64) {
    let (a, b) = ([3u8; 64], [5i8; 64]);
    let mut sums = [0i32; 16];
    for _ in 0..rounds {
        // loaded anew in every round, or the products would be taken out of the loop
        let (a, b) = (black_box(&a), black_box(&b));
        // a quarter of the bytes at a time, so that neighbours go to different sums
        for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
            for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *s = s.wrapping_add(i32::from(*a) * i32::from(*b));
            }
        }
    }
    black_box(sums);
}

/// Products of 32 f32 in plain Rust.
fn dot_f32_portable(rounds: u64) {
    let (a, b) = ([1.5f32; 32], [0.5f32; 32]);
    let mut sums = [0f32; 32];
    for _ in 0..rounds {
        let (a, b) = (black_box(&a), black_box(&b));
        for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *s += a * b;
        }
    }
    black_box(sums);
}

/// In plain Rust: eight sums side by side.
fn read_portable(buffer: &[u64]) -> u64 {
    let mut sums = [0u64; 8];
    for chunk in buffer.chunks_exact(8) {
        for (s, x) in sums.iter_mut().zip(chunk) {
            *s = s.wrapping_add(*x);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// The loops in the CPU's own instructions. Calling one is safe only where the CPU has the features that it names.
///
/// Twelve sums in AVX-512, AVX-VNNI and FMA, and eight where each takes three instructions: more than latency times
/// throughput of any of these, so none waits for the one before, and few enough for 16 registers.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub const SUMS: usize = 12;
    pub const FEW: usize = 8;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn dot_i8_avx512(rounds: u64) {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            for s in &mut sums {
                *s = _mm512_dpbusd_epi32(*s, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub fn dot_i8_avxvnni(rounds: u64) {
        let (a, b) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(5)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            for s in &mut sums {
                *s = _mm256_dpbusd_avx_epi32(*s, a, b);
            }
        }
        black_box(sums);
    }

    /// The same value, of which the compiler knows nothing: so products of it stay in the loop. No instruction.
    #[target_feature(enable = "avx2")]
    fn opaque(mut a: __m256i) -> __m256i {
        // SAFETY: empty
        unsafe { asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack, preserves_flags)) };
        a
    }

    #[target_feature(enable = "avx2")]
    pub fn dot_i8_avx2(rounds: u64) {
        let mut a = black_box(_mm256_set1_epi8(3));
        let (b, ones) = (black_box(_mm256_set1_epi8(5)), black_box(_mm256_set1_epi16(1)));
        let mut sums = [_mm256_setzero_si256(); FEW];
        for _ in 0..rounds {
            for s in &mut sums {
                a = opaque(a);
                *s = _mm256_add_epi32(*s, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn dot_f32_avx512(rounds: u64) {
        let (a, b) = (black_box(_mm512_set1_ps(1.5)), black_box(_mm512_set1_ps(0.5)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for s in &mut sums {
                *s = _mm512_fmadd_ps(a, b, *s);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn dot_f32_avx2(rounds: u64) {
        let (a, b) = (black_box(_mm256_set1_ps(1.5)), black_box(_mm256_set1_ps(0.5)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for s in &mut sums {
                *s = _mm256_fmadd_ps(a, b, *s);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(buffer: &[u64]) -> u64 {
        let mut sums = [_mm512_setzero_si512(); 8];
        for chunk in buffer.chunks_exact(64) {
            for (i, s) in sums.iter_mut().enumerate() {
                // SAFETY: the chunk has eight times eight values
                let x = unsafe { _mm512_loadu_si512(chunk.as_ptr().add(8 * i).cast()) };
                *s = _mm512_add_epi64(*s, x);
            }
        }
        let sum = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi64(a, b));
        _mm512_reduce_add_epi64(sum) as u64
    }

    #[target_feature(enable = "avx2")]
    pub fn read_avx2(buffer: &[u64]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for chunk in buffer.chunks_exact(32) {
            for (i, s) in sums.iter_mut().enumerate() {
                // SAFETY: the chunk has eight times four values
                let x = unsafe { _mm256_loadu_si256(chunk.as_ptr().add(4 * i).cast()) };
                *s = _mm256_add_epi64(*s, x);
            }
        }
        let sum = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi64(a, b));
        let mut parts = [0u64; 4];
        // SAFETY: 32 bytes
        unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast(), sum) };
        parts.iter().fold(0, |a, b| a.wrapping_add(*b))
    }
}

/// Every loop that is compiled, whatever the CPU.
fn loops() -> (Vec<Read>, Vec<Dot>) {
    let mut read = vec![Read { instructions: "portable", level: Level::Scalar, run: read_portable }];
    let mut dot = vec![
        Dot { kind: "int8", instructions: "portable", level: Level::Scalar, per_round: 64, run: dot_i8_portable },
        Dot { kind: "f32", instructions: "portable", level: Level::Scalar, per_round: 32, run: dot_f32_portable },
    ];
    #[cfg(target_arch = "x86_64")]
    {
        use Level::{Avx2, Avx512, AvxVnni};
        let many = x86::SUMS as u64;
        read.push(Read { instructions: "ymm loads", level: Avx2, run: x86::read_avx2 });
        read.push(Read { instructions: "zmm loads", level: Avx512, run: x86::read_avx512 });
        let mut add = |kind, instructions, level, per_round, run| {
            dot.push(Dot { kind, instructions, level, per_round, run });
        };
        add(
            "int8",
            "vpmaddubsw + vpmaddwd + vpaddd ymm",
            Avx2,
            32 * x86::FEW as u64,
            x86::dot_i8_avx2 as unsafe fn(u64),
        );
        add("int8", "vpdpbusd ymm (AVX-VNNI)", AvxVnni, 32 * many, x86::dot_i8_avxvnni);
        add("int8", "vpdpbusd zmm", Avx512, 64 * many, x86::dot_i8_avx512);
        add("f32", "vfmadd ymm", Avx2, 8 * many, x86::dot_f32_avx2);
        add("f32", "vfmadd zmm", Avx512, 16 * many, x86::dot_f32_avx512);
    }
    (read, dot)
}

/// Best and median rate of `passes` passes in which each of `threads` threads runs what `make` gives it; a thread does
/// `work` in a pass. A pass lasts from the first start to the last end.
fn rates<F: FnMut()>(threads: usize, passes: usize, work: f64, make: impl Fn() -> F + Sync) -> (f64, f64) {
    let barrier = Barrier::new(threads);
    let one = || {
        let mut f = make();
        let pass = |_| {
            barrier.wait();
            let start = Instant::now();
            f();
            (start, Instant::now())
        };
        (0..passes).map(pass).collect::<Vec<_>>()
    };
    let times: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|s| {
        let handles: Vec<_> = (0..threads).map(|_| s.spawn(one)).collect();
        handles.into_iter().filter_map(|h| h.join().ok()).collect()
    });
    let rate = |pass: usize| {
        let start = times.iter().map(|t| t[pass].0).min();
        let end = times.iter().map(|t| t[pass].1).max();
        let seconds = start.zip(end).map_or(f64::NAN, |(s, e)| (e - s).as_secs_f64());
        threads as f64 * work / seconds
    };
    let mut all: Vec<f64> = (0..passes).map(rate).collect();
    all.sort_by(f64::total_cmp);
    (all[passes - 1], all[passes / 2])
}

/// Rounds that take a twentieth of a second on one thread.
fn rounds(dot: &Dot) -> u64 {
    let mut n = 1 << 12;
    loop {
        let start = Instant::now();
        // SAFETY: the caller chose a loop that the CPU has
        unsafe { (dot.run)(black_box(n)) };
        let seconds = start.elapsed().as_secs_f64();
        if seconds > 0.01 {
            return (n as f64 * 0.05 / seconds) as u64 + 1;
        }
        n *= 4;
    }
}

struct Args {
    threads: usize,
    mib: usize,
    passes: usize,
}

fn arguments() -> Result<Args, String> {
    let all = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut args = Args { threads: all, mib: 512, passes: 7 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let (value, target) = match word.as_str() {
            "--mib" => (words.next().unwrap_or_default(), &mut args.mib),
            "--passes" => (words.next().unwrap_or_default(), &mut args.passes),
            _ => (word, &mut args.threads),
        };
        let number = value.parse().ok().filter(|n| (1..=1 << 16).contains(n));
        *target = number.ok_or_else(|| format!("'{value}': usage: ceilings [THREADS] [--mib N] [--passes N]"))?;
    }
    Ok(args)
}

fn measure() -> Result<String, String> {
    let args = arguments()?;
    let level = Level::selected()?;
    let (mut read, mut dot) = loops();
    let has = |l: Level| l <= level && l.available();
    read.retain(|r| has(r.level));
    dot.retain(|d| has(d.level));
    let number = |(best, median): (f64, f64)| format!("\"best\": {best:.4e}, \"median\": {median:.4e}");
    let (mut reads, mut dots) = (Vec::new(), Vec::new());
    // the widest loads that there are
    if let Some(read) = read.last() {
        let n = args.mib << 17;
        for threads in 1..=args.threads {
            let rate = rates(threads, args.passes, 8.0 * n as f64, || {
                // written by the thread that reads it
                let buffer: Vec<u64> = (0..n as u64).collect();
                move || {
                    // SAFETY: only loops that the CPU has were kept
                    black_box(unsafe { (read.run)(black_box(&buffer)) });
                }
            });
            let name = read.instructions;
            reads.push(format!("{{ \"threads\": {threads}, \"instructions\": \"{name}\", {} }}", number(rate)));
        }
    }
    for d in &dot {
        let n = rounds(d);
        for threads in 1..=args.threads {
            let rate = rates(threads, args.passes, (n * d.per_round) as f64, || {
                // SAFETY: only loops that the CPU has were kept
                || unsafe { (d.run)(black_box(n)) }
            });
            dots.push(format!(
                "{{ \"threads\": {threads}, \"kind\": \"{}\", \"instructions\": \"{}\", {} }}",
                d.kind,
                d.instructions,
                number(rate)
            ));
        }
    }
    Ok(format!(
        "{{ \"level\": \"{}\", \"mib_per_thread\": {}, \"passes\": {},\n  \"read\": [\n    {}\n  ],\n  \"dot\": [\n    {}\n  ] }}",
        level.name(),
        args.mib,
        args.passes,
        reads.join(",\n    "),
        dots.join(",\n    ")
    ))
}

fn main() -> ExitCode {
    match measure() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("ceilings: {e}");
            ExitCode::FAILURE
        }
    }
}
