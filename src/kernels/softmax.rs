//! exp and tanh on vectors, and one step of the online softmax.

use super::lanes::{Lanes, LANES};
use crate::geometry::BLOCK;

/// e^x for x up to 88, as `2^n * 2^f` with f in -1/2 .. 1/2; 0 or denormal below -87.3. Within 2 units in the
/// last place near 0, where weights matter; 2e-8 times x beyond.
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L) -> L {
    // NaN stays NaN: `max` gives its argument then
    let x = L::splat(-100.0).max(x);
    let n = x.mul(L::splat(std::f32::consts::LOG2_E)).round();
    // x * 2e-8, what LOG2_E loses by being an f32, does not matter beside e^x
    let f = x.mul_sub(L::splat(std::f32::consts::LOG2_E), n);
    let mut p = L::splat(EXP2[6]);
    for c in EXP2[..6].iter().rev() {
        p = p.mul_add(f, L::splat(*c));
    }
    p.scale2(n)
}

/// Coefficients of 2^f, from the power 0 up: interpolation in the Chebyshev nodes of -1/2 .. 1/2, relative error 2e-9.
const EXP2: [f32; 7] = [1.0, 0.6931472067, 0.2402265092, 0.05550327227, 0.009618056679, 0.001340042818, 0.000154614447];

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

/// A row of scores on its way through the blocks.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// [`BLOCK`] scores, which become weights.
    pub scores: *mut f32,
    /// [`BLOCK`] values, not read if `whole`: then they are all zeros.
    pub mask: *const f32,
    pub whole: bool,
    pub slope: f32,
    /// Largest score and sum of weights so far.
    pub max: *mut f32,
    pub sum: *mut f32,
    /// Out: what sums so far must be multiplied by.
    pub factor: *mut f32,
}

/// `R` (at most 4) rows, one block. Scores are already multiplied by their scale, and divided by `softcap` unless that is 0.
/// Cells whose mask is -inf get weight 0 whatever their score is, NaN included.
///
/// # Safety
/// The rows' pointers hold what they say.
#[inline(always)]
pub(crate) unsafe fn online_step<L: Lanes, const R: usize>(rows: &[Row; R], softcap: f32) {
    let dead = L::splat(f32::NEG_INFINITY);
    let mut tops = [dead; 4];
    for (r, row) in rows.iter().enumerate() {
        // most rows are left as they are
        if softcap != 0.0 || !row.whole {
            finish::<L>(row, softcap);
        }
        let mut top = [dead; 2];
        for i in (0..BLOCK).step_by(2 * LANES) {
            top[0] = top[0].max(L::load(row.scores.add(i)));
            top[1] = top[1].max(L::load(row.scores.add(i + LANES)));
        }
        tops[r] = top[0].max(top[1]);
    }
    let mut largest = [0.0f32; 4];
    L::max4(&tops, largest.as_mut_ptr());
    let mut totals = [L::splat(0.0); 4];
    let mut new = [0.0f32; R];
    // of the first lanes; e^0 is 1
    let mut change = [0.0f32; LANES];
    for (r, row) in rows.iter().enumerate() {
        new[r] = largest[r].max(*row.max);
        change[r] = if new[r] == *row.max { 0.0 } else { *row.max - new[r] };
        if new[r] == f32::NEG_INFINITY {
            for i in (0..BLOCK).step_by(LANES) {
                L::splat(0.0).store(row.scores.add(i));
            }
            continue;
        }
        let mut total = L::splat(0.0);
        for i in (0..BLOCK).step_by(LANES) {
            let p = exp::<L>(L::load(row.scores.add(i)).sub(L::splat(new[r])));
            p.store(row.scores.add(i));
            total = total.add(p);
        }
        totals[r] = total;
    }
    let mut sums = [0.0f32; 4];
    L::sum4(&totals, sums.as_mut_ptr());
    let mut factors = [0.0f32; LANES];
    exp::<L>(L::load(change.as_ptr())).store(factors.as_mut_ptr());
    for (r, row) in rows.iter().enumerate() {
        *row.max = new[r];
        *row.sum = *row.sum * factors[r] + sums[r];
        *row.factor = factors[r];
    }
}

/// The cap and the mask.
#[inline(always)]
unsafe fn finish<L: Lanes>(row: &Row, softcap: f32) {
    let dead = L::splat(f32::NEG_INFINITY);
    for i in (0..BLOCK).step_by(LANES) {
        let mut s = L::load(row.scores.add(i));
        if softcap != 0.0 {
            s = tanh::<L>(s).mul(L::splat(softcap));
        }
        if !row.whole {
            let m = L::load(row.mask.add(i));
            s = m.mul_add(L::splat(row.slope), s);
            s = dead.select_lt(m, s, dead);
        }
        s.store(row.scores.add(i));
    }
}
