//! Memory is asked for before it is needed. Only hints: any address will do, and nothing is read.

/// Bytes that come from memory together.
pub(crate) const LINE: usize = 64;

/// Asks for `n` bytes, into the first-level cache: a subtile lies in one page of memory, and the hardware does not look beyond
/// the end of a page.
#[inline(always)]
pub(crate) fn near(p: *const u8, n: usize) {
    let mut at = 0;
    while at < n {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction never faults, and every CPU of this architecture has it
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(at).cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above
        unsafe {
            use std::arch::asm;
            asm!("prfm pldl1keep, [{0}]", in(reg) p.wrapping_add(at), options(nomem, nostack, preserves_flags));
        }
        at += LINE;
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = p;
}

/// [`line`] of `n` bytes.
#[inline(always)]
pub(crate) fn lines(p: *const u8, n: usize) {
    for at in (0..n).step_by(LINE) {
        line(p.wrapping_add(at));
    }
}

/// Asks for a line, into the second-level cache: for what is read later, past what the first level's queues can hold.
#[inline(always)]
pub(crate) fn line(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `near`
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T1};
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as in `near`
    unsafe {
        use std::arch::asm;
        asm!("prfm pldl2keep, [{0}]", in(reg) p, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = p;
}
