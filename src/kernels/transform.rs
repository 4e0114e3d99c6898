//! Rows of a batch as they are stored and attended to: `docs/plan.md`, "The transforms file".

use super::{Isa, KernelError, PartialsMut, RowsF32};

/// What is done to the rows of a side: `H f (x - center)`, and on the way back `f H x + center`. Where the middle is a full matrix,
/// llama.cpp multiplies by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowTransform<'a> {
    /// `[n_head_kv][head_dim]`.
    pub center: Option<&'a [f32]>,
    /// `[n_head_kv][head_dim]`, multiplied value by value.
    pub factor: Option<&'a [f32]>,
    /// Rows of the orthonormal Hadamard matrices, each of which takes as many values; 0: none.
    pub hadamard: usize,
}

impl<'a> RowTransform<'a> {
    pub(crate) fn is_none(&self) -> bool {
        self.center.is_none() && self.factor.is_none() && self.hadamard == 0
    }

    pub(crate) fn check(&self, n_head: usize, n_head_kv: usize, d: usize) -> Result<(), KernelError> {
        if n_head_kv == 0 || !n_head.is_multiple_of(n_head_kv) {
            return Err(KernelError::Shape("the number of KV heads does not divide that of heads"));
        }
        let values = [self.center, self.factor];
        if values.into_iter().flatten().any(|v| n_head_kv.checked_mul(d).is_none_or(|need| v.len() < need)) {
            return Err(KernelError::Shape("a transform has fewer values than there are KV heads and dimensions"));
        }
        if self.hadamard != 0 && (!self.hadamard.is_power_of_two() || !d.is_multiple_of(self.hadamard)) {
            return Err(KernelError::Shape("a Hadamard matrix needs a power of two that divides the head dimension"));
        }
        Ok(())
    }

    /// The part of a KV head.
    pub(crate) fn of_head(&self, head_kv: usize, d: usize) -> Self {
        let head = |v: &'a [f32]| &v[head_kv * d..][..d];
        RowTransform { center: self.center.map(head), factor: self.factor.map(head), hadamard: self.hadamard }
    }

    /// As [`super::reference::transform_row`], of one head's part.
    #[inline(always)]
    fn forward(&self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
        if let Some(center) = self.center {
            out.iter_mut().zip(center).for_each(|(o, c)| *o -= c);
        }
        if let Some(factor) = self.factor {
            out.iter_mut().zip(factor).for_each(|(o, f)| *o *= f);
        }
        self.rotate(out);
    }

    /// On the way back, of one head's part.
    #[inline(always)]
    pub(crate) fn back(&self, out: &mut [f32]) {
        self.rotate(out);
        if let Some(factor) = self.factor {
            out.iter_mut().zip(factor).for_each(|(o, f)| *o *= f);
        }
        if let Some(center) = self.center {
            out.iter_mut().zip(center).for_each(|(o, c)| *o += c);
        }
    }

    #[inline(always)]
    fn rotate(&self, out: &mut [f32]) {
        if self.hadamard > 1 {
            out.chunks_exact_mut(self.hadamard).for_each(rotate);
        }
    }
}

/// Multiplies `x` by the orthonormal Hadamard matrix of its length, a power of two, which is its own inverse.
#[inline(always)]
pub fn rotate(x: &mut [f32]) {
    let n = x.len();
    debug_assert!(n.is_power_of_two());
    let scale = 1.0 / (n as f32).sqrt();
    x.iter_mut().for_each(|v| *v *= scale);
    let mut half = 1;
    while half < n {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Rows of one kind (queries, keys or values), and where they go.
#[derive(Debug)]
pub struct TransformRows<'a> {
    pub x: RowsF32<'a>,
    pub of: RowTransform<'a>,
    /// `[n_token][n_head][head_dim]`.
    pub out: PartialsMut<'a>,
}

/// Transforms all rows, by thread `ith` of `nth`. Query heads of a KV head share its transform.
///
/// # Errors
/// Sizes that disagree; then nothing is written.
pub fn transform(parts: &[TransformRows], n_head_kv: usize, ith: usize, nth: usize) -> Result<(), KernelError> {
    transform_at(Isa::selected()?, parts, n_head_kv, ith, nth)
}

/// [`transform`] with given instructions.
pub fn transform_at(
    isa: Isa,
    parts: &[TransformRows],
    n_head_kv: usize,
    ith: usize,
    nth: usize,
) -> Result<(), KernelError> {
    isa.check(ith, nth)?;
    for p in parts {
        let (d, n_head) = (p.x.row_len(), p.x.n_head());
        p.of.check(n_head, n_head_kv, d)?;
        let need = n_head.checked_mul(d).and_then(|n| n.checked_mul(p.x.n_token()));
        if need.is_none_or(|need| p.out.len() < need) {
            return Err(KernelError::Shape("the output is too small for the transformed rows"));
        }
    }
    match isa {
        Isa::Reference => run(parts, n_head_kv, ith, nth, super::reference::transform_row),
        // SAFETY: the CPU has the level
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::AvxVnni | Isa::Avx2 => unsafe { run_avx2(parts, n_head_kv, ith, nth) },
        _ => run(parts, n_head_kv, ith, nth, |of, x, out| of.forward(x, out)),
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(parts: &[TransformRows], n_head_kv: usize, ith: usize, nth: usize) {
    run(parts, n_head_kv, ith, nth, |of, x, out| of.forward(x, out))
}

/// Each thread has as many rows of each kind.
#[inline(always)]
fn run(
    parts: &[TransformRows],
    n_head_kv: usize,
    ith: usize,
    nth: usize,
    row: impl Fn(&RowTransform, &[f32], &mut [f32]),
) {
    for p in parts {
        let (d, n_head) = (p.x.row_len(), p.x.n_head());
        let rows = p.x.n_token() * n_head;
        for r in rows * ith / nth..rows * (ith + 1) / nth {
            let (token, head) = (r / n_head, r % n_head);
            // SAFETY: a row belongs to one thread
            let out = unsafe { p.out.record(r, d) };
            row(&p.of.of_head(head / (n_head / n_head_kv), d), p.x.row(token, head), out);
        }
    }
}
