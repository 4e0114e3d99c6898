//! NEON: sixteen lanes in four registers.
//!
//! Of intrinsics only those that are stable at the crate's `rust-version`. f16 goes by `asm!`: its vectors came later.

use super::super::level::Level;
use super::{Lanes, LANES};
use std::arch::aarch64::*;
use std::arch::asm;

#[derive(Clone, Copy)]
pub(crate) struct Neon(pub [float32x4_t; 4]);

/// An expression for each register. Not a closure: that would be a function of its own, without the caller's instructions.
macro_rules! four {
    (|$i:ident| $e:expr) => {
        [
            {
                const $i: usize = 0;
                $e
            },
            {
                const $i: usize = 1;
                $e
            },
            {
                const $i: usize = 2;
                $e
            },
            {
                const $i: usize = 3;
                $e
            },
        ]
    };
}
pub(crate) use four;

impl Lanes for Neon {
    const SCORE_ROWS: usize = 2;
    const DOT_ROWS: usize = 1;
    const VALUE_ROWS: usize = 2;
    const VALUE_COLS: usize = 2;
    const LOADS_F16: bool = false;
    type Bits = [uint8x16_t; 4];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Neon([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Neon(four!(|I| vld1q_f32(p.add(4 * I))))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        four!(|I| vst1q_f32(p.add(4 * I), self.0[I]));
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        let (a, b) = (vld1q_u16(p), vld1q_u16(p.add(8)));
        Neon([f16_low(a), f16_high(a), f16_low(b), f16_high(b)])
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        vst1q_u16(p, to_f16(self.0[0], self.0[1]));
        vst1q_u16(p.add(8), to_f16(self.0[2], self.0[3]));
    }
    #[inline(always)]
    unsafe fn load_bits(p: *const u8) -> Self::Bits {
        four!(|I| vld1q_u8(p.add(16 * I)))
    }
    #[inline(always)]
    unsafe fn field(bits: Self::Bits, shift: u32, mask: u32) -> Self {
        // a negative shift to the left
        let (shift, mask) = (vdupq_n_s32(-(shift as i32)), vdupq_n_u32(mask));
        Neon(four!(|I| vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(bits[I]), shift), mask))))
    }
    #[inline(always)]
    unsafe fn store_u8(self, p: *mut u8) {
        vst1q_s8(p.cast(), low_bytes(self.words()))
    }
    #[inline(always)]
    unsafe fn add(self, o: Self) -> Self {
        Neon(four!(|I| vaddq_f32(self.0[I], o.0[I])))
    }
    #[inline(always)]
    unsafe fn sub(self, o: Self) -> Self {
        Neon(four!(|I| vsubq_f32(self.0[I], o.0[I])))
    }
    #[inline(always)]
    unsafe fn mul(self, o: Self) -> Self {
        Neon(four!(|I| vmulq_f32(self.0[I], o.0[I])))
    }
    #[inline(always)]
    unsafe fn div(self, o: Self) -> Self {
        Neon(four!(|I| vdivq_f32(self.0[I], o.0[I])))
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        Neon(four!(|I| vfmaq_f32(b.0[I], self.0[I], a.0[I])))
    }
    #[inline(always)]
    unsafe fn mul_sub(self, a: Self, b: Self) -> Self {
        Neon(four!(|I| vfmaq_f32(vnegq_f32(b.0[I]), self.0[I], a.0[I])))
    }
    // fmin and fmax have rules of their own for NaN
    #[inline(always)]
    unsafe fn min(self, o: Self) -> Self {
        Neon(four!(|I| vbslq_f32(vcltq_f32(self.0[I], o.0[I]), self.0[I], o.0[I])))
    }
    #[inline(always)]
    unsafe fn max(self, o: Self) -> Self {
        Neon(four!(|I| vbslq_f32(vcgtq_f32(self.0[I], o.0[I]), self.0[I], o.0[I])))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Neon(four!(|I| vrndnq_f32(self.0[I])))
    }
    #[inline(always)]
    unsafe fn scale2(self, n: Self) -> Self {
        Neon(four!(|I| vmulq_f32(self.0[I], power(n.0[I]))))
    }
    #[inline(always)]
    unsafe fn select_lt(self, o: Self, a: Self, b: Self) -> Self {
        Neon(four!(|I| vbslq_f32(vcltq_f32(self.0[I], o.0[I]), a.0[I], b.0[I])))
    }
    #[inline(always)]
    unsafe fn lt_bits(self, o: Self) -> u16 {
        let m = four!(|I| vreinterpretq_s32_u32(vcltq_f32(self.0[I], o.0[I])));
        // each lane's byte keeps the bit of its place
        const PLACES: u64 = 0x8040_2010_0804_0201;
        let m = vandq_u8(vreinterpretq_u8_s8(low_bytes(m)), vreinterpretq_u8_u64(vdupq_n_u64(PLACES)));
        u16::from(vaddv_u8(vget_low_u8(m))) | u16::from(vaddv_u8(vget_high_u8(m))) << 8
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        vaddvq_f32(self.quarters())
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        vmaxnmvq_f32(self.tops())
    }
    #[inline(always)]
    unsafe fn sum4(x: &[Self; 4], out: *mut f32) {
        let s = four!(|I| x[I].quarters());
        vst1q_f32(out, vpaddq_f32(vpaddq_f32(s[0], s[1]), vpaddq_f32(s[2], s[3])));
    }
    #[inline(always)]
    unsafe fn max4(x: &[Self; 4], out: *mut f32) {
        let m = four!(|I| x[I].tops());
        vst1q_f32(out, vpmaxnmq_f32(vpmaxnmq_f32(m[0], m[1]), vpmaxnmq_f32(m[2], m[3])));
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; LANES]) {
        // sixteen squares of 4 by 4, which change places across the diagonal
        for i in 0..4 {
            square(rows, i, i);
            for j in 0..i {
                square(rows, i, j);
                square(rows, j, i);
                for n in 0..4 {
                    let t = rows[4 * i + n].0[j];
                    rows[4 * i + n].0[j] = rows[4 * j + n].0[i];
                    rows[4 * j + n].0[i] = t;
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn store_rounded(self, p: *mut u8) {
        // the conversion rounds
        self.store_u8(p)
    }
    #[inline(always)]
    unsafe fn store_turns4(v: [Self; 4], p: *mut u8) {
        let [a, b, c, d] = [v[0].words(), v[1].words(), v[2].words(), v[3].words()];
        four!(|I| vst1q_s8(p.add(16 * I).cast(), low_bytes([a[I], b[I], c[I], d[I]])));
    }
}

impl Level for Neon {
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn extremes(p: *const u16, n: usize) -> (i16, i16) {
        let (mut low, mut high) = (vdupq_n_s16(i16::MAX), vdupq_n_s16(i16::MIN));
        for i in (0..n).step_by(8) {
            let x = vld1q_s16(p.add(i).cast());
            // 0x7fff where it is negative
            let size = vshrq_n_u16::<1>(vreinterpretq_u16_s16(vshrq_n_s16::<15>(x)));
            let x = veorq_s16(x, vreinterpretq_s16_u16(size));
            low = vminq_s16(low, x);
            high = vmaxq_s16(high, x);
        }
        (vminvq_s16(low), vmaxvq_s16(high))
    }
}

impl Neon {
    /// As integers, half to even.
    #[inline(always)]
    pub(crate) unsafe fn words(self) -> [int32x4_t; 4] {
        four!(|I| vcvtnq_s32_f32(self.0[I]))
    }

    #[inline(always)]
    unsafe fn tops(self) -> float32x4_t {
        vmaxnmq_f32(vmaxnmq_f32(self.0[0], self.0[1]), vmaxnmq_f32(self.0[2], self.0[3]))
    }

    #[inline(always)]
    unsafe fn quarters(self) -> float32x4_t {
        vaddq_f32(vaddq_f32(self.0[0], self.0[1]), vaddq_f32(self.0[2], self.0[3]))
    }
}

/// The low halves of eight words.
#[inline(always)]
unsafe fn low_halves(a: int32x4_t, b: int32x4_t) -> int16x8_t {
    vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b))
}

/// The low bytes of sixteen words.
#[inline(always)]
pub(crate) unsafe fn low_bytes(x: [int32x4_t; 4]) -> int8x16_t {
    let (a, b) = (low_halves(x[0], x[1]), low_halves(x[2], x[3]));
    vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b))
}

/// 2^n; 0 below -126.
#[inline(always)]
unsafe fn power(n: float32x4_t) -> float32x4_t {
    let n = vmaxq_s32(vcvtq_s32_f32(n), vdupq_n_s32(-127));
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

/// Transposes column `j` of registers, of rows `4 * i` to `4 * i + 3`.
#[inline(always)]
unsafe fn square(rows: &mut [Neon; LANES], i: usize, j: usize) {
    let r = four!(|N| rows[4 * i + N].0[j]);
    let (a, b) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
    let (c, d) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
    rows[4 * i].0[j] = low_pairs(a, c);
    rows[4 * i + 1].0[j] = low_pairs(b, d);
    rows[4 * i + 2].0[j] = high_pairs(a, c);
    rows[4 * i + 3].0[j] = high_pairs(b, d);
}

#[inline(always)]
unsafe fn low_pairs(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_f64(vtrn1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
}

#[inline(always)]
unsafe fn high_pairs(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_f64(vtrn2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)))
}

/// The lower four f16 of eight.
#[inline(always)]
unsafe fn f16_low(h: uint16x8_t) -> float32x4_t {
    let out;
    // SAFETY: touches registers only
    asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) h, options(pure, nomem, nostack, preserves_flags));
    out
}

/// The upper four f16 of eight.
#[inline(always)]
unsafe fn f16_high(h: uint16x8_t) -> float32x4_t {
    let out;
    // SAFETY: touches registers only
    asm!("fcvtl2 {0:v}.4s, {1:v}.8h", out(vreg) out, in(vreg) h, options(pure, nomem, nostack, preserves_flags));
    out
}

/// Eight f16, half to even: the rounding mode that Rust assumes everywhere.
#[inline(always)]
unsafe fn to_f16(a: float32x4_t, b: float32x4_t) -> uint16x8_t {
    let out;
    // SAFETY: touches registers only
    asm!(
        "fcvtn {0:v}.4h, {1:v}.4s",
        "fcvtn2 {0:v}.8h, {2:v}.4s",
        out(vreg) out, in(vreg) a, in(vreg) b,
        options(pure, nomem, nostack, preserves_flags)
    );
    out
}
