//! Figures for people: what the cache holds, and what happened to it.

use super::cells::CellView;
use super::state::Policy;
use super::survey::{Class, Survey, Terms};
use crate::geometry::BLOCK;

/// One side (K or V) of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideStats {
    /// Blocks at 16, 8, 4, 2 bits. A block whose tokens are gone counts until its pages are needed.
    pub blocks: [u32; 4],
    pub pages: u32,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    pub pages_used: u32,
    pub pages_free: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// `2 * layer + side`
    pub sides: Vec<SideStats>,
    pub pools: Vec<PoolStats>,
    /// Bytes of all pages in use.
    pub bytes_held: u64,
    /// Bytes of all pages.
    pub bytes_total: u64,
    /// Block operations by step: 16 -> 8, 8 -> 4, 4 -> 2 bits; one that goes several steps counts in each.
    pub shrinks: [u64; 3],
    /// Blocks of a side stored narrower than 16 bits from the start.
    pub started_narrow: u64,
    /// Tokens and ubatches committed since the policy was made.
    pub tokens_stored: u64,
    pub ubatches: u64,
}

impl Policy {
    /// As of the last commit.
    pub fn stats(&self) -> Stats {
        let bytes = |pool: usize, pages: u32| u64::from(pages) * self.config.pools[pool].bytes_per_page;
        let sides: Vec<SideStats> = (0..self.table.len())
            .map(|side| SideStats {
                blocks: self.widths[side],
                pages: self.pages[side],
                bytes: bytes(self.config.sides[side].pool, self.pages[side]),
            })
            .collect();
        Stats {
            bytes_held: sides.iter().map(|s| s.bytes).sum(),
            bytes_total: self.pools.iter().enumerate().map(|(i, p)| bytes(i, p.n_pages)).sum(),
            pools: self
                .pools
                .iter()
                .map(|p| PoolStats { pages_used: p.used(), pages_free: p.free.len() as u32 })
                .collect(),
            sides,
            shrinks: self.shrinks,
            started_narrow: self.started_narrow,
            tokens_stored: self.n_tokens,
            ubatches: self.n_ubatches,
        }
    }

    /// Tokens at 16, 8, 4, 2 bits, per side. Reads all positions: for reports, not for every token.
    ///
    /// Zeros for a view of another size.
    pub fn tokens_by_width(&self, cells: CellView) -> Vec<[u32; 4]> {
        self.count(cells, |_| true)
    }

    /// The same for the history alone: tokens of blocks that are neither sinks nor open nor in the window of a sequence.
    /// Reads sets of sequences as well: for reports.
    pub fn history_by_width(&self, cells: CellView) -> Vec<[u32; 4]> {
        if cells.pos.len() != self.n_cells() {
            return vec![[0; 4]; self.table.len()];
        }
        let terms =
            Terms { sink_blocks: self.sink_blocks(), window: self.config.window as usize, active: &Default::default() };
        let class = Survey::new(cells, 0..cells.pos.len() / BLOCK, &terms).class;
        self.count(cells, |b| class[b] == Class::Past)
    }

    fn count(&self, cells: CellView, counts: impl Fn(usize) -> bool) -> Vec<[u32; 4]> {
        let mut tokens = vec![[0; 4]; self.table.len()];
        if cells.pos.len() != self.n_cells() {
            return tokens;
        }
        for (b, block) in cells.pos.chunks_exact(BLOCK).enumerate().filter(|(b, _)| counts(*b)) {
            let used = block.iter().filter(|p| **p >= 0).count() as u32;
            for (side, of_side) in tokens.iter_mut().enumerate() {
                if let Some(w) = self.width(side, b) {
                    of_side[w.index()] += used;
                }
            }
        }
        tokens
    }
}
