//! ns per key and query head, by width and level of instructions, on one thread.
//!
//! `cargo bench --no-default-features --bench kernels [-- FILTER]`. Decode: one query, 32 heads over 8 KV heads of 128, a
//! history that fits the caches ("cache") and one that doesn't ("memory"). Prefill: 512 queries over a history of 2,048.

use half::f16;
use pmkvq::geometry::{page_bytes, params_bytes, BlockEntry, Side, Width, BLOCK};
use pmkvq::kernels::{
    attention_partial_at, shrink_at, store_at, AttentionArgs, Isa, MaskF16, PartialsMut, RowsF32, Schedule, ShrinkOp,
    SideView,
};
use std::sync::atomic::AtomicU32;
use std::time::Instant;

const D: usize = 128;
const RATIO: usize = 4;

/// A side in plain vectors; pages in order.
struct Cache {
    side: Side,
    n_head: usize,
    n_blocks: usize,
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
        Cache {
            side,
            n_head,
            n_blocks,
            pool: vec![0; n_head * n_blocks * pages * page_bytes(D) / 4],
            table: (0..n_blocks).map(entry).collect(),
            params: vec![0; params_bytes(n_blocks, n_head, 1) / 2],
        }
    }

    fn view(&mut self) -> SideView<'_> {
        let n_pages = self.pool.len() * 4 / page_bytes(D) / self.n_head;
        let (pool, params) = (self.pool.as_mut_ptr().cast(), self.params.as_mut_ptr());
        // SAFETY: the vectors have just these sizes
        unsafe {
            SideView::new(self.side, pool, self.table.as_ptr(), params, self.n_head, n_pages, self.n_blocks, D, D)
                .unwrap()
        }
    }

    fn fill(&mut self) {
        let n = self.n_blocks * BLOCK;
        let values = noise(n * self.n_head * D);
        let cells: Vec<i64> = (0..n as i64).collect();
        let rows = RowsF32::from_slice(&values, D, self.n_head).unwrap();
        store_at(Isa::best(), &self.view(), &rows, &cells, 0, 1).unwrap();
    }
}

fn noise(n: usize) -> Vec<f32> {
    let mut x = 12345u32;
    let mut next = || {
        x = x.wrapping_mul(1664525).wrapping_add(1013904223);
        (x >> 8) as f32 / 8388608.0 - 1.0
    };
    (0..n).map(|_| next() + next() + next()).collect()
}

/// The median time of a few runs, in ns.
fn time(mut f: impl FnMut()) -> f64 {
    f();
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 5 || (start.elapsed().as_millis() < 300 && times.len() < 200) {
        let t = Instant::now();
        f();
        times.push(t.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// ns per key and query head.
fn attention(isa: Isa, wk: Width, wv: Width, n_head_kv: usize, ratio: usize, n_kv: usize, n_token: usize) -> f64 {
    let (mut k, mut v) =
        (Cache::new(Side::K, n_head_kv, n_kv / BLOCK, wk), Cache::new(Side::V, n_head_kv, n_kv / BLOCK, wv));
    k.fill();
    v.fill();
    let n_head = n_head_kv * ratio;
    let q = noise(n_token * n_head * D);
    let mask = vec![f16::ZERO.to_bits(); n_token * n_kv];
    let mut out = vec![0.0; n_token * n_head * (D + 2)];
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
    let ns = time(|| attention_partial_at(isa, &args, Schedule::Static { ith: 0, nth: 1 }).unwrap());
    ns / (n_token * n_head * n_kv) as f64
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let levels: Vec<Isa> = Isa::ALL.into_iter().filter(|i| *i != Isa::Reference && i.available()).collect();
    let wanted = |name: &str| name.contains(&filter);
    println!("{:<28}{:>8}{:>10}{:>10}{:>10}{:>10}", "ns per key and query head", "", "16 bits", "8", "4", "2");
    let print = |name: &str, isa: Isa, f: &dyn Fn(Width) -> f64| {
        let ns: Vec<String> = Width::ALL.iter().map(|&w| format!("{:>10.2}", f(w))).collect();
        println!("{name:<28}{:>8}{}", isa.name(), ns.concat());
    };
    for &isa in &levels {
        for (name, heads, ratio, n_kv, n_token) in [
            ("decode, cache", 1, RATIO, 1024, 1),
            ("decode, memory", 8, RATIO, 16384, 1),
            ("decode, 1 head per KV head", 8, 1, 4096, 1),
            ("decode, 8 tokens", 1, RATIO, 1024, 8),
            ("prefill of 512", 1, RATIO, 2048, 512),
        ] {
            if wanted(name) && (isa != Isa::Scalar || n_kv <= 4096) {
                print(name, isa, &|w| attention(isa, w, w, heads, ratio, n_kv, n_token));
            }
        }
    }
    println!("{:<28}{:>8}{:>10}{:>10}{:>10}{:>10}", "ns per value", "", "16 bits", "8", "4", "2");
    for &isa in &levels {
        for (name, side, n) in [
            ("store K, 1 token", Side::K, 1),
            ("store V, 1 token", Side::V, 1),
            ("store K, 512", Side::K, 512),
            ("store V, 512", Side::V, 512),
        ] {
            if wanted(name) {
                let values = noise(n * 8 * D);
                let cells: Vec<i64> = (0..n as i64).collect();
                print(name, isa, &|w| {
                    let mut c = Cache::new(side, 8, 4, w);
                    let rows = RowsF32::from_slice(&values, D, 8).unwrap();
                    let view = c.view();
                    time(|| store_at(isa, &view, &rows, &cells, 0, 1).unwrap()) / (n * 8 * D) as f64
                });
            }
        }
        for (side, name) in [(Side::K, "shrink K to half"), (Side::V, "shrink V to half")] {
            if wanted(name) {
                print(name, isa, &|w| {
                    let Some(to) = w.narrower() else { return f64::NAN };
                    let mut c = Cache::new(side, 8, 4, w);
                    c.fill();
                    let mut dst = [-1; 8];
                    for (i, d) in dst.iter_mut().enumerate().take(to.pages()) {
                        *d = c.table[0].pages[2 * i];
                    }
                    let (from, src) = (w.bits() as i32, c.table[0].pages);
                    let op = ShrinkOp { block: 0, from, to: to.bits() as i32, src, dst };
                    let view = c.view();
                    time(|| shrink_at(isa, &view, &[op], &[AtomicU32::new(0)], 0, 1).unwrap()) / (8 * BLOCK * D) as f64
                });
            }
        }
    }
}
