//! Conversions.

use crate::decode::Op;
use crate::float::{f, z};
use crate::half;
use crate::program::Run;
use crate::run;

/// The low bits of a register as a number of the type.
#[inline(always)]
fn cut(x: u64, ty: Kind) -> u64 {
    let shift = 64 - ty.bits;
    if ty.signed {
        ((x << shift) as i64 >> shift) as u64
    } else {
        x << shift >> shift
    }
}

#[derive(Clone, Copy)]
struct Kind {
    bits: u32,
    signed: bool,
}

fn kind(ty: &str) -> Option<Kind> {
    let signed = ty.starts_with('s');
    (signed || ty.starts_with('u')).then_some(Kind { bits: ty[1..].parse().ok()?, signed })
}

/// To an integer, saturating; no number becomes 0.
#[inline(always)]
fn to_s32(x: f32) -> u32 {
    x as i32 as u32
}

#[inline(always)]
fn even(x: f32) -> f32 {
    x.round_ties_even()
}

/// `cvt.d.s`; bits: of the register that takes it.
pub fn cvt(op: &Op, to: &str, from: &str, bits: u32) -> Option<Run> {
    if let (Some(d), Some(s)) = (kind(to), kind(from)) {
        return if op.mods.len() == 2 { integers(d, s, bits) } else { None };
    }
    if !op.only(&[to, "rn", "rni", "rmi", "rpi", "rzi", "ftz"]) {
        return None;
    }
    let round =
        op.mods.iter().copied().find(|m| matches!(*m, "rn" | "rz" | "rm" | "rp" | "rni" | "rzi" | "rmi" | "rpi"));
    let ftz = op.has("ftz");
    Some(match (to, from, round) {
        ("f32", "f16", None) => run!(map1, |a| half::to_f32(a).to_bits()),
        ("f16", "f32", Some("rn")) if !ftz => run!(map1, |a| half::from_f32(f(a))),
        // the first is the upper half
        ("f16x2", "f32", Some("rn")) if !ftz => run!(map2, |a, b| half::from_f32(f(a)) << 16 | half::from_f32(f(b))),
        ("f32", "f32", None) if ftz => run!(map1, z),
        ("f32", "f32", Some("rni")) => run!(map1, |a| even(f(z(a))).to_bits()),
        ("f32", "f32", Some("rmi")) => run!(map1, |a| f(z(a)).floor().to_bits()),
        ("f32", "f32", Some("rpi")) => run!(map1, |a| f(z(a)).ceil().to_bits()),
        ("f32", "f32", Some("rzi")) => run!(map1, |a| f(z(a)).trunc().to_bits()),
        ("f32", "s32", Some("rn")) => run!(map1, |a| (a as i32 as f32).to_bits()),
        ("f32", "u32", Some("rn")) => run!(map1, |a| (a as f32).to_bits()),
        ("f32", "u16", Some("rn")) => run!(map1, |a| (a as f32).to_bits()),
        ("f32", "s16", Some("rn")) => run!(map1, |a| (a as i16 as f32).to_bits()),
        ("f32", "u8", Some("rn")) => run!(map1, |a| (a as u8 as f32).to_bits()),
        ("f32", "s8", Some("rn")) => run!(map1, |a| (a as i8 as f32).to_bits()),
        ("f32", "u64", Some("rn")) => run!(narrow1, |a| (a as f32).to_bits()),
        ("f32", "s64", Some("rn")) => run!(narrow1, |a| (a as i64 as f32).to_bits()),
        ("s32", "f32", Some("rni")) => run!(map1, |a| to_s32(even(f(a)))),
        ("s32", "f32", Some("rzi")) => run!(map1, |a| to_s32(f(a))),
        ("s32", "f32", Some("rmi")) => run!(map1, |a| to_s32(f(a).floor())),
        ("s32", "f32", Some("rpi")) => run!(map1, |a| to_s32(f(a).ceil())),
        ("u32", "f32", Some("rni")) => run!(map1, |a| even(f(a)) as u32),
        ("u32", "f32", Some("rzi")) => run!(map1, |a| f(a) as u32),
        _ => return None,
    })
}

fn integers(d: Kind, s: Kind, bits: u32) -> Option<Run> {
    // what is narrower than its register is extended to it
    macro_rules! arm {
        ($map:ident, $out:ty, $s:expr, $d:expr) => {
            run!($map, |a| cut(cut(a as u64, $s), $d) as $out)
        };
    }
    const U8: Kind = Kind { bits: 8, signed: false };
    const S8: Kind = Kind { bits: 8, signed: true };
    const U16: Kind = Kind { bits: 16, signed: false };
    const S16: Kind = Kind { bits: 16, signed: true };
    const U32: Kind = Kind { bits: 32, signed: false };
    const S32: Kind = Kind { bits: 32, signed: true };
    // the narrower of both decides how many bits there are, the source whether they are signed, unless the target is narrower
    let n = d.bits.min(s.bits);
    let signed = if d.bits < s.bits { d.signed } else { s.signed };
    let (wide_s, wide_d) = (s.bits == 64, bits == 64);
    Some(match (n, signed, wide_s, wide_d) {
        (8, false, false, false) => arm!(map1, u32, U8, U8),
        (8, true, false, false) if bits == 16 => run!(map1, |a| cut(a as u64, S8) as u32 & 0xffff),
        (8, true, false, false) => arm!(map1, u32, S8, S8),
        (16, false, false, false) => arm!(map1, u32, U16, U16),
        (16, true, false, false) if bits == 16 => arm!(map1, u32, U16, U16),
        (16, true, false, false) => arm!(map1, u32, S16, S16),
        (32, _, false, false) => run!(map1, |a| a),
        (8, false, true, false) => arm!(narrow1, u32, U8, U8),
        (16, false, true, false) => arm!(narrow1, u32, U16, U16),
        (16, true, true, false) if bits == 16 => arm!(narrow1, u32, U16, U16),
        (32, _, true, false) => run!(narrow1, |a| a as u32),
        (8, false, false, true) => arm!(widen1, u64, U8, U8),
        (8, true, false, true) => arm!(widen1, u64, S8, S8),
        (16, false, false, true) => arm!(widen1, u64, U16, U16),
        (16, true, false, true) => arm!(widen1, u64, S16, S16),
        (32, false, false, true) => arm!(widen1, u64, U32, U32),
        (32, true, false, true) => arm!(widen1, u64, S32, S32),
        (64, _, true, true) => run!(wide1, |a| a),
        (32, true, true, true) => run!(wide1, |a| a as i32 as i64 as u64),
        (32, false, true, true) => run!(wide1, |a| a as u32 as u64),
        _ => return None,
    })
}
