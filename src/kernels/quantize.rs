//! Values become 8-bit codes and (min, max), up to 16 tokens at a time.
//!
//! The numbers are those of [`super::codes`]. What is done once for a group of a token is done for all tokens together, a
//! lane each: extremes are reduced across a transpose, and a quotient by the group's scale is a multiplication.

use super::codes::F16_MAX;
use super::lanes::{Lanes, LANES};
use super::level::Level;
use crate::geometry::{BLOCK, SUBTILE};

/// As many tokens are reduced one by one.
const FEW: usize = 3;

/// Where the values of a token come from.
#[derive(Clone, Copy)]
pub(crate) enum Values {
    /// f16, as the cache keeps them.
    Half(*const u16),
    /// f32, to be rounded to f16 first, into the second.
    Single(*const f32, *mut u16),
}

impl Values {
    /// Sixteen values from `i` on. Of f32 they are those before rounding: the extremes of a group are the same, for rounding
    /// keeps the order.
    #[inline(always)]
    unsafe fn first<L: Level>(self, i: usize) -> L {
        match self {
            Values::Half(p) => L::load_f16(p.add(i)),
            Values::Single(p, halves) => {
                let x = L::load(p.add(i));
                x.store_near(halves.add(i));
                x
            }
        }
    }

    /// The same in f16, after [`Values::first`].
    #[inline(always)]
    fn halves(self) -> *const u16 {
        match self {
            Values::Half(p) => p,
            Values::Single(_, p) => p,
        }
    }
}

/// 8-bit codes of `n` tokens, token `t` at `codes + t * stride`; (min, max) of each group go to `params`, which is the place of
/// the first token in the minimum plane of group 0.
///
/// # Safety
/// `values(t)` can be read (and its second part written) for `head_dim` values, a multiple of `group`, itself one of 16; `n`
/// is 1 to 16; `codes` takes `head_dim` bytes of each token; `params` reaches `2 * BLOCK` values further for each group.
#[inline(always)]
pub(crate) unsafe fn quantize<L: Level>(
    values: impl Fn(usize) -> Values,
    n: usize,
    head_dim: usize,
    group: usize,
    params: *mut u16,
    codes: *mut u8,
    stride: usize,
) {
    let zero = L::splat(0.0);
    for g in 0..head_dim / group {
        let (mut lows, mut highs) = ([zero; SUBTILE], [zero; SUBTILE]);
        for t in 0..n {
            let row = values(t);
            let (mut low, mut high) = (L::splat(f32::INFINITY), L::splat(f32::NEG_INFINITY));
            for i in (g * group..(g + 1) * group).step_by(LANES) {
                let x = row.first::<L>(i);
                // NaN leaves them alone
                low = x.min(low);
                high = x.max(high);
            }
            lows[t] = low;
            highs[t] = high;
        }
        let (low, high) = (extremes::<L, false>(&mut lows, n), extremes::<L, true>(&mut highs, n));
        // nothing but NaN
        let (low, high) = (high.select_lt(low, zero, low), high.select_lt(low, zero, high));
        let plane = params.add(g * 2 * BLOCK);
        let (min, max) = (kept::<L>(low, plane, n), kept::<L>(high, plane.add(BLOCK), n));
        let range = max.sub(min);
        // a constant group has codes 0, whatever it is divided by
        let scale = zero.select_lt(range, range.div(L::splat(255.0)), L::splat(1.0));
        let (min, range, scale, inverse) =
            (lanes(min), lanes(range), lanes(scale), lanes(L::splat(1.0).div(scale)));
        for t in 0..n {
            let (row, out) = (values(t).halves(), codes.add(t * stride));
            let (min, range, scale, inverse) =
                (L::splat(min[t]), L::splat(range[t]), L::splat(scale[t]), L::splat(inverse[t]));
            for i in (g * group..(g + 1) * group).step_by(LANES) {
                // NaN becomes 0 at the first, infinity the largest f16 at the second
                let x = L::load_f16(row.add(i)).sub(min).max(zero).min(range);
                x.quotient(scale, inverse).store_rounded(out.add(i));
            }
        }
    }
}

/// Lane `t` is the extreme of vector `t`, for the first `n`; other lanes hold some number.
#[inline(always)]
unsafe fn extremes<L: Lanes, const LARGEST: bool>(v: &mut [L; LANES], n: usize) -> L {
    if n > FEW {
        L::transpose(v);
        let mut m = v[0];
        for x in &v[1..] {
            m = if LARGEST { m.max(*x) } else { m.min(*x) };
        }
        return m;
    }
    let zero = L::splat(0.0);
    let mut out = [0.0; LANES];
    for (x, out) in v.iter().zip(&mut out).take(n) {
        *out = if LARGEST { x.largest() } else { -zero.sub(*x).largest() };
    }
    L::load(out.as_ptr())
}

/// An extreme as it is kept, by token; stored for the first `n`.
#[inline(always)]
unsafe fn kept<L: Level>(x: L, plane: *mut u16, n: usize) -> L {
    let x = L::splat(-F16_MAX).max(L::splat(F16_MAX).min(x));
    let mut halves = [0u16; LANES];
    x.store_near(halves.as_mut_ptr());
    // -0 becomes +0: which of them an extreme is depends on the order
    let x = L::load_f16(halves.as_ptr()).add(L::splat(0.0));
    x.store_near(halves.as_mut_ptr());
    if n == LANES {
        plane.cast::<[u16; LANES]>().write_unaligned(halves);
    } else {
        for t in 0..n {
            plane.add(t).write(halves[t]);
        }
    }
    x
}

#[inline(always)]
unsafe fn lanes<L: Lanes>(x: L) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    x.store(out.as_mut_ptr());
    out
}
