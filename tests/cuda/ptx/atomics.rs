//! Atomics of 32 bits.

use crate::access::{addresses, generic, resolve, Space, What};
use crate::grid::Cta;
use crate::lanes::each;
use crate::program::{Ins, Run};
use crate::warp::Warp;
use crate::Done;

pub const ATOMICS: [&str; 10] = ["add", "or", "and", "xor", "min", "max", "exch", "cas", "inc", "dec"];

fn atomic_at(
    w: &mut Warp,
    cta: &mut Cta,
    i: &Ins,
    m: u32,
    at: &[u64; 32],
    space: Space,
    f: fn(u32, u32, u32) -> u32,
) -> Done {
    let (p, _) = resolve(w, cta, at, m, 4, space, What::Atomic)?;
    let (x, y) = (*w.r32(i.b), *w.r32(cta.kernel.lists[i.list as usize]));
    let mut old = [0u32; 32];
    for l in each(m) {
        // SAFETY: resolve has checked these bytes
        unsafe {
            let p = p[l].cast::<u32>();
            old[l] = p.read();
            p.write(f(old[l], x[l], y[l]));
        }
    }
    if i.d >= 0 {
        w.put32(i.d, m, &old);
    }
    Ok(())
}

macro_rules! atomics {
    ($space:expr, $f:expr) => {
        match $space {
            "global" => |w, cta, i, m| atomic_at(w, cta, i, m, &addresses(w, i.a, i.c != 0, i.imm), Space::Global, $f),
            "shared" => |w, cta, i, m| atomic_at(w, cta, i, m, &addresses(w, i.a, i.c != 0, i.imm), Space::Shared, $f),
            "generic" => |w, cta, i, m| {
                let at = addresses(w, i.a, i.c != 0, i.imm);
                generic(&at, m, |at, m, space| atomic_at(w, cta, i, m, at, space, $f))
            },
            _ => return None,
        }
    };
}

/// Of 32 bits.
pub fn atomic(space: &str, what: &str, ty: &str) -> Option<Run> {
    Some(match (what, ty) {
        ("add", "u32" | "s32") => atomics!(space, |old, x, _| old.wrapping_add(x)),
        ("add", "f32") => atomics!(space, |old, x, _| (f32::from_bits(old) + f32::from_bits(x)).to_bits()),
        ("or", _) => atomics!(space, |old, x, _| old | x),
        ("and", _) => atomics!(space, |old, x, _| old & x),
        ("xor", _) => atomics!(space, |old, x, _| old ^ x),
        ("exch", _) => atomics!(space, |_, x, _| x),
        ("cas", _) => atomics!(space, |old, x, y| if old == x { y } else { old }),
        ("min", "u32") => atomics!(space, |old, x, _| old.min(x)),
        ("max", "u32") => atomics!(space, |old, x, _| old.max(x)),
        ("min", "s32") => atomics!(space, |old, x, _| (old as i32).min(x as i32) as u32),
        ("max", "s32") => atomics!(space, |old, x, _| (old as i32).max(x as i32) as u32),
        _ => return None,
    })
}
