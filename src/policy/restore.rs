//! Where the cells of a saved state go: a block for a block, so that bytes need not move within it.

use super::cells::{CellView, Summary};
use super::plan::Starts;
use super::state::Policy;
use crate::geometry::{Width, BLOCK};

/// A block of a saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBlock {
    /// It was one of the blocks that are kept for first tokens.
    pub sink: bool,
    /// One bit for each cell that was saved.
    pub cells: u128,
    /// Of each side, `2 * layer + side`.
    pub widths: Vec<Width>,
}

/// Places for the cells of a state.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Of the first block's saved cells, rising, then of the next one's.
    pub cells: Vec<u32>,
    /// The widths that blocks which hold nothing else start with, if there is room for them.
    pub starts: Starts,
}

impl Policy {
    /// Cells for saved blocks. Changes nothing. A block goes into an empty one, each cell to the place that it had; cells of
    /// first tokens go to the blocks that are kept for them. Where there are too few empty blocks, cells are packed into
    /// those that there are, and then into free cells of others.
    ///
    /// `None` if more than `n_ctx` tokens would be held, for a view of another size, or a block with widths for another
    /// number of sides.
    pub fn place_blocks(&self, cells: CellView, blocks: &[SavedBlock]) -> Option<Placed> {
        let n_sides = self.config.sides.len();
        if cells.pos.len() != self.n_cells() || blocks.iter().any(|b| b.widths.len() != n_sides) {
            return None;
        }
        let summary = Summary::of(cells.pos);
        let n_new: usize = blocks.iter().map(|b| b.cells.count_ones() as usize).sum();
        if summary.total + n_new > self.config.n_ctx as usize {
            return None;
        }
        let sinks = self.sink_blocks();
        let empty: Vec<usize> = (sinks..summary.used.len()).filter(|&b| summary.used[b] == 0).collect();
        let n_bodies = blocks.iter().filter(|b| !b.sink).count();

        let mut free = Free { cells, next: 0, end: sinks * BLOCK };
        let mut placed = Placed::default();
        // (index in placed.cells, number of the saved block) of cells that find no place of their own kind
        let mut others = Vec::new();
        let mut bodies = empty.iter();
        for (number, block) in blocks.iter().enumerate() {
            let body = if !block.sink && n_bodies <= empty.len() { bodies.next() } else { None };
            for at in bits(block.cells) {
                let cell = match body {
                    Some(b) => Some(b * BLOCK + at),
                    None if block.sink => free.next(),
                    None => None,
                };
                if cell.is_none() {
                    others.push((placed.cells.len(), number));
                }
                placed.cells.push(cell.unwrap_or(0) as u32);
                if let Some(cell) = cell {
                    self.start(&mut placed.starts, &summary, cell / BLOCK, &block.widths);
                }
            }
        }
        // what no body has taken: empty blocks first, then free cells of others, then those of the sinks
        let rest: Vec<usize> = bodies.copied().collect();
        let elsewhere =
            (sinks..summary.used.len()).filter(|&b| summary.used[b] > 0 && (summary.used[b] as usize) < BLOCK);
        let free_there = rest.into_iter().chain(elsewhere).flat_map(|b| b * BLOCK..(b + 1) * BLOCK);
        let mut free_there = free_there.filter(|&c| cells.pos[c] < 0);
        for (i, number) in others {
            let cell = free_there.next().or_else(|| free.next())?;
            placed.cells[i] = cell as u32;
            self.start(&mut placed.starts, &summary, cell / BLOCK, &blocks[number].widths);
        }
        placed.starts.sort_unstable_by_key(|s| s.0);
        Some(placed)
    }

    /// A block that held nothing starts as wide as the widest that comes into it, and never below its side's final width.
    fn start(&self, starts: &mut Starts, summary: &Summary, block: usize, widths: &[Width]) {
        if summary.used[block] > 0 {
            return;
        }
        // the last that was given is nearly always the one
        if let Some((_, old)) = starts.iter_mut().rev().find(|s| s.0 as usize == block) {
            old.iter_mut().zip(widths).for_each(|(old, w)| *old = (*old).max(*w));
        } else {
            let floors = self.config.sides.iter().map(|side| side.floor());
            starts.push((block as u32, widths.iter().zip(floors).map(|(w, floor)| (*w).max(floor)).collect()));
        }
    }
}

/// Free cells of a range, each once.
struct Free<'a> {
    cells: CellView<'a>,
    next: usize,
    end: usize,
}

impl Free<'_> {
    fn next(&mut self) -> Option<usize> {
        let found = (self.next..self.end).find(|&c| self.cells.pos[c] < 0)?;
        self.next = found + 1;
        Some(found)
    }
}

/// The numbers of the bits that are set, rising.
pub(crate) fn bits(mask: u128) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            bit
        })
    })
}
