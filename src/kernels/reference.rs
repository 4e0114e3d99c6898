//! The kernels, one value at a time, written for reading. The fast versions are compared with these.

use super::args::{MaskF16, SideView};
use super::attention::{chunk_starts, tile_tokens, Shape, Tasks};
use super::store::{check, place, Split};
use super::{
    codes, layout, range, AttentionArgs, Cells, KernelError, MergeArgs, RangeRule, RowTransform, RowsF32, Schedule,
    ShrinkOp,
};
use crate::geometry::{page_bytes, BlockEntry, Width, BLOCK, SUBTILE};
use std::sync::atomic::{AtomicU32, Ordering};

/// [`super::store()`], one value at a time.
pub fn store(side: &SideView, rows: &RowsF32, cells: Cells, ith: usize, nth: usize) -> Result<(), KernelError> {
    check(side, rows, cells)?;
    let split = Split::new(side.n_head_kv(), ith, nth)?;
    let mut result = Ok(());
    for head in 0..side.n_head_kv() {
        for (t, &cell) in cells.iter().enumerate() {
            let done = place(side, cell).and_then(|(block, at)| {
                if split.mine(head, block) {
                    store_token(side, rows.row(t, head), head, block, at)
                } else {
                    Ok(())
                }
            });
            result = result.and(done);
        }
    }
    result
}

fn store_token(side: &SideView, row: &[f32], head: usize, block: usize, at: usize) -> Result<(), KernelError> {
    let entry = side.entry(block)?;
    let width = side.width(block, &entry)?.ok_or(KernelError::Width { block, width: 0 })?;
    let dst = subtile(side, head, block, &entry, width, at / SUBTILE)?;
    let halves: Vec<u16> = row.iter().map(|&x| codes::to_f16(x)).collect();
    if width == Width::B16 {
        for (i, &h) in halves.iter().enumerate() {
            // SAFETY: token and dimension lie within the subtile, and no other thread writes this block
            unsafe { dst.cast::<u16>().add(at % SUBTILE * halves.len() + i).write_unaligned(h) };
        }
    } else {
        // SAFETY: as above
        unsafe { write_codes(side, width, block, head, at, &halves, dst) };
    }
    Ok(())
}

/// Parameters and codes of one token.
///
/// # Safety
/// `dst` is the subtile of cell `at`, at `width`, and nobody else writes it or the block's parameters.
unsafe fn write_codes(
    side: &SideView,
    width: Width,
    block: usize,
    head: usize,
    at: usize,
    halves: &[u16],
    dst: *mut u8,
) {
    let mask = ((1u32 << width.bits()) - 1) as u8;
    for (g, group) in halves.chunks(side.group()).enumerate() {
        let values: Vec<f32> = group.iter().map(|&h| codes::from_f16(h)).collect();
        let (min, max) = codes::range(&values);
        let plane = side.params(block, head, g);
        plane.add(at).write(codes::to_f16(min));
        plane.add(BLOCK + at).write(codes::to_f16(max));
        let mut narrowed: Vec<u8> =
            values.iter().map(|&x| codes::narrow8(codes::code8(x, min, max), to_shift(side, width))).collect();
        if width != to_shift(side, width) {
            fit(&mut narrowed, plane.add(at));
        }
        for (i, code) in narrowed.into_iter().enumerate() {
            let dim = g * side.group() + i;
            let (byte, bit) = layout::code_position(side.side(), width, side.head_dim(), at % SUBTILE, dim);
            let p = dst.add(byte);
            *p = *p & !(mask << bit) | code << bit;
        }
    }
}

/// The width that codes are shifted to; where the last step fits new ranges that is 4 bits on the way to 2.
fn to_shift(side: &SideView, width: Width) -> Width {
    match (width, side.range_rule()) {
        (Width::B2, RangeRule::Fit) => Width::B4,
        _ => width,
    }
}

/// A token's group of 4-bit codes at 2 bits, with the range of least squared error.
///
/// # Safety
/// `min` is the group's minimum; its maximum lies `BLOCK` values further.
unsafe fn fit(group: &mut [u8], min: *mut u16) {
    let max = min.add(BLOCK);
    let (low, high) = range::best(group);
    group.iter_mut().for_each(|c| *c = range::code2(*c, low, high));
    let (new_min, new_max) = range::params(low, high, min.read(), max.read());
    min.write(new_min);
    max.write(new_max);
}

fn subtile(
    side: &SideView,
    head: usize,
    block: usize,
    entry: &BlockEntry,
    width: Width,
    subtile: usize,
) -> Result<*mut u8, KernelError> {
    let slot = layout::subtile_position(width, side.head_dim(), subtile).0;
    side.subtile(head, block, &entry.pages, width, subtile)?.ok_or(KernelError::MissingPage { block, slot })
}

/// [`super::shrink()`], one value at a time.
pub fn shrink(
    side: &SideView,
    ops: &[ShrinkOp],
    done: &[AtomicU32],
    ith: usize,
    nth: usize,
) -> Result<(), KernelError> {
    let mut result = Ok(());
    for (i, op) in ops.iter().enumerate() {
        for head in 0..side.n_head_kv() {
            if (i * side.n_head_kv() + head) % nth == ith {
                match shrink_head(side, op, head) {
                    Ok(()) => {
                        done[i].fetch_add(1, Ordering::Release);
                    }
                    Err(e) => result = result.and(Err(e)),
                }
            }
        }
    }
    result
}

fn shrink_head(side: &SideView, op: &ShrinkOp, head: usize) -> Result<(), KernelError> {
    let r = op.resolve(side, head)?;
    let (d, block) = (side.head_dim(), op.block as usize);
    let mut built = vec![0u8; r.to.pages() * page_bytes(d)];
    for (s, src) in r.src.iter().enumerate() {
        let Some(src) = *src else { continue };
        let out = built[s * r.to.subtile_bytes(d)..].as_mut_ptr();
        for t in 0..SUBTILE {
            // SAFETY: src and out are whole subtiles; this thread alone writes this block and head
            unsafe {
                if r.from == Width::B16 {
                    let row = src.cast::<u16>().add(t * d);
                    let halves: Vec<u16> = (0..d).map(|i| row.add(i).read_unaligned()).collect();
                    write_codes(side, r.to, block, head, s * SUBTILE + t, &halves, out);
                    continue;
                }
                let shifted = |i| {
                    let mut code = read_code(side, r.from, t, i, src) as u32;
                    let mut bits = r.from.bits() as u32;
                    while bits > to_shift(side, r.to).bits() as u32 {
                        bits /= 2;
                        code = codes::shift(code, bits);
                    }
                    code as u8
                };
                let mut row: Vec<u8> = (0..d).map(shifted).collect();
                if r.to != to_shift(side, r.to) {
                    for (g, group) in row.chunks_mut(side.group()).enumerate() {
                        fit(group, side.params(block, head, g).add(s * SUBTILE + t));
                    }
                }
                for (i, code) in row.into_iter().enumerate() {
                    let (byte, bit) = layout::code_position(side.side(), r.to, d, t, i);
                    *out.add(byte) |= code << bit;
                }
            }
        }
    }
    for (slot, dst) in r.dst.iter().enumerate() {
        if let Some(dst) = *dst {
            let page = &built[slot * page_bytes(d)..][..page_bytes(d)];
            // SAFETY: dst is a page of this head
            unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), dst, page.len()) };
        }
    }
    Ok(())
}

/// # Safety
/// `src` is a packed subtile at `width`.
unsafe fn read_code(side: &SideView, width: Width, token: usize, dim: usize, src: *const u8) -> u8 {
    let (byte, bit) = layout::code_position(side.side(), width, side.head_dim(), token, dim);
    (*src.add(byte) >> bit) & ((1u32 << width.bits()) - 1) as u8
}

/// What the cache holds for a cell: (value in f16 at 16 bits, or code, min, max).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stored {
    Half(u16),
    Code { code: u8, width: Width, min: u16, max: u16 },
}

impl Stored {
    pub fn f32(self) -> f32 {
        match self {
            Stored::Half(h) => codes::from_f16(h),
            Stored::Code { code, width, min, max } => {
                codes::dequantize(code, width, codes::from_f16(min), codes::from_f16(max))
            }
        }
    }

    /// Without the rounding of f32.
    pub fn f64(self) -> f64 {
        match self {
            Stored::Half(h) => codes::from_f16(h) as f64,
            Stored::Code { code, width, min, max } => {
                let (min, max) = (codes::from_f16(min) as f64, codes::from_f16(max) as f64);
                min + code as f64 * (max - min) / ((1u32 << width.bits()) - 1) as f64
            }
        }
    }
}

/// A cell's row of one head; `None` if its block is empty.
pub fn read_cell(side: &SideView, head: usize, cell: usize) -> Result<Option<Vec<Stored>>, KernelError> {
    let (block, at) = (cell / BLOCK, cell % BLOCK);
    let entry = side.entry(block)?;
    let Some(width) = side.width(block, &entry)? else {
        return Ok(None);
    };
    let src = subtile(side, head, block, &entry, width, at / SUBTILE)?;
    let d = side.head_dim();
    let row = (0..d).map(|i| {
        // SAFETY: within the subtile and the parameters
        unsafe {
            if width == Width::B16 {
                return Stored::Half(src.cast::<u16>().add(at % SUBTILE * d + i).read_unaligned());
            }
            let plane = side.params(block, head, i / side.group());
            let code = read_code(side, width, at % SUBTILE, i, src);
            Stored::Code { code, width, min: *plane.add(at), max: *plane.add(BLOCK + at) }
        }
    });
    Ok(Some(row.collect()))
}

/// A cell's row of one head in [`super::load()`], one value at a time.
pub fn load_row(side: &SideView, head: usize, block: usize, at: usize, row: &mut [f32]) -> Result<(), KernelError> {
    let stored = read_cell(side, head, block * BLOCK + at)?.ok_or(KernelError::Width { block, width: 0 })?;
    for (x, value) in row.iter_mut().zip(stored) {
        *x = value.f32();
    }
    Ok(())
}

/// One key and value that a query sees.
struct Seen {
    mask: f32,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn mask_at(mask: &MaskF16, token: usize, cell: usize) -> Option<f32> {
    Some(codes::from_f16(mask.row(token)[cell])).filter(|&m| m > f32::NEG_INFINITY)
}

/// [`super::attention_partial`], one value at a time.
pub fn attention_partial(a: &AttentionArgs, schedule: Schedule) -> Result<(), KernelError> {
    let p = Shape::new(a)?;
    let tokens = tile_tokens(p.ratio);
    let n_tiles = p.n_token.div_ceil(tokens);
    let mut starts = vec![0; p.n_chunk + 1];
    chunk_starts(a, &p, &mut starts)?;
    let n_tasks = p.n_head_kv * n_tiles * p.n_chunk;
    let mut result = Ok(());
    for task in Tasks::new(schedule, n_tasks) {
        let (chunk, tile, head) = (task % p.n_chunk, task / p.n_chunk % n_tiles, task / p.n_chunk / n_tiles);
        let blocks = starts[chunk] as usize..starts[chunk + 1] as usize;
        for token in tile * tokens..((tile + 1) * tokens).min(p.n_token) {
            let seen = match visible(a, &p, head, token, blocks.clone(), chunk == p.n_chunk - 1) {
                Ok(seen) => seen,
                Err(e) => {
                    result = result.and(Err(e));
                    Vec::new()
                }
            };
            for h in head * p.ratio..(head + 1) * p.ratio {
                let record = (chunk * p.n_token + token) * p.n_head + h;
                // SAFETY: a record belongs to one task
                let out = unsafe { a.out.record(record, p.dv + 2) };
                softmax_sum(&p, a.q.row(token, h), p.slope(h), &seen, out);
            }
        }
    }
    result
}

/// What a query gives each cell that it sees: (cell, weight), weights of a query head adding up to 1. Attention sinks of the
/// model take no part: the merge knows them, not this operation. `[query head][cell]`, for reports, not for speed.
pub fn attention_weights(a: &AttentionArgs, token: usize) -> Result<Vec<Vec<(i64, f64)>>, KernelError> {
    let p = Shape::new(a)?;
    if token >= p.n_token {
        return Err(KernelError::Shape("there are fewer queries than that"));
    }
    let mut weights = Vec::with_capacity(p.n_head);
    for head in 0..p.n_head_kv {
        let keys = visible_keys(a, &p, head, token)?;
        for h in head * p.ratio..(head + 1) * p.ratio {
            let (q, slope) = (a.q.row(token, h), p.slope(h));
            let scores = keys.iter().map(|(_, mask, k)| f64::from(score(&p, q, k, slope * mask)));
            let scores: Vec<f64> = scores.collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
            weights.push(keys.iter().zip(&scores).map(|(key, x)| (key.0, (x - max).exp() / sum)).collect());
        }
    }
    Ok(weights)
}

/// Keys that a token sees: cell, mask, values.
fn visible_keys(
    a: &AttentionArgs,
    p: &Shape,
    head: usize,
    token: usize,
) -> Result<Vec<(i64, f32, Vec<f32>)>, KernelError> {
    let mut keys = Vec::new();
    for cell in 0..p.n_kv {
        if a.current.is_some() && a.cells.contains(&(cell as i64)) {
            continue;
        }
        let Some(mask) = mask_at(&a.mask, token, cell) else { continue };
        if let Some(k) = read_cell(&a.k, head, cell)? {
            keys.push((cell as i64, mask, k.into_iter().map(Stored::f32).collect()));
        }
    }
    if let Some((k, _)) = &a.current {
        for (i, &cell) in a.cells.iter().enumerate() {
            if let Some(mask) = mask_at(&a.mask, token, cell as usize) {
                let rounded = k.row(i, head).iter().map(|&x| codes::from_f16(codes::to_f16(x))).collect();
                keys.push((cell, mask, rounded));
            }
        }
    }
    Ok(keys)
}

/// Everything in a chunk of blocks that a token sees; the last one has the current batch, too.
fn visible(
    a: &AttentionArgs,
    p: &Shape,
    head: usize,
    token: usize,
    blocks: std::ops::Range<usize>,
    last: bool,
) -> Result<Vec<Seen>, KernelError> {
    let mut seen = Vec::new();
    for block in blocks {
        for cell in block * BLOCK..((block + 1) * BLOCK).min(p.n_kv) {
            if a.current.is_some() && a.cells.contains(&(cell as i64)) {
                continue;
            }
            let Some(mask) = mask_at(&a.mask, token, cell) else {
                continue;
            };
            if a.k.entry(block)?.width == 0 || a.v.entry(block)?.width == 0 {
                continue;
            }
            let (k, v) = (read_cell(&a.k, head, cell)?, read_cell(&a.v, head, cell)?);
            if let (Some(k), Some(v)) = (k, v) {
                let f32s = |row: Vec<Stored>| row.into_iter().map(Stored::f32).collect();
                seen.push(Seen { mask, k: f32s(k), v: f32s(v) });
            }
        }
    }
    if let (Some((k, v)), true) = (&a.current, last) {
        for (i, &cell) in a.cells.iter().enumerate() {
            if let Some(mask) = mask_at(&a.mask, token, cell as usize) {
                let rounded = |row: &[f32]| row.iter().map(|&x| codes::from_f16(codes::to_f16(x))).collect();
                seen.push(Seen { mask, k: rounded(k.row(i, head)), v: rounded(v.row(i, head)) });
            }
        }
    }
    Ok(seen)
}

/// The score of a key; `bias` is its mask times the head's slope.
fn score(p: &Shape, q: &[f32], k: &[f32], bias: f32) -> f32 {
    let mut x = q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>() * p.scale;
    if p.softcap != 0.0 {
        x = p.softcap * x.tanh();
    }
    x + bias
}

/// Softmax in two passes; `out` is `[D_v]` sums, largest score, sum of weights.
fn softmax_sum(p: &Shape, q: &[f32], slope: f32, seen: &[Seen], out: &mut [f32]) {
    let scores: Vec<f32> = seen.iter().map(|s| score(p, q, &s.k, slope * s.mask)).collect();
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    out.fill(0.0);
    for (s, x) in seen.iter().zip(scores) {
        let weight = (x - max).exp();
        for (o, v) in out.iter_mut().zip(&s.v) {
            *o += weight * v;
        }
        out[p.dv + 1] += weight;
    }
    out[p.dv] = max;
}

/// [`super::attention_merge`], one value at a time.
pub fn attention_merge(a: &MergeArgs, ith: usize, nth: usize) -> Result<(), KernelError> {
    a.check(ith, nth)?;
    let rows = a.n_token * a.n_head;
    let d = a.head_dim;
    for row in (0..rows).filter(|r| r * nth / rows.max(1) == ith) {
        let parts: Vec<&[f32]> = (0..a.n_chunk)
            .map(|c| &a.partial[(c * rows + row) * (d + 2)..][..d + 2])
            .filter(|part| part[d + 1] != 0.0)
            .collect();
        let sink = a.sinks.map(|s| s[row % a.n_head]);
        let max = parts.iter().map(|part| part[d]).chain(sink).fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = parts.iter().map(|part| (part[d] - max).exp()).collect();
        let mut sum: f32 = parts.iter().zip(&weights).map(|(part, w)| w * part[d + 1]).sum();
        if let Some(sink) = sink.filter(|s| *s > f32::NEG_INFINITY) {
            sum += (sink - max).exp();
        }
        // SAFETY: a row belongs to one thread
        let out = unsafe { a.out.record(row, d) };
        for (i, o) in out.iter_mut().enumerate() {
            let total: f32 = parts.iter().zip(&weights).map(|(part, w)| w * part[i]).sum();
            *o = if sum == 0.0 { 0.0 } else { total / sum };
        }
        if let Some(back) = a.back_of(row) {
            let merged = out.to_vec();
            transform_row_back(&back, &merged, out);
        }
    }
    Ok(())
}

/// `H x`, each value a sum of all of its matrix's.
fn hadamard(n: usize, x: &[f64]) -> Vec<f64> {
    if n == 0 {
        return x.to_vec();
    }
    let sign = |i: usize, j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let rotated = |x: &[f64], i: usize| -> f64 { (0..n).map(|j| sign(i, j) * x[j]).sum::<f64>() / (n as f64).sqrt() };
    x.chunks(n).flat_map(|x| (0..n).map(move |i| rotated(x, i))).collect()
}

/// `H f (x - center)` of one head.
pub fn transform_row(t: &RowTransform, x: &[f32], out: &mut [f32]) {
    let center = |i: usize| t.center.map_or(0.0, |c| f64::from(c[i]));
    let factor = |i: usize| t.factor.map_or(1.0, |f| f64::from(f[i]));
    let scaled: Vec<f64> = (0..x.len()).map(|i| factor(i) * (f64::from(x[i]) - center(i))).collect();
    out.iter_mut().zip(hadamard(t.hadamard, &scaled)).for_each(|(o, y)| *o = y as f32);
}

/// `f H x + center` of one head.
pub fn transform_row_back(t: &RowTransform, x: &[f32], out: &mut [f32]) {
    let center = |i: usize| t.center.map_or(0.0, |c| f64::from(c[i]));
    let factor = |i: usize| t.factor.map_or(1.0, |f| f64::from(f[i]));
    let rotated = hadamard(t.hadamard, &x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    for (i, (o, y)) in out.iter_mut().zip(rotated).enumerate() {
        *o = (factor(i) * y + center(i)) as f32;
    }
}
