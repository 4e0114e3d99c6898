//! Convert blocks to narrower widths, in place.

use super::fit::fit4;
use super::lanes::Plain;
use super::level::Level;
use super::narrow::{join4, join8};
use super::prefetch::{line, lines, LINE};
use super::range::RangeRule;
use super::scratch::{self, Scratch};
use super::words::{PlainWords, Words};
use super::{layout, quantize, Isa, KernelError, SideView};
use crate::geometry::{page_bytes, Width, MAX_PAGES, SUBTILE, SUBTILES};
use std::sync::atomic::{AtomicU32, Ordering};

/// Convert one block of a side. The table is not read: the operation says where the block was and where it goes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShrinkOp {
    pub block: u32,
    /// Bits: 16, 8 or 4.
    pub from: i32,
    /// Bits: fewer than `from`.
    pub to: i32,
    /// The first `from / 2` are the block's pages; -1 where it has none.
    pub src: [i32; MAX_PAGES],
    /// The first `to / 2` are where it goes: any pages, its own among them. -1 only where the page would hold nothing.
    pub dst: [i32; MAX_PAGES],
}

impl ShrinkOp {
    /// Widths, and the pages of a head, all checked.
    pub(crate) fn resolve(&self, side: &SideView, head: usize) -> Result<Resolved, KernelError> {
        let block = self.block as usize;
        if block >= side.n_blocks() {
            return Err(KernelError::BlockRange { block });
        }
        let from = side.checked_width(block, self.from)?;
        let to = side.checked_width(block, self.to)?;
        if to >= from {
            return Err(KernelError::Width { block, width: self.to });
        }
        let mut r = Resolved { block, head, from, to, src: [None; SUBTILES], dst: [None; MAX_PAGES] };
        for (s, src) in r.src.iter_mut().enumerate() {
            *src = side.subtile(head, block, &self.src, from, s)?;
        }
        for (slot, dst) in r.dst.iter_mut().enumerate().take(to.pages()) {
            let per_page = to.subtiles_per_page();
            let any = r.src[slot * per_page..(slot + 1) * per_page].iter().any(|s| s.is_some());
            let page = side.page(head, block, self.dst[slot])?;
            if any {
                *dst = Some(page.ok_or(KernelError::MissingPage { block, slot })?);
            }
        }
        Ok(r)
    }
}

/// An operation on one head.
pub(crate) struct Resolved {
    pub block: usize,
    pub head: usize,
    pub from: Width,
    pub to: Width,
    /// Present subtiles.
    pub src: [Option<*mut u8>; SUBTILES],
    /// Pages that will hold something.
    pub dst: [Option<*mut u8>; MAX_PAGES],
}

/// Run block operations of one side, by thread `ith` of `nth`. Operations must not share pages. `done[i]` counts the heads
/// that operation `i` has converted, over all threads: an operation that ran to its end has as many as the side has heads.
///
/// From 16 bits the parameters (min, max) are computed; from 8 and 4 they stay, unless the step to 2 bits fits new ones
/// ([`RangeRule`]). A target page is built from its subtiles;
/// those that are absent become zeros. Cells that were never written hold garbage before and after.
///
/// # Errors
/// An invalid operation is skipped, the others are run, and the first such error is returned. Fewer counters than
/// operations, or a thread that does not exist: nothing is run.
pub fn shrink(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
) -> Result<(), KernelError> {
    shrink_at(Isa::selected()?, side, ops, done, ith, nth)
}

/// [`shrink`] with given instructions.
pub fn shrink_at(
    isa: Isa,
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
) -> Result<(), KernelError> {
    isa.check(ith, nth)?;
    if done.len() < ops.len() {
        return Err(KernelError::Shape("there are fewer counters than block operations"));
    }
    if isa == Isa::Reference {
        return super::reference::shrink(side, ops, done, ith, nth);
    }
    scratch::with(|s| match isa {
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512bitalg") => unsafe { run_bitalg(side, ops, done, ith, nth, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(side, ops, done, ith, nth, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { run_avx2(side, ops, done, ith, nth, s) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { run_neon(side, ops, done, ith, nth, s) },
        _ => unsafe { run::<Plain, PlainWords>(side, ops, done, ith, nth, s) },
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bitalg,avx2,fma,f16c")]
unsafe fn run_bitalg(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::Avx512, super::words::Words512<true>>(side, ops, done, ith, nth, s)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_avx512(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::Avx512, super::words::Words512<false>>(side, ops, done, ith, nth, s)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::Avx2, super::words::Words256>(side, ops, done, ith, nth, s)
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn run_neon(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    run::<super::lanes::neon::Neon, PlainWords>(side, ops, done, ith, nth, s)
}

#[inline(always)]
unsafe fn run<L: Level, V: Words>(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    let n_head = side.n_head_kv();
    let mut result = Ok(());
    let item = |i: usize| ops.get(i / n_head).map(|op| op.resolve(side, i % n_head));
    let mut this = item(ith);
    for i in (ith..ops.len() * n_head).step_by(nth) {
        let next = item(i + nth);
        match this {
            Some(Ok(r)) => {
                let ahead = match &next {
                    Some(Ok(next)) => next,
                    _ => &r,
                };
                convert::<L, V>(side, &r, ahead, s);
                done[i / n_head].fetch_add(1, Ordering::Release);
            }
            Some(Err(e)) => result = result.and(Err(e)),
            None => {}
        }
        this = next;
    }
    result
}

/// Build a page aside, then write it: a target may be any of the sources. Where it is a later one, all are built first.
#[inline(always)]
unsafe fn convert<L: Level, V: Words>(side: &SideView, r: &Resolved, next: &Resolved, s: &mut Scratch) {
    let d = side.head_dim();
    let n = r.to.subtile_bytes(d);
    let (page, per_page) = (page_bytes(d), r.to.subtiles_per_page());
    let built = s.pages.take::<u8>(SUBTILES * n).as_mut_ptr();
    // a target that is no later source can be written as soon as it is built
    let early = r.dst.iter().enumerate().all(|(slot, dst)| match *dst {
        Some(dst) => {
            let mut later = r.src.iter().skip((slot + 1) * per_page).flatten();
            later.all(|src| !(dst..dst.wrapping_add(page)).contains(src))
        }
        None => true,
    });
    let at4 = s.current.take::<u8>(Width::B4.subtile_bytes(d)).as_mut_ptr();
    for (i, src) in r.src.iter().enumerate() {
        let out = built.add(if early { i % per_page } else { i } * n);
        // where that is narrower, more is asked for than is there
        let ahead = next.src[i].unwrap_or(at4).cast_const();
        for g in 0..side.n_groups() {
            // eight lines of parameters for eight subtiles
            line(side.params(next.block, next.head, g).wrapping_add(i * LINE / 2).cast());
        }
        match *src {
            Some(src) => {
                let params = side.params(r.block, r.head, 0).add(i * SUBTILE);
                let tile = Subtile { side, params, at4, ahead };
                match r.from {
                    Width::B16 => quantize::subtile::<L, V>(side, src.cast(), params, r.to, at4, out, ahead),
                    from => tile.narrow::<L, V>(src, from, r.to, out),
                }
            }
            None => std::ptr::write_bytes(out, 0, n),
        }
        if let (true, Some(dst)) = (early && (i + 1) % per_page == 0, r.dst[i / per_page]) {
            std::ptr::copy_nonoverlapping(built, dst, page);
        }
    }
    if !early {
        for (slot, dst) in r.dst.iter().enumerate() {
            if let Some(dst) = *dst {
                std::ptr::copy_nonoverlapping(built.add(slot * page), dst, page);
            }
        }
    }
}

/// A subtile to convert.
struct Subtile<'a> {
    side: &'a SideView<'a>,
    /// The place of the first token in the minimum plane of group 0.
    params: *mut u16,
    /// Takes a subtile at 4 bits.
    at4: *mut u8,
    /// The same subtile of the head that comes next: it is asked for.
    ahead: *const u8,
}

impl Subtile<'_> {
    /// From 8 or 4 bits.
    #[inline(always)]
    unsafe fn narrow<L: Level, V: Words>(&self, src: *const u8, from: Width, to: Width, out: *mut u8) {
        let d = self.side.head_dim();
        let row = layout::row_bytes(self.side.side(), d);
        if to == Width::B4 {
            return join8::<V>(src, out, row, 16 * d, self.ahead);
        }
        let mut at4 = src;
        if from == Width::B8 {
            join8::<V>(src, self.at4, row, 16 * d, self.ahead);
            at4 = self.at4;
        }
        match self.side.range_rule() {
            RangeRule::Shift => join4::<V>(at4, out, row, 8 * d, self.ahead),
            RangeRule::Fit => {
                lines(self.ahead, 8 * d);
                fit4::<L, V>(self.side.side(), at4, d, self.side.group(), self.params, 0, SUBTILE, out);
            }
        }
    }
}
