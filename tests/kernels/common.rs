//! A cache in plain vectors, with guards around every buffer, pages in random order and 0xFF everywhere; seeded numbers.

use pmkvq::geometry::{page_bytes, params_bytes, BlockEntry, Side, Width, BLOCK};
use pmkvq::kernels::{store_at, Isa, RangeRule, RowsF32, ShrinkOp, SideView};
use std::sync::atomic::AtomicU32;

pub use super::rng::Rng;

/// Runs a property once with PMKVQ_SEED, or `times` with seeds of its own; the seed is printed when it fails.
pub fn property(times: u64, f: impl Fn(&mut Rng)) {
    let given = std::env::var("PMKVQ_SEED").ok().map(|s| s.parse().expect("PMKVQ_SEED is a number"));
    for seed in given.map_or(0..times, |s: u64| s..s + 1) {
        struct Say(u64);
        impl Drop for Say {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    eprintln!("failed with PMKVQ_SEED={}", self.0);
                }
            }
        }
        let _say = Say(seed);
        f(&mut Rng::new(seed));
    }
}

/// Levels to test: all that the CPU has, the reference apart.
pub fn levels() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|i| i.available() && *i != Isa::Reference).collect()
}

const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xa5;

/// Bytes with guards on both sides, all else 0xFF.
#[derive(Clone)]
pub struct Guarded {
    words: Vec<u32>,
    len: usize,
}

impl Guarded {
    pub fn new(len: usize) -> Guarded {
        let total = GUARD + len.next_multiple_of(4) + GUARD;
        let mut g = Guarded { words: vec![u32::from_ne_bytes([GUARD_BYTE; 4]); total / 4], len };
        g.bytes_mut().fill(0xff);
        g
    }

    pub fn ptr(&mut self) -> *mut u8 {
        unsafe { self.words.as_mut_ptr().cast::<u8>().add(GUARD) }
    }

    pub fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>().add(GUARD), self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast::<u8>().add(GUARD), self.len) }
    }

    pub fn check(&self) {
        let all = unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<u8>(), self.words.len() * 4) };
        assert!(all[..GUARD].iter().chain(&all[GUARD + self.len..]).all(|&b| b == GUARD_BYTE), "a guard was written");
    }
}

/// One side of a layer.
#[derive(Clone)]
pub struct Cache {
    pub side: Side,
    pub d: usize,
    pub group: usize,
    pub n_head: usize,
    pub n_blocks: usize,
    pub n_pages: usize,
    pub pool: Guarded,
    pub table: Vec<BlockEntry>,
    pub params: Guarded,
    pub free: Vec<i32>,
    pub rule: RangeRule,
    /// What [`Cache::put`] was given, f32 `[cell][head][d]`: the cache's own error is measured against it.
    pub given: Vec<f32>,
}

impl Cache {
    /// Pages for every block at 16 bits, and some more.
    pub fn new(rng: &mut Rng, side: Side, d: usize, group: usize, n_head: usize, n_blocks: usize) -> Cache {
        let n_pages = n_blocks * 8 + 3;
        let mut free: Vec<i32> = (0..n_pages as i32).collect();
        rng.shuffle(&mut free);
        let n_groups = d.checked_div(group).unwrap_or(0);
        Cache {
            side,
            d,
            group,
            n_head,
            n_blocks,
            n_pages,
            pool: Guarded::new(n_head * n_pages * page_bytes(d)),
            table: vec![BlockEntry::EMPTY; n_blocks],
            params: Guarded::new(params_bytes(n_blocks, n_head, n_groups)),
            free,
            rule: RangeRule::Shift,
            given: vec![0.0; n_blocks * BLOCK * n_head * d],
        }
    }

    /// Store rows `[cell][head][d]`, and remember them.
    pub fn put(&mut self, values: &[f32], cells: &[i64]) {
        if cells.is_empty() {
            return;
        }
        let n = self.n_head * self.d;
        for (row, &cell) in values.chunks(n).zip(cells) {
            self.given[cell as usize * n..][..n].copy_from_slice(row);
        }
        let rows = RowsF32::from_slice(values, self.d, self.n_head).unwrap();
        store_at(Isa::best(), &self.view(), &rows, cells, 0, 1).unwrap();
    }

    /// The same cache at 16 bits throughout, with the same blocks empty.
    pub fn at_16_bits(&self) -> Cache {
        let mut c = Cache::new(&mut Rng::new(1), self.side, self.d, self.group, self.n_head, self.n_blocks);
        for b in (0..self.n_blocks).filter(|b| self.table[*b].width != 0) {
            c.open(b, Width::B16);
            let cells: Vec<i64> = (b * BLOCK..(b + 1) * BLOCK).map(|c| c as i64).collect();
            let n = self.n_head * self.d;
            c.put(&self.given[b * BLOCK * n..][..BLOCK * n], &cells);
        }
        c
    }

    /// Give an empty block a width and all its pages.
    pub fn open(&mut self, block: usize, width: Width) {
        let mut e = BlockEntry { width: width.bits() as i32, ..BlockEntry::EMPTY };
        for p in &mut e.pages[..width.pages()] {
            *p = self.free.pop().expect("pages enough");
        }
        self.table[block] = e;
    }

    pub fn view(&mut self) -> SideView<'_> {
        let (pool, params) = (self.pool.ptr(), self.params.ptr().cast());
        let table = self.table.as_ptr();
        unsafe {
            SideView::new(self.side, pool, table, params, self.n_head, self.n_pages, self.n_blocks, self.d, self.group)
                .unwrap()
                .with_range_rule(self.rule)
        }
    }

    pub fn check(&self) {
        self.pool.check();
        self.params.check();
    }

    pub fn same_bytes(&self, other: &Cache, what: &str) {
        self.check();
        other.check();
        let differ = |a: &[u8], b: &[u8]| a.iter().zip(b).position(|(x, y)| x != y);
        if let Some(i) = differ(self.params.bytes(), other.params.bytes()) {
            panic!("{what}: parameters differ at byte {i} (value {} of its plane)", i / 2 % BLOCK);
        }
        if let Some(i) = differ(self.pool.bytes(), other.pool.bytes()) {
            panic!("{what}: pools differ at byte {i}, page {}", i / page_bytes(self.d));
        }
    }
}

/// Rows of every kind that a cache must bear.
pub fn row(rng: &mut Rng, d: usize, kind: usize) -> Vec<f32> {
    let mut r: Vec<f32> = (0..d).map(|_| rng.normal()).collect();
    match kind % 12 {
        0..=2 => {}
        3 => r[rng.below(d)] *= 1000.0, // an outlier channel
        4 => r.fill(rng.normal()),      // constant
        5 => {
            let offset = rng.pick(&[65504.0, -65504.0, 60000.0, 1000.0]);
            r.iter_mut().for_each(|x| *x = offset + *x * 30.0);
        }
        6 => r.iter_mut().for_each(|x| *x *= 1e-7), // f16 denormals
        7 => r.iter_mut().for_each(|x| *x = if *x > 0.0 { 0.0 } else { -0.0 }),
        8 => r[rng.below(d)] = f32::NAN,
        9 => {
            r[rng.below(d)] = f32::INFINITY;
            r[rng.below(d)] = f32::NEG_INFINITY;
        }
        10 => r.iter_mut().for_each(|x| *x *= 1e-40), // f32 denormals
        _ => r.fill(if rng.below(2) == 0 { f32::NAN } else { -0.0 }),
    }
    r
}

/// (head dimension, group), shapes of real models and the ends of what is allowed.
pub const SHAPES: [(usize, usize); 12] = [
    (16, 16),
    (64, 64),
    (80, 80),
    (96, 96),
    (96, 48),
    (112, 112),
    (128, 128),
    (128, 32),
    (192, 96),
    (256, 128),
    (512, 128),
    (576, 96),
];

/// Counters of converted heads for [`pmkvq::kernels::shrink_at`].
pub fn counters(ops: &[ShrinkOp]) -> Vec<AtomicU32> {
    ops.iter().map(|_| AtomicU32::new(0)).collect()
}

pub const PACKED: [Width; 3] = [Width::B8, Width::B4, Width::B2];
pub const SIDES: [Side; 2] = [Side::K, Side::V];

/// Every way down.
pub const STEPS: [(Width, Width); 6] = [
    (Width::B16, Width::B8),
    (Width::B16, Width::B4),
    (Width::B16, Width::B2),
    (Width::B8, Width::B4),
    (Width::B8, Width::B2),
    (Width::B4, Width::B2),
];

/// Rows `[token][head][d]`.
pub fn rows(rng: &mut Rng, n: usize, n_head: usize, d: usize) -> Vec<f32> {
    (0..n * n_head)
        .flat_map(|_| {
            let kind = rng.below(12);
            row(rng, d, kind)
        })
        .collect()
}

/// Cells of a batch: runs in random blocks, sometimes whole ones, in any order, none twice.
pub fn cells(rng: &mut Rng, n_blocks: usize) -> Vec<i64> {
    let mut out = Vec::new();
    for b in 0..n_blocks {
        let first = rng.pick(&[0, 0, 1, 5, 16, 100, 127]);
        let n = rng.pick(&[0, 1, 1, 3, 15, 16, 17, 40, 128]).min(128 - first);
        out.extend((first..first + n).map(|i| (b * 128 + i) as i64));
    }
    if rng.below(3) == 0 {
        rng.shuffle(&mut out);
    }
    out
}

/// An operation on a block that is there: some pages absent, targets among its own pages, in any order, or new ones.
pub fn random_op(rng: &mut Rng, c: &mut Cache, block: usize, from: Width, to: Width) -> ShrinkOp {
    c.open(block, from);
    let mut src = c.table[block].pages;
    let lazy = rng.below(2) == 0;
    for p in &mut src[..from.pages()] {
        if lazy && rng.below(3) == 0 {
            *p = -1;
        }
    }
    let mut own: Vec<i32> = src.iter().copied().filter(|&p| p != -1).collect();
    rng.shuffle(&mut own);
    let ratio = from.bits() / to.bits();
    let mut dst = [-1; 8];
    for i in 0..to.pages() {
        if src[i * ratio..(i + 1) * ratio].iter().any(|&p| p != -1) {
            let taken = if rng.below(3) == 0 { c.free.pop() } else { None };
            dst[i] = taken.or_else(|| own.pop()).unwrap();
        }
    }
    ShrinkOp { block: block as u32, from: from.bits() as i32, to: to.bits() as i32, src, dst }
}

/// Anything at all: random bytes (NaN, infinities, denormals), with stretches of 0xFF.
pub fn garbage(rng: &mut Rng, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(256) {
        match rng.below(4) {
            0 => chunk.fill(0xff),
            1 => chunk.chunks_mut(2).for_each(|h| {
                h.copy_from_slice(&half::f16::from_f32(rng.normal()).to_bits().to_le_bytes());
            }),
            _ => chunk.iter_mut().for_each(|b| *b = rng.next() as u8),
        }
    }
}

pub fn normals(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal()).collect()
}

/// Values for cells of a cache, through the store.
pub fn fill(rng: &mut Rng, c: &mut Cache, cells: &[i64], size: f32) {
    let values: Vec<f32> = (0..cells.len() * c.n_head * c.d).map(|_| rng.normal() * size).collect();
    c.put(&values, cells);
}

/// Of an attention whose last `n_token` cells are the current batch: f16 `[n_token][n_kv]`.
pub fn causal_mask(n_kv: usize, n_token: usize) -> Vec<u16> {
    let mut mask = vec![half::f16::NEG_INFINITY.to_bits(); n_token * n_kv];
    for (t, row) in mask.chunks_mut(n_kv).enumerate() {
        row[..n_kv - n_token + t + 1].fill(0);
    }
    mask
}
