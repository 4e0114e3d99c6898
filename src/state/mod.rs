//! Saving what sequences hold, and bringing it back, at every width.
//!
//! llama.cpp saves states (`llama_state_get_data`, slots of the server, prompt caches) as the positions of cells and their K
//! and V. With a plan K and V are what the blocks hold: f16, or codes and (min, max). A state says which blocks there were
//! and how wide each side of them was, and then gives their bytes, subtile by subtile, with cells that were not saved as
//! zeros. So a state is as small as the cache is, and comes back bit for bit where the room allows it.
//!
//! ```text
//! head    magic, sides (heads, head_dim, group), fingerprint of the transforms, blocks (cells, sink or not, width of each side)
//!         ... llama.cpp's own: position and sequences of each cell ...
//! data    [block][side]: subtiles [subtile][head], then, below 16 bits, params [head][group][min | max][subtile][16 tokens]
//! ```
//!
//! In another cache a block may have to be narrower (the steps of every shrink, on the codes), be packed together with others
//! (codes move as they are), or be wider (which codes allow without loss). A cache with other groups gets the values anew.

mod batch;
mod convert;
mod head;
mod held;
mod restore;
mod save;

pub use head::{Head, SavedSide};
pub use held::Held;
pub use restore::restore;
pub use save::{data_bytes, save};

use crate::geometry::Side;
use crate::kernels::RangeRule;

/// Where the bytes of a cache are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Pool(u32),
    /// The meta buffer of a device.
    Meta(u32),
}

/// Bytes of a row of the meta buffer; tables and parameters begin with one.
pub const META_ROW: usize = 64;

/// The memory of a cache, on whatever device, as rows: of a pool the pages of each head (`head * n_pages + page`), of a meta
/// buffer [`META_ROW`] bytes. Rows lie one behind the other on the caller's side, in the order of their numbers in `rows`.
pub trait Storage {
    /// # Errors
    /// A message.
    fn get(&mut self, place: Place, rows: &[i32], dst: &mut [u8]) -> Result<(), String>;

    /// # Errors
    /// A message.
    fn set(&mut self, place: Place, rows: &[i32], src: &[u8]) -> Result<(), String>;

    /// Bytes of blocks that are in hand at a time, a block of a side at least. There are as many again while they are copied.
    fn in_hand(&self) -> usize;
}

/// One side (K or V) of a layer, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct SideShape {
    pub side: Side,
    pub n_head_kv: usize,
    pub head_dim: usize,
    /// Values that share (min, max); 0 for a side that stays at 16 bits.
    pub group: usize,
    pub range: RangeRule,
    pub pool: u32,
    /// Pages of the pool.
    pub n_pages: usize,
    pub device: u32,
    /// Of the parameters, bytes in the device's meta buffer; a multiple of [`META_ROW`].
    pub params: usize,
}

impl SideShape {
    pub(crate) fn n_groups(&self) -> usize {
        self.head_dim.checked_div(self.group).unwrap_or(0)
    }
}
