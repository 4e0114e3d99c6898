//! Partial results of all chunks become the output.

use super::args::PartialsMut;
use super::{Isa, KernelError, RowTransform};

/// One merge.
#[derive(Debug)]
pub struct MergeArgs<'a> {
    /// `[n_chunk][n_token][n_head][D_v + 2]`, as [`super::attention_partial`] writes it.
    pub partial: &'a [f32],
    /// Attention sinks: a logit per head that takes part in the softmax and has no value.
    pub sinks: Option<&'a [f32]>,
    pub n_token: usize,
    pub n_head: usize,
    /// D_v.
    pub head_dim: usize,
    pub n_chunk: usize,
    pub n_head_kv: usize,
    /// The way back of what was done to values before they were stored.
    pub back: RowTransform<'a>,
    /// `[n_token][n_head][D_v]`.
    pub out: PartialsMut<'a>,
}

impl MergeArgs<'_> {
    /// The way back of a row, if there is one.
    #[inline(always)]
    pub(crate) fn back_of(&self, row: usize) -> Option<RowTransform<'_>> {
        let head = row % self.n_head;
        (!self.back.is_none()).then(|| self.back.of_head(head / (self.n_head / self.n_head_kv), self.head_dim))
    }

    pub(crate) fn check(&self, ith: usize, nth: usize) -> Result<(), KernelError> {
        if ith >= nth {
            return Err(KernelError::Thread);
        }
        let rows = self.n_token.checked_mul(self.n_head).ok_or(KernelError::Shape("the merge is too large"))?;
        let fits = |chunks: usize, len: usize, n: usize| {
            rows.checked_mul(chunks).and_then(|r| r.checked_mul(len)).is_some_and(|need| need <= n)
        };
        if !fits(self.n_chunk, self.head_dim.saturating_add(2), self.partial.len()) {
            return Err(KernelError::Shape("there are fewer partial results than tokens, heads and chunks ask for"));
        }
        if !fits(1, self.head_dim, self.out.len()) {
            return Err(KernelError::Shape("the output is too small for the merged rows"));
        }
        if self.sinks.is_some_and(|s| s.len() < self.n_head) {
            return Err(KernelError::Shape("there are fewer attention sinks than heads"));
        }
        if !self.back.is_none() {
            self.back.check(self.n_head, self.n_head_kv, self.head_dim)?;
        }
        Ok(())
    }
}

/// Merge by thread `ith` of `nth`; rows in which nothing was seen become zeros.
///
/// # Errors
/// Sizes that disagree.
pub fn attention_merge(args: &MergeArgs, ith: usize, nth: usize) -> Result<(), KernelError> {
    attention_merge_at(Isa::selected()?, args, ith, nth)
}

/// [`attention_merge`] with given instructions.
pub fn attention_merge_at(isa: Isa, args: &MergeArgs, ith: usize, nth: usize) -> Result<(), KernelError> {
    isa.check(ith, nth)?;
    if isa == Isa::Reference {
        return super::reference::attention_merge(args, ith, nth);
    }
    args.check(ith, nth)?;
    match isa {
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::AvxVnni | Isa::Avx2 => unsafe { merge_avx2(args, ith, nth) },
        _ => merge(args, ith, nth),
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn merge_avx2(args: &MergeArgs, ith: usize, nth: usize) {
    merge(args, ith, nth)
}

#[inline(always)]
fn merge(a: &MergeArgs, ith: usize, nth: usize) {
    let rows = a.n_token * a.n_head;
    let (d, n) = (a.head_dim, a.head_dim + 2);
    let record = |chunk: usize, row: usize| &a.partial[(chunk * rows + row) * n..][..n];
    for row in rows * ith / nth..rows * (ith + 1) / nth {
        let sink = a.sinks.map_or(f32::NEG_INFINITY, |s| s[row % a.n_head]);
        let max = (0..a.n_chunk).fold(sink, |m, c| m.max(record(c, row)[d]));
        // SAFETY: a row belongs to one thread
        let out = unsafe { a.out.record(row, d) };
        out.fill(0.0);
        let mut sum = if sink > f32::NEG_INFINITY { (sink - max).exp() } else { 0.0 };
        for c in 0..a.n_chunk {
            let part = record(c, row);
            if part[d + 1] == 0.0 {
                continue;
            }
            let weight = (part[d] - max).exp();
            sum += weight * part[d + 1];
            for (o, x) in out.iter_mut().zip(part) {
                *o += weight * x;
            }
        }
        let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
        for o in out.iter_mut() {
            *o *= inverse;
        }
        if let Some(back) = a.back_of(row) {
            back.back(out);
        }
    }
}
