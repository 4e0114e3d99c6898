//! Writing what cells hold.

use std::io::Write;

use super::batch::{self, InHand};
use super::{convert, Head, Held, SavedSide, SideShape, Storage};
use crate::geometry::{BlockEntry, Width, BLOCK, SUBTILE};
use crate::policy::{subtiles, SavedBlock};

impl Head {
    /// Of the cells that `saved` marks, one word for each block, in a cache whose tables are `tables`.
    ///
    /// # Errors
    /// A block that holds cells but has no storage: it was entered in llama.cpp's cells and never computed.
    pub fn of(
        sides: &[SideShape],
        transforms: u64,
        saved: &[u128],
        sink_blocks: usize,
        tables: &dyn Fn(usize, usize) -> BlockEntry,
    ) -> Result<Head, String> {
        let mut blocks = Vec::new();
        for (b, &cells) in saved.iter().enumerate().filter(|(_, cells)| **cells != 0) {
            let width = |side| Width::from_bits(tables(side, b).width as u32);
            let widths: Option<Vec<Width>> = (0..sides.len()).map(width).collect();
            let widths =
                widths.ok_or_else(|| format!("block {b} of the KV cache holds cells that were never computed"))?;
            blocks.push(SavedBlock { sink: b < sink_blocks, cells, widths });
        }
        let saved_side = |s: &SideShape| SavedSide {
            n_head_kv: s.n_head_kv as u32,
            head_dim: s.head_dim as u32,
            group: s.group as u32,
        };
        Ok(Head { sides: sides.iter().map(saved_side).collect(), transforms, blocks })
    }
}

/// Bytes that [`save`] writes.
pub fn data_bytes(head: &Head, sides: &[SideShape]) -> usize {
    let of_block =
        |b: &SavedBlock| -> usize { sides.iter().zip(&b.widths).map(|(s, &w)| Held::bytes(s, w, b.cells)).sum() };
    head.blocks.iter().map(of_block).sum()
}

/// Writes the data of the cells that `saved` marks.
///
/// # Errors
/// Those of the storage and the writer.
pub fn save(
    sides: &[SideShape],
    saved: &[u128],
    tables: &dyn Fn(usize, usize) -> BlockEntry,
    storage: &mut dyn Storage,
    out: &mut dyn Write,
) -> Result<(), String> {
    let used = saved.iter().enumerate().filter(|(_, cells)| **cells != 0);
    let mut blocks = used.flat_map(|(block, _)| {
        sides.iter().enumerate().map(move |(side, shape)| {
            let entry = tables(side, block);
            let width = Width::from_bits(entry.width as u32);
            let width =
                width.ok_or_else(|| format!("block {block} of the KV cache holds cells that were never computed"))?;
            Ok::<_, String>(InHand { held: Held::new(*shape, shape.group, width), entry, block, fresh: false })
        })
    });
    loop {
        let mut batch = Vec::new();
        let mut size = 0;
        while let Some(block) = if size < storage.in_hand() { blocks.next() } else { None } {
            let block = block?;
            size += block.held.size();
            batch.push(block);
        }
        if batch.is_empty() {
            return Ok(());
        }
        batch::load(&mut batch, storage)?;
        for InHand { mut held, block, .. } in batch {
            let cells = saved[block];
            // what other sequences, or none, have in the same pages is nobody else's business
            let live = subtiles(cells);
            let hidden = (0..BLOCK).filter(|at| live >> (at / SUBTILE) & 1 == 1 && cells >> at & 1 == 0);
            convert::blank(&mut held, hidden).map_err(|e| e.to_string())?;
            held.write(cells, out).map_err(|e| e.to_string())?;
        }
    }
}
