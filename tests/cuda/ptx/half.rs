//! Halves: to floats and back, and arithmetic of one or two in a register.

use crate::decode::Op;
use crate::float::f;
use crate::program::Run;
use crate::run;

/// Exactly, without a branch, so that it is done for many at once.
#[inline(always)]
pub fn to_f32(h: u32) -> f32 {
    let sign = (h & 0x8000) << 16;
    let shifted = (h & 0x7fff) << 13;
    // the exponent's bias becomes a float's; a subnormal number's is made by a subtraction
    let normal = shifted + (112 << 23);
    let top = if shifted >= 0x1f << 23 { shifted + (224 << 23) } else { normal };
    let small = f(shifted + (113 << 23)) - f(113 << 23);
    let bits = if shifted < 1 << 23 { small.to_bits() } else { top };
    f(bits | sign)
}

/// Rounded to nearest even.
#[inline(always)]
pub fn from_f32(x: f32) -> u32 {
    let bits = x.to_bits();
    let sign = bits >> 16 & 0x8000;
    let a = bits & 0x7fff_ffff;
    // normal: the bias changes, and half of a step less is added
    let normal = (a.wrapping_sub(112 << 23).wrapping_add(0xfff + (a >> 13 & 1))) >> 13;
    // subnormal: a float's own rounding does it
    let small = (f(a) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if a < 113 << 23 { small } else { normal };
    let finite = if a >= 0x477f_f000 { 0x7c00 } else { finite };
    sign | if a > 0x7f80_0000 { 0x7fff } else { finite }
}

/// A sum or product of halves in double, exact enough to be rounded once: to a float's odd neighbour, from there to a half.
#[inline(always)]
pub fn from_f64(d: f64) -> u32 {
    let x = d as f32;
    let odd = if x as f64 != d && !x.is_nan() && x.to_bits() & 1 == 0 {
        let away = (x as f64).abs() > d.abs();
        f32::from_bits(x.to_bits().wrapping_add(if away { u32::MAX } else { 1 }))
    } else {
        x
    };
    from_f32(odd)
}

#[inline(always)]
fn fma(a: u32, b: u32, c: u32) -> u32 {
    from_f64(to_f32(a) as f64 * to_f32(b) as f64 + to_f32(c) as f64)
}

#[inline(always)]
fn pair(lo: u32, hi: u32) -> u32 {
    lo & 0xffff | hi << 16
}

#[inline(always)]
fn on2(a: u32, b: u32, g: impl Fn(f32, f32) -> f32) -> u32 {
    let one = |a, b| from_f32(g(to_f32(a), to_f32(b)));
    pair(one(a & 0xffff, b & 0xffff), one(a >> 16, b >> 16))
}

/// f16 and f16x2. Sums and products of two halves are exact in a float, or nearer to it than a half's rounding sees.
pub fn arithmetic(op: &Op) -> Option<Run> {
    if !op.only(&["rn"]) {
        return None;
    }
    Some(match (op.name, op.ty) {
        ("add", "f16x2") => run!(map2, |a, b| on2(a, b, |a, b| a + b)),
        ("sub", "f16x2") => run!(map2, |a, b| on2(a, b, |a, b| a - b)),
        ("mul", "f16x2") => run!(map2, |a, b| on2(a, b, |a, b| a * b)),
        ("fma", "f16x2") => {
            run!(map3, |a, b, c| pair(fma(a & 0xffff, b & 0xffff, c & 0xffff), fma(a >> 16, b >> 16, c >> 16)))
        }
        ("neg", "f16x2") => run!(map1, |a| a ^ 0x8000_8000),
        ("abs", "f16x2") => run!(map1, |a| a & 0x7fff_7fff),
        ("add", "f16") => run!(map2, |a, b| from_f32(to_f32(a) + to_f32(b))),
        ("sub", "f16") => run!(map2, |a, b| from_f32(to_f32(a) - to_f32(b))),
        ("mul", "f16") => run!(map2, |a, b| from_f32(to_f32(a) * to_f32(b))),
        ("fma", "f16") => run!(map3, fma),
        ("neg", "f16") => run!(map1, |a| a ^ 0x8000),
        ("abs", "f16") => run!(map1, |a| a & 0x7fff),
        _ => return None,
    })
}
