//! A block of one side with memory of its own, on its way into or out of a cache.

use std::io::{Read, Write};

use super::{SideShape, META_ROW};
use crate::geometry::{page_bytes, params_bytes, BlockEntry, Width, BLOCK, MAX_PAGES, SUBTILE, SUBTILES};
use crate::kernels::{KernelError, SideView};
use crate::policy::subtiles;

/// Pages `[kv_head][n_pages]` and parameters `[kv_head][group][min | max][128 tokens]` of a block.
pub struct Held {
    pub shape: SideShape,
    /// What the values are grouped by; may differ from the shape's, where the block comes from elsewhere.
    pub group: usize,
    entry: BlockEntry,
    /// Of the width that it was made with.
    n_pages: usize,
    /// Words, so that they are aligned.
    pages: Vec<u32>,
    params: Vec<u16>,
}

impl Held {
    /// A block of zeros. `width` must be 16 bits where `group` is 0.
    pub fn new(shape: SideShape, group: usize, width: Width) -> Held {
        let n_groups = shape.head_dim.checked_div(group).unwrap_or(0);
        Held {
            shape,
            group,
            entry: entry(width),
            n_pages: width.pages(),
            pages: vec![0; shape.n_head_kv * width.pages() * page_bytes(shape.head_dim) / 4],
            params: vec![0; params_bytes(1, shape.n_head_kv, n_groups) / 2],
        }
    }

    pub fn width(&self) -> Width {
        // only ever set from a Width
        Width::from_bits(self.entry.width as u32).unwrap_or(Width::B16)
    }

    /// The block was converted in its own pages.
    pub(super) fn set_width(&mut self, width: Width) {
        self.entry = entry(width);
    }

    /// For kernels: a cache side of this block alone.
    ///
    /// # Errors
    /// None that a shape which a cache has can lead to.
    pub fn view(&mut self) -> Result<SideView<'_>, KernelError> {
        // SAFETY: pages and parameters are as long as the shape says, and borrowed for as long as the view lives
        let view = unsafe {
            SideView::new(
                self.shape.side,
                self.pages.as_mut_ptr().cast(),
                &self.entry,
                self.params.as_mut_ptr(),
                self.shape.n_head_kv,
                self.n_pages,
                1,
                self.shape.head_dim,
                self.group,
            )
        };
        view.map(|v| v.with_range_rule(self.shape.range))
    }

    fn page_bytes(&self) -> usize {
        page_bytes(self.shape.head_dim)
    }

    fn pages_mut(&mut self) -> &mut [u8] {
        // SAFETY: any bytes are words, and bytes need no alignment
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.pages.len() * 4) }
    }

    /// A subtile of a head.
    fn subtile(&mut self, head: usize, s: usize) -> &mut [u8] {
        let (slot, byte) = crate::kernels::layout::subtile_position(self.width(), self.shape.head_dim, s);
        let at = (head * self.n_pages + slot) * self.page_bytes() + byte;
        let n = self.width().subtile_bytes(self.shape.head_dim);
        &mut self.pages_mut()[at..at + n]
    }

    /// The parts of the parameters that belong to subtiles of `live`, in the order in which states have them.
    fn params_of(&mut self, live: u8) -> impl Iterator<Item = &mut [u16]> {
        let packed = self.entry.width != 16;
        self.params
            .chunks_mut(SUBTILE)
            .enumerate()
            .filter(move |(i, _)| packed && live >> (i % SUBTILES) & 1 == 1)
            .map(|(_, values)| values)
    }

    /// Bytes of a block in a state.
    pub(super) fn bytes(shape: &SideShape, width: Width, cells: u128) -> usize {
        let n = subtiles(cells).count_ones() as usize * shape.n_head_kv;
        let params = if width == Width::B16 { 0 } else { shape.n_groups() * 2 * SUBTILE * 2 };
        n * (width.subtile_bytes(shape.head_dim) + params)
    }

    /// The subtiles that hold any of `cells`, in the order of [`super`].
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&mut self, cells: u128, out: &mut dyn Write) -> std::io::Result<()> {
        let live = subtiles(cells);
        for s in (0..SUBTILES).filter(|s| live >> s & 1 == 1) {
            for head in 0..self.shape.n_head_kv {
                out.write_all(self.subtile(head, s))?;
            }
        }
        let mut bytes = Vec::new();
        for values in self.params_of(live) {
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        }
        out.write_all(&bytes)
    }

    /// The way back of [`write`](Self::write).
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read(&mut self, cells: u128, from: &mut dyn Read) -> std::io::Result<()> {
        let live = subtiles(cells);
        for s in (0..SUBTILES).filter(|s| live >> s & 1 == 1) {
            for head in 0..self.shape.n_head_kv {
                from.read_exact(self.subtile(head, s))?;
            }
        }
        let mut bytes = [0; 2 * SUBTILE];
        for values in self.params_of(live) {
            from.read_exact(&mut bytes)?;
            for (v, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                *v = u16::from_le_bytes([b[0], b[1]]);
            }
        }
        Ok(())
    }

    /// Bytes of memory.
    pub(super) fn size(&self) -> usize {
        self.pages.len() * 4 + self.params.len() * 2
    }

    /// Where a block `entry` of a cache has its pages, as rows of the pool, and the bytes of each here.
    pub(super) fn page_rows<'a>(&'a mut self, entry: &'a BlockEntry) -> impl Iterator<Item = (usize, &'a mut [u8])> {
        let (n_here, n_there, page) = (self.n_pages, self.shape.n_pages, self.page_bytes());
        let used = entry.width as usize / 2;
        self.pages_mut().chunks_exact_mut(page).enumerate().filter_map(move |(i, bytes)| {
            let (head, slot) = (i / n_here, i % n_here);
            let page = entry.pages.get(slot).filter(|page| **page >= 0 && slot < used)?;
            Some((head * n_there + *page as usize, bytes))
        })
    }

    /// The same of block `block`'s parameters in the meta buffer.
    pub(super) fn param_rows(&mut self, block: usize) -> impl Iterator<Item = (usize, &mut [u8])> {
        let size = self.params.len() * 2;
        let first = (self.shape.params + block * size) / META_ROW;
        // SAFETY: any bytes are words, and bytes need no alignment
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.params.as_mut_ptr().cast::<u8>(), size) };
        bytes.chunks_exact_mut(META_ROW).enumerate().map(move |(i, bytes)| (first + i, bytes))
    }
}

/// A block of `width` in pages of its own.
fn entry(width: Width) -> BlockEntry {
    let mut entry = BlockEntry { width: width.bits() as i32, pages: [-1; MAX_PAGES] };
    entry.pages.iter_mut().take(width.pages()).enumerate().for_each(|(i, page)| *page = i as i32);
    entry
}

const _: () = assert!(BLOCK == u128::BITS as usize);
// parameters are whole rows
const _: () = assert!((2 * BLOCK).is_multiple_of(META_ROW));
