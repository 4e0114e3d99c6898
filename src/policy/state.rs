//! The table, the pools, and how staged changes reach them.

use super::cells::{CellView, Summary};
use super::config::{Config, ConfigError, Initial, MAX_SEQ};
use super::pages::{covered, Pool};
use super::plan::NONE;
use super::price::Prices;
use super::stage::{BlockOp, Stage};
use crate::geometry::{BlockEntry, Width, BLOCK};

/// The policy of one cache. See the [module](super) for the order of calls.
pub struct Policy {
    pub(super) config: Config,
    pub(super) prices: Prices,
    /// `[side][block]`
    pub(super) table: Vec<Vec<BlockEntry>>,
    /// `[side * n_blocks + block]`: subtiles covered by the block's pages.
    pub(super) cover: Vec<u8>,
    pub(super) pools: Vec<Pool>,
    /// Per side: pages in use, and blocks at 16, 8, 4, 2 bits.
    pub(super) pages: Vec<u32>,
    pub(super) widths: Vec<[u32; 4]>,
    /// Per block: sides wider than they may be once the block may be narrowed.
    pub(super) over_cap: Vec<u16>,
    /// Per sequence: where its newest cell was last put. Only a place to look first; never trusted.
    pub(super) hint: Vec<u32>,
    /// Blocks seen empty whose entries are still those of what they held.
    pub(super) emptied: Vec<bool>,
    pub(super) stage: Stage,
    /// `[side * n_blocks + block]`: scratch of a plan, see [`super::plan::Plan`].
    pub(super) index: Vec<u32>,
    pub(super) dirty: Vec<(u32, u32)>,
    /// Blocks shrunk by step: 16 -> 8, 8 -> 4, 4 -> 2.
    pub(super) shrinks: [u64; 3],
    pub(super) started_narrow: u64,
    pub(super) n_tokens: u64,
    pub(super) n_ubatches: u64,
}

impl Policy {
    /// # Errors
    /// [`ConfigError`] names what is wrong, see [`Config::check`].
    pub fn new(config: Config) -> Result<Policy, ConfigError> {
        config.check()?;
        let n_blocks = config.n_blocks as usize;
        let n_sides = config.sides.len();
        Ok(Policy {
            prices: Prices::new(&config),
            table: vec![vec![BlockEntry::EMPTY; n_blocks]; n_sides],
            cover: vec![0; n_sides * n_blocks],
            pools: config.pools.iter().map(|p| Pool::new(p.n_pages)).collect(),
            pages: vec![0; n_sides],
            widths: vec![[0; 4]; n_sides],
            over_cap: vec![0; n_blocks],
            hint: vec![u32::MAX; MAX_SEQ as usize],
            emptied: vec![false; n_blocks],
            stage: Stage::new(config.pools.len()),
            index: vec![NONE; n_sides * n_blocks],
            dirty: Vec::new(),
            shrinks: [0; 3],
            started_narrow: 0,
            n_tokens: 0,
            n_ubatches: 0,
            config,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Entries of a side (`2 * layer + side`), one per block.
    pub fn table(&self, side: usize) -> &[BlockEntry] {
        &self.table[side]
    }

    /// The (side, block) entries that the last [`commit`](Self::commit) or [`reset`](Self::reset) changed.
    pub fn dirty(&self) -> &[(u32, u32)] {
        &self.dirty
    }

    /// Looks for blocks that became empty, so that [`place`](Self::place) knows that they start anew at 16 bits even
    /// while several ubatches are placed before the first is planned. Worth a call per batch; nothing depends on it.
    pub fn observe(&mut self, cells: CellView) {
        if cells.pos.len() == self.n_cells() {
            for (mark, used) in self.emptied.iter_mut().zip(Summary::of(cells.pos).used) {
                *mark = used == 0;
            }
        }
    }

    /// The operations ran: the staged table becomes the table. Does nothing if nothing is staged.
    pub fn commit(&mut self) {
        if !self.stage.open {
            return;
        }
        self.dirty.clear();
        let changes = std::mem::take(&mut self.stage.changes);
        for change in &changes {
            self.set_entry(change.side as usize, change.block as usize, change.entry, change.cover);
        }
        self.stage.changes = changes;
        for (pool, exchange) in self.pools.iter_mut().zip(&mut self.stage.exchange) {
            exchange.apply(pool);
        }
        let ops = std::mem::take(&mut self.stage.ops.ops);
        ops.iter().for_each(|op| self.count_shrink(op));
        self.stage.ops.ops = ops;
        for &(seq, cell) in &self.stage.hints {
            self.hint[seq as usize] = cell;
        }
        for &b in &self.stage.touched {
            self.emptied[b as usize] = false;
        }
        self.started_narrow += u64::from(self.stage.ops.started_narrow);
        self.n_tokens += self.stage.n_tokens;
        self.n_ubatches += 1;
        self.stage.clear();
    }

    /// Only some of the operations ran (`done`, in the order of [`Ops::ops`](super::Ops); missing ones did not) and the
    /// ubatch will not be computed: blocks whose operation ran have the new width, all else stays what it was.
    pub fn commit_partly(&mut self, done: &[bool]) {
        self.dirty.clear();
        let ops = std::mem::take(&mut self.stage.ops.ops);
        for op in ops.iter().zip(done).filter(|(_, done)| **done).map(|(op, _)| op) {
            let (side, block) = (op.side as usize, op.block as usize);
            let entry = BlockEntry { width: op.to, pages: op.dst };
            let gone = self.table[side][block].pages.into_iter().filter(|p| *p >= 0 && !op.dst.contains(p));
            self.pools[self.config.sides[side].pool].free.extend(gone);
            let cover = Width::from_bits(op.to as u32).map_or(0, |w| {
                let present = op.dst.iter().enumerate().filter(|(_, p)| **p >= 0);
                present.fold(0, |mask, (i, _)| mask | covered(i, w))
            });
            self.set_entry(side, block, entry, cover);
            self.count_shrink(op);
        }
        self.stage.clear();
    }

    fn set_entry(&mut self, side: usize, block: usize, entry: BlockEntry, cover: u8) {
        self.tally(side, block, false);
        self.table[side][block] = entry;
        self.cover[side * self.config.n_blocks as usize + block] = cover;
        self.tally(side, block, true);
        self.dirty.push((side as u32, block as u32));
    }

    fn count_shrink(&mut self, op: &BlockOp) {
        for w in Width::ALL.into_iter().filter(|w| (*w as i32) <= op.from && (*w as i32) > op.to) {
            self.shrinks[w.index()] += 1;
        }
    }

    /// The operations did not run: what was staged is dropped and the table stays what it was.
    pub fn rollback(&mut self) {
        self.stage.clear();
    }

    /// The cache was cleared: every block is empty again. Counters of what happened stay.
    pub fn reset(&mut self) {
        self.stage.clear();
        self.dirty.clear();
        for (side, table) in self.table.iter_mut().enumerate() {
            for (block, entry) in table.iter_mut().enumerate() {
                if *entry != BlockEntry::EMPTY {
                    self.dirty.push((side as u32, block as u32));
                    *entry = BlockEntry::EMPTY;
                }
            }
        }
        self.cover.fill(0);
        self.pools.iter_mut().for_each(|p| *p = Pool::new(p.n_pages));
        self.pages.fill(0);
        self.widths.fill([0; 4]);
        self.over_cap.fill(0);
        self.hint.fill(u32::MAX);
        self.emptied.fill(false);
    }

    pub(super) fn n_cells(&self) -> usize {
        self.config.n_blocks as usize * BLOCK
    }

    pub(super) fn sink_blocks(&self) -> usize {
        self.config.sink_blocks() as usize
    }

    /// Width of a block of a side; `None` if it holds nothing.
    pub(super) fn width(&self, side: usize, block: usize) -> Option<Width> {
        Width::from_bits(self.table[side][block].width as u32)
    }

    /// The widest that a block of a side may be once it may be narrowed.
    pub(super) fn cap(&self, side: usize) -> Width {
        let floor = self.config.sides[side].floor();
        match self.config.initial {
            Initial::Bits(w) => w.max(floor),
            Initial::Final => floor,
        }
    }

    /// Adds an entry to the per-side and per-block sums, or takes it away.
    fn tally(&mut self, side: usize, block: usize, add: bool) {
        let Some(width) = self.width(side, block) else { return };
        let pages = self.table[side][block].pages.iter().filter(|p| **p >= 0).count() as u32;
        let over = u16::from(block >= self.sink_blocks() && width > self.cap(side));
        let (n, of_width, over_cap) =
            (&mut self.pages[side], &mut self.widths[side][width.index()], &mut self.over_cap[block]);
        if add {
            *n += pages;
            *of_width += 1;
            *over_cap += over;
        } else {
            *n -= pages;
            *of_width -= 1;
            *over_cap -= over;
        }
    }
}
