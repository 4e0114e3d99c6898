//! A block that comes back narrower, wider, or in other cells than it was saved from.

use std::sync::atomic::AtomicU32;

use super::Held;
use crate::geometry::{Width, BLOCK, MAX_PAGES, SUBTILE};
use crate::kernels::{self, pack, KernelError, PartialsMut, RowsF32, ShrinkOp, SideView};

/// Converts a block to fewer bits, as a shrink in the cache does it.
///
/// # Errors
/// A width that is not below the block's.
pub fn narrow(block: &mut Held, to: Width) -> Result<(), KernelError> {
    let from = block.width();
    let pages = |w: Width| std::array::from_fn(|i| if i < w.pages() { i as i32 } else { -1 });
    let (src, dst): ([i32; MAX_PAGES], [i32; MAX_PAGES]) = (pages(from), pages(to));
    let op = ShrinkOp { block: 0, from: from.bits() as i32, to: to.bits() as i32, src, dst };
    kernels::shrink(&block.view()?, &[op], &[AtomicU32::new(0)], 0, 1)?;
    block.set_width(to);
    Ok(())
}

/// Copies cells (from, to) into a block that is as wide as `src` or wider. Codes stay codes: `c` at `b` bits is
/// `c * (2^b + 1)` at `2b`. At 16 bits, or in other groups, values are stored anew.
///
/// # Errors
/// None that blocks of one shape can lead to.
pub fn copy(src: &mut Held, dst: &mut Held, cells: &[(usize, usize)]) -> Result<(), KernelError> {
    let same_group = src.group == dst.group;
    let (from, to) = (src.width(), dst.width());
    let (src, dst) = (src.view()?, dst.view()?);
    if from == Width::B16 && to == Width::B16 {
        return copy_halves(&src, &dst, cells);
    }
    if to == Width::B16 || !same_group {
        return store_anew(&src, &dst, cells);
    }
    let factor = (((1u32 << to.bits()) - 1) / ((1u32 << from.bits()) - 1)) as u8;
    let mut row = vec![0; src.head_dim()];
    for head in 0..src.n_head_kv() {
        for &(a, b) in cells {
            let (at, place) = (subtile(&src, head, from, a)?, subtile(&dst, head, to, b)?);
            // SAFETY: whole subtiles at their widths, rows of head_dim codes that fit the wider width
            unsafe {
                pack::unpack_token(src.side(), from, at, src.head_dim(), a % SUBTILE, &mut row);
                row.iter_mut().for_each(|c| *c = c.wrapping_mul(factor));
                pack::pack_token_at(dst.side(), to, &row, b % SUBTILE, place);
            }
            for g in 0..src.n_groups() {
                let (x, y) = (src.params(0, head, g), dst.params(0, head, g));
                // SAFETY: within the parameters of the group
                unsafe {
                    y.add(b).write(x.add(a).read());
                    y.add(BLOCK + b).write(x.add(BLOCK + a).read());
                }
            }
        }
    }
    Ok(())
}

/// Cells as if nothing had ever been stored in them.
///
/// # Errors
/// As for [`copy`].
pub fn blank(block: &mut Held, cells: impl Iterator<Item = usize> + Clone) -> Result<(), KernelError> {
    let width = block.width();
    let view = block.view()?;
    let zeros = vec![0u8; 2 * view.head_dim()];
    for head in 0..view.n_head_kv() {
        for at in cells.clone() {
            let place = subtile(&view, head, width, at)?;
            // SAFETY: a whole subtile at its width; parameters of a group
            unsafe {
                if width == Width::B16 {
                    let row = place.add(at % SUBTILE * zeros.len());
                    row.copy_from_nonoverlapping(zeros.as_ptr(), zeros.len());
                    continue;
                }
                pack::pack_token_at(view.side(), width, &zeros[..view.head_dim()], at % SUBTILE, place);
                for g in 0..view.n_groups() {
                    view.params(0, head, g).add(at).write(0);
                    view.params(0, head, g).add(BLOCK + at).write(0);
                }
            }
        }
    }
    Ok(())
}

fn copy_halves(src: &SideView, dst: &SideView, cells: &[(usize, usize)]) -> Result<(), KernelError> {
    let n = 2 * src.head_dim();
    for head in 0..src.n_head_kv() {
        for &(a, b) in cells {
            let at = subtile(src, head, Width::B16, a)?;
            let place = subtile(dst, head, Width::B16, b)?;
            // SAFETY: rows of 16-bit subtiles, of two blocks
            unsafe {
                let row = at.add(a % SUBTILE * n);
                place.add(b % SUBTILE * n).copy_from_nonoverlapping(row, n);
            }
        }
    }
    Ok(())
}

fn store_anew(src: &SideView, dst: &SideView, cells: &[(usize, usize)]) -> Result<(), KernelError> {
    let from: Vec<i64> = cells.iter().map(|c| c.0 as i64).collect();
    let to: Vec<i64> = cells.iter().map(|c| c.1 as i64).collect();
    let mut values = vec![0.0; cells.len() * src.n_head_kv() * src.head_dim()];
    kernels::load(src, &from, &PartialsMut::from_slice(&mut values), 0, 1)?;
    kernels::store(dst, &RowsF32::from_slice(&values, src.head_dim(), src.n_head_kv())?, &to, 0, 1)
}

/// The subtile of a cell.
fn subtile(view: &SideView, head: usize, width: Width, at: usize) -> Result<*mut u8, KernelError> {
    let entry = view.entry(0)?;
    let found = view.subtile(head, 0, &entry.pages, width, at / SUBTILE)?;
    found.ok_or(KernelError::MissingPage { block: 0, slot: at / SUBTILE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::codes;

    #[test]
    fn wider_codes_are_the_same_values() {
        for (from, to) in [(Width::B2, Width::B4), (Width::B2, Width::B8), (Width::B4, Width::B8)] {
            let factor = ((1u32 << to.bits()) - 1) / ((1u32 << from.bits()) - 1);
            for code in 0..1u32 << from.bits() {
                let x = codes::dequantize(code as u8, from, -1.5, 2.25);
                let y = codes::dequantize((code * factor) as u8, to, -1.5, 2.25);
                assert!((x - y).abs() < 1e-6, "{code} of {from} bits at {to}: {x}, {y}");
            }
        }
    }
}
