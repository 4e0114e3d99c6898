//! Reading what cells held, into blocks that are there for it.

use std::collections::HashSet;
use std::io::Read;

use super::{convert, Head, Held, SideShape, Storage};
use crate::geometry::{BlockEntry, Width, BLOCK};
use crate::policy::{bits, SavedBlock};

/// Reads the data of a state into the cells that [`place_blocks`](crate::policy::Policy::place_blocks) gave, once
/// [`plan_blocks`](crate::policy::Policy::plan_blocks) is committed. `fresh`: blocks that hold nothing else.
///
/// # Errors
/// Those of the storage and the reader. Cells that were not reached hold anything.
pub fn restore(
    head: &Head,
    sides: &[SideShape],
    placed: &[u32],
    fresh: &[u32],
    tables: &dyn Fn(usize, usize) -> BlockEntry,
    storage: &mut dyn Storage,
    from: &mut dyn Read,
) -> Result<(), String> {
    let mut fresh: HashSet<usize> = fresh.iter().map(|b| *b as usize).collect();
    let mut rest = placed;
    for block in &head.blocks {
        let (cells, others) = rest.split_at(block.cells.count_ones() as usize);
        rest = others;
        let mut parts = parts(block, cells);
        for (side, shape) in sides.iter().enumerate() {
            // a block at 16 bits is not grouped yet
            let width = block.widths[side];
            let group = if width == Width::B16 { shape.group } else { head.sides[side].group as usize };
            let mut held = Held::new(*shape, group, width);
            held.read(block.cells, from).map_err(|e| e.to_string())?;
            // widest first: what was narrowed for one block can't be wide in the next
            parts.sort_by_key(|(b, _)| std::cmp::Reverse(tables(side, *b).width));
            for (b, moves) in &parts {
                let entry = tables(side, *b);
                put(&mut held, moves, &entry, *b, fresh.contains(b), storage)?;
            }
        }
        parts.iter().for_each(|(b, _)| {
            fresh.remove(b);
        });
    }
    Ok(())
}

/// The blocks that a saved block's cells go to, and (from, to) within them.
fn parts(block: &SavedBlock, cells: &[u32]) -> Vec<(usize, Vec<(usize, usize)>)> {
    let mut parts: Vec<(usize, Vec<(usize, usize)>)> = Vec::new();
    for (at, &cell) in bits(block.cells).zip(cells) {
        let (b, to) = (cell as usize / BLOCK, cell as usize % BLOCK);
        match parts.iter_mut().find(|p| p.0 == b) {
            Some((_, moves)) => moves.push((at, to)),
            None => parts.push((b, vec![(at, to)])),
        }
    }
    parts
}

/// Some cells of a saved block into a block of the cache.
fn put(
    saved: &mut Held,
    moves: &[(usize, usize)],
    entry: &BlockEntry,
    block: usize,
    fresh: bool,
    storage: &mut dyn Storage,
) -> Result<(), String> {
    let width = Width::from_bits(entry.width as u32).ok_or_else(|| format!("block {block} has no storage"))?;
    let in_place = fresh && moves.iter().all(|(from, to)| from == to);
    // in other groups there are no codes to go on from
    if width < saved.width() && (saved.group == saved.shape.group || saved.width() == Width::B16) {
        convert::narrow(saved, width).map_err(|e| e.to_string())?;
    }
    if in_place && width == saved.width() && saved.group == saved.shape.group {
        return saved.keep(entry, block, storage);
    }
    let mut here = Held::new(saved.shape, saved.shape.group, width);
    if !fresh {
        here.load(entry, block, storage)?;
    }
    convert::copy(saved, &mut here, moves).map_err(|e| e.to_string())?;
    here.keep(entry, block, storage)
}
