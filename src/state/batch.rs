//! Blocks on their way between a cache and memory of their own, many at a time: on a device a copy takes as long as some
//! hundred KiB of it do, and a block lies in up to 8 pages of each head.

use super::{Held, Place, Storage, META_ROW};
use crate::geometry::{page_bytes, BlockEntry};

/// A block in hand, and which of the cache it is.
pub struct InHand {
    pub held: Held,
    pub entry: BlockEntry,
    pub block: usize,
    /// There is nothing in the cache that belongs to it.
    pub fresh: bool,
}

impl InHand {
    /// Where the cache has it, and the size of rows there.
    fn places(&self) -> [(Place, usize); 2] {
        let shape = &self.held.shape;
        [(Place::Pool(shape.pool), page_bytes(shape.head_dim)), (Place::Meta(shape.device), META_ROW)]
    }

    /// Its rows of a place, and their bytes here. Pages that no token needs yet have none.
    fn rows(&mut self, place: Place) -> Box<dyn Iterator<Item = (usize, &mut [u8])> + '_> {
        let shape = &self.held.shape;
        if place == Place::Pool(shape.pool) {
            Box::new(self.held.page_rows(&self.entry))
        } else if place == Place::Meta(shape.device) && self.entry.width != 16 {
            Box::new(self.held.param_rows(self.block))
        } else {
            Box::new(std::iter::empty())
        }
    }
}

/// The places that blocks are in, each with the numbers of all their rows there and their size.
fn places(blocks: &mut [&mut InHand]) -> Result<Vec<(Place, Vec<i32>, usize)>, String> {
    let mut places: Vec<(Place, Vec<i32>, usize)> = Vec::new();
    for block in blocks {
        for (place, size) in block.places() {
            let at = places.iter().position(|p| p.0 == place).unwrap_or_else(|| {
                places.push((place, Vec::new(), size));
                places.len() - 1
            });
            for (row, _) in block.rows(place) {
                places[at].1.push(i32::try_from(row).map_err(|_| "the KV cache is too large for states")?);
            }
        }
    }
    places.retain(|(_, rows, _)| !rows.is_empty());
    Ok(places)
}

/// From the cache, unless fresh.
///
/// # Errors
/// Those of the storage.
pub fn load(blocks: &mut [InHand], storage: &mut dyn Storage) -> Result<(), String> {
    let mut blocks: Vec<&mut InHand> = blocks.iter_mut().filter(|b| !b.fresh).collect();
    let mut bytes = Vec::new();
    for (place, rows, size) in places(&mut blocks)? {
        bytes.resize(rows.len() * size, 0);
        storage.get(place, &rows, &mut bytes)?;
        let ours = blocks.iter_mut().flat_map(|b| b.rows(place));
        ours.zip(bytes.chunks_exact(size)).for_each(|((_, to), from)| to.copy_from_slice(from));
    }
    Ok(())
}

/// Into the cache.
///
/// # Errors
/// Those of the storage.
pub fn keep(blocks: &mut [InHand], storage: &mut dyn Storage) -> Result<(), String> {
    let mut blocks: Vec<&mut InHand> = blocks.iter_mut().collect();
    let mut bytes = Vec::new();
    for (place, rows, _) in places(&mut blocks)? {
        bytes.clear();
        blocks.iter_mut().flat_map(|b| b.rows(place)).for_each(|(_, from)| bytes.extend_from_slice(from));
        storage.set(place, &rows, &bytes)?;
    }
    Ok(())
}
