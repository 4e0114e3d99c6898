//! Store and shrink on one thread: ns per value, GB/s (bytes read and written), and the share of what a plain copy of as many
//! bytes reaches.
//!
//! `cargo bench --no-default-features --bench store [-- FILTER]`. "cache": the same operands again and again; "memory":
//! operands that the caches no longer hold. Heads, head dimension and groups are those of an 8B model. Least time of many
//! runs: other work on the machine only ever adds.

use pmkvq::geometry::{page_bytes, params_bytes, BlockEntry, Side, Width, BLOCK};
use pmkvq::kernels::{shrink_at, store_at, Isa, RangeRule, RowsF32, ShrinkOp, SideView};
use std::sync::atomic::AtomicU32;
use std::time::Instant;

const D: usize = 128;
const HEADS: usize = 8;
/// Bytes that no cache of this machine holds.
const FAR: usize = 192 << 20;

/// A side in plain vectors; a block's pages lie side by side.
struct Cache {
    side: Side,
    n_blocks: usize,
    pages: usize,
    pool: Vec<u32>,
    table: Vec<BlockEntry>,
    params: Vec<u16>,
    rule: RangeRule,
}

impl Cache {
    fn new(side: Side, n_blocks: usize, width: Width, rule: RangeRule) -> Cache {
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
            n_blocks,
            pages: n_blocks * pages,
            pool: vec![0x3c3d_3b39; HEADS * n_blocks * pages * page_bytes(D) / 4],
            table: (0..n_blocks).map(entry).collect(),
            params: vec![0x3c00; params_bytes(n_blocks, HEADS, 1) / 2],
            rule,
        }
    }

    fn view(&mut self) -> SideView<'_> {
        let (pool, params) = (self.pool.as_mut_ptr().cast(), self.params.as_mut_ptr());
        // SAFETY: the vectors have just these sizes
        unsafe {
            SideView::new(self.side, pool, self.table.as_ptr(), params, HEADS, self.pages, self.n_blocks, D, D)
                .unwrap()
                .with_range_rule(self.rule)
        }
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

/// The least time of a call, in ns; `f` gets a number that counts up.
fn time(ms: u128, calls: usize, mut f: impl FnMut(usize)) -> f64 {
    let mut least = f64::INFINITY;
    let start = Instant::now();
    let mut n = 0;
    while n < 8 * calls || start.elapsed().as_millis() < ms {
        let t = Instant::now();
        for _ in 0..calls {
            f(n);
            n += 1;
        }
        least = least.min(t.elapsed().as_nanos() as f64 / calls as f64);
    }
    least
}

/// ns of a copy that reads and writes `bytes` in all.
fn copy(bytes: usize, far: bool) -> f64 {
    let half = (bytes / 2).next_multiple_of(64);
    let places = if far { FAR / half } else { 1 };
    let from = vec![1u8; places * half];
    let mut to = vec![2u8; places * half];
    time(150, calls(bytes), |i| {
        let at = i % places * half;
        to[at..at + half].copy_from_slice(std::hint::black_box(&from[at..at + half]));
        std::hint::black_box(&mut to);
    })
}

/// Calls between two looks at the clock.
fn calls(bytes: usize) -> usize {
    (200_000 / bytes).clamp(1, 100)
}

fn print(name: &str, isa: Isa, ns: f64, values: usize, bytes: usize, copy: f64) {
    let per = ns / values as f64;
    let rate = bytes as f64 / ns;
    println!("{name:<34}{:>10}{per:>10.3}{rate:>9.1}{:>7.0}%", isa.name(), 100.0 * copy / ns);
}

fn bits(width: Width, rule: RangeRule) -> String {
    match (width, rule) {
        (Width::B2, RangeRule::Fit) => "2 fit".into(),
        _ => width.to_string(),
    }
}

fn store(wanted: &dyn Fn(&str) -> bool, levels: &[Isa]) {
    for far in [false, true] {
        for n in [1, 16, 512] {
            for side in [Side::K, Side::V] {
                for (width, rule) in [
                    (Width::B16, RangeRule::Shift),
                    (Width::B8, RangeRule::Shift),
                    (Width::B4, RangeRule::Shift),
                    (Width::B2, RangeRule::Shift),
                    (Width::B2, RangeRule::Fit),
                ] {
                    let place = if far { "memory" } else { "cache" };
                    let name = format!("store {side} {n} at {} {place}", bits(width, rule));
                    if !wanted(&name) || (far && n == 16) {
                        continue;
                    }
                    let values = n * HEADS * D;
                    let bytes = values * 4 + values * width.bits() / 8;
                    let plain = copy(bytes, far);
                    for &isa in levels {
                        // one token is in the cache when it is stored; where it goes is not
                        let sources = if far && n > 1 { FAR / (4 * values) } else { 1 };
                        let rows = noise(sources * values);
                        let n_blocks = if far { FAR / (HEADS * D * BLOCK * width.bits() / 8) } else { 4 };
                        let mut c = Cache::new(side, n_blocks, width, rule);
                        let view = c.view();
                        let mut cells = vec![0; n];
                        let ns = time(200, calls(bytes), |i| {
                            let rows = RowsF32::from_slice(&rows[i % sources * values..][..values], D, HEADS).unwrap();
                            let first = if n == 1 {
                                i * 37 % n_blocks * BLOCK + i % BLOCK
                            } else {
                                i * n % (n_blocks * BLOCK).next_multiple_of(n) % (n_blocks * BLOCK - n + 1) / 16 * 16
                            };
                            for (j, cell) in cells.iter_mut().enumerate() {
                                *cell = (first + j) as i64;
                            }
                            store_at(isa, &view, &rows, &cells, 0, 1).unwrap();
                        });
                        print(&name, isa, ns, values, bytes, plain);
                    }
                }
            }
        }
    }
}

fn shrink(wanted: &dyn Fn(&str) -> bool, levels: &[Isa]) {
    use RangeRule::{Fit, Shift};
    use Width::{B16, B2, B4, B8};
    for far in [false, true] {
        for side in [Side::K, Side::V] {
            for (from, to, rule) in [
                (B16, B8, Shift),
                (B16, B4, Shift),
                (B16, B2, Shift),
                (B16, B2, Fit),
                (B8, B4, Shift),
                (B8, B2, Shift),
                (B8, B2, Fit),
                (B4, B2, Shift),
                (B4, B2, Fit),
            ] {
                let place = if far { "memory" } else { "cache" };
                let name = format!("shrink {side} {from} to {} {place}", bits(to, rule));
                if !wanted(&name) {
                    continue;
                }
                let values = HEADS * BLOCK * D;
                let bytes = values * from.bits() / 8 + values * to.bits() / 8;
                let plain = copy(bytes, far);
                for &isa in levels {
                    // in place; in the cache into another block, so that the values stay what they are
                    let n_blocks = if far { FAR / (values * from.bits() / 8) } else { 2 };
                    let mut c = Cache::new(side, n_blocks, from, rule);
                    let rows = noise(BLOCK * HEADS * D);
                    let cells: Vec<i64> = (0..BLOCK as i64).collect();
                    let view = c.view();
                    let rows = RowsF32::from_slice(&rows, D, HEADS).unwrap();
                    store_at(Isa::best(), &view, &rows, &cells, 0, 1).unwrap();
                    let ns = time(200, 1, |i| {
                        let block = if far { i * 7 % n_blocks } else { 0 };
                        let src = view.entry(block).unwrap().pages;
                        let mut dst = [-1; 8];
                        for (j, d) in dst.iter_mut().enumerate().take(to.pages()) {
                            *d = if far { src[j * from.bits() / to.bits()] } else { src[j] + from.pages() as i32 };
                        }
                        let (from, to) = (from.bits() as i32, to.bits() as i32);
                        let op = ShrinkOp { block: block as u32, from, to, src, dst };
                        shrink_at(isa, &view, &[op], &[AtomicU32::new(0)], 0, 1).unwrap();
                    });
                    print(&name, isa, ns, values, bytes, plain);
                }
            }
        }
    }
}

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_level = |f: &&String| Isa::ALL.iter().any(|i| i.name() == f.as_str());
    let named: Vec<&String> = filter.iter().filter(is_level).collect();
    let levels: Vec<Isa> = Isa::ALL
        .into_iter()
        .filter(|i| *i != Isa::Reference && i.available() && (named.is_empty() || named.iter().any(|n| *n == i.name())))
        .collect();
    let wanted = |name: &str| filter.iter().filter(|f| !is_level(f)).all(|f| name.contains(f.as_str()));
    println!("{:<34}{:>10}{:>10}{:>9}{:>8}", "", "", "ns/value", "GB/s", "of copy");
    store(&wanted, &levels);
    shrink(&wanted, &levels);
}
