//! Software prefetch: whoever reads a cache line of a block asks for the same line of the next block.
//!
//! A block's pages lie anywhere in the pool, so the hardware's prefetchers, which follow a stream, find each of them too late.
//! One line asked for with each that is read keeps the memory busy without ever filling its queues, which bursts of prefetches
//! do: then the reads that are needed now wait.

use super::super::args::SideView;
use super::{AttentionArgs, Shape};
use crate::geometry::SUBTILES;

/// Where the next block of a head lies: subtiles of a side, and its parameters. Null where there is nothing.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub k: [*const u8; SUBTILES],
    pub v: [*const u8; SUBTILES],
    pub params_k: *const u16,
    pub params_v: *const u16,
}

impl Next {
    pub const NOTHING: Next = Next {
        k: [std::ptr::null(); SUBTILES],
        v: [std::ptr::null(); SUBTILES],
        params_k: std::ptr::null(),
        params_v: std::ptr::null(),
    };

    #[inline(always)]
    pub fn of(a: &AttentionArgs, p: &Shape, head: usize, block: usize) -> Next {
        let mut next = Next::NOTHING;
        if block < p.n_blocks {
            (next.k, next.params_k) = side(&a.k, head, block);
            (next.v, next.params_v) = side(&a.v, head, block);
        }
        next
    }
}

/// An entry that makes no sense counts as nothing here; whoever reads it will say so.
#[inline(always)]
fn side(side: &SideView, head: usize, block: usize) -> ([*const u8; SUBTILES], *const u16) {
    let (mut found, mut params) = ([std::ptr::null(); SUBTILES], std::ptr::null());
    if let Ok(entry) = side.entry(block) {
        if let Ok(Some(width)) = side.width(block, &entry) {
            let (per_page, bytes) = (width.subtiles_per_page(), width.subtile_bytes(side.head_dim()));
            for slot in 0..width.pages() {
                if let Ok(Some(page)) = side.page(head, block, entry.pages[slot]) {
                    for i in 0..per_page {
                        found[slot * per_page + i] = page.wrapping_add(i * bytes).cast_const();
                    }
                }
            }
            if side.group() > 0 {
                params = side.params(block, head, 0).cast_const();
            }
        }
    }
    (found, params)
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
