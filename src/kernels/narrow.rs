//! Packed subtiles to the next width: pairs of rows are joined byte by byte, the same way for K and V.

use super::words::{Words, WORDS};

/// A packed subtile of `n` bytes at 8 bits becomes one of `n / 2` at 4.
///
/// # Safety
/// `src` and `dst` hold what is said and do not overlap; `row` is a multiple of 64, `n` one of `2 * row`.
#[inline(always)]
pub(crate) unsafe fn join8<V: Words>(src: *const u8, dst: *mut u8, row: usize, n: usize) {
    for r in 0..n / (2 * row) {
        let (low, high, out) = (src.add(2 * r * row), src.add((2 * r + 1) * row), dst.add(r * row));
        for i in (0..row).step_by(4 * WORDS) {
            let (l, h) = (V::load(low.add(i)).narrow8(), V::load(high.add(i)).narrow8());
            l.or(h.shl::<4>()).store(out.add(i));
        }
    }
}

/// As [`join8`], from 4 to 2 bits.
///
/// # Safety
/// As [`join8`].
#[inline(always)]
pub(crate) unsafe fn join4<V: Words>(src: *const u8, dst: *mut u8, row: usize, n: usize) {
    let nibble = V::splat(0x0f0f_0f0f);
    for r in 0..n / (2 * row) {
        let (low, high, out) = (src.add(2 * r * row), src.add((2 * r + 1) * row), dst.add(r * row));
        for i in (0..row).step_by(4 * WORDS) {
            let (l, h) = (V::load(low.add(i)), V::load(high.add(i)));
            let l = l.and(nibble).narrow4().or(l.shr::<4>().and(nibble).narrow4().shl::<2>());
            let h = h.and(nibble).narrow4().or(h.shr::<4>().and(nibble).narrow4().shl::<2>());
            l.or(h.shl::<4>()).store(out.add(i));
        }
    }
}
