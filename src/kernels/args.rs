//! Views of the caller's memory. Each is made once, by an unsafe constructor that says what must hold; after that every
//! access is checked against the sizes given there.

use super::range::RangeRule;
use super::{layout, KernelError};
use crate::geometry::{page_bytes, BlockEntry, Side, Width, BLOCK, MAX_GROUP, SUBTILES};
use std::marker::PhantomData;

/// Largest head dimension that is accepted.
pub const MAX_HEAD_DIM: usize = 4096;

/// One layer's K or V: its pool, table and parameters.
#[derive(Clone, Copy, Debug)]
pub struct SideView<'a> {
    side: Side,
    pool: *mut u8,
    table: *const BlockEntry,
    params: *mut u16,
    n_head_kv: usize,
    n_pages: usize,
    n_blocks: usize,
    head_dim: usize,
    group: usize,
    rule: RangeRule,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: the constructor's contract allows use from any thread; kernels split the bytes that they write between threads.
unsafe impl Send for SideView<'_> {}
unsafe impl Sync for SideView<'_> {}

impl<'a> SideView<'a> {
    /// `group` is the number of values along the head dimension that share (min, max), or 0 for a side that stays at 16 bits.
    ///
    /// # Errors
    /// A null or misaligned pointer; a shape of zero; a group that is not a multiple of 16 up to 128 dividing `head_dim`.
    ///
    /// # Safety
    /// For `'a`: `pool` is valid for `n_head_kv * n_pages * 32 * head_dim` bytes, `table` for `n_blocks` entries, and, unless
    /// `group` is 0, `params` for `geometry::params_bytes(n_blocks, n_head_kv, head_dim / group)` bytes. Nobody changes the
    /// table, or writes what a kernel reads, while a kernel runs; for store and shrink the pool and the parameters are
    /// writable. What the memory holds does not matter: entries are checked, and garbage in unwritten cells is allowed.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn new(
        side: Side,
        pool: *mut u8,
        table: *const BlockEntry,
        params: *mut u16,
        n_head_kv: usize,
        n_pages: usize,
        n_blocks: usize,
        head_dim: usize,
        group: usize,
    ) -> Result<Self, KernelError> {
        if pool.is_null() {
            return Err(KernelError::Null("the pool"));
        }
        if table.is_null() {
            return Err(KernelError::Null("the block table"));
        }
        if params.is_null() && group != 0 {
            return Err(KernelError::Null("the parameters"));
        }
        if !pool.addr().is_multiple_of(4) || !table.is_aligned() || !params.is_aligned() {
            return Err(KernelError::Misaligned("the pool, table or parameters"));
        }
        if n_head_kv == 0 || n_pages == 0 || n_blocks == 0 || head_dim == 0 || head_dim > MAX_HEAD_DIM {
            return Err(KernelError::Shape(
                "a cache side needs heads, pages, blocks and a head dimension of 1 to 4096",
            ));
        }
        if group != 0 && (group > MAX_GROUP || !group.is_multiple_of(16) || !head_dim.is_multiple_of(group)) {
            return Err(KernelError::Shape(
                "a group must be a multiple of 16, at most 128, that divides the head dimension",
            ));
        }
        let memory = PhantomData;
        let rule = RangeRule::default();
        Ok(SideView { side, pool, table, params, n_head_kv, n_pages, n_blocks, head_dim, group, rule, memory })
    }

    /// The same side with what its step to 2 bits does with ranges; without this they stay.
    pub fn with_range_rule(self, rule: RangeRule) -> Self {
        SideView { rule, ..self }
    }

    pub fn range_rule(&self) -> RangeRule {
        self.rule
    }

    pub fn side(&self) -> Side {
        self.side
    }

    pub fn n_head_kv(&self) -> usize {
        self.n_head_kv
    }

    pub fn n_blocks(&self) -> usize {
        self.n_blocks
    }

    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Values in a group; 0 for a side that stays at 16 bits.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Groups of a row; 0 for a side that stays at 16 bits.
    pub fn n_groups(&self) -> usize {
        self.head_dim.checked_div(self.group).unwrap_or(0)
    }

    #[inline]
    pub fn entry(&self, block: usize) -> Result<BlockEntry, KernelError> {
        if block >= self.n_blocks {
            return Err(KernelError::BlockRange { block });
        }
        // SAFETY: within the table
        Ok(unsafe { self.table.add(block).read() })
    }

    /// The width of an entry, if this side can have it; `None` for an empty block.
    #[inline]
    pub fn width(&self, block: usize, entry: &BlockEntry) -> Result<Option<Width>, KernelError> {
        if entry.width == 0 {
            return Ok(None);
        }
        self.checked_width(block, entry.width).map(Some)
    }

    #[inline]
    pub fn checked_width(&self, block: usize, bits: i32) -> Result<Width, KernelError> {
        u32::try_from(bits)
            .ok()
            .and_then(Width::from_bits)
            .filter(|&w| w == Width::B16 || self.group != 0)
            .ok_or(KernelError::Width { block, width: bits })
    }

    /// The page of a head; `None` for -1.
    #[inline(always)]
    pub fn page(&self, head: usize, block: usize, page: i32) -> Result<Option<*mut u8>, KernelError> {
        if page == -1 {
            return Ok(None);
        }
        let p = usize::try_from(page).ok().filter(|&p| p < self.n_pages && head < self.n_head_kv);
        let p = p.ok_or(KernelError::PageRange { block, page })?;
        // SAFETY: head and page are within the pool
        Ok(Some(unsafe { self.pool.add((head * self.n_pages + p) * page_bytes(self.head_dim)) }))
    }

    /// A subtile's bytes; `None` if its page is absent. `width` must come from `entry`.
    pub fn subtile(
        &self,
        head: usize,
        block: usize,
        pages: &[i32],
        width: Width,
        subtile: usize,
    ) -> Result<Option<*mut u8>, KernelError> {
        let (slot, byte) = layout::subtile_position(width, self.head_dim, subtile);
        // SAFETY: a subtile lies within its page
        Ok(self.page(head, block, pages[slot])?.map(|p| unsafe { p.add(byte) }))
    }

    /// The bytes of the subtiles that `live` marks, eight bits; in the place of others stands any of them. `width` must come
    /// from `entry`.
    ///
    /// # Errors
    /// A marked subtile whose page is absent or beyond the pool.
    #[inline(always)]
    pub(crate) fn subtiles(
        &self,
        head: usize,
        block: usize,
        entry: &BlockEntry,
        width: Width,
        live: u8,
    ) -> Result<[*const u8; SUBTILES], KernelError> {
        let per_page = width.subtiles_per_page();
        let bytes = width.subtile_bytes(self.head_dim);
        let (mut found, mut any) = ([std::ptr::null::<u8>(); SUBTILES], std::ptr::null::<u8>());
        for slot in 0..width.pages() {
            let here = live >> (slot * per_page) & ((1u32 << per_page) - 1) as u8;
            if here == 0 {
                continue;
            }
            let page = self.page(head, block, entry.pages[slot])?;
            any = page.ok_or(KernelError::MissingPage { block, slot })?;
            for i in 0..per_page {
                found[slot * per_page + i] = any.wrapping_add(i * bytes);
            }
        }
        for p in &mut found {
            if p.is_null() {
                *p = any;
            }
        }
        Ok(found)
    }

    /// The parameters of a block, head and group: `[min, max][128 tokens]`. Panics beyond the table's shape.
    #[inline]
    pub fn params(&self, block: usize, head: usize, group: usize) -> *mut u16 {
        assert!(block < self.n_blocks && head < self.n_head_kv && group < self.n_groups());
        // SAFETY: checked just above
        unsafe { self.params.add(layout::param_index(self.n_head_kv, self.n_groups(), block, head, group, 0)) }
    }
}

/// f32 rows `[n_token][n_head][len]` with byte strides; the values of a row are contiguous.
#[derive(Clone, Copy, Debug)]
pub struct RowsF32<'a> {
    ptr: *const u8,
    len: usize,
    n_head: usize,
    n_token: usize,
    nb_head: usize,
    nb_token: usize,
    memory: PhantomData<&'a [f32]>,
}

// SAFETY: only read
unsafe impl Send for RowsF32<'_> {}
unsafe impl Sync for RowsF32<'_> {}

impl<'a> RowsF32<'a> {
    /// # Errors
    /// A null or misaligned pointer, strides that are not multiples of 4, a row of zero values.
    ///
    /// # Safety
    /// For `'a`, `len` values at `ptr + head * nb_head + token * nb_token` can be read for every head and token.
    pub unsafe fn new(
        ptr: *const f32,
        len: usize,
        n_head: usize,
        n_token: usize,
        nb_head: usize,
        nb_token: usize,
    ) -> Result<Self, KernelError> {
        if ptr.is_null() {
            return Err(KernelError::Null("a tensor of rows"));
        }
        if !ptr.is_aligned() || !nb_head.is_multiple_of(4) || !nb_token.is_multiple_of(4) {
            return Err(KernelError::Misaligned("a tensor of rows"));
        }
        if len == 0 || len > MAX_HEAD_DIM || n_head == 0 {
            return Err(KernelError::Shape("rows need a length of 1 to 4096 and at least one head"));
        }
        Ok(RowsF32 { ptr: ptr.cast(), len, n_head, n_token, nb_head, nb_token, memory: PhantomData })
    }

    /// Contiguous `[n_token][n_head][len]`.
    pub fn from_slice(values: &'a [f32], len: usize, n_head: usize) -> Result<Self, KernelError> {
        if len * n_head == 0 || !values.len().is_multiple_of(len * n_head) {
            return Err(KernelError::Shape("the values are not a whole number of tokens"));
        }
        // SAFETY: the rows tile the slice
        unsafe { Self::new(values.as_ptr(), len, n_head, values.len() / (len * n_head), 4 * len, 4 * len * n_head) }
    }

    pub fn row_len(&self) -> usize {
        self.len
    }

    pub fn n_head(&self) -> usize {
        self.n_head
    }

    pub fn n_token(&self) -> usize {
        self.n_token
    }

    /// Panics beyond the shape.
    pub fn row(&self, token: usize, head: usize) -> &'a [f32] {
        assert!(token < self.n_token && head < self.n_head);
        // SAFETY: within the shape that the constructor vouched for
        unsafe {
            let p = self.ptr.add(head * self.nb_head + token * self.nb_token);
            std::slice::from_raw_parts(p.cast(), self.len)
        }
    }
}

/// The attention mask, f16 `[n_token][n_kv]`: 0, -inf, or a distance that ALiBi multiplies by a slope.
#[derive(Clone, Copy, Debug)]
pub struct MaskF16<'a> {
    ptr: *const u8,
    n_kv: usize,
    n_token: usize,
    nb_token: usize,
    memory: PhantomData<&'a [u16]>,
}

// SAFETY: only read
unsafe impl Send for MaskF16<'_> {}
unsafe impl Sync for MaskF16<'_> {}

impl<'a> MaskF16<'a> {
    /// # Errors
    /// A null or misaligned pointer, or a stride that is not a multiple of 2.
    ///
    /// # Safety
    /// For `'a`, `n_kv` values at `ptr + token * nb_token` can be read for every token.
    pub unsafe fn new(ptr: *const u16, n_kv: usize, n_token: usize, nb_token: usize) -> Result<Self, KernelError> {
        if ptr.is_null() {
            return Err(KernelError::Null("the mask"));
        }
        if !ptr.is_aligned() || !nb_token.is_multiple_of(2) {
            return Err(KernelError::Misaligned("the mask"));
        }
        Ok(MaskF16 { ptr: ptr.cast(), n_kv, n_token, nb_token, memory: PhantomData })
    }

    /// Contiguous `[n_token][n_kv]`.
    pub fn from_slice(values: &'a [u16], n_kv: usize) -> Result<Self, KernelError> {
        if n_kv == 0 || !values.len().is_multiple_of(n_kv) {
            return Err(KernelError::Shape("the mask is not a whole number of rows"));
        }
        // SAFETY: the rows tile the slice
        unsafe { Self::new(values.as_ptr(), n_kv, values.len() / n_kv, 2 * n_kv) }
    }

    pub fn n_kv(&self) -> usize {
        self.n_kv
    }

    pub fn n_token(&self) -> usize {
        self.n_token
    }

    /// Panics beyond the shape.
    pub fn row(&self, token: usize) -> &'a [u16] {
        assert!(token < self.n_token);
        // SAFETY: within the shape that the constructor vouched for
        unsafe { std::slice::from_raw_parts(self.ptr.add(token * self.nb_token).cast(), self.n_kv) }
    }
}

/// The cells of the current batch, one per token; their columns in the mask.
pub type Cells<'a> = &'a [i64];

/// Partial results `[n_chunk][n_token][n_head][D_v + 2]`: the sum of weighted values, the largest score, the sum of weights.
#[derive(Debug)]
pub struct PartialsMut<'a> {
    ptr: *mut f32,
    len: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads write disjoint records
unsafe impl Send for PartialsMut<'_> {}
unsafe impl Sync for PartialsMut<'_> {}

impl<'a> PartialsMut<'a> {
    /// # Errors
    /// A null or misaligned pointer.
    ///
    /// # Safety
    /// For `'a`, `len` values at `ptr` can be written, and nobody else uses them while a kernel runs.
    pub unsafe fn new(ptr: *mut f32, len: usize) -> Result<Self, KernelError> {
        if ptr.is_null() {
            return Err(KernelError::Null("the output"));
        }
        if !ptr.is_aligned() {
            return Err(KernelError::Misaligned("the output"));
        }
        Ok(PartialsMut { ptr, len, memory: PhantomData })
    }

    pub fn from_slice(values: &'a mut [f32]) -> Self {
        PartialsMut { ptr: values.as_mut_ptr(), len: values.len(), memory: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Record `i` of records of `n` values. Panics beyond the length.
    ///
    /// # Safety
    /// No two threads ask for the same record, and no thread asks for it twice at once.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn record(&self, i: usize, n: usize) -> &mut [f32] {
        assert!((i + 1) * n <= self.len);
        std::slice::from_raw_parts_mut(self.ptr.add(i * n), n)
    }
}

/// Blocks that hold `n` cells.
pub(crate) const fn blocks_of(n: usize) -> usize {
    n.div_ceil(BLOCK)
}
