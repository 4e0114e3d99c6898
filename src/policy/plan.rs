//! What a ubatch changes: new pages, narrower blocks, block operations.

use super::cells::{ids, subtiles, CellView, SeqSet};
use super::config::{Initial, Rule};
use super::pages::{count, covered, whole};
use super::stage::{BlockOp, Change, Item, Ops, PolicyError, Stage};
use super::state::Policy;
use super::survey::{Class, Survey, Terms};
use crate::geometry::{BlockEntry, Width, BLOCK, MAX_PAGES};

/// Blocks, and the width that each of their sides starts with.
pub type Starts = Vec<(u32, Vec<Width>)>;

/// No item: see [`Plan::index`].
pub const NONE: u32 = u32::MAX;

impl Policy {
    /// Plans a ubatch whose tokens have been entered in the cells `new_cells`, which `cells` includes. Returns the block
    /// operations that must run before the ubatch is computed, and stages the table that holds once they ran:
    /// [`commit`](Self::commit) or [`rollback`](Self::rollback) comes next (another plan rolls back first).
    ///
    /// # Errors
    /// [`PolicyError`]; nothing is staged then. Pools that [`Policy::new`] accepts have room for every ubatch.
    pub fn plan_ubatch(&mut self, cells: CellView, new_cells: &[u32]) -> Result<&Ops, PolicyError> {
        self.plan_blocks(cells, new_cells, &[])
    }

    /// [`plan_ubatch`](Self::plan_ubatch) for cells that come from a saved state: blocks that hold nothing else start at the
    /// widths of `starts` (sorted, of [`Placed`](super::Placed)) instead of 16 bits, or narrower where room is short.
    ///
    /// # Errors
    /// As for `plan_ubatch`.
    pub fn plan_blocks(
        &mut self,
        cells: CellView,
        new_cells: &[u32],
        starts: &[(u32, Vec<Width>)],
    ) -> Result<&Ops, PolicyError> {
        self.stage.clear();
        for n in [cells.pos.len(), cells.seq.len()] {
            if n != self.n_cells() {
                return Err(PolicyError::View { cells: n, expected: self.n_cells() });
            }
        }
        if let Some(&cell) = new_cells.iter().find(|c| cells.pos.get(**c as usize).is_none_or(|p| *p < 0)) {
            return Err(PolicyError::Cell { cell });
        }
        let touched = touched(cells, new_cells);
        let index = std::mem::take(&mut self.index);
        let mut plan = Plan::new(self, cells, new_cells, &touched, starts, index);
        let outcome = plan.decide(&touched);
        let (items, index) = plan.finish();
        self.index = index;
        outcome?;

        let mut stage = std::mem::take(&mut self.stage);
        let filled = self.fill(&items, &mut stage);
        if filled.is_ok() {
            stage.hints = newest_of_sequences(cells, new_cells);
            stage.touched.extend(touched.iter().map(|t| t.block));
            stage.n_tokens = new_cells.len() as u64;
            stage.open = true;
        } else {
            stage.clear();
        }
        self.stage = stage;
        filled.map(|()| &self.stage.ops)
    }

    /// Turns items into table entries, operations and pages that change hands.
    fn fill(&self, items: &[Item], stage: &mut Stage) -> Result<(), PolicyError> {
        // All pages are given up before any is taken: what an operation frees serves the same ubatch's new cells.
        for item in items {
            let pool = self.config.sides[item.side as usize].pool;
            let old = &self.table[item.side as usize][item.block as usize];
            let (entry, op) = convert(item, old, &mut stage.exchange[pool].freed);
            stage.ops.ops.extend(op);
            let cover = item.width.map_or(0, |w| whole(item.have | item.need, w));
            stage.changes.push(Change { side: item.side, block: item.block, cover, entry });
        }
        stage.ops.pages_freed = stage.exchange.iter().map(|e| e.freed.len() as u32).sum();
        for (item, change) in items.iter().zip(&mut stage.changes) {
            let Some(width) = item.width else { continue };
            let pool = self.config.sides[item.side as usize].pool;
            for (i, page) in change.entry.pages.iter_mut().enumerate().take(width.pages()) {
                if *page < 0 && item.need & covered(i, width) != 0 {
                    *page = stage.exchange[pool].take(&self.pools[pool]).ok_or(PolicyError::NoRoom {
                        pool,
                        needed: u64::from(self.pools[pool].n_pages) + 1,
                        have: self.pools[pool].n_pages,
                    })?;
                    stage.ops.pages_taken += 1;
                }
            }
            stage.ops.started_narrow += u32::from(item.fresh && width < Width::B16);
        }
        stage.ops.ops.sort_unstable_by_key(|op| (op.side, op.block));
        Ok(())
    }
}

/// The entry that an item makes of a block's old one, new pages still absent; pages given up go to `freed`.
fn convert(item: &Item, old: &BlockEntry, freed: &mut Vec<i32>) -> (BlockEntry, Option<BlockOp>) {
    let mut src = [-1; MAX_PAGES];
    let from = Width::from_bits(old.width as u32);
    for (i, &page) in old.pages.iter().enumerate().filter(|(_, p)| **p >= 0) {
        let keep = !item.fresh && item.width.is_some() && from.is_some_and(|w| item.have & covered(i, w) != 0);
        if keep {
            src[i] = page;
        } else {
            freed.push(page);
        }
    }
    let Some(to) = item.width else {
        return (BlockEntry::EMPTY, None);
    };
    let width = to.bits() as i32;
    let from = match from {
        Some(from) if from > to => from,
        _ => return (BlockEntry { width, pages: src }, None),
    };
    let mut dst = [-1; MAX_PAGES];
    let ratio = from.pages() / to.pages();
    for (target, sources) in dst.iter_mut().zip(src[..from.pages()].chunks(ratio)) {
        let mut present = sources.iter().copied().filter(|p| *p >= 0);
        *target = present.next().unwrap_or(-1);
        freed.extend(present);
    }
    let stored = src.iter().any(|p| *p >= 0);
    let op = BlockOp { side: item.side, block: item.block, from: from.bits() as i32, to: width, src, dst };
    (BlockEntry { width, pages: dst }, stored.then_some(op))
}

/// A block that gets new cells.
pub struct Touched {
    pub block: u32,
    /// Subtiles of the new cells.
    pub need: u8,
    /// All its used cells are new.
    pub fresh: bool,
}

fn touched(cells: CellView, new_cells: &[u32]) -> Vec<Touched> {
    let mut sorted = new_cells.to_vec();
    sorted.sort_unstable();
    sorted
        .chunk_by(|a, b| *a as usize / BLOCK == *b as usize / BLOCK)
        .map(|of_block| {
            let b = of_block[0] as usize / BLOCK;
            let new = of_block.iter().fold(0u128, |mask, c| mask | 1 << (*c as usize % BLOCK));
            Touched { block: b as u32, need: subtiles(new), fresh: cells.used(b) & !new == 0 }
        })
        .collect()
}

fn newest_of_sequences(cells: CellView, new_cells: &[u32]) -> Vec<(u32, u32)> {
    let mut newest: Vec<(u32, u32)> = Vec::new();
    for &cell in new_cells {
        for seq in ids(&cells.seq[cell as usize]) {
            match newest.iter_mut().find(|n| n.0 == seq) {
                Some(n) if cells.pos[cell as usize] >= cells.pos[n.1 as usize] => n.1 = cell,
                Some(_) => {}
                None => newest.push((seq, cell)),
            }
        }
    }
    newest
}

/// Widths and pages while they are being decided. Blocks that the ubatch leaves alone have no item.
pub struct Plan<'a> {
    pub policy: &'a Policy,
    pub cells: CellView<'a>,
    items: Vec<Item>,
    /// `[side * n_blocks + block]`: the block's item.
    index: Vec<u32>,
    /// Pages in use once the plan holds, by pool and by side.
    pub demand: Vec<i64>,
    pub pages: Vec<i64>,
    /// Blocks of a side at each width once the plan holds.
    pub widths: Vec<[u32; 4]>,
    active: SeqSet,
    survey: Option<Survey>,
}

impl<'a> Plan<'a> {
    fn new(
        policy: &'a Policy,
        cells: CellView<'a>,
        new_cells: &[u32],
        touched: &[Touched],
        starts: &[(u32, Vec<Width>)],
        index: Vec<u32>,
    ) -> Plan<'a> {
        let mut active = [0; 4];
        for &cell in new_cells {
            for (a, s) in active.iter_mut().zip(&cells.seq[cell as usize]) {
                *a |= s;
            }
        }
        let mut plan = Plan {
            policy,
            cells,
            items: Vec::new(),
            index,
            demand: policy.pools.iter().map(|p| i64::from(p.used())).collect(),
            pages: policy.pages.iter().map(|n| i64::from(*n)).collect(),
            widths: policy.widths.clone(),
            active,
            survey: None,
        };
        for t in touched {
            let b = t.block as usize;
            let start = starts.binary_search_by_key(&t.block, |s| s.0).ok().map(|i| &starts[i].1);
            for side in 0..policy.table.len() {
                match policy.width(side, b) {
                    Some(_) if !t.fresh => {
                        let need = t.need & !plan.cover(side, b);
                        if need != 0 {
                            plan.change(side, b, |item| item.need = need);
                        }
                    }
                    _ => plan.change(side, b, |item| {
                        let width = start.and_then(|s| s.get(side)).copied().unwrap_or(Width::B16);
                        *item = Item { fresh: true, width: Some(width), have: 0, need: t.need, ..*item };
                    }),
                }
            }
        }
        plan
    }

    /// Leaves the scratch index as it was found.
    fn finish(mut self) -> (Vec<Item>, Vec<u32>) {
        for item in &self.items {
            let i = self.at(item.side as usize, item.block as usize);
            self.index[i] = NONE;
        }
        (self.items, self.index)
    }

    fn decide(&mut self, touched: &[Touched]) -> Result<(), PolicyError> {
        if self.policy.config.initial != Initial::Bits(Width::B16) {
            self.narrow_to_caps(touched);
        }
        if self.policy.config.rule == Rule::Layer {
            self.keep_quotas();
        }
        for pool in 0..self.demand.len() {
            if self.short(pool) {
                self.relieve(pool)?;
            }
        }
        Ok(())
    }

    /// Blocks that may be narrowed go to the width that the plan starts with. Only blocks that are wider are looked at;
    /// a window that reaches into others is found a little late.
    fn narrow_to_caps(&mut self, touched: &[Touched]) {
        let policy = self.policy;
        let blocks: Vec<usize> = (0..policy.over_cap.len())
            .filter(|&b| policy.over_cap[b] > 0 || touched.binary_search_by_key(&b, |t| t.block as usize).is_ok())
            .collect();
        let survey = self.look(&blocks);
        for b in blocks {
            for side in 0..policy.table.len() {
                match survey.class[b] {
                    Class::Empty if self.width(side, b).is_some() => self.change(side, b, |item| item.width = None),
                    Class::Past if self.width(side, b).is_some_and(|w| w > policy.cap(side)) => {
                        self.set_width(side, b, policy.cap(side));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The survey of all blocks, done once; blocks and pages that hold no used cell any more are given up with it.
    pub fn survey(&mut self) -> Survey {
        if let Some(survey) = self.survey.take() {
            return survey;
        }
        let all: Vec<usize> = (0..self.policy.config.n_blocks as usize).collect();
        let survey = self.look(&all);
        for (b, &used) in survey.used.iter().enumerate() {
            if used == u8::MAX {
                continue;
            }
            for side in 0..self.policy.table.len() {
                let Some(width) = self.policy.width(side, b) else {
                    continue;
                };
                let cover = self.cover(side, b);
                if used == 0 {
                    self.change(side, b, |item| item.width = None);
                } else if cover & !whole(used, width) != 0 {
                    self.change(side, b, |item| item.have &= whole(used, width));
                }
            }
        }
        survey
    }

    /// Gives a survey back, so that the next caller need not look again.
    pub fn keep(&mut self, survey: Survey) {
        self.survey = Some(survey);
    }

    fn look(&self, blocks: &[usize]) -> Survey {
        let terms = Terms {
            sink_blocks: self.policy.sink_blocks(),
            window: self.policy.config.window as usize,
            active: &self.active,
        };
        Survey::new(self.cells, blocks.iter().copied(), &terms)
    }

    pub fn short(&self, pool: usize) -> bool {
        self.demand[pool] > i64::from(self.policy.pools[pool].n_pages)
    }

    /// Whether a block's tokens are all in this ubatch.
    pub fn is_fresh(&self, b: usize) -> bool {
        self.items.get(self.index[b] as usize).is_some_and(|item| item.fresh)
    }

    /// A block's width once the plan holds.
    pub fn width(&self, side: usize, b: usize) -> Option<Width> {
        match self.index[self.at(side, b)] {
            NONE => self.policy.width(side, b),
            i => self.items[i as usize].width,
        }
    }

    /// Pages that narrowing a block to `to` frees.
    pub fn gain(&self, side: usize, b: usize, to: Width) -> u32 {
        let (mask, width) = match self.index[self.at(side, b)] {
            NONE => (self.cover(side, b), self.policy.width(side, b)),
            i => {
                let item = &self.items[i as usize];
                (item.have | item.need, item.width)
            }
        };
        width.map_or(0, |w| count(mask, w).saturating_sub(count(mask, to)))
    }

    pub fn set_width(&mut self, side: usize, b: usize, to: Width) {
        self.change(side, b, |item| item.width = Some(to));
    }

    fn cover(&self, side: usize, b: usize) -> u8 {
        self.policy.cover[self.at(side, b)]
    }

    fn at(&self, side: usize, b: usize) -> usize {
        side * self.policy.config.n_blocks as usize + b
    }

    /// Changes a block's item and keeps the sums.
    fn change(&mut self, side: usize, b: usize, f: impl FnOnce(&mut Item)) {
        let at = self.at(side, b);
        if self.index[at] == NONE {
            self.index[at] = self.items.len() as u32;
            let (side, block) = (side as u32, b as u32);
            let (width, have) = (self.policy.width(side as usize, b), self.policy.cover[at]);
            self.items.push(Item { side, block, fresh: false, width, have, need: 0 });
        }
        let item = &mut self.items[self.index[at] as usize];
        let before = (item.width, weight(item));
        f(item);
        let after = (item.width, weight(item));
        let pages = after.1 - before.1;
        self.demand[self.policy.config.sides[side].pool] += pages;
        self.pages[side] += pages;
        if let Some(w) = before.0 {
            self.widths[side][w.index()] -= 1;
        }
        if let Some(w) = after.0 {
            self.widths[side][w.index()] += 1;
        }
    }
}

/// Pages that a block takes once the plan holds.
fn weight(item: &Item) -> i64 {
    item.width.map_or(0, |w| i64::from(count(item.have | item.need, w)))
}
