//! Packed subtiles to the next width: pairs of rows are joined byte by byte, the same way for K and V.

use super::prefetch::lines;
use super::words::Words;

/// A packed subtile of `n` bytes at 8 bits becomes one of `n / 2` at 4; `n` bytes at `ahead` are asked for on the way.
///
/// # Safety
/// `src` and `dst` hold what is said and do not overlap; `row` is a multiple of 64, `n` one of `2 * row`.
#[inline(always)]
pub(crate) unsafe fn join8<V: Words>(src: *const u8, dst: *mut u8, row: usize, n: usize, ahead: *const u8) {
    for r in 0..n / (2 * row) {
        lines(ahead.wrapping_add(2 * r * row), 2 * row);
        V::join8(src.add(2 * r * row), src.add((2 * r + 1) * row), dst.add(r * row), row);
    }
}

/// As [`join8`], from 4 to 2 bits.
///
/// # Safety
/// As [`join8`].
#[inline(always)]
pub(crate) unsafe fn join4<V: Words>(src: *const u8, dst: *mut u8, row: usize, n: usize, ahead: *const u8) {
    for r in 0..n / (2 * row) {
        lines(ahead.wrapping_add(2 * r * row), 2 * row);
        V::join4(src.add(2 * r * row), src.add((2 * r + 1) * row), dst.add(r * row), row);
    }
}
