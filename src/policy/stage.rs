//! What a ubatch changes, before it is committed.

use std::fmt;

use super::pages::Exchange;
use crate::geometry::{BlockEntry, Width, MAX_PAGES};

/// One block operation on the storage, run by the kernels before the ubatch: convert a block of a side from one width
/// to a narrower one. Page lists are in the geometry's order, -1 for absent pages; `dst[t]` is one of the sources that
/// target page `t` is made of, and absent only if all of them are. No other operation of the ubatch names any of the pages.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockOp {
    /// `2 * layer + side`.
    pub side: u32,
    pub block: u32,
    /// Bits.
    pub from: i32,
    pub to: i32,
    pub src: [i32; MAX_PAGES],
    pub dst: [i32; MAX_PAGES],
}

const _: () = assert!(std::mem::size_of::<BlockOp>() == 80);

/// The block operations of a ubatch, by side and block, and what they come to.
#[derive(Clone, Debug, Default)]
pub struct Ops {
    pub ops: Vec<BlockOp>,
    /// Blocks of a side that start narrower than 16 bits in this ubatch, without an operation.
    pub started_narrow: u32,
    /// Pages that blocks gave up, and pages handed out, over all pools.
    pub pages_freed: u32,
    pub pages_taken: u32,
}

/// Why a ubatch could not be planned. The table is what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyError {
    /// The view has another number of cells than the policy was made for.
    View { cells: usize, expected: usize },
    /// A new cell that does not exist or that the view shows as empty.
    Cell { cell: u32 },
    /// A pool can't hold the ubatch even at final widths; a pool of the least size always can.
    NoRoom { pool: usize, needed: u64, have: u32 },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View { cells, expected } => write!(f, "policy: a view of {cells} cells, {expected} expected"),
            Self::Cell { cell } => write!(f, "policy: new cell {cell} holds no token"),
            Self::NoRoom { pool, needed, have } => {
                write!(f, "policy: pool {pool} has {have} pages, {needed} are needed at final widths")
            }
        }
    }
}

impl std::error::Error for PolicyError {}

/// A block of a side that the ubatch changes.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    pub side: u32,
    pub block: u32,
    /// What the block held is gone: its pages are freed, and it starts at `width` without an operation.
    pub fresh: bool,
    /// `None`: the block becomes empty.
    pub width: Option<Width>,
    /// Subtiles whose pages are kept.
    pub have: u8,
    /// Subtiles of new cells that have no page yet.
    pub need: u8,
}

/// A staged table entry.
#[derive(Clone, Copy)]
pub struct Change {
    pub side: u32,
    pub block: u32,
    /// Subtiles that the entry's pages cover.
    pub cover: u8,
    pub entry: BlockEntry,
}

/// Everything that [`super::Policy::commit`] applies.
#[derive(Default)]
pub struct Stage {
    pub ops: Ops,
    pub changes: Vec<Change>,
    pub exchange: Vec<Exchange>,
    /// (sequence, its newest cell)
    pub hints: Vec<(u32, u32)>,
    /// Blocks with new cells.
    pub touched: Vec<u32>,
    pub n_tokens: u64,
    /// Whether a plan waits for commit or rollback.
    pub open: bool,
}

impl Stage {
    pub fn new(pools: usize) -> Stage {
        Stage { exchange: (0..pools).map(|_| Exchange::default()).collect(), ..Stage::default() }
    }

    pub fn clear(&mut self) {
        self.ops.ops.clear();
        self.ops.started_narrow = 0;
        self.ops.pages_freed = 0;
        self.ops.pages_taken = 0;
        self.changes.clear();
        self.exchange.iter_mut().for_each(Exchange::clear);
        self.hints.clear();
        self.touched.clear();
        self.n_tokens = 0;
        self.open = false;
    }
}
