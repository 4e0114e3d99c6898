//! The storage geometry that every part agrees on: widths, blocks, subtiles, pages.
//!
//! ```text
//! block   128 cells of one layer and side (K or V); has one width
//! subtile 16 consecutive cells of a block: one head takes 2 * width * head_dim bytes, contiguous
//! page    what 128 tokens of one head take at 2 bits: 32 * head_dim bytes = 1, 2, 4 or 8 subtiles at 16, 8, 4, 2 bits
//! ```
//!
//! A block at width `w` is a list of `w / 2` pages (8, 4, 2, 1); subtile `s` of the block lies in the list's entry
//! `s * w / 16`, at byte `(s % (16 / w)) * 2 * w * head_dim` of the page. The pool is laid out `[kv_head][page]`:
//! one page number stands for the same page of every head.

use serde::{Deserialize, Serialize};

/// Cells in a block.
pub const BLOCK: usize = 128;
/// Cells in a subtile.
pub const SUBTILE: usize = 16;
/// Subtiles in a block.
pub const SUBTILES: usize = BLOCK / SUBTILE;
/// The most pages that a block has (at 16 bits).
pub const MAX_PAGES: usize = 8;
/// The largest group of values along the head dimension that share a (min, max) pair.
pub const MAX_GROUP: usize = 128;

/// Bits per stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum Width {
    B2 = 2,
    B4 = 4,
    B8 = 8,
    B16 = 16,
}

impl Width {
    /// Widest first, the order in which a block goes through them.
    pub const ALL: [Width; 4] = [Width::B16, Width::B8, Width::B4, Width::B2];

    pub const fn bits(self) -> usize {
        self as usize
    }

    /// Position in [`Width::ALL`]: 0 for 16 bits, 3 for 2 bits.
    pub const fn index(self) -> usize {
        match self {
            Width::B16 => 0,
            Width::B8 => 1,
            Width::B4 => 2,
            Width::B2 => 3,
        }
    }

    pub const fn from_bits(bits: u32) -> Option<Width> {
        match bits {
            2 => Some(Width::B2),
            4 => Some(Width::B4),
            8 => Some(Width::B8),
            16 => Some(Width::B16),
            _ => None,
        }
    }

    /// The next narrower width.
    pub const fn narrower(self) -> Option<Width> {
        match self {
            Width::B16 => Some(Width::B8),
            Width::B8 => Some(Width::B4),
            Width::B4 => Some(Width::B2),
            Width::B2 => None,
        }
    }

    /// Pages of a full block: 8, 4, 2 or 1.
    pub const fn pages(self) -> usize {
        self.bits() / 2
    }

    /// Subtiles in a page: 1, 2, 4 or 8.
    pub const fn subtiles_per_page(self) -> usize {
        16 / self.bits()
    }

    /// Bytes of one head's subtile of 16 tokens.
    pub const fn subtile_bytes(self, head_dim: usize) -> usize {
        2 * self.bits() * head_dim
    }
}

impl TryFrom<u32> for Width {
    type Error = String;

    fn try_from(bits: u32) -> Result<Self, String> {
        Width::from_bits(bits).ok_or_else(|| format!("{bits} is not a width: expected 16, 8, 4 or 2"))
    }
}

impl From<Width> for u32 {
    fn from(w: Width) -> u32 {
        w as u32
    }
}

impl std::fmt::Display for Width {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.bits())
    }
}

/// Bytes of a page of one head.
pub const fn page_bytes(head_dim: usize) -> usize {
    32 * head_dim
}

/// Values that share a (min, max) pair: the largest multiple of 16 up to `max_group` that divides `head_dim`;
/// `None` where there is none, and the layer stays at 16 bits.
pub fn group_size(head_dim: usize, max_group: usize) -> Option<usize> {
    (1..=max_group.min(MAX_GROUP) / 16).rev().map(|n| n * 16).find(|g| head_dim > 0 && head_dim.is_multiple_of(*g))
}

/// K or V.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    K,
    V,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::K, Side::V];

    pub const fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::K => "K",
            Side::V => "V",
        })
    }
}

/// A block of one layer and side, as the kernels see it (C layout; `pmkvq_block` in `llama/pmkvq.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// 16, 8, 4 or 2; 0 for a block that holds nothing.
    pub width: i32,
    /// The first `width / 2` are page numbers in the pool; -1 where no token needs the page yet.
    pub pages: [i32; MAX_PAGES],
}

impl BlockEntry {
    pub const EMPTY: BlockEntry = BlockEntry { width: 0, pages: [-1; MAX_PAGES] };
}

const _: () = assert!(std::mem::size_of::<BlockEntry>() == 36);

/// Bytes of the table of a layer and side, padded so that the parameters behind it are aligned.
pub const fn table_bytes(n_blocks: usize) -> usize {
    (n_blocks * std::mem::size_of::<BlockEntry>()).next_multiple_of(64)
}

/// Bytes of the parameters of a layer and side, `[block][kv_head][group][min, max][128 tokens]` in f16.
pub const fn params_bytes(n_blocks: usize, n_head_kv: usize, n_groups: usize) -> usize {
    n_blocks * n_head_kv * n_groups * 2 * BLOCK * 2
}
