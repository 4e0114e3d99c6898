//! Read stored rows back as f32: what a shift of positions rotates, and what states are converted by.

use super::store::place;
use super::{codes, layout, pack, Cells, Isa, KernelError, PartialsMut, SideView};
use crate::geometry::{Width, BLOCK, SUBTILE};

/// The rows of `cells` as the attention sees them, `[n_token][n_head_kv][head_dim]` into `out`, by thread `ith` of `nth`.
///
/// # Errors
/// A cell beyond the table, an empty or invalid entry, an absent page: that token's rows become NaN, the others are read,
/// and the first such error is returned. An output of another size: nothing is read.
pub fn load(side: &SideView, cells: Cells, out: &PartialsMut, ith: usize, nth: usize) -> Result<(), KernelError> {
    load_at(Isa::selected()?, side, cells, out, ith, nth)
}

/// [`load`] with given instructions. Only [`Isa::Reference`] differs: rows are read one by one, and seldom.
pub fn load_at(
    isa: Isa,
    side: &SideView,
    cells: Cells,
    out: &PartialsMut,
    ith: usize,
    nth: usize,
) -> Result<(), KernelError> {
    isa.check(ith, nth)?;
    let (d, n_head) = (side.head_dim(), side.n_head_kv());
    if out.len() != cells.len() * n_head * d {
        return Err(KernelError::Shape("the output is not a row for each cell and head"));
    }
    let mut result = Ok(());
    let mut row_codes = vec![0u8; d];
    for (t, &cell) in cells.iter().enumerate().filter(|(t, _)| t % nth == ith) {
        for head in 0..n_head {
            // SAFETY: a token is one thread's
            let row = unsafe { out.record(t * n_head + head, d) };
            let done = place(side, cell).and_then(|(block, at)| match isa {
                Isa::Reference => super::reference::load_row(side, head, block, at, row),
                _ => load_row(side, head, block, at, &mut row_codes, row),
            });
            if let Err(e) = done {
                row.fill(f32::NAN);
                result = result.and(Err(e));
            }
        }
    }
    result
}

fn load_row(
    side: &SideView,
    head: usize,
    block: usize,
    at: usize,
    row_codes: &mut [u8],
    row: &mut [f32],
) -> Result<(), KernelError> {
    let entry = side.entry(block)?;
    let width = side.width(block, &entry)?.ok_or(KernelError::Width { block, width: 0 })?;
    let d = side.head_dim();
    let slot = layout::subtile_position(width, d, at / SUBTILE).0;
    let src = side.subtile(head, block, &entry.pages, width, at / SUBTILE)?;
    let src = src.ok_or(KernelError::MissingPage { block, slot })?.cast_const();
    if width == Width::B16 {
        for (i, x) in row.iter_mut().enumerate() {
            // SAFETY: token and dimension lie within the subtile
            *x = codes::from_f16(unsafe { src.cast::<u16>().add(at % SUBTILE * d + i).read_unaligned() });
        }
        return Ok(());
    }
    // SAFETY: the subtile is whole, and row_codes as long as a row
    unsafe { pack::unpack_token(side.side(), width, src, d, at % SUBTILE, row_codes) };
    let groups = row.chunks_mut(side.group()).zip(row_codes.chunks(side.group()));
    for (g, (values, group)) in groups.enumerate() {
        let plane = side.params(block, head, g);
        // SAFETY: within the parameters of the group
        let (min, max) = unsafe { (plane.add(at).read(), plane.add(BLOCK + at).read()) };
        let min = codes::from_f16(min);
        let scale = codes::scale(width, min, codes::from_f16(max));
        for (x, &code) in values.iter_mut().zip(group) {
            *x = min + f32::from(code) * scale;
        }
    }
    Ok(())
}
