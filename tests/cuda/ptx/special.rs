//! Special registers: who a lane is.

use crate::grid::Cta;
use crate::program::Ins;
use crate::warp::Warp;
use crate::Done;

const SPECIAL: [&str; 20] = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
    "%lanemask_lt",
    "%lanemask_le",
    "%lanemask_gt",
    "%lanemask_ge",
    "%lanemask_eq",
    "%clock64",
    "%globaltimer",
];

/// The number of a special register.
pub fn number(name: &str) -> Option<i64> {
    SPECIAL.iter().position(|s| *s == name).map(|n| n as i64)
}

fn value(w: &Warp, cta: &Cta, n: i64, l: u32) -> u32 {
    let thread = 32 * w.number + l;
    let below = (1u32 << l) - 1;
    match n {
        0 => thread % cta.block[0],
        1 => thread / cta.block[0] % cta.block[1],
        2 => thread / cta.block[0] / cta.block[1],
        3..=5 => cta.block[n as usize - 3],
        6..=8 => cta.index[n as usize - 6],
        9..=11 => cta.grid[n as usize - 9],
        12 => l,
        13 => below,
        14 => below | 1 << l,
        15 => !(below | 1 << l),
        16 => !below,
        17 => 1 << l,
        _ => w.instructions as u32,
    }
}

pub fn read(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let v: [u32; 32] = std::array::from_fn(|l| value(w, cta, i.imm, l as u32));
    w.put32(i.d, m, &v);
    Ok(())
}

pub fn read64(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let v: [u64; 32] =
        std::array::from_fn(|l| if i.imm < 18 { value(w, cta, i.imm, l as u32) as u64 } else { w.instructions });
    w.put64(i.d, m, &v);
    Ok(())
}
