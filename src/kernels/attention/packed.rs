//! Scores and weighted values straight from codes, in integers; scale and minimum are applied outside.
//!
//! A token's codes `c` of a group stand for `min + scale * c`. With `mid` the middle of a code's range:
//!
//! ```text
//! q . k = scale * (q . (c - mid) + mid * sum(q)) + min * sum(q)             q . (c - mid) in integers, sum(q) in f32
//! o     = sum_j w_j (c_j - mid) + mid * sum_j w_j + sum_j p_j min_j         w_j = p_j * scale_j; the first sum in integers
//! ```
//!
//! So what rounding q or w to integers adds is only seen by the codes' distance from the middle. Queries and weights have 16
//! bits at 8 bits of cache; at 4 and 2 bits they have 8 where that is enough ([`Query::narrow`], [`weights_are_narrow`]).

use super::super::dots::{Bits, Dots, Tile, WIDE_MAX};
use super::super::lanes::{Lanes, LANES};
use super::super::prefetch;
use crate::geometry::{Width, BLOCK, SUBTILE, SUBTILES};

/// Words (of four values) of a block of weights.
pub(super) const WEIGHT_WORDS: usize = BLOCK / 4;

/// The shares of the cache's own error that rounding the queries, and the weights, may add under the worst assumptions that
/// are made below. A quarter is allowed for both together (their squares add up); usual data stay at half of these.
const QUERY_SHARE: f32 = 0.17;
const WEIGHT_SHARE: f32 = 0.24;

/// The root mean square distance of codes from their middle, for codes that are spread evenly; those of a normal
/// distribution are nearer.
const fn spread(width: Width) -> f32 {
    match width {
        Width::B2 => 1.12,
        _ => 4.61,
    }
}

/// Groups of queries or weights below this count as zeros: their reciprocal could overflow.
const TINY: f32 = 1e-30;

/// The error of a code, uniform within a step: 1 / sqrt(12). The rounding of a query is as large, in its own steps.
const UNIFORM: f32 = 0.288_675_13;

/// The middle of a code's range, as the integer sums see codes.
#[inline(always)]
fn middle<I: Dots>(width: Width, wide: bool) -> (f32, f32) {
    let mid = ((1u32 << width.bits()) - 1) as f32 / 2.0;
    (mid, if wide { mid - I::WIDE_BIAS } else { mid })
}

/// A query's group as integers: `q = step * i`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Query {
    /// Of the narrow and the wide integers.
    step: [f32; 2],
    /// Their sums.
    total: [f32; 2],
    /// sum(q).
    sum: f32,
    /// 1 if narrow integers are good enough for codes of 4 bits, else 0.
    narrow: f32,
}

// the scratch lends it as plain numbers
unsafe impl super::super::scratch::Plain for Query {}

impl Query {
    /// A score's factor of the integer sum, and its constant, both still to be multiplied by the token's scale.
    #[inline(always)]
    fn terms<I: Dots>(&self, width: Width, wide: bool) -> (f32, f32) {
        let (mid, seen) = middle::<I>(width, wide);
        let i = usize::from(wide);
        (self.step[i], mid * self.sum - self.step[i] * seen * self.total[i])
    }
}

/// Queries as integers: `narrow` takes `head_dim / 4` words, `wide` twice as many.
///
/// The rounding of a group's narrow integers is uniform within a step `s`, so it adds `s * UNIFORM * spread` for each
/// dimension where the codes' own error is `|q| * UNIFORM`.
///
/// # Safety
/// `q` holds `head_dim` values, a multiple of `group`, itself one of 16; the outputs take what is said, `groups` one for each
/// group.
#[inline(always)]
pub(super) unsafe fn quantize_query<I: Dots>(
    q: *const f32,
    head_dim: usize,
    group: usize,
    narrow: *mut u32,
    wide: *mut u32,
    groups: *mut Query,
) {
    let zero = I::L::splat(0.0);
    for g in 0..head_dim / group {
        let from = g * group;
        let (mut top, mut sum, mut squares) = (zero, zero, zero);
        for d in (from..from + group).step_by(LANES) {
            let x = I::L::load(q.add(d));
            top = top.max(x.max(zero.sub(x)));
            sum = sum.add(x);
            squares = x.mul_add(x, squares);
        }
        let top = top.largest();
        let inverse = if top > TINY { 1.0 / top } else { 0.0 };
        let (n, w) = (I::L::splat(127.0 * inverse), I::L::splat(WIDE_MAX * inverse));
        let (mut narrow_total, mut wide_total) = (zero, zero);
        for d in (from..from + group).step_by(LANES) {
            let x = I::L::load(q.add(d));
            let (xn, xw) = (x.mul(n).round(), x.mul(w).round());
            narrow_total = narrow_total.add(xn);
            wide_total = wide_total.add(xw);
            I::store_i8(xn, narrow.add(d / 4).cast());
            I::store_wide(xw, wide.add(d / 4), head_dim / 4);
        }
        let rms = (squares.sum() / group as f32).sqrt();
        let enough = top / 127.0 * spread(Width::B4) <= QUERY_SHARE * rms;
        groups.add(g).write(Query {
            step: [top / 127.0, top / WIDE_MAX],
            total: [narrow_total.sum(), wide_total.sum()],
            sum: sum.sum(),
            narrow: f32::from(enough),
        });
    }
}

/// (scale, min) of a block's tokens for each group, `[group][2][128]`; zero for tokens that `live` lacks.
///
/// # Safety
/// `params` is the minimum plane of the block's group 0, `out` takes `n_groups * 2 * BLOCK` values.
#[inline(always)]
pub(super) unsafe fn scales<L: Lanes>(
    params: *const u16,
    next: *const u16,
    n_groups: usize,
    width: Width,
    live: u128,
    out: *mut f32,
) {
    let inverse = L::splat(1.0 / ((1u32 << width.bits()) - 1) as f32);
    for g in 0..n_groups {
        let (params, next) = (params.add(g * 2 * BLOCK), next.wrapping_add(g * 2 * BLOCK));
        let out = out.add(g * 2 * BLOCK);
        for i in (0..2 * BLOCK).step_by(32) {
            prefetch::line(next.wrapping_add(i).cast());
        }
        for i in (0..BLOCK).step_by(LANES) {
            let min = L::load_f16(params.add(i));
            let max = L::load_f16(params.add(BLOCK + i));
            max.sub(min).mul(inverse).store(out.add(i));
            min.store(out.add(BLOCK + i));
        }
        let mut dead = !live;
        while dead != 0 {
            let i = dead.trailing_zeros() as usize;
            out.add(i).write(0.0);
            out.add(BLOCK + i).write(0.0);
            dead &= dead - 1;
        }
    }
}

/// A subtile at 4 or 2 bits in the layout of 8 bits: rows of `row` bytes become `8 / W` rows each.
///
/// # Safety
/// `src` holds the subtile of `n_rows` rows, a row is a multiple of 64 bytes, `dst` takes `8 / W` times as much.
#[inline(always)]
pub(super) unsafe fn spread_out<I: Dots, const W: usize>(src: *const u8, n_rows: usize, row: usize, dst: *mut u8) {
    let per = 8 / W;
    for r in 0..n_rows {
        for i in (0..row).step_by(64) {
            let bits = I::L::load_bits(src.add(r * row + i));
            for c in 0..per {
                let part = I::part(bits, (W * c) as u32, ((1u32 << W) - 1) as u8);
                I::store_bits(part, dst.add((r * per + c) * row + i));
            }
        }
    }
}

/// `N` quads beginning with quad `N * i`, at the same place of their rows. The same lines of `next`, unless it is null, are asked for.
///
/// # Safety
/// `src` is that place in row 0; the rows, `row` bytes apart, hold the quads.
#[inline(always)]
unsafe fn quads<I: Dots, const W: usize, const N: usize>(
    src: *const u8,
    next: *const u8,
    row: usize,
    i: usize,
) -> [Bits<I>; N] {
    let per = 8 / W;
    let first = i * N / per * row;
    let ahead = !next.is_null();
    if ahead {
        prefetch::line(next.wrapping_add(first));
    }
    let mut bits = [I::L::load_bits(src.add(first)); N];
    for n in 0..N {
        if W == 8 {
            if n > 0 {
                if ahead {
                    prefetch::line(next.wrapping_add((i * N + n) * row));
                }
                bits[n] = I::L::load_bits(src.add((i * N + n) * row));
            }
        } else {
            bits[n] = I::part(bits[n], (W * n) as u32, ((1u32 << W) - 1) as u8);
        }
    }
    bits
}

/// Integer sums of `R` rows and `S` vectors of codes, over quads that follow one another: `[R][S]` sums as f32.
///
/// # Safety
/// Each of `src` is a place in a row, rows are `row` bytes apart and hold `N * steps` quads; `x` holds their words for `R`
/// rows, `stride` words apart, and a second plane, `plane` words further, if `WIDE`.
#[inline(always)]
unsafe fn sums<
    I: Dots,
    const W: usize,
    const N: usize,
    const R: usize,
    const S: usize,
    const WIDE: bool,
    const SIGNED: bool,
>(
    acc: &mut Sums<I, R, S>,
    src: &[*const u8; S],
    next: &[*const u8; S],
    row: usize,
    steps: usize,
    x: *const u32,
    stride: usize,
    plane: usize,
) {
    if I::ONE_QUAD {
        for i in 0..steps {
            // by hand: compilers don't unroll as much as this may be, and then keep the sums in memory
            macro_rules! vector {
                ($s:literal) => {
                    if $s < S {
                        let codes = quads::<I, W, N>(src[$s], next[$s], row, i);
                        vector!($s, codes, 0);
                        vector!($s, codes, 1);
                        vector!($s, codes, 2);
                        vector!($s, codes, 3);
                    }
                };
                ($s:literal, $codes:ident, $n:literal) => {
                    if $n < N {
                        for r in 0..R {
                            let x = x.add(r * stride + i * N + $n);
                            if WIDE {
                                acc.wide[r][$s] = I::wide(acc.wide[r][$s], $codes[$n], x, plane);
                            } else {
                                acc.narrow[r][$s] = I::narrow::<1, SIGNED>(acc.narrow[r][$s], &[$codes[$n]], x);
                            }
                        }
                    }
                };
            }
            vector!(0);
            vector!(1);
        }
        return;
    }
    for i in 0..steps {
        for s in 0..S {
            let codes = quads::<I, W, N>(src[s], next[s], row, i);
            for r in 0..R {
                let x = x.add(r * stride + i * N);
                if WIDE {
                    for n in 0..N {
                        acc.wide[r][s] = I::wide(acc.wide[r][s], codes[n], x.add(n), plane);
                    }
                } else {
                    acc.narrow[r][s] = I::narrow::<N, SIGNED>(acc.narrow[r][s], &codes, x);
                }
            }
        }
    }
}

/// Sums of either precision; the compiler leaves out the one that is not used.
struct Sums<I: Dots, const R: usize, const S: usize> {
    narrow: [[I::Narrow; S]; R],
    wide: [[I::Wide; S]; R],
}

impl<I: Dots, const R: usize, const S: usize> Sums<I, R, S> {
    #[inline(always)]
    unsafe fn zero() -> Self {
        Sums { narrow: [[I::narrow_zero(); S]; R], wide: [[I::wide_zero(); S]; R] }
    }

    #[inline(always)]
    unsafe fn get<const WIDE: bool>(&self, r: usize, s: usize) -> I::L {
        if WIDE {
            I::wide_sum(self.wide[r][s])
        } else {
            I::narrow_sum(self.narrow[r][s])
        }
    }
}

/// What scores are made of, for the rows of a tile.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    /// Subtiles; of those without a visible token, any of the block's.
    pub src: [*const u8; SUBTILES],
    /// Those of the next block, to be asked for, or null.
    pub next: [*const u8; SUBTILES],
    pub width: Width,
    pub head_dim: usize,
    pub group: usize,
    /// `[group][scale | min][128]`.
    pub scales: *const f32,
    /// Words of the queries, `head_dim / 4` and twice as many in a row.
    pub narrow: *const u32,
    pub wide: *const u32,
    /// One for each row and group.
    pub groups: *const Query,
    /// `[row][128]`.
    pub scores: *mut f32,
}

impl Keys {
    /// Scores of `R` rows from `row` on, and the `S` subtiles from `subtile` on. `W` is the layout's width.
    ///
    /// # Safety
    /// The pointers hold what their comments say; `width` is above 4 bits only if `WIDE`.
    #[inline(always)]
    pub unsafe fn score<I: Dots, const W: usize, const N: usize, const R: usize, const S: usize, const WIDE: bool>(
        &self,
        row: usize,
        subtile: usize,
    ) {
        let n_groups = self.head_dim / self.group;
        let (words, plane) = (self.head_dim / 4, self.head_dim / 4);
        let (x, stride) = if WIDE { (self.wide, 2 * words) } else { (self.narrow, words) };
        for g in 0..n_groups {
            let first = g * self.group / 4;
            let (mut src, mut next) = ([self.src[subtile]; S], [std::ptr::null(); S]);
            for s in 0..S {
                let at = first * W / 8 * 4 * SUBTILE;
                src[s] = self.src[subtile + s].add(at);
                // the first rows ask for everybody
                if row == 0 && !self.next[subtile + s].is_null() {
                    next[s] = self.next[subtile + s].wrapping_add(at);
                }
            }
            let mut acc = Sums::<I, R, S>::zero();
            let x = x.add(row * stride + first);
            sums::<I, W, N, R, S, WIDE, true>(&mut acc, &src, &next, 4 * SUBTILE, self.group / 4 / N, x, stride, plane);
            for r in 0..R {
                let q = &*self.groups.add((row + r) * n_groups + g);
                let (a, b) = q.terms::<I>(self.width, WIDE);
                let (a, b, sum) = (I::L::splat(a), I::L::splat(b), I::L::splat(q.sum));
                for s in 0..S {
                    let at = (subtile + s) * SUBTILE;
                    let scale = I::L::load(self.scales.add(g * 2 * BLOCK + at));
                    let min = I::L::load(self.scales.add(g * 2 * BLOCK + BLOCK + at));
                    let out = self.scores.add((row + r) * BLOCK + at);
                    let base = if g == 0 { min.mul(sum) } else { min.mul_add(sum, I::L::load(out)) };
                    acc.get::<WIDE>(r, s).mul_add(a, b).mul_add(scale, base).store(out);
                }
            }
        }
    }

    /// Whether narrow integers will do for all of these rows.
    #[inline(always)]
    pub unsafe fn narrow_rows(&self, row: usize, n: usize) -> bool {
        let n_groups = self.head_dim / self.group;
        match self.width {
            Width::B2 => true,
            Width::B4 => (row * n_groups..(row + n) * n_groups).all(|i| (*self.groups.add(i)).narrow != 0.0),
            _ => false,
        }
    }
}

/// [`Keys::score`] of these rows and subtiles.
pub(super) struct ScoreTile<'a, const W: usize, const N: usize, const R: usize, const S: usize, const WIDE: bool> {
    pub keys: &'a Keys,
    pub row: usize,
    pub subtile: usize,
}

impl<const W: usize, const N: usize, const R: usize, const S: usize, const WIDE: bool> Tile
    for ScoreTile<'_, W, N, R, S, WIDE>
{
    #[inline(always)]
    unsafe fn run<I: Dots>(&self) {
        self.keys.score::<I, W, N, R, S, WIDE>(self.row, self.subtile)
    }
}

/// [`Values::group`] of these rows.
struct GroupTile<'a, const W: usize, const N: usize, const R: usize, const C: usize, const WIDE: bool> {
    values: &'a Values,
    row: usize,
    g: usize,
    weights: &'a [Weights; R],
}

impl<const W: usize, const N: usize, const R: usize, const C: usize, const WIDE: bool> Tile
    for GroupTile<'_, W, N, R, C, WIDE>
{
    #[inline(always)]
    unsafe fn run<I: Dots>(&self) {
        self.values.group::<I, W, N, R, C, WIDE>(self.row, self.g, self.weights)
    }
}

/// Weights of one group of a block, before they are rounded.
#[derive(Clone, Copy)]
struct Weights {
    top: f32,
    sum: f32,
    /// sum_j p_j min_j.
    min: f32,
    narrow: bool,
}

/// What is known of `w_j = p_j * scale_j` of `R` (at most 4) rows and a group. `W` is the layout's width.
///
/// # Safety
/// `p` holds [`BLOCK`] values in each of `R` rows, `scales` a group's (scale, min).
#[inline(always)]
unsafe fn survey<L: Lanes, const W: usize, const R: usize>(
    p: *const f32,
    scales: *const f32,
    width: Width,
    n_live: u32,
) -> [Weights; R] {
    let zero = [L::splat(0.0); 4];
    let (mut top, mut sum, mut squares, mut mins) = (zero, zero, zero, zero);
    // all rows at once where the sums fit the registers
    let step = if L::VALUE_ROWS >= 4 { R } else { 1 };
    for first in (0..R).step_by(step) {
        for i in (0..BLOCK).step_by(LANES) {
            let (scale, min) = (L::load(scales.add(i)), L::load(scales.add(BLOCK + i)));
            for r in first..first + step {
                let p = L::load(p.add(r * BLOCK + i));
                let x = p.mul(scale);
                top[r] = top[r].max(x);
                sum[r] = sum[r].add(x);
                if W != 2 {
                    squares[r] = x.mul_add(x, squares[r]);
                }
                mins[r] = p.mul_add(min, mins[r]);
            }
        }
    }
    let mut all = [[0.0f32; 4]; 4];
    L::max4(&top, all[0].as_mut_ptr());
    L::sum4(&sum, all[1].as_mut_ptr());
    L::sum4(&mins, all[2].as_mut_ptr());
    if width == Width::B4 {
        L::sum4(&squares, all[3].as_mut_ptr());
    }
    let mut weights = [Weights { top: 0.0, sum: 0.0, min: 0.0, narrow: width == Width::B2 }; R];
    for r in 0..R {
        weights[r].top = all[0][r];
        weights[r].sum = all[1][r];
        weights[r].min = all[2][r];
        if width == Width::B4 {
            weights[r].narrow = weights_are_narrow(all[0][r], all[3][r], n_live, width);
        }
    }
    weights
}

/// Whether weights of 8 bits are good enough: the codes' own error is `sqrt(sum w^2) * UNIFORM`, and rounding (with
/// [`DITHER`], so up to half a step where weights are nearly equal) adds at most `step / 2 * sqrt(n) * spread`. At 2 bits
/// that is so whatever the weights are, since `sum w^2` is at least the square of the largest.
#[inline(always)]
fn weights_are_narrow(top: f32, squares: f32, n_live: u32, width: Width) -> bool {
    let step = top / 255.0;
    let added = step * step * 0.25 * n_live as f32 * spread(width) * spread(width);
    added <= WEIGHT_SHARE * WEIGHT_SHARE * UNIFORM * UNIFORM * squares
}

/// What is added to weights before they are rounded to 8 bits: an even sequence in -1/2 .. 1/2 (multiples of the golden ratio).
/// Rounding to the nearest would lose, or double, a long flat tail beneath one peak as a whole, and with it whatever its
/// values have in common.
static DITHER: [f32; BLOCK] = {
    let mut d = [0.0; BLOCK];
    let mut i = 0;
    while i < BLOCK {
        let x = (i as f64 + 0.5) * 0.618_033_988_749_894_8;
        d[i] = (x - (x as u32) as f64 - 0.5) as f32;
        i += 1;
    }
    d
};

/// What values are weighed with, for the rows of a tile.
#[derive(Clone, Copy)]
pub(super) struct Values {
    pub src: [*const u8; SUBTILES],
    pub next: [*const u8; SUBTILES],
    /// Subtiles with a visible token.
    pub live: u8,
    pub n_live: u32,
    pub width: Width,
    pub head_dim: usize,
    pub group: usize,
    /// `[group][scale | min][128]`, zero for hidden tokens.
    pub scales: *const f32,
    /// `[row][128]`.
    pub p: *const f32,
    /// What each row's sums so far must be multiplied by.
    pub factors: *const f32,
    /// `[row][stride]`.
    pub acc: *mut f32,
    pub stride: usize,
    /// Room for 8 rows of two planes of words.
    pub words: *mut u32,
}

impl Values {
    /// `acc = acc * factor + p . v` for `R` rows from `row` on. `W` is the layout's width; columns go `C` vectors at a time.
    ///
    /// # Safety
    /// The pointers hold what their comments say.
    #[inline(always)]
    pub unsafe fn weigh<I: Dots, const W: usize, const N: usize, const R: usize, const CN: usize, const CW: usize>(
        &self,
        row: usize,
    ) {
        for g in 0..self.head_dim / self.group {
            let scales = self.scales.add(g * 2 * BLOCK);
            let p = self.p.add(row * BLOCK);
            let weights = survey::<I::L, W, R>(p, scales, self.width, self.n_live);
            let mut wide = false;
            for w in &weights {
                wide |= !w.narrow;
            }
            if wide {
                I::apart(&GroupTile::<W, N, R, CW, true> { values: self, row, g, weights: &weights });
            } else {
                I::apart(&GroupTile::<W, N, R, CN, false> { values: self, row, g, weights: &weights });
            }
        }
    }

    #[inline(always)]
    unsafe fn group<I: Dots, const W: usize, const N: usize, const R: usize, const C: usize, const WIDE: bool>(
        &self,
        row: usize,
        g: usize,
        weights: &[Weights; R],
    ) {
        if W == 2 && WIDE {
            // such rows are never wide
            return;
        }
        let (p, scales) = (self.p.add(row * BLOCK), self.scales.add(g * 2 * BLOCK));
        let (mid, seen) = middle::<I>(self.width, WIDE);
        let mut totals = [I::L::splat(0.0); 4];
        let most = if WIDE { WIDE_MAX } else { 255.0 };
        for r in 0..R {
            let w = &weights[r];
            let inverse = I::L::splat(if w.top > TINY { most / w.top } else { 0.0 });
            let words = self.words.add(r * 2 * WEIGHT_WORDS);
            let mut total = I::L::splat(0.0);
            for i in (0..BLOCK).step_by(4 * LANES) {
                let mut x = [total; 4];
                for n in 0..4 {
                    let at = i + n * LANES;
                    // the same product as in `survey`, so none is above the top
                    x[n] = I::L::load(p.add(r * BLOCK + at)).mul(I::L::load(scales.add(at)));
                    x[n] = if WIDE {
                        x[n].mul(inverse)
                    } else {
                        x[n].mul_add(inverse, I::L::load(DITHER.as_ptr().add(at)))
                    };
                }
                let words = words.add(i / 4);
                total = total.add(if WIDE {
                    I::store_wide_sum(x, words, WEIGHT_WORDS)
                } else {
                    I::L::store_rounded_sum(x, words.cast())
                });
            }
            totals[r] = total;
        }
        let mut total = [0.0f32; 4];
        I::L::sum4(&totals, total.as_mut_ptr());
        let (mut steps, mut constants) = ([0.0f32; R], [0.0f32; R]);
        for r in 0..R {
            let w = &weights[r];
            steps[r] = w.top / most;
            constants[r] = mid * w.sum - steps[r] * seen * total[r] + w.min;
        }
        let end = (g + 1) * self.group;
        let mut d = g * self.group;
        if WIDE && R * C > I::WIDE_SUMS && !I::LARGE {
            // more sums than fit the registers
            for first in (0..R).step_by(2) {
                for d in (d..end).step_by(LANES) {
                    self.columns::<I, W, N, 2, 1, WIDE>(row, first, d, &steps, &constants);
                }
            }
            return;
        }
        while d + C * LANES <= end {
            self.columns::<I, W, N, R, C, WIDE>(row, 0, d, &steps, &constants);
            d += C * LANES;
        }
        // where C is 1 nothing is left, and nothing is compiled
        while C > 1 && d < end {
            self.columns::<I, W, N, R, 1, WIDE>(row, 0, d, &steps, &constants);
            d += LANES;
        }
    }

    /// `R` of the rows from `row` on whose weights are in `words`: those from `first` on.
    #[inline(always)]
    unsafe fn columns<I: Dots, const W: usize, const N: usize, const R: usize, const C: usize, const WIDE: bool>(
        &self,
        row: usize,
        first: usize,
        d: usize,
        steps: &[f32],
        constants: &[f32],
    ) {
        let mut acc = Sums::<I, R, C>::zero();
        for s in 0..SUBTILES {
            if self.live >> s & 1 == 0 {
                continue;
            }
            let (mut src, mut next) = ([self.src[s]; C], [std::ptr::null(); C]);
            for c in 0..C {
                src[c] = self.src[s].add(4 * (d + c * LANES));
                if row + first == 0 && !self.next[s].is_null() {
                    next[c] = self.next[s].wrapping_add(4 * (d + c * LANES));
                }
            }
            let stride = 2 * WEIGHT_WORDS;
            let x = self.words.add(first * stride + s * SUBTILE / 4);
            let width = 4 * self.head_dim;
            sums::<I, W, N, R, C, WIDE, false>(&mut acc, &src, &next, width, 4 / N, x, stride, WEIGHT_WORDS);
        }
        for r in 0..R {
            let at = first + r;
            let out = self.acc.add((row + at) * self.stride + d);
            let factor = I::L::splat(*self.factors.add(row + at));
            let (step, constant) = (I::L::splat(steps[at]), I::L::splat(constants[at]));
            for c in 0..C {
                let out = out.add(c * LANES);
                let old = I::L::load(out).mul_add(factor, constant);
                acc.get::<WIDE>(r, c).mul_add(step, old).store(out);
            }
        }
    }
}
