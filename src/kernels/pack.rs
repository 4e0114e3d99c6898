//! Codes into packed subtiles.
//!
//! Codes come at 8 bits, a token in each row, and are narrowed on the way.

use super::words::{Words, WORDS};
use crate::geometry::{Side, Width, MAX_GROUP, SUBTILE};

/// Bytes from a token's codes to the next one's: a row ends in whole vectors, so the last ones hold anything.
pub(crate) const fn stride(head_dim: usize) -> usize {
    head_dim.next_multiple_of(4 * WORDS)
}

/// 8-bit codes at `W` bits ([`super::codes::narrow8`]), one in each byte.
#[inline(always)]
unsafe fn narrowed<V: Words, const W: usize>(x: V) -> V {
    match W {
        8 => x,
        4 => x.narrow8(),
        _ => x.narrow8().narrow4(),
    }
}

/// A row of a packed subtile from the quads in it; no code reaches beyond its own byte.
#[inline(always)]
unsafe fn joined<V: Words, const W: usize>(quads: &[V]) -> V {
    match W {
        8 => quads[0],
        4 => quads[0].or(quads[1].shl::<4>()),
        _ => quads[0].or(quads[1].shl::<2>()).or(quads[2].shl::<4>().or(quads[3].shl::<6>())),
    }
}

/// Bytes of a packed subtile at `W` bits that hold codes of tokens `first` to `first + n`: where they begin, and how many.
#[inline(always)]
pub(crate) const fn bytes_of<const W: usize>(side: Side, head_dim: usize, first: usize, n: usize) -> (usize, usize) {
    match side {
        Side::K => (0, 2 * W * head_dim),
        Side::V => {
            let (row, per) = (4 * head_dim, 4 * 8 / W);
            (first / per * row, ((first + n - 1) / per - first / per + 1) * row)
        }
    }
}

/// 8-bit codes of sixteen dimensions of all tokens of a subtile, from `d` on. Vector `i` has tokens `4 * i` to `4 * i + 3`: four dimensions of
/// each of them, then the next four.
///
/// # Safety
/// `dst` takes the subtile, whose tokens have `head_dim` dimensions, of which 16 from `d` on.
#[inline(always)]
pub(crate) unsafe fn columns<V: Words, const W: usize>(
    side: Side,
    codes: [V; 4],
    head_dim: usize,
    d: usize,
    dst: *mut u8,
) {
    let per = 8 / W;
    let mut codes = codes;
    for x in &mut codes {
        *x = narrowed::<V, W>(*x);
    }
    let (quads, out, row) = match side {
        Side::K => (V::transpose_parts(codes), dst.add(d / (4 * per) * 4 * SUBTILE), 4 * SUBTILE),
        Side::V => {
            let [a, b, c, d4] = codes;
            (
                [a.transpose_bytes(), b.transpose_bytes(), c.transpose_bytes(), d4.transpose_bytes()],
                dst.add(4 * d),
                4 * head_dim,
            )
        }
    };
    for r in 0..4 / per {
        joined::<V, W>(&quads[r * per..(r + 1) * per]).store(out.add(r * row));
    }
}

/// As [`columns`], of `n` dimensions, for levels that make codes one token after the other.
///
/// # Safety
/// `codes` holds 16 rows, [`MAX_GROUP`] bytes apart, of which `n`, a multiple of 16, count; `dst` as in [`columns`].
#[inline(always)]
pub(crate) unsafe fn rows<V: Words, const W: usize>(
    side: Side,
    codes: *const u8,
    n: usize,
    head_dim: usize,
    at: usize,
    dst: *mut u8,
) {
    let (per, stride) = (8 / W, MAX_GROUP);
    match side {
        Side::K => {
            // sixteen quads of each token, to sixteen tokens of each quad
            for first in (0..n / 4).step_by(WORDS) {
                let mut quads = [V::splat(0); WORDS];
                for (t, quad) in quads.iter_mut().enumerate() {
                    *quad = narrowed::<V, W>(V::load(codes.add(t * stride + 4 * first)));
                }
                V::transpose(&mut quads);
                let out = dst.add((at / 4 + first) / per * 4 * SUBTILE);
                let n = (n / 4 - first).min(WORDS);
                for r in 0..n / per {
                    joined::<V, W>(&quads[r * per..(r + 1) * per]).store(out.add(r * 4 * SUBTILE));
                }
            }
        }
        Side::V => {
            for row in 0..4 / per {
                let out = dst.add(4 * (row * head_dim + at));
                for d in (0..n).step_by(WORDS) {
                    let mut quads = [V::splat(0); 4];
                    for c in 0..per {
                        let line = |j: usize| codes.add(((row * per + c) * 4 + j) * stride + d);
                        quads[c] = narrowed::<V, W>(V::interleave4([line(0), line(1), line(2), line(3)]));
                    }
                    joined::<V, W>(&quads).store(out.add(4 * d));
                }
            }
        }
    }
}

/// The codes of one token at 8 bits to `W` bits, in place.
///
/// # Safety
/// `codes` holds a row of [`stride`] bytes.
#[inline(always)]
pub(crate) unsafe fn narrow_token<V: Words, const W: usize>(codes: *mut u8, head_dim: usize) {
    for i in (0..head_dim).step_by(4 * WORDS) {
        narrowed::<V, W>(V::load(codes.add(i))).store(codes.add(i));
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
                let mut word = 0u32;
                for c in 0..per {
                    word |= codes.add((row * per + c) * 4).cast::<u32>().read_unaligned() << (W * c);
                }
                dst.add(row * 4 * SUBTILE + token * 4).cast::<u32>().write_unaligned(word);
            }
        }
        // whole words, so that it vectorises: nobody else writes the other tokens of a block
        Side::V => {
            let quad = token / 4;
            let out = dst.add(quad / per * 4 * head_dim).cast::<u32>();
            let shift = token % 4 * 8 + quad % per * W;
            let keep = !(((1u32 << W) - 1) << shift);
            for d in 0..head_dim {
                let word = out.add(d).read_unaligned();
                out.add(d).write_unaligned(word & keep | u32::from(*codes.add(d)) << shift);
            }
        }
    }
}

/// Tokens `first` to `first + n` of one subtile at 2 bits into another; the other tokens there keep their codes.
///
/// # Safety
/// `src` and `dst` are subtiles that do not overlap; `first + n` is at most 16.
#[inline(always)]
pub(crate) unsafe fn merge2<V: Words>(
    side: Side,
    src: *const u8,
    head_dim: usize,
    first: usize,
    n: usize,
    dst: *mut u8,
) {
    let mut mask = [0u32; WORDS];
    for t in first..first + n {
        match side {
            Side::K => mask[t] = !0,
            Side::V => mask.iter_mut().for_each(|word| *word |= 3 << (t % 4 * 8 + t / 4 * 2)),
        }
    }
    let mask = V::load(mask.as_ptr().cast());
    for i in (0..4 * head_dim).step_by(4 * WORDS) {
        V::select(mask, V::load(src.add(i)), V::load(dst.add(i))).store(dst.add(i));
    }
}

/// The codes of one token of a packed subtile, one in each byte: the way back of [`pack_token`].
///
/// # Safety
/// `src` is a subtile at `width`, of fewer than 16 bits; `codes` has `head_dim` bytes; `token` is below 16.
pub(crate) unsafe fn unpack_token(
    side: Side,
    width: Width,
    src: *const u8,
    head_dim: usize,
    token: usize,
    codes: &mut [u8],
) {
    let bits = width.bits();
    let per = 8 / bits;
    let mask = ((1u32 << bits) - 1) as u8;
    match side {
        Side::K => {
            for (quad, out) in codes.chunks_exact_mut(4).enumerate() {
                let word = src.add(quad / per * 4 * SUBTILE + token * 4);
                for (i, code) in out.iter_mut().enumerate() {
                    *code = *word.add(i) >> (quad % per * bits) & mask;
                }
            }
        }
        Side::V => {
            let quad = token / 4;
            let line = src.add(quad / per * 4 * head_dim + token % 4);
            for (d, code) in codes.iter_mut().enumerate() {
                *code = *line.add(4 * d) >> (quad % per * bits) & mask;
            }
        }
    }
}

/// [`pack_token`] at a width that is known when it runs.
///
/// # Safety
/// As for [`pack_token`].
pub(crate) unsafe fn pack_token_at(side: Side, width: Width, codes: &[u8], token: usize, dst: *mut u8) {
    match width {
        Width::B2 => pack_token::<2>(side, codes.as_ptr(), codes.len(), token, dst),
        Width::B4 => pack_token::<4>(side, codes.as_ptr(), codes.len(), token, dst),
        _ => pack_token::<8>(side, codes.as_ptr(), codes.len(), token, dst),
    }
}
