//! Integer arithmetic: which function an instruction is. A register of 16 bits has zeros above.

use crate::decode::Op;
use crate::program::Run;
use crate::run;

fn prmt(a: u32, b: u32, s: u32) -> u32 {
    let ab = (b as u64) << 32 | a as u64;
    let mut r = 0;
    for i in 0..4 {
        let select = s >> (4 * i);
        let byte = (ab >> (8 * (select & 7))) as u32 & 0xff;
        let byte = if select & 8 == 0 { byte } else { (byte >> 7) * 0xff };
        r |= byte << (8 * i);
    }
    r
}

fn bfind(x: u32) -> u32 {
    31u32.wrapping_sub(x.leading_zeros())
}

fn field(pos: u32, len: u32) -> u32 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    let ones = if len >= 32 { u32::MAX } else { (1 << len) - 1 };
    if pos >= 32 {
        0
    } else {
        ones << pos
    }
}

fn bfe_s(a: u32, pos: u32, len: u32) -> u32 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    let top = (pos + len - 1).min(31);
    let sign = a >> top & 1 != 0;
    let ones = if len >= 32 { u32::MAX } else { (1 << len) - 1 };
    let x = if pos >= 32 { 0 } else { a >> pos } & ones;
    let have = (32u32.saturating_sub(pos)).min(len);
    if sign {
        x | if have >= 32 { 0 } else { u32::MAX << have }
    } else {
        x
    }
}

fn dp4a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let byte = |x: u32, i: u32, signed: bool| {
        let x = (x >> (8 * i)) as u8;
        if signed {
            x as i8 as i32
        } else {
            x as i32
        }
    };
    (0..4).fold(c, |sum, i| sum.wrapping_add((byte(a, i, a_signed) * byte(b, i, b_signed)) as u32))
}

fn lop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|i| table >> i & 1 != 0).fold(0, |r, i| {
        let pick = |x: u32, bit: u32| if i >> bit & 1 != 0 { x } else { !x };
        r | pick(a, 2) & pick(b, 1) & pick(c, 0)
    })
}

fn s(x: u32) -> i32 {
    x as i32
}

fn l(x: u64) -> i64 {
    x as i64
}

fn h(x: u32) -> i16 {
    x as i16
}

/// Instructions of 16 bits.
pub fn short(op: &Op) -> Option<Run> {
    if !op.only(&["lo", "hi", "wide"]) {
        return None;
    }
    Some(match (op.name, op.ty) {
        ("add", _) => run!(map2, |a, b| a.wrapping_add(b) & 0xffff),
        ("sub", _) => run!(map2, |a, b| a.wrapping_sub(b) & 0xffff),
        ("mul", _) if op.has("lo") => run!(map2, |a, b| a.wrapping_mul(b) & 0xffff),
        // numbers in the text may be negative
        ("mul", "u16") if op.has("wide") => run!(map2, |a, b| (a & 0xffff) * (b & 0xffff)),
        ("mul", "u16") if op.has("hi") => run!(map2, |a, b| ((a & 0xffff) * (b & 0xffff)) >> 16),
        ("mul", "s16") if op.has("wide") => run!(map2, |a, b| (h(a) as i32 * h(b) as i32) as u32),
        ("mad", _) if op.has("lo") => run!(map3, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff),
        ("div", "u16") => run!(map2, |a, b| (a & 0xffff).checked_div(b & 0xffff).unwrap_or(0xffff)),
        ("rem", "u16") => run!(map2, |a, b| (a & 0xffff).checked_rem(b & 0xffff).unwrap_or(0xffff)),
        ("div", "s16") => run!(map2, |a, b| if h(b) == 0 { 0xffff } else { h(a).wrapping_div(h(b)) as u16 as u32 }),
        ("rem", "s16") => run!(map2, |a, b| if h(b) == 0 { 0xffff } else { h(a).wrapping_rem(h(b)) as u16 as u32 }),
        ("min", "u16") => run!(map2, |a, b| a.min(b)),
        ("max", "u16") => run!(map2, |a, b| a.max(b)),
        ("min", "s16") => run!(map2, |a, b| h(a).min(h(b)) as u16 as u32),
        ("max", "s16") => run!(map2, |a, b| h(a).max(h(b)) as u16 as u32),
        ("shl", _) => run!(map2, |a, b| if b > 15 { 0 } else { a << b & 0xffff }),
        ("shr", "u16" | "b16") => run!(map2, |a, b| if b > 15 { 0 } else { a >> b }),
        ("shr", "s16") => run!(map2, |a, b| (h(a) >> b.min(15)) as u16 as u32),
        ("and", _) => run!(map2, |a, b| a & b),
        ("or", _) => run!(map2, |a, b| a | b),
        ("xor", _) => run!(map2, |a, b| a ^ b),
        ("not", _) => run!(map1, |a| !a & 0xffff),
        ("neg", _) => run!(map1, |a| a.wrapping_neg() & 0xffff),
        _ => return None,
    })
}

/// Of 32 bits.
pub fn word(op: &Op) -> Option<Run> {
    if !op.only(&["lo", "hi", "wide", "l", "r", "wrap", "shiftamt"]) && op.name != "dp4a" {
        return None;
    }
    Some(match (op.name, op.ty) {
        ("add", _) if op.mods.len() == 1 => run!(map2, |a, b| a.wrapping_add(b)),
        ("sub", _) if op.mods.len() == 1 => run!(map2, |a, b| a.wrapping_sub(b)),
        ("mul", _) if op.has("lo") => run!(map2, |a, b| a.wrapping_mul(b)),
        ("mul", "u32") if op.has("hi") => run!(map2, |a, b| ((a as u64 * b as u64) >> 32) as u32),
        ("mul", "s32") if op.has("hi") => run!(map2, |a, b| ((s(a) as i64 * s(b) as i64) >> 32) as u32),
        ("mul", "u32") if op.has("wide") => run!(widen2, |a, b| a as u64 * b as u64),
        ("mul", "s32") if op.has("wide") => run!(widen2, |a, b| (s(a) as i64 * s(b) as i64) as u64),
        ("mad", _) if op.has("lo") => run!(map3, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("mad", "u32") if op.has("hi") => run!(map3, |a, b, c| (((a as u64 * b as u64) >> 32) as u32).wrapping_add(c)),
        ("mad", "u32") if op.has("wide") => run!(widen3, |a, b, c| (a as u64 * b as u64).wrapping_add(c)),
        ("mad", "s32") if op.has("wide") => {
            run!(widen3, |a, b, c| ((s(a) as i64 * s(b) as i64) as u64).wrapping_add(c))
        }
        ("div", "u32") => run!(map2, |a, b| a.checked_div(b).unwrap_or(u32::MAX)),
        ("rem", "u32") => run!(map2, |a, b| a.checked_rem(b).unwrap_or(u32::MAX)),
        ("div", "s32") => run!(map2, |a, b| if b == 0 { u32::MAX } else { s(a).wrapping_div(s(b)) as u32 }),
        ("rem", "s32") => run!(map2, |a, b| if b == 0 { u32::MAX } else { s(a).wrapping_rem(s(b)) as u32 }),
        ("min", "u32") => run!(map2, |a, b| a.min(b)),
        ("max", "u32") => run!(map2, |a, b| a.max(b)),
        ("min", "s32") => run!(map2, |a, b| s(a).min(s(b)) as u32),
        ("max", "s32") => run!(map2, |a, b| s(a).max(s(b)) as u32),
        ("abs", _) => run!(map1, |a| s(a).wrapping_abs() as u32),
        ("neg", _) => run!(map1, |a| a.wrapping_neg()),
        ("and", _) => run!(map2, |a, b| a & b),
        ("or", _) => run!(map2, |a, b| a | b),
        ("xor", _) => run!(map2, |a, b| a ^ b),
        ("not", _) => run!(map1, |a| !a),
        ("shl", _) => run!(map2, |a, b| if b > 31 { 0 } else { a << b }),
        ("shr", "u32" | "b32") => run!(map2, |a, b| if b > 31 { 0 } else { a >> b }),
        ("shr", "s32") => run!(map2, |a, b| (s(a) >> b.min(31)) as u32),
        ("shf", _) if op.has("l") && op.has("wrap") => {
            run!(map3, |a, b, c| (((b as u64) << 32 | a as u64) << (c & 31) >> 32) as u32)
        }
        ("shf", _) if op.has("r") && op.has("wrap") => {
            run!(map3, |a, b, c| (((b as u64) << 32 | a as u64) >> (c & 31)) as u32)
        }
        ("popc", _) => run!(map1, |a| a.count_ones()),
        ("clz", _) => run!(map1, |a| a.leading_zeros()),
        ("brev", _) => run!(map1, |a| a.reverse_bits()),
        ("bfind", "u32") if op.has("shiftamt") => run!(map1, |a| if a == 0 { u32::MAX } else { 31 - bfind(a) }),
        ("bfind", "u32") => run!(map1, bfind),
        ("bfe", "u32") => run!(map3, |a, b, c| if b & 0xff > 31 { 0 } else { (a & field(b, c)) >> (b & 0xff) }),
        ("bfe", "s32") => run!(map3, bfe_s),
        ("prmt", _) if op.mods.len() == 1 => run!(map3, prmt),
        ("dp4a", "u32") if op.mods == ["u32", "u32"] => run!(map3, |a, b, c| dp4a(a, b, c, false, false)),
        ("dp4a", _) if op.mods == ["s32", "s32"] => run!(map3, |a, b, c| dp4a(a, b, c, true, true)),
        ("dp4a", _) if op.mods == ["u32", "s32"] => run!(map3, |a, b, c| dp4a(a, b, c, false, true)),
        ("dp4a", _) if op.mods == ["s32", "u32"] => run!(map3, |a, b, c| dp4a(a, b, c, true, false)),
        // a (into b at c, imm bits): the count is a fourth operand
        ("bfi", "b32") => |w, _, i, m| {
            let n = *w.r32(i.list as i32);
            let mut k = [0u32; 32];
            let (a, b, c) = (w.r32(i.a), w.r32(i.b), w.r32(i.c));
            for l in 0..32 {
                let mask = field(c[l], n[l]);
                let x = if c[l] & 0xff > 31 { 0 } else { a[l] << (c[l] & 0xff) };
                k[l] = b[l] & !mask | x & mask;
            }
            w.put32(i.d, m, &k);
            Ok(())
        },
        ("lop3", "b32") => |w, _, i, m| {
            let table = w.r32(i.list as i32)[0];
            w.map3(i, m, |a, b, c| lop3(a, b, c, table));
            Ok(())
        },
        _ => return None,
    })
}

/// Of 64 bits.
pub fn long(op: &Op) -> Option<Run> {
    if !op.only(&["lo", "hi"]) {
        return None;
    }
    Some(match (op.name, op.ty) {
        ("add", _) if op.mods.len() == 1 => run!(wide2, |a, b| a.wrapping_add(b)),
        ("sub", _) if op.mods.len() == 1 => run!(wide2, |a, b| a.wrapping_sub(b)),
        ("mul", _) if op.has("lo") => run!(wide2, |a, b| a.wrapping_mul(b)),
        ("mul", "u64") if op.has("hi") => run!(wide2, |a, b| ((a as u128 * b as u128) >> 64) as u64),
        ("mad", _) if op.has("lo") => run!(wide3, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("div", "u64") => run!(wide2, |a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        ("rem", "u64") => run!(wide2, |a, b| a.checked_rem(b).unwrap_or(u64::MAX)),
        ("div", "s64") => run!(wide2, |a, b| if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }),
        ("rem", "s64") => run!(wide2, |a, b| if b == 0 { u64::MAX } else { (a as i64).wrapping_rem(b as i64) as u64 }),
        ("min", "u64") => run!(wide2, |a, b| a.min(b)),
        ("max", "u64") => run!(wide2, |a, b| a.max(b)),
        ("min", "s64") => run!(wide2, |a, b| (a as i64).min(b as i64) as u64),
        ("max", "s64") => run!(wide2, |a, b| (a as i64).max(b as i64) as u64),
        ("neg", _) => run!(wide1, |a| a.wrapping_neg()),
        ("not", _) => run!(wide1, |a| !a),
        ("and", _) => run!(wide2, |a, b| a & b),
        ("or", _) => run!(wide2, |a, b| a | b),
        ("xor", _) => run!(wide2, |a, b| a ^ b),
        ("shl", _) => run!(shift64, |a, b| if b > 63 { 0 } else { a << b }),
        ("shr", "u64" | "b64") => run!(shift64, |a, b| if b > 63 { 0 } else { a >> b }),
        ("shr", "s64") => run!(shift64, |a, b| (a as i64 >> b.min(63)) as u64),
        ("popc", _) => run!(narrow1, |a| a.count_ones()),
        ("clz", _) => run!(narrow1, |a| a.leading_zeros()),
        ("brev", _) => run!(wide1, |a| a.reverse_bits()),
        _ => return None,
    })
}

macro_rules! relations {
    ($as:ident, $signed:expr, $op:expr) => {{
        let signed = $op.ty.starts_with('s');
        Some(match ($op.mods[0], signed) {
            ("eq", _) => run!($as, |a, b| a == b),
            ("ne", _) => run!($as, |a, b| a != b),
            ("lt", true) => run!($as, |a, b| $signed(a) < $signed(b)),
            ("le", true) => run!($as, |a, b| $signed(a) <= $signed(b)),
            ("gt", true) => run!($as, |a, b| $signed(a) > $signed(b)),
            ("ge", true) => run!($as, |a, b| $signed(a) >= $signed(b)),
            ("lt" | "lo", false) => run!($as, |a, b| a < b),
            ("le" | "ls", false) => run!($as, |a, b| a <= b),
            ("gt" | "hi", false) => run!($as, |a, b| a > b),
            ("ge" | "hs", false) => run!($as, |a, b| a >= b),
            _ => return None,
        })
    }};
}

/// `setp` of integers.
pub fn setp(op: &Op) -> Option<Run> {
    if !op.only(&[op.mods[0], "and", "or", "xor"]) {
        return None;
    }
    match op.bits() {
        16 => relations!(compare, h, op),
        32 => relations!(compare, s, op),
        64 => relations!(compare64, l, op),
        _ => None,
    }
}
