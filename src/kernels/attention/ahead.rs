//! Software prefetch: whoever reads a cache line of a block asks for the same line of the next block.
//!
//! A block's pages lie anywhere in the pool, so the hardware's prefetchers, which follow a stream, find each of them too late.
//! One line asked for with each that is read keeps the memory busy without ever filling its queues, which bursts of prefetches
//! do: then the reads that are needed now wait.

use super::super::args::SideView;
use super::super::KernelError;
use super::{AttentionArgs, Shape};
use crate::geometry::{Width, SUBTILES};

/// Where a side of a head's block lies: it is asked for as the next block, and then read.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Bits of the entry, 0 for an empty block.
    bits: i32,
    /// Bit s: subtile s is there.
    present: u8,
    /// Null where there is nothing.
    pub subtiles: [*const u8; SUBTILES],
    /// Null where there is nothing.
    pub params: *const u16,
}

impl Place {
    pub const NOWHERE: Place =
        Place { bits: 0, present: 0, subtiles: [std::ptr::null(); SUBTILES], params: std::ptr::null() };

    /// K and V of a block, or nothing behind the last one.
    #[inline(always)]
    pub fn of(a: &AttentionArgs, p: &Shape, head: usize, block: usize) -> [Place; 2] {
        if block < p.n_blocks {
            [Place::side(&a.k, head, block), Place::side(&a.v, head, block)]
        } else {
            [Place::NOWHERE; 2]
        }
    }

    /// An entry that makes no sense counts as nothing here; whoever reads it will say so.
    #[inline(always)]
    fn side(side: &SideView, head: usize, block: usize) -> Place {
        let mut place = Place::NOWHERE;
        let Ok(entry) = side.entry(block) else { return place };
        place.bits = entry.width;
        let Ok(Some(width)) = side.width(block, &entry) else { return place };
        let (per_page, bytes) = (width.subtiles_per_page(), width.subtile_bytes(side.head_dim()));
        for slot in 0..width.pages() {
            if let Ok(Some(page)) = side.page(head, block, entry.pages[slot]) {
                for i in 0..per_page {
                    place.subtiles[slot * per_page + i] = page.wrapping_add(i * bytes).cast_const();
                    place.present |= 1 << (slot * per_page + i);
                }
            }
        }
        if side.group() > 0 {
            place.params = side.params(block, head, 0).cast_const();
        }
        place
    }

    /// `None` for an empty block.
    #[inline(always)]
    pub fn width(&self, side: &SideView, block: usize) -> Result<Option<Width>, KernelError> {
        if self.bits == 0 {
            return Ok(None);
        }
        side.checked_width(block, self.bits).map(Some)
    }

    /// As [`SideView::subtiles`].
    #[inline(always)]
    pub fn subtiles(
        &self,
        side: &SideView,
        head: usize,
        block: usize,
        live: u8,
    ) -> Result<[*const u8; SUBTILES], KernelError> {
        if self.present == u8::MAX {
            return Ok(self.subtiles);
        }
        self.some(side, head, block, live)
    }

    #[cold]
    fn some(&self, side: &SideView, head: usize, block: usize, live: u8) -> Result<[*const u8; SUBTILES], KernelError> {
        let entry = side.entry(block)?;
        side.subtiles(head, block, &entry, side.checked_width(block, entry.width)?, live)
    }
}

/// Lines to ask for: those of the next block, or, where it has none, those that are read anyway.
#[inline(always)]
pub(super) fn lines(next: &[*const u8; SUBTILES], src: &[*const u8; SUBTILES]) -> [*const u8; SUBTILES] {
    let mut lines = *next;
    for (line, src) in lines.iter_mut().zip(src) {
        if line.is_null() {
            *line = *src;
        }
    }
    lines
}
