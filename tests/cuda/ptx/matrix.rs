//! Matrix units: products of fragments that a warp's lanes hold, and 8x8 matrices transposed.
//!
//! Lane 4g + t. Products are exact. Eight of them are added to a float at once as the units do it: each is cut off 24 bits below the
//! largest exponent, and so is the sum (Fasi, Higham, Mikaitis, Pranesh: Numerical behavior of NVIDIA tensor cores, 2021).

use crate::grid::Cta;
use crate::half::to_f32;
use crate::program::{Ins, Reg, Run};
use crate::warp::Warp;
use crate::Done;

/// Registers of d, a, b, c.
type Counts = [usize; 4];

struct Fragments {
    d: [Reg; 4],
    a: [Reg; 4],
    b: [Reg; 2],
    c: [Reg; 4],
}

fn fragments(cta: &Cta, i: &Ins, n: Counts) -> Fragments {
    let list = &cta.kernel.lists[i.list as usize..];
    let mut f = Fragments { d: [0; 4], a: [0; 4], b: [0; 2], c: [0; 4] };
    let (d, rest) = list.split_at(n[0]);
    let (a, rest) = rest.split_at(n[1]);
    let (b, rest) = rest.split_at(n[2]);
    f.d[..n[0]].copy_from_slice(d);
    f.a[..n[1]].copy_from_slice(a);
    f.b[..n[2]].copy_from_slice(b);
    f.c[..n[3]].copy_from_slice(&rest[..n[3]]);
    f
}

/// Eight columns of a row: d + a b, cut off as said above.
#[inline(always)]
fn add_eight(d: [f32; 8], a: &[f32], b: &[[f32; 8]]) -> [f32; 8] {
    let mut terms = [[0f32; 8]; 9];
    terms[8] = d;
    for k in 0..8 {
        for j in 0..8 {
            terms[k][j] = a[k] * b[k][j];
        }
    }
    let mut largest = [0u32; 8];
    for t in &terms {
        for j in 0..8 {
            largest[j] = largest[j].max(t[j].to_bits() & 0x7f80_0000);
        }
    }
    if largest.contains(&0x7f80_0000) {
        // infinities and what is no number
        let mut sum = d;
        for t in &terms[..8] {
            for j in 0..8 {
                sum[j] += t[j];
            }
        }
        return sum;
    }
    let (mut unit, mut per, mut sum) = ([0f64; 8], [0f64; 8], [0f64; 8]);
    for j in 0..8 {
        // 2^24 units are the power of two of the largest exponent
        let e = (largest[j] >> 23).max(1) as u64 + 1023 - 127 - 24;
        unit[j] = f64::from_bits(e << 52);
        per[j] = f64::from_bits((2 * 1023 - e) << 52);
    }
    for t in &terms {
        for j in 0..8 {
            sum[j] += (t[j] as f64 * per[j]).trunc();
        }
    }
    let mut out = [0f32; 8];
    for j in 0..8 {
        out[j] = f64::from_bits((sum[j] * unit[j]).to_bits() & !((1 << 29) - 1)) as f32;
    }
    out
}

/// 16x8 floats += 16xk by kx8 halves; STEPS: how many eights k has.
fn halves<const STEPS: usize>(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let f = fragments(cta, i, [4, 2 * STEPS, STEPS, 4]);
    let (mut a, mut b, mut d) = ([[0f32; 16]; 16], [[0f32; 8]; 16], [[0f32; 8]; 16]);
    let floats = |v: &[u32; 32], shift: u32| {
        let mut x = [0f32; 32];
        for l in 0..32 {
            x[l] = to_f32(v[l] >> shift & 0xffff);
        }
        x
    };
    for r in 0..2 * STEPS {
        let v = w.r32(f.a[r]);
        let (lo, hi) = (floats(v, 0), floats(v, 16));
        for l in 0..32 {
            let row = &mut a[l / 4 + r % 2 * 8];
            row[l % 4 * 2 + r / 2 * 8] = lo[l];
            row[l % 4 * 2 + r / 2 * 8 + 1] = hi[l];
        }
    }
    for r in 0..STEPS {
        let v = w.r32(f.b[r]);
        let (lo, hi) = (floats(v, 0), floats(v, 16));
        for l in 0..32 {
            b[l % 4 * 2 + r * 8][l / 4] = lo[l];
            b[l % 4 * 2 + r * 8 + 1][l / 4] = hi[l];
        }
    }
    for r in 0..4 {
        let v = w.r32(f.c[r]);
        for l in 0..32 {
            d[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2] = f32::from_bits(v[l]);
        }
    }
    for (d, a) in d.iter_mut().zip(&a) {
        for s in 0..STEPS {
            *d = add_eight(*d, &a[8 * s..8 * s + 8], &b[8 * s..8 * s + 8]);
        }
    }
    for r in 0..4 {
        let mut v = [0u32; 32];
        for l in 0..32 {
            v[l] = d[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2].to_bits();
        }
        w.put32(f.d[r], m, &v);
    }
    Ok(())
}

/// Bytes, signed or not; TALL: 16x8 by 32, or 8x8 by 16.
fn bytes<const TALL: bool, const A_SIGNED: bool, const B_SIGNED: bool>(
    w: &mut Warp,
    cta: &mut Cta,
    i: &Ins,
    m: u32,
) -> Done {
    let n = if TALL { [4, 4, 2, 4] } else { [2, 1, 1, 2] };
    let f = fragments(cta, i, n);
    let value = |v: u32, at: usize, signed: bool| {
        let x = (v >> (8 * at)) as u8;
        if signed {
            x as i8 as i32
        } else {
            x as i32
        }
    };
    let (mut a, mut b, mut d) = ([[0i32; 32]; 16], [[0i32; 8]; 32], [[0i32; 8]; 16]);
    for r in 0..n[1] {
        let v = w.r32(f.a[r]);
        for l in 0..32 {
            for e in 0..4 {
                a[l / 4 + r % 2 * 8][l % 4 * 4 + r / 2 * 16 + e] = value(v[l], e, A_SIGNED);
            }
        }
    }
    for r in 0..n[2] {
        let v = w.r32(f.b[r]);
        for l in 0..32 {
            for e in 0..4 {
                b[l % 4 * 4 + r * 16 + e][l / 4] = value(v[l], e, B_SIGNED);
            }
        }
    }
    for r in 0..n[3] {
        let v = w.r32(f.c[r]);
        for l in 0..32 {
            d[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2] = v[l] as i32;
        }
    }
    for (d, a) in d.iter_mut().zip(&a) {
        for k in 0..if TALL { 32 } else { 16 } {
            for j in 0..8 {
                d[j] = d[j].wrapping_add(a[k] * b[k][j]);
            }
        }
    }
    for r in 0..n[0] {
        let mut v = [0u32; 32];
        for l in 0..32 {
            v[l] = d[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2] as u32;
        }
        w.put32(f.d[r], m, &v);
    }
    Ok(())
}

pub fn mma(mods: &[&str]) -> Option<(Run, Counts)> {
    let ["sync", "aligned", shape, "row", "col", types @ ..] = mods else { return None };
    Some(match (*shape, types) {
        ("m16n8k16", ["f32", "f16", "f16", "f32"]) => (halves::<2>, [4, 4, 2, 4]),
        ("m16n8k8", ["f32", "f16", "f16", "f32"]) => (halves::<1>, [4, 2, 1, 4]),
        ("m16n8k32", ["s32", "u8", "u8", "s32"]) => (bytes::<true, false, false>, [4, 4, 2, 4]),
        ("m16n8k32", ["s32", "u8", "s8", "s32"]) => (bytes::<true, false, true>, [4, 4, 2, 4]),
        ("m16n8k32", ["s32", "s8", "u8", "s32"]) => (bytes::<true, true, false>, [4, 4, 2, 4]),
        ("m16n8k32", ["s32", "s8", "s8", "s32"]) => (bytes::<true, true, true>, [4, 4, 2, 4]),
        ("m8n8k16", ["s32", "u8", "u8", "s32"]) => (bytes::<false, false, false>, [2, 1, 1, 2]),
        ("m8n8k16", ["s32", "u8", "s8", "s32"]) => (bytes::<false, false, true>, [2, 1, 1, 2]),
        ("m8n8k16", ["s32", "s8", "u8", "s32"]) => (bytes::<false, true, false>, [2, 1, 1, 2]),
        ("m8n8k16", ["s32", "s8", "s8", "s32"]) => (bytes::<false, true, true>, [2, 1, 1, 2]),
        _ => return None,
    })
}

/// `movmatrix`
pub fn transpose(w: &mut Warp, _: &mut Cta, i: &Ins, m: u32) -> Done {
    let mut row = [[0u16; 8]; 8];
    for (l, x) in w.r32(i.a).iter().enumerate() {
        row[l / 4][l % 4 * 2] = *x as u16;
        row[l / 4][l % 4 * 2 + 1] = (*x >> 16) as u16;
    }
    // lane 4g + t: column g, rows 2t and 2t + 1
    let mut v = [0u32; 32];
    for (l, v) in v.iter_mut().enumerate() {
        let (g, t) = (l / 4, l % 4 * 2);
        *v = u32::from(row[t][g]) | u32::from(row[t + 1][g]) << 16;
    }
    w.put32(i.d, m, &v);
    Ok(())
}
