//! NEON with dot products: `sdot` and `udot` on four registers of 16 bytes.
//!
//! Both factors are signed or both are not. Narrow codes, at most 15, are either. Wide codes are taken 128 lower, as signed
//! bytes; wide values are high and low bytes, each with sums of its own. The intrinsics are not stable yet, so `asm!`.

use super::super::lanes::neon::{four, low_bytes, Neon};
use super::Dots;
use std::arch::aarch64::*;
use std::arch::asm;

pub(crate) struct NeonDots;

type Quarters = [int32x4_t; 4];

impl Dots for NeonDots {
    type L = Neon;
    type Narrow = Quarters;
    /// Of high and of low bytes.
    type Wide = [Quarters; 2];
    const LARGE: bool = false;
    const WIDE_SUMS: usize = 2;
    const ONE_QUAD: bool = true;
    const WIDE_BIAS: f32 = 128.0;

    #[inline(always)]
    unsafe fn part(bits: [uint8x16_t; 4], shift: u32, mask: u8) -> [uint8x16_t; 4] {
        let mask = vdupq_n_u8(mask);
        // shifts by a constant come with the instruction
        let bits = match shift {
            0 => bits,
            2 => four!(|I| vshrq_n_u8::<2>(bits[I])),
            4 => four!(|I| vshrq_n_u8::<4>(bits[I])),
            6 => four!(|I| vshrq_n_u8::<6>(bits[I])),
            _ => four!(|I| vshlq_u8(bits[I], vdupq_n_s8(-(shift as i8)))),
        };
        four!(|I| vandq_u8(bits[I], mask))
    }
    #[inline(always)]
    unsafe fn store_bits(bits: [uint8x16_t; 4], p: *mut u8) {
        four!(|I| vst1q_u8(p.add(16 * I), bits[I]));
    }
    #[inline(always)]
    unsafe fn narrow_zero() -> Quarters {
        [vdupq_n_s32(0); 4]
    }
    #[inline(always)]
    unsafe fn narrow<const N: usize, const SIGNED: bool>(
        mut acc: Quarters,
        codes: &[[uint8x16_t; 4]; N],
        x: *const u32,
    ) -> Quarters {
        for n in 0..N {
            let x = word(x.add(n));
            acc =
                if SIGNED { four!(|I| sdot(acc[I], codes[n][I], x)) } else { four!(|I| udot(acc[I], codes[n][I], x)) };
        }
        acc
    }
    #[inline(always)]
    unsafe fn narrow_sum(acc: Quarters) -> Neon {
        Neon(four!(|I| vcvtq_f32_s32(acc[I])))
    }
    #[inline(always)]
    unsafe fn wide_zero() -> Self::Wide {
        [Self::narrow_zero(); 2]
    }
    #[inline(always)]
    unsafe fn wide(acc: Self::Wide, codes: [uint8x16_t; 4], x: *const u32, plane: usize) -> Self::Wide {
        let (high, low) = (word(x), word(x.add(plane)));
        let codes = four!(|I| veorq_u8(codes[I], vdupq_n_u8(0x80)));
        [four!(|I| sdot(acc[0][I], codes[I], high)), four!(|I| sdot(acc[1][I], codes[I], low))]
    }
    #[inline(always)]
    unsafe fn wide_sum(acc: Self::Wide) -> Neon {
        let (high, low) = (Self::narrow_sum(acc[0]).0, Self::narrow_sum(acc[1]).0);
        Neon(four!(|I| vfmaq_n_f32(low[I], high[I], 256.0)))
    }
    #[inline(always)]
    unsafe fn store_wide(x: Neon, p: *mut u32, plane: usize) {
        let v = x.words();
        // the low byte is signed, so the high one is rounded
        vst1q_s8(p.cast(), low_bytes(four!(|I| vrshrq_n_s32::<8>(v[I]))));
        vst1q_s8(p.add(plane).cast(), low_bytes(v));
    }
    #[inline(always)]
    unsafe fn store_i8(x: Neon, p: *mut u8) {
        vst1q_s8(p.cast(), low_bytes(x.words()))
    }
}

/// A word for all lanes: `sdot` and `udot` take it from a register's first quarter.
#[inline(always)]
unsafe fn word(p: *const u32) -> uint32x2_t {
    vcreate_u32(u64::from(p.read_unaligned()))
}

/// By register: compilers order many `asm!` blocks of one instruction better than few of several.
macro_rules! dot {
    ($name:ident, $instruction:literal) => {
        #[inline(always)]
        unsafe fn $name(mut acc: int32x4_t, codes: uint8x16_t, word: uint32x2_t) -> int32x4_t {
            // SAFETY: touches registers only
            asm!(
                concat!($instruction, " {0:v}.4s, {1:v}.16b, {2:v}.4b[0]"),
                inout(vreg) acc, in(vreg) codes, in(vreg) word,
                options(pure, nomem, nostack, preserves_flags)
            );
            acc
        }
    };
}

dot!(sdot, "sdot");
dot!(udot, "udot");
