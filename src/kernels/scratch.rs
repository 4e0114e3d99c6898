//! Memory that a thread keeps between calls, so that a kernel allocates only when it first sees a larger shape.

use std::cell::RefCell;

/// A cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// A growing buffer, aligned to a cache line.
#[derive(Default)]
pub struct Buffer(Vec<Line>);

impl Buffer {
    /// At least `n` values of a plain number type; what they hold is whatever the last user left.
    pub fn take<T: Plain>(&mut self, n: usize) -> &mut [T] {
        let lines = (n * std::mem::size_of::<T>()).div_ceil(64);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0; 64]));
        }
        // SAFETY: the lines are initialised, aligned to 64, at least n values long, and any bits are a value of T (Plain)
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), n) }
    }
}

/// Types for which any bits are a value.
///
/// # Safety
/// No padding, no invalid bit patterns, alignment of at most 64.
pub unsafe trait Plain: Copy {}
unsafe impl Plain for u8 {}
unsafe impl Plain for u16 {}
unsafe impl Plain for u32 {}
unsafe impl Plain for f32 {}
unsafe impl Plain for u128 {}

/// The buffers of one thread.
#[derive(Default)]
pub struct Scratch {
    pub q: Buffer,
    pub scores: Buffer,
    pub acc: Buffer,
    pub tile: Buffer,
    pub rows: Buffer,
    pub mask: Buffer,
    pub current: Buffer,
    pub pages: Buffer,
    pub narrow: Buffer,
    pub wide: Buffer,
    pub groups: Buffer,
    pub codes: Buffer,
    pub scales: Buffer,
    pub words: Buffer,
    pub chunks: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// Run with this thread's buffers.
pub fn with<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with(|s| f(&mut s.borrow_mut()))
}
