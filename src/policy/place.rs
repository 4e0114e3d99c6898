//! In which cells the tokens of a ubatch go.
//!
//! Each sequence fills a block of its own, so that a block ages as a whole and concurrent sequences don't interleave.

use super::cells::{CellView, Summary};
use super::config::MAX_SEQ;
use super::state::Policy;
use crate::geometry::{Width, BLOCK};

impl Policy {
    /// Cells for the tokens (position, first sequence id) of a ubatch, in their order. Changes nothing.
    ///
    /// `None` if more than `n_ctx` tokens would be held, or for a view of another size or a sequence id over 255.
    pub fn place(&self, cells: CellView, tokens: &[(i32, u32)]) -> Option<Vec<u32>> {
        if cells.pos.len() != self.n_cells() || cells.seq.len() != self.n_cells() {
            return None;
        }
        if tokens.iter().any(|t| t.1 >= MAX_SEQ) {
            return None;
        }
        let summary = Summary::of(cells.pos);
        if summary.total + tokens.len() > self.config.n_ctx as usize {
            return None;
        }
        let mut placing = Placing {
            policy: self,
            cells,
            next_empty: self.sink_blocks(),
            summary,
            opened: vec![NONE; self.config.n_blocks as usize],
            blocks: Vec::new(),
            seqs: Vec::new(),
        };
        tokens.iter().map(|&(pos, seq)| placing.token(pos, seq)).collect()
    }
}

const NONE: u32 = u32::MAX;

/// A block that the ubatch puts tokens in.
struct Block {
    /// One bit for each free cell.
    free: u128,
    /// The sequence whose tokens were put here in this ubatch, if it is one only.
    guest: Option<u32>,
    mixed: bool,
}

/// Where a sequence's next token goes.
struct Seq {
    id: u32,
    /// One past its newest cell, if its next token may go in the same block.
    open: Option<usize>,
    /// Blocks below this have no free cell, or are used by others as well.
    own: usize,
    any: usize,
}

struct Placing<'a> {
    policy: &'a Policy,
    cells: CellView<'a>,
    summary: Summary,
    /// Index in `blocks` by block, or NONE.
    opened: Vec<u32>,
    blocks: Vec<Block>,
    seqs: Vec<Seq>,
    /// Non-sink blocks below this are not wholly empty.
    next_empty: usize,
}

impl Placing<'_> {
    fn token(&mut self, pos: i32, seq: u32) -> Option<u32> {
        if pos >= 0 && (pos as u32) < self.policy.config.sink {
            for b in 0..self.policy.sink_blocks() {
                if let Some(cell) = self.take(b, 0, seq) {
                    return Some(cell);
                }
            }
        }
        let s = match self.seqs.iter().position(|s| s.id == seq) {
            Some(s) => s,
            None => {
                let open = self.open_block(pos, seq);
                self.seqs.push(Seq { id: seq, open, own: self.policy.sink_blocks(), any: self.policy.sink_blocks() });
                self.seqs.len() - 1
            }
        };
        let (cell, goes_on) = match self.in_open_block(s).or_else(|| self.in_empty_block(seq)) {
            Some(cell) => (cell, true),
            None => {
                let cell = self.in_any_block(s)?;
                (cell, self.may_open(cell as usize / BLOCK, seq))
            }
        };
        self.seqs[s].open = goes_on.then_some(cell as usize + 1);
        Some(cell)
    }

    fn in_open_block(&mut self, s: usize) -> Option<u32> {
        let after = self.seqs[s].open?;
        let id = self.seqs[s].id;
        // `after` is one past the newest cell, which may be the last of its block.
        let b = (after - 1) / BLOCK;
        let after = after - b * BLOCK;
        if self.opened[b] != NONE && self.blocks[self.opened[b] as usize].mixed {
            return None;
        }
        // Cells above the newest first: a block then ages in order, and a rolled back tail is filled again in place.
        self.take(b, after, id).or_else(|| self.take(b, 0, id))
    }

    fn in_empty_block(&mut self, seq: u32) -> Option<u32> {
        while self.next_empty < self.summary.used.len() {
            let b = self.next_empty;
            self.next_empty += 1;
            if self.summary.used[b] == 0 && self.opened[b] == NONE {
                return self.take(b, 0, seq);
            }
        }
        None
    }

    /// No block is empty: free cells of blocks that only this sequence uses, then of any, then of the sinks.
    fn in_any_block(&mut self, s: usize) -> Option<u32> {
        let n = self.summary.used.len();
        let id = self.seqs[s].id;
        while self.seqs[s].own < n {
            let b = self.seqs[s].own;
            if self.has_room(b) && self.only(b, id) {
                if let Some(cell) = self.take(b, 0, id) {
                    return Some(cell);
                }
            }
            self.seqs[s].own += 1;
        }
        while self.seqs[s].any < n {
            let b = self.seqs[s].any;
            if self.has_room(b) {
                if let Some(cell) = self.take(b, 0, id) {
                    return Some(cell);
                }
            }
            self.seqs[s].any += 1;
        }
        (0..self.policy.sink_blocks()).find_map(|b| self.take(b, 0, id))
    }

    fn has_room(&self, b: usize) -> bool {
        match self.opened[b] {
            NONE => (self.summary.used[b] as usize) < BLOCK,
            i => self.blocks[i as usize].free != 0,
        }
    }

    /// Whether only `seq` uses a block, the tokens placed so far included.
    fn only(&self, b: usize, seq: u32) -> bool {
        let guests = match self.opened[b] {
            NONE => true,
            i => {
                let block = &self.blocks[i as usize];
                !block.mixed && block.guest.is_none_or(|g| g == seq)
            }
        };
        guests && self.cells.only(b, seq)
    }

    /// The first free cell of a block at or above `from`.
    fn take(&mut self, b: usize, from: usize, seq: u32) -> Option<u32> {
        if from >= BLOCK || !self.has_room(b) {
            return None;
        }
        if self.opened[b] == NONE {
            self.opened[b] = self.blocks.len() as u32;
            self.blocks.push(Block { free: !self.cells.used(b), guest: None, mixed: false });
        }
        let block = &mut self.blocks[self.opened[b] as usize];
        let above = block.free >> from << from;
        if above == 0 {
            return None;
        }
        let cell = above.trailing_zeros();
        block.free &= !(1 << cell);
        match block.guest {
            None => block.guest = Some(seq),
            Some(g) => block.mixed |= g != seq,
        }
        Some((b * BLOCK) as u32 + cell)
    }

    /// The block that holds the newest cell of `seq`, if its next tokens may go there too: not a sink block, at 16 bits on
    /// every side, and used by `seq` alone. Given as one past the newest cell in it.
    fn open_block(&self, pos: i32, seq: u32) -> Option<usize> {
        let mut newest = self.newest_cells(pos, seq);
        newest.retain(|&cell| self.has_room(cell / BLOCK) && self.may_open(cell / BLOCK, seq));
        // Image tokens share a position, so that the newest may be many: go on after the last of the first such block.
        let block = newest.first()? / BLOCK;
        newest.iter().filter(|&&c| c / BLOCK == block).max().map(|last| last + 1)
    }

    /// All cells of a sequence at its largest position, by cell.
    fn newest_cells(&self, pos: i32, seq: u32) -> Vec<usize> {
        // Where the last commit put the newest cell; then, without touching sequence sets, cells of the positions that
        // a continuing sequence must have; last a search among all.
        let hint = self.policy.hint[seq as usize] as usize;
        if pos > 0 && hint < self.cells.pos.len() && self.cells.pos[hint] == pos - 1 && self.cells.has(hint, seq) {
            return vec![hint];
        }
        for p in [pos, pos - 1] {
            let found = self.cells_at(p, seq);
            if !found.is_empty() {
                return found;
            }
        }
        // Nothing can lie below the first position.
        if pos <= 0 {
            return Vec::new();
        }
        let newest = (0..self.cells.pos.len())
            .filter(|&c| self.cells.pos[c] >= 0 && self.cells.has(c, seq))
            .map(|c| self.cells.pos[c])
            .max();
        newest.map_or_else(Vec::new, |p| self.cells_at(p, seq))
    }

    fn cells_at(&self, pos: i32, seq: u32) -> Vec<usize> {
        let mut found = Vec::new();
        if pos < 0 {
            return found;
        }
        for (b, &newest) in self.summary.newest.iter().enumerate() {
            if newest < pos || !self.cells.block(b).contains(&pos) {
                continue;
            }
            let cells = b * BLOCK..(b + 1) * BLOCK;
            found.extend(cells.filter(|&c| self.cells.pos[c] == pos && self.cells.has(c, seq)));
        }
        found
    }

    fn may_open(&self, b: usize, seq: u32) -> bool {
        b >= self.policy.sink_blocks() && self.at_16_bits(b) && self.only(b, seq)
    }

    /// Whether a block was never narrowed on any side, as far as its present tokens go.
    fn at_16_bits(&self, b: usize) -> bool {
        let policy = self.policy;
        policy.emptied[b] || (0..policy.table.len()).all(|side| policy.width(side, b).is_none_or(|w| w == Width::B16))
    }
}
