//! Codes into and out of packed subtiles, and the fast quantizer.

use super::codes::{self, F16_MAX};
use super::lanes::{Lanes, LANES};
use super::range::{self, RangeRule};
use crate::geometry::{Side, Width, BLOCK, SUBTILE};

/// A row of f16 becomes codes at `width`; (min, max) of each group go to `params`, at the token's place in the planes of
/// group 0.
///
/// # Safety
/// `row` holds `head_dim` values, a multiple of `group`, itself one of 16; `out` takes as many bytes; `params` reaches
/// `2 * BLOCK` values further for each group.
#[inline(always)]
pub(crate) unsafe fn quantize_row<L: Lanes>(
    row: *const u16,
    head_dim: usize,
    group: usize,
    width: Width,
    rule: RangeRule,
    params: *mut u16,
    out: *mut u8,
) {
    for g in 0..head_dim / group {
        let row = row.add(g * group);
        let out = out.add(g * group);
        let (mut low, mut high) = (L::splat(f32::INFINITY), L::splat(f32::NEG_INFINITY));
        for i in (0..group).step_by(LANES) {
            let x = saturated::<L>(row.add(i));
            low = x.min(low);
            high = x.max(high);
        }
        let (mut min, mut max) = (-L::splat(0.0).sub(low).largest(), high.largest());
        if min > max {
            (min, max) = (0.0, 0.0);
        }
        // -0 becomes +0: which of them a minimum returns depends on the order
        (min, max) = (min + 0.0, max + 0.0);
        let plane = params.add(g * 2 * BLOCK);
        *plane = codes::to_f16(min);
        *plane.add(BLOCK) = codes::to_f16(max);
        if max <= min {
            std::ptr::write_bytes(out, 0, group);
            continue;
        }
        let scale = L::splat((max - min) / 255.0);
        for i in (0..group).step_by(LANES) {
            let c = saturated::<L>(row.add(i)).sub(L::splat(min)).div(scale).round();
            // NaN becomes 0 here
            c.max(L::splat(0.0)).min(L::splat(255.0)).store_u8(out.add(i));
        }
        let codes = std::slice::from_raw_parts_mut(out, group);
        match (width, rule) {
            (Width::B2, RangeRule::Fit) => {
                codes.iter_mut().for_each(|c| *c = shift4(*c));
                range::fit(codes, &mut *plane, &mut *plane.add(BLOCK));
            }
            (Width::B8, _) => {}
            _ => codes.iter_mut().for_each(|c| *c = narrow(*c, width)),
        }
    }
}

/// The codes `[16][head_dim]` of a packed subtile at 4 bits.
///
/// # Safety
/// `src` holds the subtile, `codes` takes `16 * head_dim` bytes.
#[inline(always)]
pub(crate) unsafe fn unpack4(side: Side, src: *const u8, head_dim: usize, codes: *mut u8) {
    match side {
        Side::K => {
            for row in 0..head_dim / 8 {
                for t in 0..SUBTILE {
                    let word = src.add(row * 4 * SUBTILE + t * 4).cast::<u32>().read_unaligned();
                    let out = codes.add(t * head_dim + row * 8).cast::<u32>();
                    out.write_unaligned(word & 0x0f0f_0f0f);
                    out.add(1).write_unaligned(word >> 4 & 0x0f0f_0f0f);
                }
            }
        }
        Side::V => {
            for row in 0..2 {
                for j in 0..4 {
                    let line = |t: usize| std::slice::from_raw_parts_mut(codes.add(t * head_dim), head_dim);
                    let (low, high) = (line(row * 8 + j), line(row * 8 + 4 + j));
                    for (d, (l, h)) in low.iter_mut().zip(high).enumerate() {
                        let byte = *src.add(row * 4 * head_dim + 4 * d + j);
                        *l = byte & 15;
                        *h = byte >> 4;
                    }
                }
            }
        }
    }
}

/// A packed subtile at 4 bits becomes one at 2 with new ranges: codes and parameters together.
///
/// # Safety
/// `src` holds the subtile, `dst` takes one at 2 bits, `codes` `16 * head_dim` bytes; `params` is the minimum plane of group
/// 0 at the subtile's first token, with `2 * BLOCK` values for each group.
#[inline(always)]
pub(crate) unsafe fn fit4(
    side: Side,
    src: *const u8,
    head_dim: usize,
    group: usize,
    params: *mut u16,
    codes: *mut u8,
    dst: *mut u8,
) {
    unpack4(side, src, head_dim, codes);
    for t in 0..SUBTILE {
        for g in 0..head_dim / group {
            let plane = params.add(g * 2 * BLOCK + t);
            let codes = std::slice::from_raw_parts_mut(codes.add(t * head_dim + g * group), group);
            range::fit(codes, &mut *plane, &mut *plane.add(BLOCK));
        }
    }
    pack::<2>(side, codes, head_dim, dst);
}

#[inline(always)]
unsafe fn saturated<L: Lanes>(p: *const u16) -> L {
    // these keep NaN
    let x = L::splat(F16_MAX).min(L::load_f16(p));
    L::splat(-F16_MAX).max(x)
}

/// [`codes::shift`] from 8 to 4 bits, in 16-bit arithmetic.
#[inline(always)]
const fn shift4(c: u8) -> u8 {
    ((c as u16 * 241 + 1928) >> 12) as u8
}

/// [`codes::shift`] from 4 to 2 bits.
#[inline(always)]
const fn shift2(c: u8) -> u8 {
    (c * 13 + 26) >> 6
}

#[inline(always)]
const fn narrow(c: u8, width: Width) -> u8 {
    match width {
        Width::B2 => shift2(shift4(c)),
        Width::B4 => shift4(c),
        _ => c,
    }
}

/// The codes `[16][head_dim]` of a whole subtile.
///
/// # Safety
/// `codes` holds them, each below `2^W`; `dst` takes the subtile.
#[inline(always)]
pub(crate) unsafe fn pack<const W: usize>(side: Side, codes: *const u8, head_dim: usize, dst: *mut u8) {
    let per = 8 / W;
    match side {
        Side::K => {
            for row in 0..head_dim / (4 * per) {
                for t in 0..SUBTILE {
                    key_word::<W>(codes.add(t * head_dim), row, t, dst);
                }
            }
        }
        Side::V => {
            for row in 0..4 / per {
                let out = dst.add(row * 4 * head_dim);
                let line = |c: usize, j: usize| {
                    std::slice::from_raw_parts(codes.add(((row * per + c) * 4 + j) * head_dim), head_dim)
                };
                let mut lines = [[line(0, 0); 4]; 4];
                for (c, quad) in lines.iter_mut().enumerate().take(per) {
                    *quad = [line(c, 0), line(c, 1), line(c, 2), line(c, 3)];
                }
                for d in 0..head_dim {
                    let mut word = 0u32;
                    for c in 0..per {
                        for j in 0..4 {
                            word |= (*lines[c][j].get_unchecked(d) as u32) << (8 * j + W * c);
                        }
                    }
                    out.add(4 * d).cast::<u32>().write_unaligned(word);
                }
            }
        }
    }
}

/// The codes of one token; the other tokens of the subtile keep theirs.
///
/// # Safety
/// `codes` holds `head_dim` codes, each below `2^W`; `dst` is a subtile; `token` is below 16.
#[inline(always)]
pub(crate) unsafe fn pack_token<const W: usize>(
    side: Side,
    codes: *const u8,
    head_dim: usize,
    token: usize,
    dst: *mut u8,
) {
    let per = 8 / W;
    match side {
        // a row's byte holds dimensions of one token only
        Side::K => {
            for row in 0..head_dim / (4 * per) {
                key_word::<W>(codes, row, token, dst);
            }
        }
        Side::V => {
            let quad = token / 4;
            let out = dst.add(quad / per * 4 * head_dim + token % 4);
            let shift = quad % per * W;
            let keep = !((((1u32 << W) - 1) << shift) as u8);
            for d in 0..head_dim {
                let p = out.add(4 * d);
                *p = *p & keep | *codes.add(d) << shift;
            }
        }
    }
}

#[inline(always)]
unsafe fn key_word<const W: usize>(codes: *const u8, row: usize, token: usize, dst: *mut u8) {
    let per = 8 / W;
    let mut word = 0u32;
    for c in 0..per {
        word |= codes.add((row * per + c) * 4).cast::<u32>().read_unaligned() << (W * c);
    }
    dst.add(row * 4 * SUBTILE + token * 4).cast::<u32>().write_unaligned(word);
}

/// A packed subtile of `n` bytes at 8 bits becomes one of `n / 2` at 4: pairs of rows are joined byte by byte.
///
/// # Safety
/// `src` and `dst` hold what is said and do not overlap; `n` is a multiple of `2 * row`.
#[inline(always)]
pub(crate) unsafe fn join8(src: *const u8, dst: *mut u8, row: usize, n: usize) {
    for r in 0..n / (2 * row) {
        let low = std::slice::from_raw_parts(src.add(2 * r * row), row);
        let high = std::slice::from_raw_parts(src.add((2 * r + 1) * row), row);
        let out = std::slice::from_raw_parts_mut(dst.add(r * row), row);
        for ((o, &l), &h) in out.iter_mut().zip(low).zip(high) {
            *o = shift4(l) | shift4(h) << 4;
        }
    }
}

/// As [`join8`], from 4 to 2 bits.
///
/// # Safety
/// As [`join8`].
#[inline(always)]
pub(crate) unsafe fn join4(src: *const u8, dst: *mut u8, row: usize, n: usize) {
    for r in 0..n / (2 * row) {
        let low = std::slice::from_raw_parts(src.add(2 * r * row), row);
        let high = std::slice::from_raw_parts(src.add((2 * r + 1) * row), row);
        let out = std::slice::from_raw_parts_mut(dst.add(r * row), row);
        for ((o, &l), &h) in out.iter_mut().zip(low).zip(high) {
            *o = shift2(l & 15) | shift2(l >> 4) << 2 | shift2(h & 15) << 4 | shift2(h >> 4) << 6;
        }
    }
}
