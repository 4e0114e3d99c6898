//! What lanes exchange by way of registers, and selections.

use crate::grid::Cta;
use crate::lanes::{bits, each};
use crate::program::{Ins, Run};
use crate::warp::Warp;
use crate::{act, code, fault, Done};

pub fn select(w: &mut Warp, _: &mut Cta, i: &Ins, m: u32) -> Done {
    let (p, a, b) = (w.pred(i.c), w.r32(i.a), w.r32(i.b));
    let mut v = [0u32; 32];
    for l in 0..32 {
        v[l] = if p >> l & 1 != 0 { a[l] } else { b[l] };
    }
    w.put32(i.d, m, &v);
    Ok(())
}

pub fn select64(w: &mut Warp, _: &mut Cta, i: &Ins, m: u32) -> Done {
    let (p, a, b) = (w.pred(i.c), w.r64(i.a), w.r64(i.b));
    let mut v = [0u64; 32];
    for l in 0..32 {
        v[l] = if p >> l & 1 != 0 { a[l] } else { b[l] };
    }
    w.put64(i.d, m, &v);
    Ok(())
}

/// `mov.b32 {lo, hi}, a`
pub fn split32(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let a = *w.r32(i.a);
    for (n, shift) in [0, 16].into_iter().enumerate() {
        let r = cta.kernel.lists[i.list as usize + n];
        if r != i32::MAX {
            w.put32(r, m, &a.map(|x| x >> shift & 0xffff));
        }
    }
    Ok(())
}

pub fn split64(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32) -> Done {
    let a = *w.r64(i.a);
    for (n, shift) in [0, 32].into_iter().enumerate() {
        let r = cta.kernel.lists[i.list as usize + n];
        if r != i32::MAX {
            w.put32(r, m, &a.map(|x| (x >> shift) as u32));
        }
    }
    Ok(())
}

/// Lane, distance, lowest and highest lane of its segment: the lane that is asked, and whether there is such a one.
type From = fn(u32, u32, u32, u32) -> (u32, bool);

fn shuffle_from(w: &mut Warp, cta: &mut Cta, i: &Ins, m: u32, from: From) -> Done {
    let list = &cta.kernel.lists[i.list as usize..];
    let (p, clamp) = (list[0], *w.r32(list[1]));
    let (a, b) = (*w.r32(i.a), *w.r32(i.b));
    let (mut v, mut has) = ([0u32; 32], 0u32);
    for l in each(m) {
        let segment = clamp[l] >> 8 & 31;
        let (low, high) = (l as u32 & segment, l as u32 & segment | clamp[l] & 31 & !segment);
        let (lane, ok) = from(l as u32, b[l] & 31, low, high);
        let lane = if ok { lane & 31 } else { l as u32 };
        if m >> lane & 1 == 0 {
            return fault(code::LAUNCH_FAILURE, format!("lane {l} asks lane {lane}, which takes no part"));
        }
        has |= (ok as u32) << l;
        v[l] = a[lane as usize];
    }
    w.put32(i.d, m, &v);
    if p >= 0 {
        w.put_pred(p, m, has);
    }
    Ok(())
}

pub fn shuffle(mode: &str) -> Option<Run> {
    Some(match mode {
        "idx" => |w, cta, i, m| {
            shuffle_from(w, cta, i, m, |_, b, low, high| {
                // high is low with all bits of the segment set, or what the clamp left of them
                let lane = low | b;
                (lane, lane <= high)
            })
        },
        "bfly" => |w, cta, i, m| shuffle_from(w, cta, i, m, |l, b, _, high| (l ^ b, l ^ b <= high)),
        "down" => |w, cta, i, m| shuffle_from(w, cta, i, m, |l, b, _, high| (l + b, l + b <= high)),
        "up" => |w, cta, i, m| {
            shuffle_from(w, cta, i, m, |l, b, _, high| (l.wrapping_sub(b), l as i32 - b as i32 >= high as i32))
        },
        _ => return None,
    })
}

fn votes(w: &Warp, i: &Ins, m: u32) -> u32 {
    (if i.size != 0 { !w.pred(i.a) } else { w.pred(i.a) }) & m
}

pub fn vote(mode: &str) -> Option<Run> {
    Some(match mode {
        "any" => act!(|w, i, m| w.put_pred(i.d, m, if votes(w, i, m) != 0 { m } else { 0 })),
        "all" => act!(|w, i, m| w.put_pred(i.d, m, if votes(w, i, m) == m { m } else { 0 })),
        "uni" => |w, _, i, m| {
            let v = votes(w, i, m);
            w.put_pred(i.d, m, if v == m || v == 0 { m } else { 0 });
            Ok(())
        },
        "ballot" => |w, _, i, m| {
            let v = votes(w, i, m);
            w.put32(i.d, m, &[v; 32]);
            Ok(())
        },
        _ => return None,
    })
}

fn reduce_by(w: &mut Warp, i: &Ins, m: u32, f: fn(u32, u32) -> u32) {
    let a = *w.r32(i.a);
    let all = each(m).map(|l| a[l]).reduce(f).unwrap_or(0);
    w.put32(i.d, m, &[all; 32]);
}

pub fn reduce(what: &str, ty: &str) -> Option<Run> {
    Some(match (what, ty) {
        ("add", _) => act!(|w, i, m| reduce_by(w, i, m, u32::wrapping_add)),
        ("or", _) => act!(|w, i, m| reduce_by(w, i, m, |a, b| a | b)),
        ("and", _) => act!(|w, i, m| reduce_by(w, i, m, |a, b| a & b)),
        ("xor", _) => act!(|w, i, m| reduce_by(w, i, m, |a, b| a ^ b)),
        ("min", "u32") => act!(|w, i, m| reduce_by(w, i, m, u32::min)),
        ("max", "u32") => act!(|w, i, m| reduce_by(w, i, m, u32::max)),
        ("min", "s32") => act!(|w, i, m| reduce_by(w, i, m, |a, b| (a as i32).min(b as i32) as u32)),
        ("max", "s32") => act!(|w, i, m| reduce_by(w, i, m, |a, b| (a as i32).max(b as i32) as u32)),
        _ => return None,
    })
}

/// Lanes whose value is the first one's.
pub fn same(v: &[u32; 32], m: u32) -> u32 {
    let first = v[m.trailing_zeros() as usize & 31];
    bits(|l| v[l] == first) & m
}
