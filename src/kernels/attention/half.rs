//! Scores and weighted values from f16, in f32: 16-bit blocks, and the current batch.

use super::super::dots::Dots;
use super::super::lanes::{Lanes, LANES};
use super::super::prefetch;
use super::super::tiles;
use super::task::Work;
use crate::geometry::{BLOCK, SUBTILE, SUBTILES};

/// Up to this many rows, keys are multiplied row by row and summed up across lanes; beyond, they are transposed first, which
/// pays for itself with the number of rows.
const FEW_ROWS: usize = 8;

/// Tokens that are multiplied at a time.
const STEP: usize = 4;

/// A 16-bit block of one side: subtiles `[16][head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    /// Of subtiles without a visible token, anything.
    pub src: [*const u16; SUBTILES],
    /// Those of the next block, to be asked for.
    pub next: [*const u8; SUBTILES],
    pub head_dim: usize,
    /// Visible tokens, 16 bits for each subtile.
    pub live: u128,
}

impl Halves {
    fn live(&self, subtile: usize) -> u16 {
        (self.live >> (subtile * SUBTILE)) as u16
    }

    /// Scores of the rows in `runs`, in `w.scores`.
    ///
    /// # Safety
    /// `src` of subtiles with visible tokens are valid; the CPU has the instructions of `L`.
    #[inline(always)]
    pub unsafe fn score<I: Dots>(&self, w: &Work, runs: &Runs) {
        if runs.rows() <= FEW_ROWS && self.head_dim.is_multiple_of(LANES) {
            for s in 0..SUBTILES {
                if self.live(s) == 0 {
                    continue;
                }
                if I::L::LOADS_F16 {
                    self.few_rows::<I, u16>(w, runs, s, self.src[s], self.next[s]);
                } else {
                    for i in (0..SUBTILE * self.head_dim).step_by(LANES) {
                        if i.is_multiple_of(32) {
                            prefetch::line(self.next[s].wrapping_add(2 * i));
                        }
                        I::L::load_f16(self.src[s].add(i)).store(w.tile.add(i));
                    }
                    self.few_rows::<I, f32>(w, runs, s, w.tile, w.tile.cast());
                }
            }
            return;
        }
        for pair in (0..SUBTILES).step_by(2) {
            if self.live(pair) | self.live(pair + 1) == 0 {
                continue;
            }
            for i in 0..2 {
                let tile = w.tile.add(i * self.head_dim * LANES);
                if self.live(pair + i) == 0 {
                    std::ptr::write_bytes(tile, 0, self.head_dim * LANES);
                } else {
                    tiles::half_keys::<I::L>(self.src[pair + i], self.head_dim, tile);
                }
            }
            for (from, to) in runs.ranges() {
                score_tile::<I::L>(self.head_dim, w, from, to, pair * SUBTILE);
            }
        }
    }

    #[inline(always)]
    unsafe fn few_rows<I: Dots, T: Row>(
        &self,
        w: &Work,
        runs: &Runs,
        subtile: usize,
        src: *const T,
        mut next: *const u8,
    ) {
        for (mut row, end) in runs.ranges() {
            macro_rules! rows {
                ($n:expr) => {
                    while $n <= I::L::DOT_ROWS && row + $n <= end {
                        let q = w.q.add(row * w.stride_q);
                        let out = w.scores.add(row * BLOCK + subtile * SUBTILE);
                        dot_rows::<I, T, $n>(q, w.stride_q, src, next, self.head_dim, out);
                        next = src.cast();
                        row += $n;
                    }
                };
            }
            rows!(4);
            rows!(2);
            rows!(1);
        }
    }

    /// `acc = acc * factor + p . v` of the rows in `runs`.
    ///
    /// # Safety
    /// As [`Halves::score`].
    #[inline(always)]
    pub unsafe fn weigh<I: Dots>(&self, w: &Work, runs: &Runs) {
        for (from, to) in runs.ranges() {
            for row in from..to {
                let factor = *w.factors.add(row);
                if factor != 1.0 {
                    let acc = w.acc.add(row * w.stride_v);
                    for d in (0..w.stride_v).step_by(LANES) {
                        I::L::load(acc.add(d)).mul(I::L::splat(factor)).store(acc.add(d));
                    }
                }
            }
        }
        if I::L::LOADS_F16 && runs.rows() <= FEW_ROWS && self.head_dim.is_multiple_of(LANES) {
            for (from, to) in runs.ranges() {
                self.weigh_few::<I>(w, from, to);
            }
            return;
        }
        for pair in (0..SUBTILES).step_by(2) {
            if self.live(pair) | self.live(pair + 1) == 0 {
                continue;
            }
            for i in 0..2 {
                let (tile, live) = (w.tile.add(i * SUBTILE * w.stride_v), self.live(pair + i));
                for line in (0..2 * SUBTILE * self.head_dim).step_by(64) {
                    prefetch::line(self.next[pair + i].wrapping_add(line));
                }
                if live == 0 {
                    std::ptr::write_bytes(tile, 0, SUBTILE * w.stride_v);
                } else {
                    tiles::half_values::<I::L>(self.src[pair + i], self.head_dim, live, tile, w.stride_v);
                }
            }
            for (from, to) in runs.ranges() {
                weigh_tile::<I::L>(w, from, to, pair * SUBTILE);
            }
        }
    }

    #[inline(always)]
    unsafe fn weigh_few<I: Dots>(&self, w: &Work, mut row: usize, end: usize) {
        macro_rules! rows {
            ($n:expr) => {
                while row + $n <= end {
                    let mut d = 0;
                    macro_rules! cols {
                        ($c:expr) => {
                            while d + $c * LANES <= self.head_dim {
                                self.weigh_columns::<I, $n, $c>(w, row, d);
                                d += $c * LANES;
                            }
                        };
                    }
                    cols!(4);
                    cols!(1);
                    row += $n;
                }
            };
        }
        rows!(4);
        rows!(2);
        rows!(1);
    }

    /// Tokens that nobody sees are left out: what they hold may be NaN.
    #[inline(always)]
    unsafe fn weigh_columns<I: Dots, const R: usize, const C: usize>(&self, w: &Work, row: usize, d: usize) {
        let mut a = [[I::L::splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                a[r][c] = I::L::load(w.acc.add((row + r) * w.stride_v + d + c * LANES));
            }
        }
        for s in 0..SUBTILES {
            let mut live = self.live(s);
            let p = w.scores.add(row * BLOCK + s * SUBTILE);
            let ahead = if row == 0 { self.next[s] } else { self.src[s].cast() };
            while live != 0 {
                let t = live.trailing_zeros() as usize;
                live &= live - 1;
                let v = self.src[s].add(t * self.head_dim + d);
                for c in (0..C).step_by(2) {
                    prefetch::line(ahead.wrapping_add(2 * (t * self.head_dim + d + c * LANES)));
                }
                let mut x = [I::L::splat(0.0); C];
                for c in 0..C {
                    x[c] = I::L::load_f16(v.add(c * LANES));
                }
                for r in 0..R {
                    let y = I::L::splat(*p.add(r * BLOCK + t));
                    for c in 0..C {
                        a[r][c] = x[c].mul_add(y, a[r][c]);
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                a[r][c].store(w.acc.add((row + r) * w.stride_v + d + c * LANES));
            }
        }
    }
}

/// Values of a row, as vectors of f32.
trait Row: Copy {
    unsafe fn load<L: Lanes>(p: *const Self) -> L;
}

impl Row for u16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const u16) -> L {
        L::load_f16(p)
    }
}

impl Row for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(p: *const f32) -> L {
        L::load(p)
    }
}

/// Scores of `R` queries and 16 keys.
///
/// # Safety
/// `q` holds `R` rows of `head_dim` values (a multiple of 16), `k` 16 such rows; `out` takes 16 values for each of `R` rows
/// of scores.
#[inline(always)]
unsafe fn dot_rows<I: Dots, T: Row, const R: usize>(
    q: *const f32,
    stride_q: usize,
    k: *const T,
    next: *const u8,
    head_dim: usize,
    out: *mut f32,
) {
    for t in (0..SUBTILE).step_by(STEP) {
        let k = k.add(t * head_dim);
        let mut a = [[I::L::splat(0.0); STEP]; R];
        for d in (0..head_dim).step_by(LANES) {
            // a line holds twice as many values
            if d.is_multiple_of(2 * LANES) {
                for i in 0..STEP {
                    prefetch::line(next.wrapping_add(2 * ((t + i) * head_dim + d)));
                }
            }
            let mut x = [I::L::splat(0.0); STEP];
            for i in 0..STEP {
                x[i] = T::load::<I::L>(k.add(i * head_dim + d));
            }
            for r in 0..R {
                let y = I::L::load(q.add(r * stride_q + d));
                for i in 0..STEP {
                    a[r][i] = x[i].mul_add(y, a[r][i]);
                }
            }
        }
        for r in 0..R {
            I::L::sum4(&a[r], out.add(r * BLOCK + t));
        }
    }
}

#[inline(always)]
unsafe fn score_tile<L: Lanes>(head_dim: usize, w: &Work, mut row: usize, end: usize, column: usize) {
    macro_rules! rows {
        ($n:expr) => {
            while $n <= L::SCORE_ROWS && row + $n <= end {
                let q = w.q.add(row * w.stride_q);
                let out = w.scores.add(row * BLOCK + column);
                tiles::scores::<L, $n>(q, w.stride_q, w.tile, head_dim, out, BLOCK);
                row += $n;
            }
        };
    }
    rows!(8);
    rows!(4);
    rows!(2);
    rows!(1);
}

#[inline(always)]
unsafe fn weigh_tile<L: Lanes>(w: &Work, mut row: usize, end: usize, column: usize) {
    macro_rules! rows {
        ($n:expr) => {
            while $n <= L::VALUE_ROWS && row + $n <= end {
                let p = w.scores.add(row * BLOCK + column);
                let acc = w.acc.add(row * w.stride_v);
                let mut d = 0;
                macro_rules! cols {
                    ($c:expr) => {
                        while $c <= L::VALUE_COLS && d + $c * LANES <= w.stride_v {
                            let v = w.tile.add(d);
                            tiles::weigh::<L, $n, $c>(p, BLOCK, v, w.stride_v, 2 * SUBTILE, acc.add(d), w.stride_v);
                            d += $c * LANES;
                        }
                    };
                }
                cols!(4);
                cols!(2);
                cols!(1);
                row += $n;
            }
        };
    }
    rows!(4);
    rows!(2);
    rows!(1);
}

/// The rows of a tile whose queries see something of a block.
#[derive(Clone, Copy)]
pub(super) struct Runs {
    /// Bit t: query t.
    pub queries: u64,
    /// Rows of a query.
    pub ratio: usize,
}

impl Runs {
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.queries.count_ones() as usize * self.ratio
    }

    /// Ranges of rows that follow one another.
    #[inline(always)]
    pub fn ranges(&self) -> Ranges {
        Ranges { rest: self.queries, ratio: self.ratio }
    }
}

pub(super) struct Ranges {
    rest: u64,
    ratio: usize,
}

impl Iterator for Ranges {
    type Item = (usize, usize);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, usize)> {
        if self.rest == 0 {
            return None;
        }
        let from = self.rest.trailing_zeros();
        let n = (self.rest >> from).trailing_ones();
        self.rest &= (u64::MAX << (from + n - 1)) << 1;
        Some((from as usize * self.ratio, (from + n) as usize * self.ratio))
    }
}
