//! llama.cpp's cells as the policy sees them.

use crate::geometry::{BLOCK, SUBTILE};

/// A set of sequence ids, one bit each.
pub type SeqSet = [u64; 4];

/// The KV cells as llama.cpp holds them: `pos[i]` is -1 for an empty cell; `seq[i]` is the set of sequences of a used one.
#[derive(Clone, Copy)]
pub struct CellView<'a> {
    pub pos: &'a [i32],
    pub seq: &'a [SeqSet],
}

impl<'a> CellView<'a> {
    /// Positions of a block's cells.
    pub(crate) fn block(&self, b: usize) -> &'a [i32] {
        &self.pos[b * BLOCK..(b + 1) * BLOCK]
    }

    pub(crate) fn has(&self, cell: usize, seq: u32) -> bool {
        has(&self.seq[cell], seq)
    }

    /// One bit for each used cell of a block.
    pub(crate) fn used(&self, b: usize) -> u128 {
        let mut mask = 0u128;
        for (i, &p) in self.block(b).iter().enumerate() {
            mask |= u128::from(p >= 0) << i;
        }
        mask
    }

    /// Whether every used cell of a block belongs to `seq`.
    pub(crate) fn only(&self, b: usize, seq: u32) -> bool {
        let base = b * BLOCK;
        (0..BLOCK).all(|i| self.pos[base + i] < 0 || self.has(base + i, seq))
    }
}

pub(crate) fn has(set: &SeqSet, seq: u32) -> bool {
    set.get(seq as usize / 64).is_some_and(|word| word >> (seq % 64) & 1 == 1)
}

pub(crate) fn meets(a: &SeqSet, b: &SeqSet) -> bool {
    a.iter().zip(b).any(|(x, y)| x & y != 0)
}

/// The ids in a set, rising.
pub(crate) fn ids(set: &SeqSet) -> impl Iterator<Item = u32> + '_ {
    set.iter().enumerate().flat_map(|(i, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                i as u32 * 64 + bit
            })
        })
    })
}

/// The subtiles that hold any cell of a mask.
pub(crate) fn subtiles(cells: u128) -> u8 {
    let mut mask = 0u8;
    for s in 0..BLOCK / SUBTILE {
        mask |= u8::from(cells >> (s * SUBTILE) & 0xffff != 0) << s;
    }
    mask
}

/// Used cells and largest position of every block, from one pass over the positions alone: the 32-byte sequence sets
/// are eight times as much memory and stay untouched.
pub(crate) struct Summary {
    pub used: Vec<u16>,
    pub newest: Vec<i32>,
    pub total: usize,
}

impl Summary {
    pub fn of(pos: &[i32]) -> Summary {
        let n = pos.len() / BLOCK;
        let mut summary = Summary { used: Vec::with_capacity(n), newest: Vec::with_capacity(n), total: 0 };
        for block in pos.chunks_exact(BLOCK) {
            let mut newest = -1i32;
            let mut used = 0i32;
            for &p in block {
                newest = newest.max(p);
                used += i32::from(p >= 0);
            }
            summary.used.push(used as u16);
            summary.newest.push(newest);
            summary.total += used as usize;
        }
        summary
    }
}
