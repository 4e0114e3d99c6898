//! What storing and shrinking need of a level beside [`Lanes`].
//!
//! Everything has a version for any level. A level with a fused multiply-add should say so by [`Level::FUSED`]: the quotient
//! is then found by multiplying. The contract of the methods is that of `Lanes`.

use super::codes::F16_MAX;
use super::lanes::{Lanes, Plain, LANES};
use crate::geometry::SUBTILE;

pub(crate) trait Level: Lanes {
    /// `mul_add` rounds once.
    const FUSED: bool;

    /// `self / s`, for the values that a code is made of; `r` is `1 / s`, and `rest` what [`Level::rest`] makes of both.
    /// Rounding it to an integer gives what the rounded quotient gives. Not the quotient itself: its last bit may differ.
    ///
    /// `quantize::tests::all_quotients_round_to_the_same_codes` shows it for every significand of `s` and every border between two codes.
    #[inline(always)]
    unsafe fn quotient(self, s: Self, r: Self, rest: Self) -> Self {
        if Self::FUSED {
            self.mul_add(r, self.mul(rest))
        } else {
            self.div(s)
        }
    }

    /// What the inverse `r` of `s` lacks for having been rounded. Divided: multiplied by `r`, one code of one step is missed.
    #[inline(always)]
    unsafe fn rest(s: Self, r: Self) -> Self {
        if Self::FUSED {
            Self::splat(-0.0).sub(r).mul_add(s, Self::splat(1.0)).div(s)
        } else {
            r
        }
    }

    /// As the cache keeps values at 16 bits: rounded half to even, saturated, every NaN the same.
    #[inline(always)]
    unsafe fn store_kept(self, p: *mut u16) {
        // these keep NaN
        let x = Self::splat(F16_MAX).min(self);
        let x = Self::splat(-F16_MAX).max(x);
        x.store_f16(p);
        let numbers = x.lt_bits(Self::splat(f32::INFINITY));
        if numbers != 0xffff {
            for j in 0..LANES {
                if numbers >> j & 1 == 0 {
                    p.add(j).write_unaligned(super::f16::NAN);
                }
            }
        }
    }

    /// As `store_f16`: what becomes of NaN and of what f16 can't hold does not matter as long as NaN stays NaN, and the
    /// latter becomes infinite or the largest f16.
    #[inline(always)]
    unsafe fn store_near(self, p: *mut u16) {
        self.store_f16(p)
    }

    /// The least and the largest of `n` values, a multiple of 16, in f16 as [`ordered`] takes them.
    #[inline(always)]
    unsafe fn extremes(p: *const u16, n: usize) -> (i16, i16) {
        let (mut low, mut high) = (i16::MAX, i16::MIN);
        for &h in std::slice::from_raw_parts(p, n) {
            low = low.min(ordered(h));
            high = high.max(ordered(h));
        }
        (low, high)
    }

    /// The least and the largest of each of sixteen rows of `n` values, `stride` apart, in f16, -0 as +0. If there is a NaN or
    /// an infinity anywhere, says so: then what it writes does not matter.
    #[inline(always)]
    unsafe fn extremes_of_rows(p: *const u16, stride: usize, n: usize, low: *mut u16, high: *mut u16) -> bool {
        let mut special = false;
        for t in 0..SUBTILE {
            let (least, most) = Self::extremes(p.add(t * stride), n);
            special |= least <= ordered(SIGN | INFINITY) || most >= ordered(INFINITY);
            for (x, out) in [(least, low), (most, high)] {
                let h = ordered(x as u16) as u16;
                out.add(t).write(if h == SIGN { 0 } else { h });
            }
        }
        special
    }
}

pub(crate) const INFINITY: u16 = 0x7c00;
pub(crate) const SIGN: u16 = 0x8000;

/// Bits of f16 as an integer, in the order of the values; its own inverse.
#[inline(always)]
pub(crate) const fn ordered(bits: u16) -> i16 {
    let bits = bits as i16;
    bits ^ (bits >> 15 & 0x7fff)
}

impl Level for Plain {
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn store_kept(self, p: *mut u16) {
        let mut x = [0.0f32; LANES];
        self.store(x.as_mut_ptr());
        p.cast::<[u16; LANES]>().write_unaligned(x.map(kept))
    }

    #[inline(always)]
    unsafe fn store_near(self, p: *mut u16) {
        self.store_kept(p)
    }
}

/// [`super::codes::to_f16`] without a branch, so that it vectorises.
///
/// The sum of a value and a power of two 2^13 times that of its last place in f16 is rounded as f16 would be; a power of two
/// that is not below 2^-1 takes care of denormals.
#[inline(always)]
fn kept(x: f32) -> u16 {
    let bits = x.to_bits();
    let size = bits & 0x7fff_ffff;
    let is_nan = size > 0x7f80_0000;
    // as integers, for they order as the values do
    let size = if size > F16_MAX.to_bits() { F16_MAX.to_bits() } else { size };
    // the exponent of the last place in f16, and 13 places above it
    let exponent = size & 0x7f80_0000;
    let least = (127 - 14) << 23;
    let exponent = if exponent < least { least } else { exponent };
    let big = f32::from_bits(exponent + (13 << 23));
    let sum = (f32::from_bits(size) + big).to_bits();
    // the sum's significand holds the f16 one (11 bits, its leading one among them), to be carried into the exponent
    let places = sum & 0xfff;
    let half = ((exponent - least) >> 13) + places;
    let half = half as u16 | (bits >> 16) as u16 & 0x8000;
    if is_nan {
        super::f16::NAN
    } else {
        half
    }
}

#[cfg(target_arch = "x86_64")]
impl Level for super::lanes::Avx2 {
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn extremes(p: *const u16, n: usize) -> (i16, i16) {
        x86::extremes(p, n)
    }

    #[inline(always)]
    unsafe fn extremes_of_rows(p: *const u16, stride: usize, n: usize, low: *mut u16, high: *mut u16) -> bool {
        x86::extremes_of_rows(p, stride, n, low, high)
    }
}

#[cfg(target_arch = "x86_64")]
impl Level for super::lanes::Avx512 {
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn extremes(p: *const u16, n: usize) -> (i16, i16) {
        x86::extremes(p, n)
    }

    #[inline(always)]
    unsafe fn extremes_of_rows(p: *const u16, stride: usize, n: usize, low: *mut u16, high: *mut u16) -> bool {
        x86::extremes_of_rows(p, stride, n, low, high)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{INFINITY, SIGN};
    use std::arch::x86_64::*;

    /// [`super::Level::extremes`] with AVX2.
    #[inline(always)]
    pub unsafe fn extremes(p: *const u16, n: usize) -> (i16, i16) {
        let size = _mm256_set1_epi16(0x7fff);
        let (mut low, mut high) = (size, _mm256_set1_epi16(i16::MIN));
        for i in (0..n).step_by(16) {
            let x = _mm256_loadu_si256(p.add(i).cast());
            let x = _mm256_xor_si256(x, _mm256_and_si256(_mm256_srai_epi16::<15>(x), size));
            low = _mm256_min_epi16(low, x);
            high = _mm256_max_epi16(high, x);
        }
        let low = _mm_min_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
        let high = _mm_max_epi16(_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
        // there is one instruction for the least of eight unsigned ones
        let (up, down) = (_mm_set1_epi16(i16::MIN), _mm_set1_epi16(i16::MAX));
        let low = _mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(low, up))) as i16;
        let high = _mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(high, down))) as i16;
        (low ^ i16::MIN, high ^ i16::MAX)
    }

    /// Sixteen vectors to one: word `t` is what the operation makes of all words of vector `t`.
    macro_rules! reduced {
        ($op:ident, $rows:expr) => {{
            let mut r: [__m256i; 16] = $rows;
            for i in 0..8 {
                let (a, b) = (r[2 * i], r[2 * i + 1]);
                r[i] = $op(_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
            }
            for i in 0..4 {
                let (a, b) = (r[2 * i], r[2 * i + 1]);
                r[i] = $op(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            }
            for i in 0..2 {
                let (a, b) = (r[2 * i], r[2 * i + 1]);
                r[i] = $op(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
            }
            let (a, b) = (r[0], r[1]);
            $op(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
        }};
    }

    /// [`super::Level::extremes_of_rows`] with AVX2.
    #[inline(always)]
    pub unsafe fn extremes_of_rows(p: *const u16, stride: usize, n: usize, low: *mut u16, high: *mut u16) -> bool {
        // As integers the largest signed one is the largest value, unless all are negative; the largest unsigned one is the
        // least value, unless none is. Where that fails, the least unsigned one is what is looked for.
        let (mut signed, mut unsigned, mut least) =
            ([_mm256_setzero_si256(); 16], [_mm256_setzero_si256(); 16], [_mm256_setzero_si256(); 16]);
        for t in 0..16 {
            let row = p.add(t * stride);
            let x = _mm256_loadu_si256(row.cast());
            let (mut s, mut u, mut l) = (x, x, x);
            for i in (16..n).step_by(16) {
                let x = _mm256_loadu_si256(row.add(i).cast());
                s = _mm256_max_epi16(s, x);
                u = _mm256_max_epu16(u, x);
                l = _mm256_min_epu16(l, x);
            }
            (signed[t], unsigned[t], least[t]) = (s, u, l);
        }
        let (signed, unsigned) = (reduced!(_mm256_max_epi16, signed), reduced!(_mm256_max_epu16, unsigned));
        let least = reduced!(_mm256_min_epu16, least);
        let (a, b) = (_mm256_srai_epi16::<15>(unsigned), _mm256_srai_epi16::<15>(signed));
        let (min, max) = (_mm256_blendv_epi8(least, unsigned, a), _mm256_blendv_epi8(signed, least, b));
        // infinity and beyond it, in unsigned order and in signed order
        let negative = _mm256_set1_epi16((SIGN | INFINITY) as i16);
        let below = _mm256_cmpeq_epi16(_mm256_max_epu16(unsigned, negative), unsigned);
        let above = _mm256_cmpgt_epi16(signed, _mm256_set1_epi16(INFINITY as i16 - 1));
        let sign = _mm256_set1_epi16(SIGN as i16);
        _mm256_storeu_si256(low.cast(), _mm256_andnot_si256(_mm256_cmpeq_epi16(min, sign), min));
        _mm256_storeu_si256(high.cast(), _mm256_andnot_si256(_mm256_cmpeq_epi16(max, sign), max));
        _mm256_movemask_epi8(_mm256_or_si256(below, above)) != 0
    }
}

/// A row as the cache keeps it at 16 bits.
///
/// # Safety
/// `src` holds `n` values and `dst` takes them; the CPU has the level.
#[inline(always)]
pub(crate) unsafe fn keep_row<L: Level>(src: *const f32, n: usize, dst: *mut u16) {
    let whole = n / LANES * LANES;
    for i in (0..whole).step_by(LANES) {
        L::load(src.add(i)).store_kept(dst.add(i));
    }
    for i in whole..n {
        dst.add(i).write_unaligned(super::f16::from_f32(*src.add(i)));
    }
}

/// A row in f16, to be made into codes: NaN and what f16 can't hold may be any NaN and infinity.
///
/// # Safety
/// As [`keep_row`], `n` a multiple of 16.
#[inline(always)]
pub(crate) unsafe fn near_row<L: Level>(src: *const f32, n: usize, dst: *mut u16) {
    for i in (0..n).step_by(LANES) {
        L::load(src.add(i)).store_near(dst.add(i));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conversion without branches is the one that defines the cache's values: at every f16, between every two, and next
    /// to both.
    #[test]
    fn kept_is_to_f16() {
        for h in 0..=0xffffu16 {
            let (x, next) = (super::super::f16::to_f32(h), super::super::f16::to_f32(h.wrapping_add(1)));
            for y in [x, x + (next - x) / 2.0] {
                for bits in [y.to_bits().wrapping_sub(1), y.to_bits(), y.to_bits().wrapping_add(1)] {
                    let y = f32::from_bits(bits);
                    assert_eq!(kept(y), super::super::codes::to_f16(y), "{y}");
                }
            }
        }
        for bits in (0..=u32::MAX).step_by(4099) {
            let y = f32::from_bits(bits);
            assert_eq!(kept(y), super::super::codes::to_f16(y), "{y}");
        }
    }
}
