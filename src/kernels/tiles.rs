//! From a subtile of f16 to f32: keys with the 16 tokens in lanes, `[D][16]`; values with the dimensions in lanes,
//! `[16][stride]`. And the products of such tiles with many rows.

use super::lanes::{Lanes, LANES};
use crate::geometry::SUBTILE;

/// Keys of 16 tokens of f16, `n` of them present.
///
/// # Safety
/// `src` holds 16 rows of `head_dim` values, `tile` takes `D * 16` values.
#[inline(always)]
pub(crate) unsafe fn half_keys<L: Lanes>(src: *const u16, head_dim: usize, tile: *mut f32) {
    let whole = head_dim / LANES * LANES;
    for d in (0..whole).step_by(LANES) {
        let mut rows = [L::splat(0.0); LANES];
        for t in 0..SUBTILE {
            rows[t] = L::load_f16(src.add(t * head_dim + d));
        }
        L::transpose(&mut rows);
        for i in 0..LANES {
            rows[i].store(tile.add((d + i) * LANES));
        }
    }
    for d in whole..head_dim {
        for t in 0..SUBTILE {
            tile.add(d * LANES + t).write(super::f16::to_f32(src.add(t * head_dim + d).read_unaligned()));
        }
    }
}

/// Values of 16 tokens of f16; tokens that `live` lacks become 0, as do the columns beyond `head_dim`.
///
/// # Safety
/// `src` holds 16 rows of `head_dim` values, `tile` takes `16 * stride` values, `stride` is `head_dim` rounded up to 16.
#[inline(always)]
pub(crate) unsafe fn half_values<L: Lanes>(src: *const u16, head_dim: usize, live: u16, tile: *mut f32, stride: usize) {
    let whole = head_dim / LANES * LANES;
    for t in 0..SUBTILE {
        let out = tile.add(t * stride);
        if live >> t & 1 == 0 {
            for d in (0..stride).step_by(LANES) {
                L::splat(0.0).store(out.add(d));
            }
            continue;
        }
        for d in (0..whole).step_by(LANES) {
            L::load_f16(src.add(t * head_dim + d)).store(out.add(d));
        }
        for d in whole..stride {
            let x = if d < head_dim { super::f16::to_f32(src.add(t * head_dim + d).read_unaligned()) } else { 0.0 };
            out.add(d).write(x);
        }
    }
}

/// Scores of `R` queries and the keys of two tiles: `out[r][0..32] = q[r] . k`.
///
/// # Safety
/// `q` holds `R` rows of `head_dim` values, `stride_q` apart; `k` two tiles; `out` takes 32 values in each of `R` rows.
#[inline(always)]
pub(crate) unsafe fn scores<L: Lanes, const R: usize>(
    q: *const f32,
    stride_q: usize,
    k: *const f32,
    head_dim: usize,
    out: *mut f32,
    stride_out: usize,
) {
    let k1 = k.add(head_dim * LANES);
    let mut a0 = [L::splat(0.0); R];
    let mut a1 = [L::splat(0.0); R];
    for d in 0..head_dim {
        let x0 = L::load(k.add(d * LANES));
        let x1 = L::load(k1.add(d * LANES));
        for r in 0..R {
            let y = L::splat(*q.add(r * stride_q + d));
            a0[r] = x0.mul_add(y, a0[r]);
            a1[r] = x1.mul_add(y, a1[r]);
        }
    }
    for r in 0..R {
        a0[r].store(out.add(r * stride_out));
        a1[r].store(out.add(r * stride_out + LANES));
    }
}

/// Weighted values: `acc[r][0..16 * C] += sum over n tokens of p[r][t] * v[t]`.
///
/// # Safety
/// `p` holds `n` values in each of `R` rows, `v` `n` rows of at least `16 * C` values, `acc` `R` such rows.
#[inline(always)]
pub(crate) unsafe fn weigh<L: Lanes, const R: usize, const C: usize>(
    p: *const f32,
    stride_p: usize,
    v: *const f32,
    stride_v: usize,
    n: usize,
    acc: *mut f32,
    stride_acc: usize,
) {
    let mut a = [[L::splat(0.0); C]; R];
    for r in 0..R {
        for c in 0..C {
            a[r][c] = L::load(acc.add(r * stride_acc + c * LANES));
        }
    }
    for t in 0..n {
        let mut x = [L::splat(0.0); C];
        for c in 0..C {
            x[c] = L::load(v.add(t * stride_v + c * LANES));
        }
        for r in 0..R {
            let y = L::splat(*p.add(r * stride_p + t));
            for c in 0..C {
                a[r][c] = x[c].mul_add(y, a[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            a[r][c].store(acc.add(r * stride_acc + c * LANES));
        }
    }
}
