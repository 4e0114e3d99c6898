//! The kernels one by one, on one thread, by width and level of instructions.
//!
//! `cargo bench --no-default-features --bench kernels [-- FILTER]`; `-- --list` prints the names, `operation/level/width`. FILTER
//! is a regular expression: `decode`, `/avx2/`, `^prefill.*/4 bits`. Throughput is in elements, so ns per element can be read
//! off: 1 Gelem/s is 1 ns.
//!
//! | operation | element | |
//! | --- | --- | --- |
//! | `decode ...`, `prefill` | a key and a query head | a score, and a value added with its weight |
//! | `store ...` | a value | 8 KV heads of 128 |
//! | `shrink ...` | a value | a block of 128 tokens, 8 KV heads |
//! | `merge` | a value of the output, per chunk | 32 heads, 8 chunks |
//! | `copy from memory`, `shrink ... from memory`, `store ... from memory` | bytes, read and written | by 1 and 2 threads |
//!
//! Stores and shrinks "from memory" go through more of it than caches hold, blocks of pages that lie anywhere; shrinks put the new
//! codes where the old ones were. The copy goes page by page through such a pool, half of it into the other half.
//!
//! Attention has heads of 128 values and 4 query heads for each KV head, unless the name says otherwise. "In cache" are 1,024
//! tokens of one KV head, 512 KiB at 16 bits. "From memory" are 16,384 tokens of eight, 64 MiB at 16 bits and 9 at 2: more than
//! a core's own caches, but a large shared one may hold the narrow ones. Prefill is of 512 tokens over a history of 2,048.

use criterion::{criterion_group, criterion_main, BenchmarkId, Criterion, Throughput};
use half::f16;
use pmkvq::geometry::{page_bytes, params_bytes, BlockEntry, Side, Width, BLOCK, MAX_PAGES};
use pmkvq::kernels::{
    attention_merge_at, attention_partial_at, shrink_at, store_at, AttentionArgs, Isa, MaskF16, MergeArgs, PartialsMut,
    RangeRule, RowTransform, RowsF32, Schedule, ShrinkOp, SideView,
};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Head dimension, of K and V.
const D: usize = 128;
/// KV heads of a model of 8B.
const N_HEAD_KV: usize = 8;
/// Query heads of a KV head there.
const RATIO: usize = 4;

/// A side in plain vectors; pages in order, and behind them those of one more block at 16 bits.
struct Cache {
    side: Side,
    n_head: usize,
    n_blocks: usize,
    /// First of the pages that no block has.
    spare: usize,
    pool: Vec<u32>,
    table: Vec<BlockEntry>,
    params: Vec<u16>,
}

impl Cache {
    fn new(side: Side, n_head: usize, n_blocks: usize, width: Width) -> Cache {
        let pages = width.pages();
        let entry = |b: usize| {
            let mut e = BlockEntry { width: width.bits() as i32, ..BlockEntry::EMPTY };
            for (i, p) in e.pages[..pages].iter_mut().enumerate() {
                *p = (b * pages + i) as i32;
            }
            e
        };
        let spare = n_blocks * pages;
        Cache {
            side,
            n_head,
            n_blocks,
            spare,
            pool: vec![0; n_head * (spare + MAX_PAGES) * page_bytes(D) / 4],
            table: (0..n_blocks).map(entry).collect(),
            params: vec![0; params_bytes(n_blocks, n_head, 1) / 2],
        }
    }

    /// One group for the whole row.
    fn view(&mut self) -> SideView<'_> {
        let n_pages = self.spare + MAX_PAGES;
        let (pool, params) = (self.pool.as_mut_ptr().cast(), self.params.as_mut_ptr());
        // SAFETY: the vectors have just these sizes
        unsafe {
            SideView::new(self.side, pool, self.table.as_ptr(), params, self.n_head, n_pages, self.n_blocks, D, D)
                .unwrap()
        }
    }

    /// All cells hold noise.
    fn filled(side: Side, n_head: usize, n_blocks: usize, width: Width) -> Cache {
        let mut cache = Cache::new(side, n_head, n_blocks, width);
        // a block at a time: the noise of long histories would take more memory than they do
        let values = noise(BLOCK * n_head * D);
        let rows = RowsF32::from_slice(&values, D, n_head).unwrap();
        for first in (0..(n_blocks * BLOCK) as i64).step_by(BLOCK) {
            let cells: Vec<i64> = (first..first + BLOCK as i64).collect();
            store_at(Isa::best(), &cache.view(), &rows, &cells, 0, 1).unwrap();
        }
        cache
    }
}

/// The sum of three even distributions over -1 to 1, from a generator that gives the same each time.
fn noise(n: usize) -> Vec<f32> {
    let mut x = 12345u32;
    let mut next = || {
        x = x.wrapping_mul(1664525).wrapping_add(1013904223);
        (x >> 8) as f32 / 8388608.0 - 1.0
    };
    (0..n).map(|_| next() + next() + next()).collect()
}

/// More than the last-level cache.
const MEMORY: usize = 96 << 20;

impl Cache {
    /// `MEMORY` at a width, its pages in no order. Blocks are alike.
    fn large(side: Side, width: Width, fill: bool) -> Cache {
        let n_blocks = MEMORY / (N_HEAD_KV * width.pages() * page_bytes(D));
        let mut cache = Cache::new(side, N_HEAD_KV, n_blocks, width);
        // as the cache itself has them
        #[cfg(target_os = "linux")]
        // SAFETY: advice about the vector's own memory, from its first whole page on
        unsafe {
            let skip = cache.pool.as_ptr().align_offset(4096);
            let n = 4 * (cache.pool.len() - skip);
            libc::madvise(cache.pool.as_mut_ptr().add(skip).cast(), n, libc::MADV_HUGEPAGE);
        }
        let pages = shuffled(cache.spare);
        for (entry, pages) in cache.table.iter_mut().zip(pages.chunks(width.pages())) {
            entry.pages[..pages.len()].copy_from_slice(pages);
        }
        let values = noise(BLOCK * N_HEAD_KV * D);
        let rows = RowsF32::from_slice(&values, D, N_HEAD_KV).unwrap();
        for first in (0..(n_blocks * BLOCK) as i64).step_by(BLOCK).filter(|_| fill) {
            let cells: Vec<i64> = (first..first + BLOCK as i64).collect();
            store_at(Isa::best(), &cache.view(), &rows, &cells, 0, 1).unwrap();
        }
        cache
    }
}

/// The numbers below `n`, in an order that is the same each time.
fn shuffled(n: usize) -> Vec<i32> {
    let mut x = 1u64;
    let mut keyed: Vec<(u64, i32)> = (0..n as i32)
        .map(|i| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 32, i)
        })
        .collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, i)| i).collect()
}

/// The time of one run on each of `n` threads, by number.
fn timed(n: usize, run: impl Fn(usize) + Sync) -> Duration {
    let run = &run;
    let start = Instant::now();
    std::thread::scope(|s| {
        for i in 1..n {
            s.spawn(move || run(i));
        }
        run(0);
    });
    start.elapsed()
}

/// The levels that are worth the memory's time, and how many threads run.
fn levels_and_threads() -> impl Iterator<Item = (Isa, usize)> {
    levels().filter(|i| *i != Isa::Scalar).flat_map(|i| [(i, 1), (i, 2)])
}

fn threads(n: usize) -> &'static str {
    if n == 1 {
        "1 thread"
    } else {
        "2 threads"
    }
}

/// What is written into the vector's memory by any thread.
#[derive(Clone, Copy)]
struct Pool(*mut u8);
// SAFETY: threads write different pages
unsafe impl Sync for Pool {}

/// The yardstick of what follows.
fn copies_from_memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("copy from memory");
    let mut cache = None;
    for n in [1, 2] {
        group.throughput(Throughput::Bytes(MEMORY as u64));
        group.bench_function(threads(n), |b| {
            let cache = cache.get_or_insert_with(|| Cache::large(Side::K, Width::B16, true));
            let pool = Pool(cache.pool.as_mut_ptr().cast());
            let (stride, pages) = (cache.spare + MAX_PAGES, shuffled(cache.spare));
            let pool = &pool;
            let copy = |ith: usize| {
                for pair in pages.chunks_exact(2).skip(ith).step_by(n) {
                    for head in 0..N_HEAD_KV {
                        let place = |page: i32| (head * stride + page as usize) * page_bytes(D);
                        // SAFETY: different pages of the pool
                        unsafe {
                            let (from, to) = (pool.0.add(place(pair[0])), pool.0.add(place(pair[1])));
                            std::ptr::copy_nonoverlapping(from, to, page_bytes(D));
                        }
                    }
                }
            };
            b.iter_custom(|times| (0..times).map(|_| timed(n, copy)).sum());
        });
    }
}

fn shrinks_from_memory(c: &mut Criterion) {
    for side in Side::BOTH {
        let mut group = c.benchmark_group(format!("shrink {side} from memory"));
        for (from, to, rule, name) in STEPS {
            group.throughput(Throughput::Bytes((MEMORY + MEMORY * to.bits() / from.bits()) as u64));
            let mut made = None;
            for (isa, n) in levels_and_threads() {
                let id = BenchmarkId::new(isa.name(), format!("{from} to {to} bits{name}/{}", threads(n)));
                group.bench_function(id, |b| {
                    let (cache, before) = made.get_or_insert_with(|| {
                        let cache = Cache::large(side, from, true);
                        let before = (cache.pool.clone(), cache.params.clone());
                        (cache, before)
                    });
                    let per = from.pages() / to.pages();
                    let op = |(b, e): (usize, &BlockEntry)| {
                        let mut dst = [-1; MAX_PAGES];
                        for i in 0..to.pages() {
                            dst[i] = e.pages[i * per];
                        }
                        let bits = |w: Width| w.bits() as i32;
                        ShrinkOp { block: b as u32, from: bits(from), to: bits(to), src: e.pages, dst }
                    };
                    let ops: Vec<ShrinkOp> = cache.table.iter().enumerate().map(op).collect();
                    let done: Vec<AtomicU32> = ops.iter().map(|_| AtomicU32::new(0)).collect();
                    b.iter_custom(|times| {
                        let once = |_| {
                            cache.pool.copy_from_slice(&before.0);
                            cache.params.copy_from_slice(&before.1);
                            let view = cache.view().with_range_rule(rule);
                            timed(n, |ith| shrink_at(isa, &view, &ops, &done, ith, n).unwrap())
                        };
                        (0..times).map(once).sum()
                    });
                });
            }
        }
    }
}

/// Batches of 512 tokens.
fn stores_from_memory(c: &mut Criterion) {
    const BATCH: usize = 512;
    let n_token = MEMORY / (4 * N_HEAD_KV * D);
    let mut values = None;
    for side in Side::BOTH {
        let mut group = c.benchmark_group(format!("store {side} from memory"));
        for width in Width::ALL {
            group.throughput(Throughput::Bytes((MEMORY + MEMORY * width.bits() / 32) as u64));
            let mut cache = None;
            for (isa, n) in levels_and_threads() {
                group.bench_function(BenchmarkId::new(isa.name(), format!("{width} bits/{}", threads(n))), |b| {
                    let values: &Vec<f32> = values.get_or_insert_with(|| noise(n_token * N_HEAD_KV * D));
                    let view = cache.get_or_insert_with(|| Cache::large(side, width, false)).view();
                    let run = |ith: usize| {
                        for (i, values) in values.chunks_exact(BATCH * N_HEAD_KV * D).enumerate() {
                            let rows = RowsF32::from_slice(values, D, N_HEAD_KV).unwrap();
                            let cells: Vec<i64> = (0..BATCH).map(|t| (i * BATCH + t) as i64).collect();
                            store_at(isa, &view, &rows, &cells, ith, n).unwrap();
                        }
                    };
                    b.iter_custom(|times| (0..times).map(|_| timed(n, run)).sum());
                });
            }
        }
    }
}

/// What the CPU has, without the versions that are written for reading.
fn levels() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|i| *i != Isa::Reference && i.available())
}

fn id(isa: Isa, width: Width) -> BenchmarkId {
    BenchmarkId::new(isa.name(), format!("{width} bits"))
}

/// One attention operation: tokens that attend to a history, without a batch of their own.
struct Attention {
    name: &'static str,
    n_head_kv: usize,
    /// Query heads of a KV head.
    ratio: usize,
    /// Cells of the history.
    n_kv: usize,
    n_token: usize,
}

const fn attention(name: &'static str, n_head_kv: usize, ratio: usize, n_kv: usize, n_token: usize) -> Attention {
    Attention { name, n_head_kv, ratio, n_kv, n_token }
}

const ATTENTION: [Attention; 6] = [
    attention("decode in cache", 1, RATIO, 1024, 1),
    attention("decode from memory", N_HEAD_KV, RATIO, 16384, 1),
    attention("decode 1 head per KV head", N_HEAD_KV, 1, 4096, 1),
    attention("decode 8 heads per KV head", 1, 8, 1024, 1),
    attention("decode 8 tokens", 1, RATIO, 1024, 8),
    attention("prefill of 512", 1, RATIO, 2048, 512),
];

// Criterion calls what it times once per sample, so what is set up there is kept (and is not made at all where a filter leaves
// the case out).

fn attentions(c: &mut Criterion) {
    for shape in &ATTENTION {
        let Attention { n_head_kv, ratio, n_kv, n_token, .. } = *shape;
        let n_head = n_head_kv * ratio;
        let mut group = c.benchmark_group(shape.name);
        group.throughput(Throughput::Elements((n_token * n_head * n_kv) as u64));
        let q = noise(n_token * n_head * D);
        let mask = vec![f16::ZERO.to_bits(); n_token * n_kv];
        let mut out = vec![0.0; n_token * n_head * (D + 2)];
        for isa in levels() {
            for width in Width::ALL {
                let mut sides = None;
                group.bench_function(id(isa, width), |b| {
                    let side = |side| Cache::filled(side, n_head_kv, n_kv / BLOCK, width);
                    let (k, v) = sides.get_or_insert_with(|| (side(Side::K), side(Side::V)));
                    let args = AttentionArgs {
                        q: RowsF32::from_slice(&q, D, n_head).unwrap(),
                        current: None,
                        mask: MaskF16::from_slice(&mask, n_kv).unwrap(),
                        cells: &[],
                        k: k.view(),
                        v: v.view(),
                        scale: 1.0 / (D as f32).sqrt(),
                        softcap: 0.0,
                        max_bias: 0.0,
                        n_chunk: 1,
                        out: PartialsMut::from_slice(&mut out),
                    };
                    b.iter(|| attention_partial_at(isa, &args, Schedule::Static { ith: 0, nth: 1 }).unwrap());
                });
            }
        }
    }
}

fn stores(c: &mut Criterion) {
    for (side, n) in [(Side::K, 1), (Side::V, 1), (Side::K, 512), (Side::V, 512)] {
        let mut group = c.benchmark_group(format!("store {side} {n} token{}", if n == 1 { "" } else { "s" }));
        group.throughput(Throughput::Elements((n * N_HEAD_KV * D) as u64));
        let values = noise(n * N_HEAD_KV * D);
        let cells: Vec<i64> = (0..n as i64).collect();
        for isa in levels() {
            for width in Width::ALL {
                let mut cache = None;
                group.bench_function(id(isa, width), |b| {
                    let view = cache.get_or_insert_with(|| Cache::new(side, N_HEAD_KV, 4, width)).view();
                    let rows = RowsF32::from_slice(&values, D, N_HEAD_KV).unwrap();
                    b.iter(|| store_at(isa, &view, &rows, &cells, 0, 1).unwrap());
                });
            }
        }
    }
}

const STEPS: [(Width, Width, RangeRule, &str); 4] = [
    (Width::B16, Width::B8, RangeRule::Shift, ""),
    (Width::B8, Width::B4, RangeRule::Shift, ""),
    (Width::B4, Width::B2, RangeRule::Shift, " shift"),
    (Width::B4, Width::B2, RangeRule::Fit, " fit"),
];

/// The step of one block to half its width, into pages that it does not have: so every run reads the same codes. Only the step
/// to 2 bits has a choice of range rules; under `fit` each run narrows the ranges that the last one left, which takes as long
/// as any other.
fn shrinks(c: &mut Criterion) {
    for side in Side::BOTH {
        let mut group = c.benchmark_group(format!("shrink {side}"));
        group.throughput(Throughput::Elements((N_HEAD_KV * BLOCK * D) as u64));
        for isa in levels() {
            for (from, to, rule, name) in STEPS {
                let mut cache = None;
                group.bench_function(BenchmarkId::new(isa.name(), format!("{from} to {to} bits{name}")), |b| {
                    let cache = cache.get_or_insert_with(|| Cache::filled(side, N_HEAD_KV, 1, from));
                    let mut dst = [-1; MAX_PAGES];
                    for (i, page) in dst[..to.pages()].iter_mut().enumerate() {
                        *page = (cache.spare + i) as i32;
                    }
                    let (bits, src) = (|w: Width| w.bits() as i32, cache.table[0].pages);
                    let op = ShrinkOp { block: 0, from: bits(from), to: bits(to), src, dst };
                    let view = cache.view().with_range_rule(rule);
                    b.iter(|| shrink_at(isa, &view, &[op], &[AtomicU32::new(0)], 0, 1).unwrap());
                });
            }
        }
    }
}

fn merges(c: &mut Criterion) {
    let (n_chunk, n_head) = (8, N_HEAD_KV * RATIO);
    let partial: Vec<f32> = noise(n_chunk * n_head * (D + 2)).into_iter().map(|x| x.abs() + 0.1).collect();
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements((n_chunk * n_head * D) as u64));
    for isa in levels() {
        group.bench_function(isa.name(), |b| {
            let mut out = vec![0.0; n_head * D];
            let args = MergeArgs {
                partial: &partial,
                sinks: None,
                n_token: 1,
                n_head,
                head_dim: D,
                n_chunk,
                n_head_kv: 1,
                back: RowTransform::default(),
                out: PartialsMut::from_slice(&mut out),
            };
            b.iter(|| attention_merge_at(isa, &args, 0, 1).unwrap());
        });
    }
}

/// Short: some 150 cases run in a few minutes.
fn config() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(500))
        .nresamples(5000)
        .without_plots()
}

criterion_group! {
    name = kernels;
    config = config();
    targets = attentions, stores, shrinks, merges
}
criterion_group! {
    name = from_memory;
    // a pass takes as long as many of the others together
    config = config().sample_size(10).warm_up_time(Duration::from_millis(1));
    targets = copies_from_memory, shrinks_from_memory, stores_from_memory
}
criterion_main!(kernels, from_memory);
