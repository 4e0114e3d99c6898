//! Device memory: what is allocated, and whether an access lies within it.

use crate::{code, fault, Done};
use std::alloc::{alloc, dealloc, Layout};

const ALIGN: usize = 256;

/// Allocations, sorted: begin and end.
#[derive(Default, Clone)]
pub struct Memory {
    pub spans: Vec<(u64, u64)>,
    /// The one that was found last.
    last: (u64, u64),
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGN).expect("a size that fits")
}

impl Memory {
    /// Filled with a pattern; None: there is no memory.
    pub fn alloc(&mut self, bytes: usize) -> Option<u64> {
        // SAFETY: the size is not zero
        let p = unsafe { alloc(layout(bytes)) };
        if p.is_null() {
            return None;
        }
        // SAFETY: just allocated
        unsafe { p.write_bytes(0xcd, bytes.max(1)) };
        let span = (p as u64, p as u64 + bytes as u64);
        self.spans.insert(self.spans.partition_point(|s| *s < span), span);
        Some(span.0)
    }

    pub fn free(&mut self, p: u64) -> bool {
        let Some(at) = self.spans.iter().position(|s| s.0 == p) else { return false };
        let (begin, end) = self.spans.remove(at);
        self.last = (0, 0);
        // SAFETY: allocated by alloc with this size
        unsafe { dealloc(begin as *mut u8, layout((end - begin) as usize)) };
        true
    }

    pub fn has(&mut self, p: u64, bytes: u64) -> bool {
        let within = |s: (u64, u64)| p >= s.0 && p.checked_add(bytes).is_some_and(|end| end <= s.1);
        if within(self.last) {
            return true;
        }
        let at = self.spans.partition_point(|s| s.0 <= p);
        if at > 0 && within(self.spans[at - 1]) {
            self.last = self.spans[at - 1];
            return true;
        }
        false
    }

    /// Where the nearest allocation is, for people.
    fn near(&self, p: u64) -> String {
        let at = self.spans.partition_point(|s| s.0 <= p);
        match at.checked_sub(1).map(|i| self.spans[i]) {
            Some((begin, end)) => format!("{} bytes behind the begin of {} bytes", p - begin, end - begin),
            None => "below all allocations".into(),
        }
    }

    pub fn check(&mut self, p: u64, bytes: u64, what: &str) -> Done {
        if self.has(p, bytes) {
            return Ok(());
        }
        let near = self.near(p);
        fault(
            code::ILLEGAL_ADDRESS,
            format!("{what} of {bytes} bytes at {p:#x}, which is not within an allocation: {near}"),
        )
    }
}
