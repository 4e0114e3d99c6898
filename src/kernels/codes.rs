//! The one definition of a code: a function of the f16 value, its group and the width alone.
//!
//! Asymmetric round-to-nearest (PM-KVQ, arXiv 2505.18610, section 3), with (min, max) kept instead of (scale, zero) so that
//! the paper's Equivalent Right Shift needs no new parameters: `scale_b = (max - min) / (2^b - 1)` and
//! `2^2b - 1 = (2^b - 1)(2^b + 1)`.

use super::f16;
use crate::geometry::Width;

/// The largest f16; values beyond it are stored as it.
pub const F16_MAX: f32 = 65504.0;

/// f16 minus infinity, as masks have it.
pub const NEG_INFINITY: u16 = 0xfc00;

/// An f32 as the cache keeps it at 16 bits: rounded to f16, half to even, saturated; any NaN becomes one NaN.
pub fn to_f16(x: f32) -> u16 {
    f16::from_f32(x)
}

/// The f32 of an f16.
pub fn from_f16(h: u16) -> f32 {
    f16::to_f32(h)
}

/// (min, max) of a group, NaN ignored, infinities taken as the largest f16, -0 as +0; (0, 0) if there is no number.
pub fn range(values: &[f32]) -> (f32, f32) {
    let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
    for &x in values {
        let x = saturate(x);
        if x < min {
            min = x;
        }
        if x > max {
            max = x;
        }
    }
    if min > max {
        (0.0, 0.0)
    } else {
        (min + 0.0, max + 0.0)
    }
}

/// Infinities become the largest f16; NaN stays.
pub fn saturate(x: f32) -> f32 {
    x.clamp(-F16_MAX, F16_MAX)
}

/// The 8-bit code of a value in a group: `clamp(round((x - min) / ((max - min) / 255)), 0, 255)`, every operation correctly
/// rounded in f32, half to even; 0 in a constant group and for NaN.
pub fn code8(x: f32, min: f32, max: f32) -> u8 {
    let scale = (max - min) / 255.0;
    if max <= min {
        return 0;
    }
    let c = ((saturate(x) - min) / scale).round_ties_even();
    // NaN fails both comparisons and ends at 0
    if c > 255.0 {
        255
    } else if c > 0.0 {
        c as u8
    } else {
        0
    }
}

/// Equivalent Right Shift from `2b` to `b` bits (PM-KVQ, equation 8): `round(c / (2^b + 1))`, without a division.
pub const fn shift(code: u32, b: u32) -> u32 {
    let c = code as u64;
    (((c << (2 * b)) - (c << b) + c + (1 << (3 * b - 1)) + (1 << (b - 1)) - (1 << (2 * b - 1))) >> (3 * b)) as u32
}

/// An 8-bit code at a narrower width, step by step.
pub const fn narrow8(code: u8, width: Width) -> u8 {
    match width {
        Width::B16 | Width::B8 => code,
        Width::B4 => shift(code as u32, 4) as u8,
        Width::B2 => shift(shift(code as u32, 4), 2) as u8,
    }
}

/// `(max - min) / (2^w - 1)`.
pub fn scale(width: Width, min: f32, max: f32) -> f32 {
    (max - min) / ((1u32 << width.bits()) - 1) as f32
}

/// The value of a code: `min + code * scale`.
pub fn dequantize(code: u8, width: Width, min: f32, max: f32) -> f32 {
    min + code as f32 * scale(width, min, max)
}
