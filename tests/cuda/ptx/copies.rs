//! Asynchronous copies from global to shared memory. A copy is made when its thread waits for it, not before, and until then its target
//! must be left alone.

use crate::access::{addresses, check_align, check_waited};
use crate::grid::Cta;
use crate::lanes::each;
use crate::program::Ins;
use crate::warp::Warp;
use crate::{code, fault, Done};

pub struct Copy {
    to: u64,
    from: u64,
    /// Of the target, and how many of these are read; the others become zero.
    size: usize,
    bytes: usize,
    lane: u8,
    group: i64,
}

/// d: the target's register, count: whether that has 64 bits, imm: its offset; a and the list: those of the source; b: bytes of it.
pub fn issue(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let to = addresses(w, i.d, i.count != 0, i.imm);
    let from = addresses(w, i.a, true, cta.kernel.lists[i.list as usize] as i64);
    let n = *w.r32(i.b);
    let size = i.size as usize;
    check_align(&to, m, size)?;
    check_align(&from, m, size)?;
    check_waited(w, cta, m)?;
    for l in each(m) {
        if n[l] as usize > size {
            return fault(code::LAUNCH_FAILURE, format!("a copy of {} bytes to {size}", n[l]));
        }
        if n[l] > 0 {
            cta.memory.check(from[l], n[l] as u64, "the source of a copy")?;
        }
        if cta.shared.check_write(to[l], size, w.who(l))? {
            let text = format!(
                "a race: a copy to byte {} of shared memory, which another lane touched since they last waited for each other",
                to[l]
            );
            return fault(code::LAUNCH_FAILURE, text);
        }
        cta.shared.begin_copy(to[l], size);
        w.copies.push(Copy { to: to[l], from: from[l], size, bytes: n[l] as usize, lane: l as u8, group: w.groups[l] });
    }
    if let Some(r) = &mut cta.counts {
        r.global(w.pc, &from, crate::lanes::bits(|l| n[l] > 0) & m, size);
        r.shared(w.pc, &to, m, size);
    }
    Ok(())
}

pub fn commit(w: &mut Warp, _: &mut Cta, _: &Ins, m: u32) -> Done {
    each(m).for_each(|l| w.groups[l] += 1);
    Ok(())
}

/// All but the latest imm groups of each lane arrive. imm = -1: those that were not committed, too.
pub fn wait(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let groups = w.groups;
    let mut left = std::mem::take(&mut w.copies);
    left.retain(|c| {
        let lane = c.lane as usize;
        if m >> lane & 1 == 0 || c.group >= groups[lane] - i.imm {
            return true;
        }
        // SAFETY: both were checked when the copy was asked for
        unsafe {
            let to = cta.shared.ptr(c.to);
            to.write_bytes(0, c.size);
            to.copy_from_nonoverlapping(c.from as *const u8, c.bytes);
        }
        cta.shared.end_copy(c.to, c.size, w.who(lane));
        false
    });
    w.copies = left;
    Ok(())
}
