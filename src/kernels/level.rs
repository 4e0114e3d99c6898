//! What storing and shrinking need of a level beside [`Lanes`].
//!
//! Everything has a version for any level. A level with a fused multiply-add should say so by [`Level::FUSED`]: the quotient
//! is then found by multiplying. The contract of the methods is that of `Lanes`.

use super::codes::F16_MAX;
use super::lanes::{Lanes, Plain, LANES};

pub(crate) trait Level: Lanes {
    /// `mul_add` rounds once.
    const FUSED: bool;

    /// `self / s`, for the values that a code is made of; `r` is `1 / s`. Rounding it to an integer gives what the rounded
    /// quotient gives. Not the quotient itself: its last bit may differ.
    ///
    /// `tests::quotients_round_to_the_same_codes` shows it for every significand of `s` and every border between two codes.
    #[inline(always)]
    unsafe fn quotient(self, s: Self, r: Self) -> Self {
        if Self::FUSED {
            let near = self.mul(r);
            let rest = Self::splat(-0.0).sub(near).mul_add(s, self);
            rest.mul_add(r, near)
        } else {
            self.div(s)
        }
    }

    /// Rounds (half to even) values from 0 to 255 and stores them as bytes.
    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut u8) {
        self.round().store_u8(p)
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
}

impl Level for Plain {
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut u8) {
        // the sum's lowest bits are the integer
        let mut x = [0.0f32; LANES];
        self.add(Self::splat(12582912.0)).store(x.as_mut_ptr());
        p.cast::<[u8; LANES]>().write_unaligned(x.map(|x| x.to_bits() as u8))
    }

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
    unsafe fn store_rounded(self, p: *mut u8) {
        // the conversion rounds
        self.store_u8(p)
    }
}

#[cfg(target_arch = "x86_64")]
impl Level for super::lanes::Avx512 {
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut u8) {
        self.store_u8(p)
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
