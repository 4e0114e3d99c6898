//! Kernels behind the C interface: pointers and sizes become checked views.

use std::ffi::c_int;
use std::sync::atomic::AtomicU32;

use super::types::{OpAttn, OpLoad, OpMerge, OpShrink, OpStore, OpTransform, RowTransformC};
use super::{guard, FAILED};
use crate::geometry::{BlockEntry, Side};
use crate::kernels::{
    self, AttentionArgs, Isa, KernelError, MaskF16, MergeArgs, PartialsMut, RangeRule, RowTransform, RowsF32, Schedule,
    ShrinkOp, SideView, TransformRows,
};

fn status(result: Result<(), KernelError>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(e) => e.code(),
    }
}

/// `ith` and `nth` as ggml gives them.
fn threads(ith: c_int, nth: c_int) -> Result<(usize, usize), KernelError> {
    match (usize::try_from(ith), usize::try_from(nth)) {
        (Ok(i), Ok(n)) if i < n => Ok((i, n)),
        _ => Err(KernelError::Thread),
    }
}

/// # Safety
/// The pointers of the operation are valid for the sizes that it gives (see [`SideView::new`] and [`RowsF32::new`]).
pub unsafe extern "C" fn op_store(op: *const OpStore, ith: c_int, nth: c_int) -> c_int {
    guard(FAILED, || status(store(&*op, ith, nth)))
}

unsafe fn store(op: &OpStore, ith: c_int, nth: c_int) -> Result<(), KernelError> {
    let (ith, nth) = threads(ith, nth)?;
    let (n_tokens, n_head_kv, head_dim) = (op.n_tokens as usize, op.n_head_kv as usize, op.head_dim as usize);
    let rows = RowsF32::new(op.x, head_dim, n_head_kv, n_tokens, op.x_nb_head, op.x_nb_token)?;
    if op.cells.is_null() {
        return Err(KernelError::Null("the cells"));
    }
    let cells = std::slice::from_raw_parts(op.cells, n_tokens);
    let view = SideView::new(
        side(op.side)?,
        op.pool,
        op.table,
        op.params,
        n_head_kv,
        op.n_pages as usize,
        op.n_blocks as usize,
        head_dim,
        op.group as usize,
    )?
    .with_range_rule(range_rule(op.range)?);
    kernels::store(&view, &rows, cells, ith, nth)
}

/// As [`SideDesc::range`](super::types::SideDesc) has it.
fn range_rule(range: u32) -> Result<RangeRule, KernelError> {
    RangeRule::ALL.get(range as usize).copied().ok_or(KernelError::Shape("a range rule is 0 (shift) or 1 (fit)"))
}

fn side(side: u32) -> Result<Side, KernelError> {
    Side::BOTH.get(side as usize).copied().ok_or(KernelError::Shape("a side is 0 for K or 1 for V"))
}

/// # Safety
/// As for [`op_store`]; `ops`, `done` and `sides` are valid for their counts, `meta` for the tables and parameters of all sides.
pub unsafe extern "C" fn op_shrink(op: *const OpShrink, ith: c_int, nth: c_int) -> c_int {
    guard(FAILED, || status(shrink(&*op, ith, nth)))
}

unsafe fn shrink(op: &OpShrink, ith: c_int, nth: c_int) -> Result<(), KernelError> {
    let (ith, nth) = threads(ith, nth)?;
    if op.n_ops == 0 {
        return Ok(());
    }
    if op.ops.is_null() || op.done.is_null() || op.sides.is_null() || op.meta.is_null() {
        return Err(KernelError::Null("the block operations"));
    }
    let ops = std::slice::from_raw_parts(op.ops, op.n_ops as usize);
    let mut done = std::slice::from_raw_parts(op.done.cast::<AtomicU32>(), op.n_ops as usize);
    let sides = std::slice::from_raw_parts(op.sides, op.n_sides as usize);
    // one call per side: the kernels split the blocks and heads of a side over the threads
    let mut batch: Vec<ShrinkOp> = Vec::new();
    for of_side in ops.chunk_by(|a, b| a.side == b.side) {
        let side = of_side[0].side as usize;
        let Some(desc) = sides.get(side) else {
            return Err(KernelError::Shape("a block operation names a side that the cache does not have"));
        };
        batch.clear();
        batch.extend(of_side.iter().map(|o| ShrinkOp {
            block: o.block,
            from: o.from,
            to: o.to,
            src: o.src,
            dst: o.dst,
        }));
        let table = op.meta.add(desc.offset as usize);
        let view = SideView::new(
            Side::BOTH[side % 2],
            op.pool,
            table.cast::<BlockEntry>(),
            table.add(op.table_bytes as usize).cast(),
            op.n_head_kv as usize,
            op.n_pages as usize,
            op.n_blocks as usize,
            op.head_dim as usize,
            desc.group as usize,
        )?
        .with_range_rule(range_rule(desc.range)?);
        let (of_side, rest) = done.split_at(batch.len());
        done = rest;
        kernels::shrink(&view, &batch, of_side, ith, nth)?;
    }
    Ok(())
}

/// # Safety
/// As for [`op_store`]; `mask` is valid for `n_tokens` rows of `n_kv`, `dst` for all partial results; `next_task` is null or a
/// counter that nobody else uses meanwhile.
pub unsafe extern "C" fn op_attn(op: *const OpAttn, ith: c_int, nth: c_int) -> c_int {
    guard(FAILED, || status(attn(&*op, ith, nth)))
}

unsafe fn attn(op: &OpAttn, ith: c_int, nth: c_int) -> Result<(), KernelError> {
    let (ith, nth) = threads(ith, nth)?;
    let (n_tokens, n_kv) = (op.n_tokens as usize, op.n_kv as usize);
    let (n_head, n_head_kv) = (op.n_head as usize, op.n_head_kv as usize);
    let (dk, dv) = (op.head_dim_k as usize, op.head_dim_v as usize);
    if op.cells.is_null() {
        return Err(KernelError::Null("the cells"));
    }
    let rows = |ptr: *const f32, len, nb_head, nb_token| {
        if ptr.is_null() {
            Ok(None)
        } else {
            RowsF32::new(ptr, len, n_head_kv, n_tokens, nb_head, nb_token).map(Some)
        }
    };
    let side = |side, pool: *const u8, table, params: *const u16, n_pages: u32, head_dim, group: u32| {
        SideView::new(
            side,
            pool.cast_mut(),
            table,
            params.cast_mut(),
            n_head_kv,
            n_pages as usize,
            op.n_blocks as usize,
            head_dim,
            group as usize,
        )
    };
    let args = AttentionArgs {
        q: RowsF32::new(op.q, dk, n_head, n_tokens, op.q_nb_head, op.q_nb_token)?,
        current: rows(op.k_cur, dk, op.k_nb_head, op.k_nb_token)?.zip(rows(op.v_cur, dv, op.v_nb_head, op.v_nb_token)?),
        mask: MaskF16::new(op.mask, n_kv, n_tokens, op.mask_nb_token)?,
        cells: std::slice::from_raw_parts(op.cells, n_tokens),
        k: side(Side::K, op.pool_k, op.table_k, op.params_k, op.n_pages_k, dk, op.group_k)?,
        v: side(Side::V, op.pool_v, op.table_v, op.params_v, op.n_pages_v, dv, op.group_v)?,
        n_chunk: op.n_chunk as usize,
        scale: op.scale,
        softcap: op.softcap,
        max_bias: op.max_bias,
        out: PartialsMut::new(op.dst, (dv + 2) * n_head * n_tokens * op.n_chunk as usize)?,
    };
    if ith == 0 {
        super::probe::see(&args);
    }
    let schedule = match op.next_task.as_ref() {
        Some(next) => Schedule::Counter { next, nth },
        None => Schedule::Static { ith, nth },
    };
    kernels::attention_partial_at(Isa::selected()?, &args, schedule)
}

/// # Safety
/// `partial`, `sinks` (unless null) and `dst` are valid for the shape that the operation gives.
pub unsafe extern "C" fn op_merge(op: *const OpMerge, ith: c_int, nth: c_int) -> c_int {
    guard(FAILED, || status(merge(&*op, ith, nth)))
}

unsafe fn merge(op: &OpMerge, ith: c_int, nth: c_int) -> Result<(), KernelError> {
    let (ith, nth) = threads(ith, nth)?;
    let (n_tokens, n_head, dv, n_chunk) =
        (op.n_tokens as usize, op.n_head as usize, op.head_dim_v as usize, op.n_chunk as usize);
    if op.partial.is_null() {
        return Err(KernelError::Null("the partial results"));
    }
    let args = MergeArgs {
        partial: std::slice::from_raw_parts(op.partial, (dv + 2) * n_head * n_tokens * n_chunk),
        sinks: (!op.sinks.is_null()).then(|| std::slice::from_raw_parts(op.sinks, n_head)),
        n_token: n_tokens,
        n_head,
        head_dim: dv,
        n_chunk,
        n_head_kv: op.n_head_kv as usize,
        back: row_transform(&op.back, op.n_head_kv, op.head_dim_v)?,
        out: PartialsMut::new(op.dst, dv * n_head * n_tokens)?,
    };
    kernels::attention_merge(&args, ith, nth)
}

/// # Safety
/// As for [`op_store`]; `dst` is valid for `n_tokens * n_head_kv * head_dim` values.
pub unsafe extern "C" fn op_load(op: *const OpLoad, ith: c_int, nth: c_int) -> c_int {
    guard(FAILED, || status(load(&*op, ith, nth)))
}

unsafe fn load(op: &OpLoad, ith: c_int, nth: c_int) -> Result<(), KernelError> {
    let (ith, nth) = threads(ith, nth)?;
    let (n_tokens, n_head_kv, head_dim) = (op.n_tokens as usize, op.n_head_kv as usize, op.head_dim as usize);
    if op.cells.is_null() {
        return Err(KernelError::Null("the cells"));
    }
    let view = SideView::new(
        side(op.side)?,
        op.pool.cast_mut(),
        op.table,
        op.params.cast_mut(),
        n_head_kv,
        op.n_pages as usize,
        op.n_blocks as usize,
        head_dim,
        op.group as usize,
    )?;
    let out = PartialsMut::new(op.dst, n_tokens * n_head_kv * head_dim)?;
    kernels::load(&view, std::slice::from_raw_parts(op.cells, n_tokens), &out, ith, nth)
}

unsafe fn row_transform<'a>(t: &RowTransformC, n_head_kv: u32, d: u32) -> Result<RowTransform<'a>, KernelError> {
    let values = |p: *const f32| match p.is_aligned() {
        false => Err(KernelError::Misaligned("a transform")),
        true if p.is_null() => Ok(None),
        true => Ok(Some(std::slice::from_raw_parts(p, n_head_kv as usize * d as usize))),
    };
    Ok(RowTransform { center: values(t.center)?, factor: values(t.factor)?, hadamard: t.hadamard as usize })
}

/// # Safety
/// As for [`op_store`]; transforms are valid for `n_head_kv * head_dim` values, `dst` for all rows of their kind.
pub unsafe extern "C" fn op_transform(op: *const OpTransform, ith: c_int, nth: c_int) -> c_int {
    guard(FAILED, || status(transform(&*op, ith, nth)))
}

unsafe fn transform(op: &OpTransform, ith: c_int, nth: c_int) -> Result<(), KernelError> {
    let (ith, nth) = threads(ith, nth)?;
    let n_tokens = op.n_tokens as usize;
    let mut parts = Vec::with_capacity(op.rows.len());
    for r in op.rows.iter().filter(|r| r.n_head > 0) {
        let (n_head, d) = (r.n_head as usize, r.head_dim as usize);
        parts.push(TransformRows {
            x: RowsF32::new(r.x, d, n_head, n_tokens, r.x_nb_head, r.x_nb_token)?,
            of: row_transform(&r.of, op.n_head_kv, r.head_dim)?,
            out: PartialsMut::new(r.dst, n_tokens * n_head * d)?,
        });
    }
    kernels::transform(&parts, op.n_head_kv as usize, ith, nth)
}
