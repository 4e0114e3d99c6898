//! Reading what cells held, into blocks that are there for it.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::mem::{swap, take};
use std::rc::Rc;

use super::batch::{self, InHand};
use super::{convert, Head, Held, SideShape, Storage};
use crate::geometry::{BlockEntry, Width, BLOCK};
use crate::kernels::KernelError;
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
    let mut target = Target {
        head,
        sides,
        tables,
        fresh: fresh.iter().map(|b| *b as usize).collect(),
        begun: HashSet::new(),
        read: Vec::new(),
        blocks: Vec::new(),
        numbers: HashMap::new(),
        size: 0,
    };
    let mut rest = placed;
    for block in &head.blocks {
        let (cells, others) = rest.split_at(block.cells.count_ones() as usize);
        rest = others;
        let parts = Rc::new(parts(block, cells));
        for side in 0..sides.len() {
            target.add(block, side, &parts)?;
            if target.size >= storage.in_hand() {
                target.fill(storage, from)?;
            }
        }
    }
    target.fill(storage, from)
}

/// The blocks of the cache that a saved block's cells go to, and (from, to) within them.
type Parts = Vec<(usize, Vec<(usize, usize)>)>;

fn parts(block: &SavedBlock, cells: &[u32]) -> Parts {
    let mut parts = Parts::new();
    for (at, &cell) in bits(block.cells).zip(cells) {
        let (b, to) = (cell as usize / BLOCK, cell as usize % BLOCK);
        match parts.iter_mut().find(|p| p.0 == b) {
            Some((_, moves)) => moves.push((at, to)),
            None => parts.push((b, vec![(at, to)])),
        }
    }
    parts
}

/// The cache that a state is read into, and the blocks of it that are next.
struct Target<'a> {
    head: &'a Head,
    sides: &'a [SideShape],
    tables: &'a dyn Fn(usize, usize) -> BlockEntry,
    fresh: HashSet<usize>,
    /// (side, block)s that were in hand before: no longer fresh.
    begun: HashSet<(usize, usize)>,
    /// Saved blocks that are read next: with the side, and where their cells go.
    read: Vec<(&'a SavedBlock, usize, Rc<Parts>)>,
    blocks: Vec<InHand>,
    /// Of (side, block) in `blocks`.
    numbers: HashMap<(usize, usize), usize>,
    /// Bytes of `blocks`.
    size: usize,
}

impl<'a> Target<'a> {
    fn add(&mut self, saved: &'a SavedBlock, side: usize, parts: &Rc<Parts>) -> Result<(), String> {
        for &(block, _) in parts.iter() {
            if self.numbers.contains_key(&(side, block)) {
                continue;
            }
            let (shape, entry) = (self.sides[side], (self.tables)(side, block));
            let width = Width::from_bits(entry.width as u32);
            let width = width.ok_or_else(|| format!("block {block} has no storage"))?;
            let held = Held::new(shape, shape.group, width);
            let fresh = self.begun.insert((side, block)) && self.fresh.contains(&block);
            self.size += held.size();
            self.numbers.insert((side, block), self.blocks.len());
            self.blocks.push(InHand { held, entry, block, fresh });
        }
        self.read.push((saved, side, parts.clone()));
        Ok(())
    }

    /// Reads what was added, and gives the cache its blocks.
    fn fill(&mut self, storage: &mut dyn Storage, from: &mut dyn Read) -> Result<(), String> {
        batch::load(&mut self.blocks, storage)?;
        for (saved, side, parts) in take(&mut self.read) {
            // a block at 16 bits is not grouped yet
            let (width, shape) = (saved.widths[side], self.sides[side]);
            let group = if width == Width::B16 { shape.group } else { self.head.sides[side].group as usize };
            let mut held = Held::new(shape, group, width);
            held.read(saved.cells, from).map_err(|e| e.to_string())?;
            let mut to: Vec<(usize, &[(usize, usize)])> =
                parts.iter().map(|(block, moves)| (self.numbers[&(side, *block)], &moves[..])).collect();
            // widest first: what was narrowed for one block can't be wide in the next
            to.sort_by_key(|(number, _)| std::cmp::Reverse(self.blocks[*number].held.width()));
            let whole = to.len() == 1;
            for (number, moves) in to {
                put(&mut held, moves, whole, &mut self.blocks[number]).map_err(|e| e.to_string())?;
            }
        }
        batch::keep(&mut self.blocks, storage)?;
        self.blocks.clear();
        self.numbers.clear();
        self.size = 0;
        Ok(())
    }
}

/// Some cells of a saved block, or all of them, into a block of the cache.
fn put(saved: &mut Held, moves: &[(usize, usize)], whole: bool, to: &mut InHand) -> Result<(), KernelError> {
    let width = to.held.width();
    let same_group = saved.group == saved.shape.group;
    // in other groups there are no codes to go on from
    if width < saved.width() && (same_group || saved.width() == Width::B16) {
        convert::narrow(saved, width)?;
    }
    let in_place = whole && to.fresh && moves.iter().all(|(from, to)| from == to);
    to.fresh = false;
    if in_place && same_group && width == saved.width() {
        swap(saved, &mut to.held);
        return Ok(());
    }
    convert::copy(saved, &mut to.held, moves)
}
