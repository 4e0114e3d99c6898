//! Attention over the cache's blocks and the current batch: partial results, to be merged by [`super::attention_merge`].
//!
//! A task is (KV head, tile of queries, chunk of blocks). Within it a block is unpacked to f32 once, thirty-two tokens at a
//! time, for all query heads of the KV head and all queries of the tile; the softmax goes on once per block of 128 cells.

use super::args::{blocks_of, subtile_bits, Cells, MaskF16, PartialsMut, RowsF32, SideView};
use super::lanes::{Lanes, Plain, LANES};
use super::scratch::{self, Scratch};
use super::softmax::{online_step, ScoreMap};
use super::{tiles, Isa, KernelError};
use crate::geometry::{BlockEntry, Side, Width, BLOCK, SUBTILE, SUBTILES};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One attention operation.
#[derive(Debug)]
pub struct AttentionArgs<'a> {
    /// `[n_token][n_head][D_k]`.
    pub q: RowsF32<'a>,
    /// K and V of the current batch, `[n_token][n_head_kv][D]`; `None` where a layer reads another layer's cache, and the
    /// current tokens are found there.
    pub current: Option<(RowsF32<'a>, RowsF32<'a>)>,
    /// Columns are cells; as many as are visible.
    pub mask: MaskF16<'a>,
    /// Cells of the current batch's tokens. With `current` they are left out of the blocks.
    pub cells: Cells<'a>,
    pub k: SideView<'a>,
    pub v: SideView<'a>,
    pub scale: f32,
    /// `cap * tanh(score / cap)`; 0: none.
    pub softcap: f32,
    /// ALiBi's largest bias; 0: the mask is added as it is.
    pub max_bias: f32,
    /// Parts that the visible blocks are split into; the last one also takes the current batch.
    pub n_chunk: usize,
    /// `[n_chunk][n_token][n_head][D_v + 2]`: unnormalised sum, largest score, sum of weights.
    pub out: PartialsMut<'a>,
}

/// Who does which task.
#[derive(Clone, Copy, Debug)]
pub enum Schedule<'a> {
    /// Every `nth` task, beginning with `ith`.
    Static { ith: usize, nth: usize },
    /// The next one that nobody took; the counter starts at 0 and is shared by the threads of one operation.
    Counter(&'a AtomicUsize),
}

/// What follows from the arguments, checked once per call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub n_head: usize,
    pub n_head_kv: usize,
    /// Query heads of a KV head.
    pub ratio: usize,
    pub n_token: usize,
    pub dk: usize,
    pub dv: usize,
    /// Visible cells.
    pub n_kv: usize,
    /// Visible blocks.
    pub n_blocks: usize,
    pub blocks_per_chunk: usize,
    pub n_chunk: usize,
    pub map: ScoreMap,
    pub max_bias: f32,
}

impl Shape {
    pub fn new(a: &AttentionArgs) -> Result<Shape, KernelError> {
        let shape = |ok: bool, what| if ok { Ok(()) } else { Err(KernelError::Shape(what)) };
        let (n_head, n_token) = (a.q.n_head(), a.q.n_token());
        let n_head_kv = a.k.n_head_kv();
        let (dk, dv) = (a.k.head_dim(), a.v.head_dim());
        shape(a.k.side() == Side::K && a.v.side() == Side::V, "the K and V sides are exchanged")?;
        shape(a.v.n_head_kv() == n_head_kv, "K and V differ in KV heads")?;
        shape(n_head.is_multiple_of(n_head_kv), "the query heads are not a multiple of the KV heads")?;
        shape(a.q.row_len() == dk, "the query's head dimension is not that of K")?;
        shape(a.mask.n_token() >= n_token, "the mask has fewer rows than there are queries")?;
        shape(a.n_chunk > 0, "attention needs at least one chunk")?;
        let n_kv = a.mask.n_kv();
        let n_blocks = blocks_of(n_kv);
        shape(n_blocks <= a.k.n_blocks() && n_blocks <= a.v.n_blocks(), "the mask has more cells than the cache")?;
        if let Some((k, v)) = &a.current {
            shape(k.row_len() == dk && v.row_len() == dv, "the current K or V has another head dimension")?;
            shape(k.n_head() == n_head_kv && v.n_head() == n_head_kv, "the current K or V has other KV heads")?;
            let n = a.cells.len();
            shape(k.n_token() == n && v.n_token() == n, "the current K or V has other tokens than cells")?;
            if let Some(&cell) = a.cells.iter().find(|&&c| usize::try_from(c).map_or(true, |c| c >= n_kv)) {
                return Err(KernelError::CellRange { cell });
            }
        }
        let records = a.n_chunk.checked_mul(n_token).and_then(|n| n.checked_mul(n_head * (dv + 2)));
        shape(records.is_some_and(|n| n <= a.out.len()), "the output is too small for the partial results")?;
        let scale = if a.softcap != 0.0 { a.scale / a.softcap } else { a.scale };
        Ok(Shape {
            n_head,
            n_head_kv,
            ratio: n_head / n_head_kv,
            n_token,
            dk,
            dv,
            n_kv,
            n_blocks,
            blocks_per_chunk: n_blocks.div_ceil(a.n_chunk),
            n_chunk: a.n_chunk,
            map: ScoreMap { scale, softcap: a.softcap },
            max_bias: a.max_bias,
        })
    }

    /// Blocks of a chunk.
    pub fn chunk(&self, c: usize) -> std::ops::Range<usize> {
        let end = |c: usize| (c * self.blocks_per_chunk).min(self.n_blocks);
        end(c)..end(c + 1)
    }

    /// ALiBi's slope of a query head (arXiv 2108.12409, section 3), with upstream's rule for head counts that are no power
    /// of two; 1 without ALiBi.
    pub fn slope(&self, head: usize) -> f32 {
        if self.max_bias <= 0.0 {
            return 1.0;
        }
        let low = 1usize << self.n_head.ilog2();
        let base = |bias: f32| (-bias / low as f32).exp2();
        if head < low {
            base(self.max_bias).powi(head as i32 + 1)
        } else {
            base(self.max_bias / 2.0).powi(2 * (head - low) as i32 + 1)
        }
    }
}

/// Attention by thread `ith` of `nth`.
///
/// # Errors
/// Arguments that disagree; a visible cell in a block whose entry is invalid (the other blocks are still done, but the
/// output must not be used).
pub fn attention_partial(args: &AttentionArgs, ith: usize, nth: usize) -> Result<(), KernelError> {
    attention_partial_at(Isa::selected()?, args, Schedule::Static { ith, nth })
}

/// [`attention_partial`] with given instructions and schedule.
pub fn attention_partial_at(isa: Isa, args: &AttentionArgs, schedule: Schedule) -> Result<(), KernelError> {
    if !isa.available() {
        return Err(KernelError::Isa);
    }
    if let Schedule::Static { ith, nth } = schedule {
        if ith >= nth {
            return Err(KernelError::Thread);
        }
    }
    let shape = Shape::new(args)?;
    if isa == Isa::Reference {
        return super::reference::attention_partial(args, schedule);
    }
    scratch::with(|s| match isa {
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(args, &shape, schedule, s) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(args, &shape, schedule, s) },
        _ => unsafe { run::<Plain>(args, &shape, schedule, s) },
    })
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_avx512(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Result<(), KernelError> {
    run::<super::lanes::Avx512>(a, p, sched, s)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Result<(), KernelError> {
    run::<super::lanes::Avx2>(a, p, sched, s)
}

/// Query rows (tokens x query heads of a KV head) that share an unpacked block.
const TILE_ROWS: usize = 64;

/// Tokens in a tile of queries: at most 64.
pub(crate) const fn tile_tokens(ratio: usize) -> usize {
    if ratio >= TILE_ROWS {
        1
    } else {
        TILE_ROWS / ratio
    }
}

/// Task numbers of one thread.
pub(crate) fn next_task(schedule: Schedule, last: Option<usize>) -> usize {
    match (schedule, last) {
        (Schedule::Static { ith, .. }, None) => ith,
        (Schedule::Static { nth, .. }, Some(t)) => t + nth,
        (Schedule::Counter(c), _) => c.fetch_add(1, Ordering::Relaxed),
    }
}

/// The buffers of one task, as pointers into the thread's scratch.
struct Work {
    q: *mut f32,
    stride_q: usize,
    acc: *mut f32,
    stride_v: usize,
    scores: *mut f32,
    /// Two subtiles of keys or values.
    tile: *mut f32,
    max: *mut f32,
    sum: *mut f32,
    slopes: *mut f32,
    /// f32 `[tokens of the tile][128]`.
    mask: *mut f32,
    /// Two subtiles of the current batch in f16.
    current: *mut u16,
}

/// Where a block's subtiles come from.
#[derive(Clone, Copy)]
enum Source {
    Cache {
        block: usize,
        k: BlockEntry,
        v: BlockEntry,
        wk: Width,
        wv: Width,
    },
    /// Tokens of the current batch from this one on.
    Current {
        first: usize,
    },
}

#[inline(always)]
unsafe fn run<L: Lanes>(a: &AttentionArgs, p: &Shape, sched: Schedule, s: &mut Scratch) -> Result<(), KernelError> {
    let tokens = tile_tokens(p.ratio);
    let rows = tokens * p.ratio;
    let stride_q = p.dk.next_multiple_of(LANES);
    let stride_v = p.dv.next_multiple_of(LANES);
    let state = s.rows.take::<f32>(2 * rows + p.ratio);
    let (max, rest) = state.split_at_mut(rows);
    let (sum, slopes) = rest.split_at_mut(rows);
    let excluded = s.pages.take::<u128>(p.n_blocks);
    excluded.fill(0);
    if a.current.is_some() {
        for &cell in a.cells {
            excluded[cell as usize / BLOCK] |= 1 << (cell as usize % BLOCK);
        }
    }
    let work = Work {
        q: s.q.take(rows * stride_q).as_mut_ptr(),
        stride_q,
        acc: s.acc.take(rows * stride_v).as_mut_ptr(),
        stride_v,
        scores: s.scores.take(rows * BLOCK).as_mut_ptr(),
        tile: s.tile.take(2 * SUBTILE * stride_q.max(stride_v)).as_mut_ptr(),
        max: max.as_mut_ptr(),
        sum: sum.as_mut_ptr(),
        slopes: slopes.as_mut_ptr(),
        mask: s.mask.take(tokens * BLOCK).as_mut_ptr(),
        current: s.current.take(SUBTILE * p.dk.max(p.dv)).as_mut_ptr(),
    };
    let n_tiles = p.n_token.div_ceil(tokens);
    let n_tasks = p.n_head_kv * n_tiles * p.n_chunk;
    let mut result = Ok(());
    let mut i = next_task(sched, None);
    while i < n_tasks {
        let head = i % p.n_head_kv;
        let tile = i / p.n_head_kv % n_tiles;
        let chunk = i / p.n_head_kv / n_tiles;
        let range = tile * tokens..((tile + 1) * tokens).min(p.n_token);
        let done = task::<L>(a, p, &work, excluded, head, range, chunk);
        result = result.and(done);
        i = next_task(sched, Some(i));
    }
    result
}

#[inline(always)]
unsafe fn task<L: Lanes>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    excluded: &[u128],
    head: usize,
    tokens: std::ops::Range<usize>,
    chunk: usize,
) -> Result<(), KernelError> {
    let rows = tokens.len() * p.ratio;
    for h in 0..p.ratio {
        *w.slopes.add(h) = p.slope(head * p.ratio + h);
    }
    for t in 0..tokens.len() {
        for h in 0..p.ratio {
            let row = t * p.ratio + h;
            let q = a.q.row(tokens.start + t, head * p.ratio + h);
            std::ptr::copy_nonoverlapping(q.as_ptr(), w.q.add(row * w.stride_q), p.dk);
            *w.max.add(row) = f32::NEG_INFINITY;
            *w.sum.add(row) = 0.0;
        }
    }
    std::ptr::write_bytes(w.acc, 0, rows * w.stride_v);

    let mut result = Ok(());
    for block in p.chunk(chunk) {
        let done = cache_block::<L>(a, p, w, excluded[block], head, &tokens, block);
        result = result.and(done);
    }
    if chunk == p.n_chunk - 1 && a.current.is_some() {
        for first in (0..a.cells.len()).step_by(BLOCK) {
            let (seen, live) = current_mask::<L>(a, w, &tokens, first);
            if live != 0 {
                let done = step::<L>(a, p, w, head, seen, live, Source::Current { first });
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
unsafe fn cache_block<L: Lanes>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    excluded: u128,
    head: usize,
    tokens: &std::ops::Range<usize>,
    block: usize,
) -> Result<(), KernelError> {
    let (k, v) = (a.k.entry(block)?, a.v.entry(block)?);
    let (Some(wk), Some(wv)) = (a.k.width(block, &k)?, a.v.width(block, &v)?) else {
        return Ok(());
    };
    let (seen, live) = block_mask::<L>(a, p, w, tokens, block, excluded);
    if live == 0 {
        return Ok(());
    }
    step::<L>(a, p, w, head, seen, live, Source::Cache { block, k, v, wk, wv })
}

/// The mask of a block in f32, excluded cells and those beyond `n_kv` at -inf. Returns which queries see anything, and which
/// cells anyone sees.
#[inline(always)]
unsafe fn block_mask<L: Lanes>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    tokens: &std::ops::Range<usize>,
    block: usize,
    excluded: u128,
) -> (u64, u128) {
    let n = (p.n_kv - block * BLOCK).min(BLOCK);
    let dead = L::splat(f32::NEG_INFINITY);
    let (mut seen, mut live) = (0u64, 0u128);
    for t in 0..tokens.len() {
        let mask = a.mask.row(tokens.start + t);
        let src = mask.as_ptr().add(block * BLOCK);
        let out = w.mask.add(t * BLOCK);
        let mut bits = 0u128;
        for i in (0..n / LANES * LANES).step_by(LANES) {
            let m = L::load_f16(src.add(i));
            m.store(out.add(i));
            bits |= (dead.lt_bits(m) as u128) << i;
        }
        for i in n / LANES * LANES..BLOCK {
            let m = if i < n { super::f16::to_f32(*src.add(i)) } else { f32::NEG_INFINITY };
            *out.add(i) = m;
            bits |= ((m > f32::NEG_INFINITY) as u128) << i;
        }
        let mut hidden = bits & excluded;
        bits &= !excluded;
        while hidden != 0 {
            *out.add(hidden.trailing_zeros() as usize) = f32::NEG_INFINITY;
            hidden &= hidden - 1;
        }
        seen |= ((bits != 0) as u64) << t;
        live |= bits;
    }
    (seen, live)
}

/// As [`block_mask`], for up to 128 tokens of the current batch: the columns of their cells.
#[inline(always)]
unsafe fn current_mask<L: Lanes>(
    a: &AttentionArgs,
    w: &Work,
    tokens: &std::ops::Range<usize>,
    first: usize,
) -> (u64, u128) {
    let cells = &a.cells[first..a.cells.len().min(first + BLOCK)];
    let (mut seen, mut live) = (0u64, 0u128);
    for t in 0..tokens.len() {
        let mask = a.mask.row(tokens.start + t);
        let out = w.mask.add(t * BLOCK);
        let mut bits = 0u128;
        for i in 0..BLOCK {
            let m = cells.get(i).map_or(f32::NEG_INFINITY, |&c| super::f16::to_f32(mask[c as usize]));
            *out.add(i) = m;
            bits |= ((m > f32::NEG_INFINITY) as u128) << i;
        }
        seen |= ((bits != 0) as u64) << t;
        live |= bits;
    }
    (seen, live)
}

/// The next run of set bits from `from` on.
#[inline(always)]
fn next_run(bits: u64, from: usize) -> Option<(usize, usize)> {
    let rest = if from < 64 { bits >> from } else { 0 };
    if rest == 0 {
        return None;
    }
    let start = from + rest.trailing_zeros() as usize;
    Some((start, start + (bits >> start).trailing_ones() as usize))
}

/// One block of 128 cells for the queries in `seen`.
#[inline(always)]
unsafe fn step<L: Lanes>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    head: usize,
    seen: u64,
    live: u128,
    source: Source,
) -> Result<(), KernelError> {
    for pair in (0..SUBTILES).step_by(2) {
        if subtile_bits(live, pair) | subtile_bits(live, pair + 1) == 0 {
            continue;
        }
        for i in 0..2 {
            let bits = subtile_bits(live, pair + i);
            load_keys::<L>(a, p, w, head, pair + i, bits, source, w.tile.add(i * p.dk * LANES))?;
        }
        let mut from = 0;
        while let Some((t0, t1)) = next_run(seen, from) {
            score_rows::<L>(p, w, t0 * p.ratio, t1 * p.ratio, pair * SUBTILE);
            from = t1;
        }
    }

    let mut from = 0;
    while let Some((t0, t1)) = next_run(seen, from) {
        for t in t0..t1 {
            for h in 0..p.ratio {
                let row = t * p.ratio + h;
                let factor = online_step::<L>(
                    w.scores.add(row * BLOCK),
                    w.mask.add(t * BLOCK),
                    *w.slopes.add(h),
                    p.map,
                    &mut *w.max.add(row),
                    &mut *w.sum.add(row),
                );
                if factor != 1.0 {
                    let acc = w.acc.add(row * w.stride_v);
                    for d in (0..w.stride_v).step_by(LANES) {
                        L::load(acc.add(d)).mul(L::splat(factor)).store(acc.add(d));
                    }
                }
            }
        }
        from = t1;
    }

    for pair in (0..SUBTILES).step_by(2) {
        if subtile_bits(live, pair) | subtile_bits(live, pair + 1) == 0 {
            continue;
        }
        for i in 0..2 {
            let bits = subtile_bits(live, pair + i);
            load_values::<L>(a, p, w, head, pair + i, bits, source, w.tile.add(i * SUBTILE * w.stride_v))?;
        }
        let mut from = 0;
        while let Some((t0, t1)) = next_run(seen, from) {
            weigh_rows::<L>(w, t0 * p.ratio, t1 * p.ratio, pair * SUBTILE);
            from = t1;
        }
    }
    Ok(())
}

#[inline(always)]
unsafe fn score_rows<L: Lanes>(p: &Shape, w: &Work, mut row: usize, end: usize, column: usize) {
    macro_rules! rows {
        ($n:expr) => {
            while $n <= L::SCORE_ROWS && row + $n <= end {
                let q = w.q.add(row * w.stride_q);
                let out = w.scores.add(row * BLOCK + column);
                tiles::scores::<L, $n>(q, w.stride_q, w.tile, p.dk, out, BLOCK);
                row += $n;
            }
        };
    }
    rows!(8);
    rows!(4);
    rows!(2);
    rows!(1);
}

#[inline(always)]
unsafe fn weigh_rows<L: Lanes>(w: &Work, mut row: usize, end: usize, column: usize) {
    macro_rules! rows {
        ($n:expr) => {
            while $n <= L::VALUE_ROWS && row + $n <= end {
                let p = w.scores.add(row * BLOCK + column);
                let acc = w.acc.add(row * w.stride_v);
                let mut d = 0;
                macro_rules! cols {
                    ($c:expr) => {
                        while $c <= L::VALUE_COLS && d + $c * LANES <= w.stride_v {
                            let v = w.tile.add(d);
                            tiles::weigh::<L, $n, $c>(p, BLOCK, v, w.stride_v, 2 * SUBTILE, acc.add(d), w.stride_v);
                            d += $c * LANES;
                        }
                    };
                }
                cols!(4);
                cols!(2);
                cols!(1);
                row += $n;
            }
        };
    }
    rows!(4);
    rows!(2);
    rows!(1);
}

#[inline(always)]
unsafe fn load_keys<L: Lanes>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    head: usize,
    subtile: usize,
    bits: u16,
    source: Source,
    tile: *mut f32,
) -> Result<(), KernelError> {
    if bits == 0 {
        std::ptr::write_bytes(tile, 0, p.dk * LANES);
        return Ok(());
    }
    match source {
        Source::Cache { block, k, wk, .. } => {
            let src = live_subtile(&a.k, head, block, &k, wk, subtile)?;
            if wk == Width::B16 {
                tiles::half_keys::<L>(src.cast(), p.dk, tile);
                return Ok(());
            }
            let params = a.k.params(block, head, 0).add(subtile * SUBTILE);
            let g = a.k.group();
            match wk {
                Width::B8 => tiles::packed_keys::<L, 8>(src, params, wk, p.dk, g, tile),
                Width::B4 => tiles::packed_keys::<L, 4>(src, params, wk, p.dk, g, tile),
                _ => tiles::packed_keys::<L, 2>(src, params, wk, p.dk, g, tile),
            }
        }
        Source::Current { first } => {
            if let Some((k, _)) = &a.current {
                round_current::<L>(k, head, first + subtile * SUBTILE, w.current);
                tiles::half_keys::<L>(w.current, p.dk, tile);
            }
        }
    }
    Ok(())
}

#[inline(always)]
unsafe fn load_values<L: Lanes>(
    a: &AttentionArgs,
    p: &Shape,
    w: &Work,
    head: usize,
    subtile: usize,
    bits: u16,
    source: Source,
    tile: *mut f32,
) -> Result<(), KernelError> {
    if bits == 0 {
        std::ptr::write_bytes(tile, 0, SUBTILE * w.stride_v);
        return Ok(());
    }
    match source {
        Source::Cache { block, v, wv, .. } => {
            let src = live_subtile(&a.v, head, block, &v, wv, subtile)?;
            if wv == Width::B16 {
                tiles::half_values::<L>(src.cast(), p.dv, bits, tile, w.stride_v);
                return Ok(());
            }
            let params = a.v.params(block, head, 0).add(subtile * SUBTILE);
            let g = a.v.group();
            match wv {
                Width::B8 => tiles::packed_values::<L, 8>(src, params, wv, p.dv, g, bits, tile, w.stride_v),
                Width::B4 => tiles::packed_values::<L, 4>(src, params, wv, p.dv, g, bits, tile, w.stride_v),
                _ => tiles::packed_values::<L, 2>(src, params, wv, p.dv, g, bits, tile, w.stride_v),
            }
        }
        Source::Current { first } => {
            if let Some((_, v)) = &a.current {
                round_current::<L>(v, head, first + subtile * SUBTILE, w.current);
                tiles::half_values::<L>(w.current, p.dv, bits, tile, w.stride_v);
            }
        }
    }
    Ok(())
}

/// Up to 16 rows of the current batch in f16; rows beyond its end are left as they are.
#[inline(always)]
unsafe fn round_current<L: Lanes>(rows: &RowsF32, head: usize, first: usize, out: *mut u16) {
    for t in first..rows.n_token().min(first + SUBTILE) {
        let row = rows.row(t, head);
        tiles::round_row::<L>(row.as_ptr(), row.len(), out.add((t - first) * row.len()));
    }
}

/// The bytes of a subtile that holds a visible cell.
#[inline(always)]
fn live_subtile(
    side: &SideView,
    head: usize,
    block: usize,
    entry: &BlockEntry,
    width: Width,
    subtile: usize,
) -> Result<*const u8, KernelError> {
    let found = side.subtile(head, block, &entry.pages, width, subtile)?;
    let slot = super::layout::subtile_position(width, side.head_dim(), subtile).0;
    found.map(|p| p.cast_const()).ok_or(KernelError::MissingPage { block, slot })
}
