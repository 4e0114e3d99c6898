//! Arithmetic of floats. Subnormal operands and results are zero where an instruction says so (.ftz); what is approximate on a GPU is
//! rounded from the exact result here.

use crate::decode::Op;
use crate::program::Run;
use crate::run;

#[inline(always)]
pub fn f(x: u32) -> f32 {
    f32::from_bits(x)
}

/// A subnormal number becomes zero.
#[inline(always)]
pub fn z(x: u32) -> u32 {
    if x & 0x7f80_0000 == 0 {
        x & 0x8000_0000
    } else {
        x
    }
}

#[inline(always)]
fn fz(x: u32) -> f32 {
    f(z(x))
}

#[inline(always)]
fn least(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

#[inline(always)]
fn most(a: f32, b: f32) -> f32 {
    if a.is_nan() {
        b
    } else if b.is_nan() || a > b || (a == b && b.is_sign_negative()) {
        a
    } else {
        b
    }
}

macro_rules! both {
    // with and without .ftz
    ($op:expr, $map:ident, |$($x:ident),+| $e:expr) => {
        if $op.has("ftz") {
            run!($map, |$($x),+| { $(let $x = fz($x);)+ z(($e).to_bits()) })
        } else {
            run!($map, |$($x),+| { $(let $x = f($x);)+ ($e).to_bits() })
        }
    };
}

/// f32; None for rounding other than to nearest, and what is not known.
pub fn single(op: &Op) -> Option<Run> {
    if !op.only(&["rn", "approx", "full", "ftz"]) {
        return None;
    }
    Some(match op.name {
        "add" => both!(op, map2, |a, b| a + b),
        "sub" => both!(op, map2, |a, b| a - b),
        "mul" => both!(op, map2, |a, b| a * b),
        "fma" | "mad" => both!(op, map3, |a, b, c| a.mul_add(b, c)),
        "div" => both!(op, map2, |a, b| a / b),
        "rcp" => both!(op, map1, |a| 1.0 / a),
        "sqrt" => both!(op, map1, |a| a.sqrt()),
        "rsqrt" => both!(op, map1, |a| 1.0 / a.sqrt()),
        "min" => both!(op, map2, |a, b| least(a, b)),
        "max" => both!(op, map2, |a, b| most(a, b)),
        "neg" => both!(op, map1, |a| -a),
        "abs" => both!(op, map1, |a| a.abs()),
        "ex2" => both!(op, map1, |a| a.exp2()),
        "lg2" => both!(op, map1, |a| a.log2()),
        "sin" => both!(op, map1, |a| a.sin()),
        "cos" => both!(op, map1, |a| a.cos()),
        "tanh" => both!(op, map1, |a| a.tanh()),
        _ => return None,
    })
}

macro_rules! relation {
    ($op:expr, |$a:ident, $b:ident| $e:expr) => {
        if $op.has("ftz") {
            run!(compare, |a, b| {
                let ($a, $b) = (fz(a), fz(b));
                $e
            })
        } else {
            run!(compare, |a, b| {
                let ($a, $b) = (f(a), f(b));
                $e
            })
        }
    };
}

#[allow(clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons)] // they differ where there is no number
pub fn setp(op: &Op) -> Option<Run> {
    if !op.only(&[op.mods[0], "and", "or", "xor", "ftz"]) {
        return None;
    }
    Some(match op.mods[0] {
        "eq" => relation!(op, |a, b| a == b),
        "ne" => relation!(op, |a, b| a < b || a > b),
        "lt" => relation!(op, |a, b| a < b),
        "le" => relation!(op, |a, b| a <= b),
        "gt" => relation!(op, |a, b| a > b),
        "ge" => relation!(op, |a, b| a >= b),
        "equ" => relation!(op, |a, b| !(a < b || a > b)),
        "neu" => relation!(op, |a, b| a != b),
        "ltu" => relation!(op, |a, b| !(a >= b)),
        "leu" => relation!(op, |a, b| !(a > b)),
        "gtu" => relation!(op, |a, b| !(a <= b)),
        "geu" => relation!(op, |a, b| !(a < b)),
        "num" => relation!(op, |a, b| !a.is_nan() && !b.is_nan()),
        "nan" => relation!(op, |a, b| a.is_nan() || b.is_nan()),
        _ => return None,
    })
}
