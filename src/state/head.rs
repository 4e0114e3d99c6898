//! The head of a saved state: what its data will be.

use std::io::{self, Read, Write};

use super::SideShape;
use crate::geometry::Width;
use crate::policy::SavedBlock;

/// "pmkvq", "st", version 1. llama.cpp's own states begin with a number of streams.
const MAGIC: [u8; 8] = *b"pmkvqst\x01";

/// What a state says of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedSide {
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub group: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub sides: Vec<SavedSide>,
    /// Of all transforms: K and V were stored under them.
    pub transforms: u64,
    pub blocks: Vec<SavedBlock>,
}

impl Head {
    pub fn n_cells(&self) -> usize {
        self.blocks.iter().map(|b| b.cells.count_ones() as usize).sum()
    }

    pub fn bytes(&self) -> usize {
        8 + 4 + 4 + 8 + 12 * self.sides.len() + self.blocks.len() * (1 + 16 + self.sides.len())
    }

    /// # Errors
    /// Those of the writer.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.bytes());
        bytes.extend(MAGIC);
        bytes.extend((self.sides.len() as u32).to_le_bytes());
        bytes.extend((self.blocks.len() as u32).to_le_bytes());
        bytes.extend(self.transforms.to_le_bytes());
        for side in &self.sides {
            for x in [side.n_head_kv, side.head_dim, side.group] {
                bytes.extend(x.to_le_bytes());
            }
        }
        for block in &self.blocks {
            bytes.push(block.sink.into());
            bytes.extend(block.cells.to_le_bytes());
            bytes.extend(block.widths.iter().map(|w| w.bits() as u8));
        }
        out.write_all(&bytes)
    }

    /// Reads a head and compares it with the cache that the state is for: `sides`, `transforms`, at most `n_ctx` tokens.
    ///
    /// # Errors
    /// A message that says what does not fit, and what to do.
    pub fn read(from: &mut dyn Read, sides: &[SideShape], transforms: u64, n_ctx: u32) -> Result<Head, String> {
        let magic: [u8; 8] = take(from)?;
        if magic != MAGIC {
            return Err("the state was not saved with a plan (or by another version of pmkvq): restore it without \
                        '--pmkvq-plan', or process the prompt again"
                .to_string());
        }
        let n_sides = u32::from_le_bytes(take(from)?) as usize;
        let n_blocks = u32::from_le_bytes(take(from)?) as usize;
        let saved_transforms = u64::from_le_bytes(take(from)?);
        if n_sides != sides.len() {
            return Err(format!(
                "the state is of a model with {} layers in the cache, this one has {}",
                n_sides / 2,
                sides.len() / 2
            ));
        }
        let mut saved_sides = Vec::with_capacity(n_sides);
        for (i, shape) in sides.iter().enumerate() {
            let [n_head_kv, head_dim, group]: [u32; 3] =
                [u32::from_le_bytes(take(from)?), u32::from_le_bytes(take(from)?), u32::from_le_bytes(take(from)?)];
            if n_head_kv as usize != shape.n_head_kv || head_dim as usize != shape.head_dim {
                return Err(format!(
                    "the state is of another model: layer {} of the cache has {n_head_kv} heads of {head_dim} there, {} of {} here",
                    i / 2,
                    shape.n_head_kv,
                    shape.head_dim
                ));
            }
            if group != 0 && (group % 16 != 0 || group > 128 || head_dim % group != 0) {
                return Err(format!("the state is damaged: groups of {group} values"));
            }
            saved_sides.push(SavedSide { n_head_kv, head_dim, group });
        }
        if saved_transforms != transforms {
            return Err("the state was saved under other transforms of K and V: restore it with the plan that it was \
                        saved with, or process the prompt again"
                .to_string());
        }
        // every block has a token
        if n_blocks > n_ctx as usize {
            return Err(format!("the state holds {n_blocks} blocks, a context of {n_ctx} tokens can't"));
        }
        let mut blocks = Vec::with_capacity(n_blocks);
        let mut widths = vec![0u8; n_sides];
        for _ in 0..n_blocks {
            let [sink] = take(from)?;
            let cells = u128::from_le_bytes(take(from)?);
            from.read_exact(&mut widths).map_err(|e| e.to_string())?;
            let widths = widths.iter().zip(&saved_sides).map(|(&bits, side)| {
                let width = Width::from_bits(bits.into()).filter(|w| *w == Width::B16 || side.group != 0);
                width.ok_or_else(|| format!("the state is damaged: a block of {bits} bits"))
            });
            let widths = widths.collect::<Result<Vec<Width>, String>>()?;
            if cells == 0 || sink > 1 {
                return Err("the state is damaged: a block without cells".to_string());
            }
            blocks.push(SavedBlock { sink: sink == 1, cells, widths });
        }
        let head = Head { sides: saved_sides, transforms, blocks };
        if head.n_cells() > n_ctx as usize {
            return Err(format!(
                "the state holds {} tokens, the context {n_ctx}: use a larger '--ctx-size'",
                head.n_cells()
            ));
        }
        Ok(head)
    }
}

fn take<const N: usize>(from: &mut dyn Read) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}
