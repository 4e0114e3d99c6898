//! One task: a KV head, a tile of queries, a chunk of blocks. The masks of its blocks, block after block, then the record.

use super::super::args::MaskF16;
use super::super::dots::Dots;
use super::super::f16;
use super::super::lanes::{Lanes, LANES};
use super::super::scratch::Scratch;
use super::super::KernelError;
use super::ahead::Place;
use super::block::{self, Source};
use super::packed::{self, Query, WEIGHT_WORDS};
use super::split::{self, tile_tokens, Schedule, Tasks};
use super::{AttentionArgs, Shape};
use crate::geometry::{BLOCK, SUBTILE};
use std::ops::Range;

/// The buffers of one task, as pointers into the thread's scratch.
pub(super) struct Work {
    /// Queries in f32, multiplied by the scores' scale, `[row][stride_q]`.
    pub q: *mut f32,
    pub stride_q: usize,
    /// Queries as integers, where K has groups: `head_dim / 4` words, and twice as many, in a row; what they mean.
    pub narrow: *mut u32,
    pub wide: *mut u32,
    pub groups: *mut Query,
    /// Sums of weighted values, `[row][stride_v]`.
    pub acc: *mut f32,
    pub stride_v: usize,
    /// Scores, then weights, of a block: `[row][128]`.
    pub scores: *mut f32,
    /// Largest score and sum of weights so far; what the sums must be multiplied by after a block.
    pub max: *mut f32,
    pub sum: *mut f32,
    pub factors: *mut f32,
    /// ALiBi's slopes, `[head of the group]`.
    pub slopes: *mut f32,
    /// f32 `[token of the tile][128]`.
    pub mask: *mut f32,
    /// Two subtiles of keys or values in f32.
    pub tile: *mut f32,
    /// A block of the current batch in f16, `[128][D]`.
    pub current: *mut u16,
    /// A block's codes, one to a byte, `[8 subtiles][16 * D]`.
    pub codes: *mut u8,
    /// (scale, min) of a block's tokens, `[group][2][128]`.
    pub scales: *mut f32,
    /// Room for eight rows of a block's weights.
    pub words: *mut u32,
}

impl Work {
    fn new(p: &Shape, a: &AttentionArgs, tokens: usize, s: &mut Scratch) -> Work {
        let rows = tokens * p.ratio;
        let stride_q = p.dk.next_multiple_of(LANES);
        let stride_v = p.dv.next_multiple_of(LANES);
        let (gk, gv) = (a.k.n_groups(), a.v.n_groups());
        let d = p.dk.max(p.dv);
        let state = s.rows.take::<f32>(3 * rows + p.ratio).as_mut_ptr();
        let after = |n: usize| state.wrapping_add(n);
        Work {
            q: s.q.take(rows * stride_q).as_mut_ptr(),
            stride_q,
            narrow: s.narrow.take(rows * stride_q / 4).as_mut_ptr(),
            wide: s.wide.take(rows * stride_q / 2).as_mut_ptr(),
            groups: s.groups.take(rows * gk).as_mut_ptr(),
            acc: s.acc.take(rows * stride_v).as_mut_ptr(),
            stride_v,
            scores: s.scores.take(rows * BLOCK).as_mut_ptr(),
            max: state,
            sum: after(rows),
            factors: after(2 * rows),
            slopes: after(3 * rows),
            mask: s.mask.take(tokens * BLOCK).as_mut_ptr(),
            tile: s.tile.take(2 * SUBTILE * stride_q.max(stride_v)).as_mut_ptr(),
            current: s.current.take(BLOCK * d).as_mut_ptr(),
            codes: s.codes.take(BLOCK * d).as_mut_ptr(),
            scales: s.scales.take(gk.max(gv) * 2 * BLOCK).as_mut_ptr(),
            words: s.words.take(8 * 2 * WEIGHT_WORDS).as_mut_ptr(),
        }
    }
}

/// The queries of a block that see anything, and the cells that anyone sees.
#[derive(Clone, Copy)]
pub(super) struct Visible {
    /// Bit t: query t of the tile.
    pub queries: u64,
    pub cells: u128,
    /// Bit t: query t sees every cell, with nothing added.
    pub whole: u64,
}

/// The tasks of one thread.
///
/// # Safety
/// The CPU has the instructions of `I`.
#[inline(always)]
pub(super) unsafe fn run<I: Dots>(
    a: &AttentionArgs,
    p: &Shape,
    sched: Schedule,
    s: &mut Scratch,
) -> Result<(), KernelError> {
    let tokens = tile_tokens(p.ratio).min(p.n_token.max(1));
    let excluded = s.pages.take::<u128>(p.n_blocks).as_mut_ptr();
    let excluded = std::slice::from_raw_parts_mut(excluded, p.n_blocks);
    excluded.fill(0);
    if a.current.is_some() {
        for &cell in a.cells {
            excluded[cell as usize / BLOCK] |= 1 << (cell as usize % BLOCK);
        }
    }
    let starts = s.chunks.take::<u32>(p.n_chunk + 1).as_mut_ptr();
    let starts = std::slice::from_raw_parts_mut(starts, p.n_chunk + 1);
    split::chunk_starts(a, p, starts)?;
    let work = Work::new(p, a, tokens, s);
    let n_tiles = p.n_token.div_ceil(tokens);
    let n_tasks = p.n_head_kv * n_tiles * p.n_chunk;
    let mut result = Ok(());
    let mut ready = None;
    for i in Tasks::new(sched, n_tasks) {
        let (chunk, tile, head) = (i % p.n_chunk, i / p.n_chunk % n_tiles, i / p.n_chunk / n_tiles);
        let range = tile * tokens..((tile + 1) * tokens).min(p.n_token);
        // chunks of the same head and queries follow one another
        if ready != Some((tile, head)) {
            queries::<I>(a, p, &work, head, &range);
            ready = Some((tile, head));
        }
        let blocks = starts[chunk] as usize..starts[chunk + 1] as usize;
        let done = task::<I>(a, p, &work, excluded, head, range, chunk, blocks);
        result = result.and(done);
    }
    result
}

/// The queries of a tile, multiplied by the scores' scale, in f32 and as integers.
#[inline(always)]
unsafe fn queries<I: Dots>(a: &AttentionArgs, p: &Shape, w: &Work, head: usize, tokens: &Range<usize>) {
    for h in 0..p.ratio {
        *w.slopes.add(h) = p.slope(head * p.ratio + h);
    }
    let groups = a.k.n_groups();
    for t in 0..tokens.len() {
        for h in 0..p.ratio {
            let row = t * p.ratio + h;
            let q = a.q.row(tokens.start + t, head * p.ratio + h);
            let out = w.q.add(row * w.stride_q);
            for (i, x) in q.iter().enumerate() {
                *out.add(i) = x * p.scale;
            }
            if groups > 0 {
                let (narrow, wide) = (w.narrow.add(row * p.dk / 4), w.wide.add(row * p.dk / 2));
                packed::quantize_query::<I>(out, p.dk, a.k.group(), narrow, wide, w.groups.add(row * groups));
            }
        }
    }
}

#[inline(always)]
unsafe fn task<I: Dots>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    excluded: &[u128],
    head: usize,
    tokens: Range<usize>,
    chunk: usize,
    blocks: Range<usize>,
) -> Result<(), KernelError> {
    let rows = tokens.len() * p.ratio;
    for row in 0..rows {
        *w.max.add(row) = f32::NEG_INFINITY;
        *w.sum.add(row) = 0.0;
    }
    std::ptr::write_bytes(w.acc, 0, rows * w.stride_v);

    let mut result = Ok(());
    let mut here = Place::of(a, p, head, blocks.start);
    for block in blocks {
        let next = Place::of(a, p, head, block + 1);
        let done = cache_block::<I>(a, p, w, excluded[block], head, &tokens, block, &here, &next);
        result = result.and(done);
        here = next;
    }
    if chunk == p.n_chunk - 1 && a.current.is_some() {
        for first in (0..a.cells.len()).step_by(BLOCK) {
            let visible = current_mask(a, w, &tokens, first);
            if visible.cells != 0 {
                let done = block::step::<I>(a, p, w, head, visible, Source::Current { first });
                result = result.and(done);
            }
        }
    }

    for t in 0..tokens.len() {
        for h in 0..p.ratio {
            let row = t * p.ratio + h;
            let record = (chunk * p.n_token + tokens.start + t) * p.n_head + head * p.ratio + h;
            // a record belongs to one task
            let out = a.out.record(record, p.dv + 2);
            std::ptr::copy_nonoverlapping(w.acc.add(row * w.stride_v), out.as_mut_ptr(), p.dv);
            out[p.dv] = *w.max.add(row);
            out[p.dv + 1] = *w.sum.add(row);
        }
    }
    result
}

#[inline(always)]
unsafe fn cache_block<I: Dots>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    excluded: u128,
    head: usize,
    tokens: &Range<usize>,
    block: usize,
    here: &[Place; 2],
    next: &[Place; 2],
) -> Result<(), KernelError> {
    let (Some(wk), Some(wv)) = (here[0].width(&a.k, block)?, here[1].width(&a.v, block)?) else {
        return Ok(());
    };
    let visible = block_mask::<I::L>(&a.mask, p, w, tokens, block, excluded);
    if visible.cells == 0 {
        return Ok(());
    }
    block::step::<I>(a, p, w, head, visible, Source::Cache { block, widths: [wk, wv], here, next })
}

/// The mask of a block in f32, excluded cells and those beyond `n_kv` at -inf.
#[inline(always)]
unsafe fn block_mask<L: Lanes>(
    mask: &MaskF16,
    p: &Shape,
    w: &Work,
    tokens: &Range<usize>,
    block: usize,
    excluded: u128,
) -> Visible {
    let n = (p.n_kv - block * BLOCK).min(BLOCK);
    let dead = L::splat(f32::NEG_INFINITY);
    let mut visible = Visible { queries: 0, cells: 0, whole: 0 };
    for t in 0..tokens.len() {
        let src = mask.row(tokens.start + t).as_ptr().add(block * BLOCK);
        let out = w.mask.add(t * BLOCK);
        // most blocks are seen as a whole, and their mask is not needed
        if n == BLOCK && excluded == 0 && mask_is_zero(src) {
            visible.queries |= 1 << t;
            visible.cells = u128::MAX;
            visible.whole |= 1 << t;
            continue;
        }
        let mut bits = 0u128;
        for i in (0..n / LANES * LANES).step_by(LANES) {
            let m = L::load_f16(src.add(i));
            m.store(out.add(i));
            bits |= (dead.lt_bits(m) as u128) << i;
        }
        for i in n / LANES * LANES..BLOCK {
            let m = if i < n { f16::to_f32(*src.add(i)) } else { f32::NEG_INFINITY };
            *out.add(i) = m;
            bits |= ((m > f32::NEG_INFINITY) as u128) << i;
        }
        let mut hidden = bits & excluded;
        bits &= !excluded;
        while hidden != 0 {
            *out.add(hidden.trailing_zeros() as usize) = f32::NEG_INFINITY;
            hidden &= hidden - 1;
        }
        visible.queries |= ((bits != 0) as u64) << t;
        visible.cells |= bits;
    }
    visible
}

/// # Safety
/// `mask` holds [`BLOCK`] values.
#[inline(always)]
unsafe fn mask_is_zero(mask: *const u16) -> bool {
    // in whole words, which compilers vectorise
    let mask = mask.cast::<[u64; BLOCK / 4]>().read_unaligned();
    mask.iter().fold(0, |all, m| all | m) == 0
}

/// As [`block_mask`], for up to 128 tokens of the current batch: the columns of their cells.
#[inline(always)]
unsafe fn current_mask(a: &AttentionArgs, w: &Work, tokens: &Range<usize>, first: usize) -> Visible {
    let cells = &a.cells[first..a.cells.len().min(first + BLOCK)];
    let mut visible = Visible { queries: 0, cells: 0, whole: 0 };
    for t in 0..tokens.len() {
        let mask = a.mask.row(tokens.start + t);
        let out = w.mask.add(t * BLOCK);
        let mut bits = 0u128;
        for i in 0..BLOCK {
            let m = cells.get(i).map_or(f32::NEG_INFINITY, |&c| f16::to_f32(mask[c as usize]));
            *out.add(i) = m;
            bits |= ((m > f32::NEG_INFINITY) as u128) << i;
        }
        visible.queries |= ((bits != 0) as u64) << t;
        visible.cells |= bits;
    }
    visible
}
