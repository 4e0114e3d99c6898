//! Software prefetch: while a block is worked on, the next one's cache lines are asked for, a few at a time.
//!
//! A block's pages lie anywhere in the pool, so the hardware's prefetchers, which end at a page of 4 KiB, find each of them
//! too late.

use super::super::args::SideView;
use super::super::dots::Dots;
use super::{AttentionArgs, Shape};
use crate::geometry::{page_bytes, BLOCK, MAX_PAGES};

const LINE: usize = 64;

/// Stretches of memory that will be read next.
pub(super) struct Ahead {
    /// Address and bytes; K and V have pages and parameters.
    spans: [(*const u8, usize); 2 * MAX_PAGES + 2],
    n_spans: usize,
    span: usize,
    offset: usize,
    /// Lines of a part: about a sixteenth of all.
    part: usize,
}

impl Ahead {
    /// Nothing.
    pub fn none() -> Ahead {
        Ahead { spans: [(std::ptr::null(), 0); 2 * MAX_PAGES + 2], n_spans: 0, span: 0, offset: 0, part: 0 }
    }

    /// What a block's K and V take. An entry that makes no sense counts as nothing here; whoever reads it will say so.
    #[inline(always)]
    pub fn block(a: &AttentionArgs, p: &Shape, head: usize, block: usize) -> Ahead {
        let mut ahead = Ahead::none();
        if block < p.n_blocks {
            ahead.side(&a.k, head, block);
            ahead.side(&a.v, head, block);
        }
        let lines: usize = ahead.spans[..ahead.n_spans].iter().map(|s| s.1.div_ceil(LINE)).sum();
        ahead.part = lines.div_ceil(PARTS);
        ahead
    }

    #[inline(always)]
    fn side(&mut self, side: &SideView, head: usize, block: usize) {
        let Ok(entry) = side.entry(block) else { return };
        let Ok(Some(width)) = side.width(block, &entry) else { return };
        for &page in &entry.pages[..width.pages()] {
            if let Ok(Some(p)) = side.page(head, block, page) {
                self.push(p, page_bytes(side.head_dim()));
            }
        }
        if width.bits() < 16 {
            self.push(side.params(block, head, 0).cast(), side.n_groups() * 4 * BLOCK);
        }
    }

    #[inline(always)]
    fn push(&mut self, p: *const u8, n: usize) {
        self.spans[self.n_spans] = (p, n);
        self.n_spans += 1;
    }

    /// Ask for the next `parts` sixteenths.
    #[inline(always)]
    pub unsafe fn go<I: Dots>(&mut self, parts: usize) {
        let mut left = parts * self.part;
        while left > 0 && self.span < self.n_spans {
            let (p, n) = self.spans[self.span];
            let lines = (n - self.offset).div_ceil(LINE).min(left);
            for i in 0..lines {
                I::prefetch(p.wrapping_add(self.offset + i * LINE));
            }
            left -= lines;
            self.offset += lines * LINE;
            if self.offset >= n {
                self.offset = 0;
                self.span += 1;
            }
        }
    }
}

/// Parts of a block.
const PARTS: usize = 16;
