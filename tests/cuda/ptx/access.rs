//! Loads and stores.

use crate::grid::Cta;
use crate::lanes::each;
use crate::program::{Ins, Run};
use crate::warp::Warp;
use crate::{code, fault, Done, Fault};

/// Where shared and local memory are among generic addresses.
pub const SHARED_WINDOW: u64 = 1 << 60;
pub const LOCAL_WINDOW: u64 = 2 << 60;
const WINDOWS: u64 = 3 << 60;

#[derive(Clone, Copy, PartialEq)]
pub enum Space {
    Global,
    Shared,
    Local,
    Param,
}

#[derive(Clone, Copy, PartialEq)]
pub enum What {
    Load,
    Store,
    Atomic,
}

/// Each lane's address: a register and an offset.
#[inline(always)]
pub fn addresses(w: &Warp, reg: i32, long: bool, offset: i64) -> [u64; 32] {
    let mut out = [0u64; 32];
    if long {
        let a = w.r64(reg);
        for l in 0..32 {
            out[l] = a[l].wrapping_add(offset as u64);
        }
    } else {
        let a = w.r32(reg);
        for l in 0..32 {
            out[l] = a[l].wrapping_add(offset as u32) as u64;
        }
    }
    out
}

pub fn check_align(at: &[u64; 32], m: u32, bytes: usize) -> Done {
    for l in each(m) {
        if at[l] & (bytes as u64 - 1) != 0 {
            return fault(code::MISALIGNED, format!("lane {l}'s address {:#x} is not aligned to {bytes} bytes", at[l]));
        }
    }
    Ok(())
}

/// Lanes that have not waited for the kernels before must leave device memory alone.
pub fn check_waited(w: &Warp, cta: &Cta, m: u32) -> Done {
    if cta.early && m & !w.waited != 0 {
        return fault(code::LAUNCH_FAILURE, "touches device memory before griddepcontrol.wait");
    }
    Ok(())
}

/// Host addresses of what the lanes touch, and the lanes that touch what another one did just now.
pub fn resolve(
    w: &mut Warp,
    cta: &mut Cta,
    at: &[u64; 32],
    m: u32,
    bytes: usize,
    space: Space,
    what: What,
) -> Result<([*mut u8; 32], u32), Box<Fault>> {
    check_align(at, m, bytes)?;
    let (mut p, mut shared_with) = ([std::ptr::null_mut(); 32], 0);
    match space {
        Space::Global => {
            check_waited(w, cta, m)?;
            let name = match what {
                What::Load => "a load",
                What::Store => "a store",
                What::Atomic => "an atomic",
            };
            for l in each(m) {
                cta.memory.check(at[l], bytes as u64, name)?;
                p[l] = at[l] as *mut u8;
            }
            if let Some(r) = &mut cta.counts {
                r.global(w.pc, at, m, bytes);
            }
        }
        Space::Shared => {
            for l in each(m) {
                match what {
                    What::Load => cta.shared.check_read(at[l], bytes, w.who(l))?,
                    What::Store => shared_with |= (cta.shared.check_write(at[l], bytes, w.who(l))? as u32) << l,
                    What::Atomic => cta.shared.check_atomic(at[l], bytes)?,
                }
                p[l] = cta.shared.ptr(at[l]);
            }
            if let Some(r) = &mut cta.counts {
                r.shared(w.pc, at, m, bytes);
            }
        }
        Space::Local => {
            let n = cta.kernel.local_bytes as u64;
            for l in each(m) {
                if at[l] + bytes as u64 > n {
                    return fault(
                        code::ILLEGAL_ADDRESS,
                        format!("{bytes} bytes of local memory at {}: there are {n}", at[l]),
                    );
                }
                // SAFETY: within the warp's local memory
                p[l] = unsafe { w.local.as_mut_ptr().cast::<u8>().add(l * n as usize + at[l] as usize) };
            }
        }
        Space::Param => {
            for l in each(m) {
                if at[l] + bytes as u64 > cta.params.len() as u64 {
                    return fault(code::ILLEGAL_ADDRESS, format!("{bytes} bytes of parameters at {}", at[l]));
                }
                // SAFETY: within the parameters
                p[l] = unsafe { cta.params.as_mut_ptr().add(at[l] as usize) };
            }
        }
    }
    Ok((p, shared_with))
}

/// Does f for the lanes of each space that generic addresses are of.
pub fn generic(at: &[u64; 32], m: u32, mut f: impl FnMut(&[u64; 32], u32, Space) -> Done) -> Done {
    for (window, space) in [(0, Space::Global), (SHARED_WINDOW, Space::Shared), (LOCAL_WINDOW, Space::Local)] {
        let part = crate::lanes::bits(|l| at[l] & WINDOWS == window) & m;
        if part != 0 {
            let own = at.map(|a| a & !WINDOWS);
            f(&own, part, space)?;
        }
    }
    Ok(())
}

fn load_from(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32, at: &[u64; 32], space: Space) -> Done {
    let (size, count) = (i.size as usize, i.count as usize);
    let (p, _) = resolve(w, cta, at, m, size * count, space, What::Load)?;
    for e in 0..count {
        let r = cta.kernel.lists[i.list as usize + e];
        if r == i32::MAX {
            continue;
        }
        let mut v = [0u64; 32];
        for l in each(m) {
            // SAFETY: resolve has checked these bytes
            v[l] = unsafe {
                match size {
                    1 => p[l].add(e).read() as u64,
                    2 => p[l].add(2 * e).cast::<u16>().read_unaligned() as u64,
                    4 => p[l].add(4 * e).cast::<u32>().read_unaligned() as u64,
                    _ => p[l].add(8 * e).cast::<u64>().read_unaligned(),
                }
            };
        }
        if i.c != 0 && size < 8 {
            // signed, into a register of c bits
            let shift = 64 - 8 * size as u32;
            v = v.map(|x| ((x << shift) as i64 >> shift) as u64 & (u64::MAX >> (64 - i.c)));
        }
        if i.d != 0 {
            w.put64(r, m, &v);
        } else {
            w.put32(r, m, &v.map(|x| x as u32));
        }
    }
    Ok(())
}

fn store_to(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32, at: &[u64; 32], space: Space) -> Done {
    let (size, count) = (i.size as usize, i.count as usize);
    if space == Space::Param {
        return fault(code::ILLEGAL_ADDRESS, "a store to the parameters");
    }
    let (p, others) = resolve(w, cta, at, m, size * count, space, What::Store)?;
    for e in 0..count {
        let r = cta.kernel.lists[i.list as usize + e];
        for l in each(m) {
            let x = if i.d != 0 { w.r64(r)[l] } else { w.r32(r)[l] as u64 };
            let bytes = x.to_le_bytes();
            // SAFETY: resolve has checked these bytes
            unsafe {
                let to = p[l].add(size * e);
                if others >> l & 1 != 0 && std::slice::from_raw_parts(to, size) != &bytes[..size] {
                    let text = format!(
                        "a race: writes byte {} of shared memory, which another lane touched since they last waited for each other",
                        at[l]
                    );
                    return fault(code::LAUNCH_FAILURE, text);
                }
                match size {
                    1 => to.write(x as u8),
                    2 => to.cast::<u16>().write_unaligned(x as u16),
                    4 => to.cast::<u32>().write_unaligned(x as u32),
                    _ => to.cast::<u64>().write_unaligned(x),
                }
            }
        }
    }
    Ok(())
}

pub fn load(space: &str) -> Option<Run> {
    Some(match space {
        "global" => |w, cta, i, m| load_from(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Global),
        "shared" => |w, cta, i, m| load_from(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Shared),
        "local" => |w, cta, i, m| load_from(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Local),
        "param" => |w, cta, i, m| load_from(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Param),
        "generic" => |w, cta, i, m| {
            let at = addresses(w, i.a, i.b != 0, i.imm);
            generic(&at, m, |at, m, space| load_from(w, cta, i, m, at, space))
        },
        _ => return None,
    })
}

/// `ld.global.nc`: the memory must be what it was since the kernel came to the device, which may be before the kernels before have ended;
/// ptxas may put such a load before the wait for them.
pub fn load_constant(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    if cta.early {
        return fault(
            code::LAUNCH_FAILURE,
            "reads what must not change (.nc) in an early launch, before which others write",
        );
    }
    load_from(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Global)
}

pub fn store(space: &str) -> Option<Run> {
    Some(match space {
        "global" => |w, cta, i, m| store_to(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Global),
        "shared" => |w, cta, i, m| store_to(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Shared),
        "local" => |w, cta, i, m| store_to(w, cta, i, m, &addresses(w, i.a, i.b != 0, i.imm), Space::Local),
        "generic" => |w, cta, i, m| {
            let at = addresses(w, i.a, i.b != 0, i.imm);
            generic(&at, m, |at, m, space| store_to(w, cta, i, m, at, space))
        },
        _ => return None,
    })
}
