//! exp and tanh on vectors, and one step of the online softmax.

use super::lanes::{Lanes, LANES};
use crate::geometry::BLOCK;

/// e^x for x up to 88; 0 below -87.3, where f32 would be denormal. Within 2 units in the last place (Cephes' polynomial).
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L) -> L {
    let low = L::splat(-87.3);
    let y = low.max(x).min(L::splat(88.0));
    let n = y.mul(L::splat(std::f32::consts::LOG2_E)).round();
    // ln 2 in two parts, the first short enough for an exact product
    let r = n.mul_add(L::splat(-0.693_359_4), y);
    let r = n.mul_add(L::splat(2.121_944_4e-4), r);
    let mut p = L::splat(1.987_569_1e-4);
    p = p.mul_add(r, L::splat(1.398_199_9e-3));
    p = p.mul_add(r, L::splat(8.333_452e-3));
    p = p.mul_add(r, L::splat(4.166_579_6e-2));
    p = p.mul_add(r, L::splat(1.666_666_6e-1));
    p = p.mul_add(r, L::splat(5.0e-1));
    let e = p.mul_add(r.mul(r), r).add(L::splat(1.0));
    x.select_lt(low, L::splat(0.0), e.mul(n.exp2_int()))
}

/// tanh: a polynomial near 0, where `1 - 2 / (e^2x + 1)` would cancel (Cephes).
#[inline(always)]
pub(crate) unsafe fn tanh<L: Lanes>(x: L) -> L {
    let zero = L::splat(0.0);
    let one = L::splat(1.0);
    let a = x.max(zero.sub(x));
    let z = x.mul(x);
    let mut p = L::splat(-5.704_988_7e-3);
    p = p.mul_add(z, L::splat(2.063_908_9e-2));
    p = p.mul_add(z, L::splat(-5.373_971_6e-2));
    p = p.mul_add(z, L::splat(1.333_144_2e-1));
    p = p.mul_add(z, L::splat(-3.333_328_2e-1));
    let near = p.mul(z).mul_add(x, x);
    let e = exp::<L>(a.add(a).min(L::splat(80.0)));
    let far = one.sub(L::splat(2.0).div(e.add(one)));
    let far = x.select_lt(zero, zero.sub(far), far);
    a.select_lt(L::splat(0.625), near, far)
}

/// How raw dot products become scores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScoreMap {
    /// Already divided by the cap where there is one.
    pub scale: f32,
    /// 0: none.
    pub softcap: f32,
}

/// One row, one block: scores in place become weights, `max` and `sum` go on; returns what earlier sums must be multiplied by.
/// Cells whose mask is -inf get weight 0 whatever their score is, NaN included.
///
/// # Safety
/// `scores` and `mask` hold [`BLOCK`] values.
#[inline(always)]
pub(crate) unsafe fn online_step<L: Lanes>(
    scores: *mut f32,
    mask: *const f32,
    slope: f32,
    map: ScoreMap,
    max: &mut f32,
    sum: &mut f32,
) -> f32 {
    let dead = L::splat(f32::NEG_INFINITY);
    let mut top = dead;
    for i in (0..BLOCK).step_by(LANES) {
        let m = L::load(mask.add(i));
        let mut s = L::load(scores.add(i)).mul(L::splat(map.scale));
        if map.softcap != 0.0 {
            s = tanh::<L>(s).mul(L::splat(map.softcap));
        }
        s = m.mul_add(L::splat(slope), s);
        s = dead.select_lt(m, s, dead);
        s.store(scores.add(i));
        top = top.max(s);
    }
    let new = top.largest().max(*max);
    if new == f32::NEG_INFINITY {
        for i in (0..BLOCK).step_by(LANES) {
            L::splat(0.0).store(scores.add(i));
        }
        return 1.0;
    }
    let mut total = L::splat(0.0);
    for i in (0..BLOCK).step_by(LANES) {
        let p = exp::<L>(L::load(scores.add(i)).sub(L::splat(new)));
        p.store(scores.add(i));
        total = total.add(p);
    }
    let factor = (*max - new).exp();
    *max = new;
    *sum = *sum * factor + total.sum();
    factor
}
