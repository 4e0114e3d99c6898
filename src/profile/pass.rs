//! One pass over a few stretches of text.

use super::plan::{plan, PlanFile};
use super::{Settings, Sums, Target};
use crate::eval::log_softmax;
use crate::ffi::{BatchToken, Cache, Context, ContextOptions, ContextSizes, Model, Observer};
use crate::shape::ModelShape;

/// Log probabilities at 16 bits, `[position compared][vocabulary]`, one list per stretch.
pub struct Reference(Vec<Vec<f32>>);

/// Decodes stretches of the same length side by side; `each` gets stretch, position and logits.
///
/// # Errors
/// A context that can't be created, a decode that fails.
pub(super) fn run<'o>(
    model: &'o Model,
    shape: &ModelShape,
    batch: &[&[i32]],
    settings: &Settings,
    target: Option<Target>,
    observer: Option<Observer<'o>>,
    mut each: impl FnMut(usize, usize, &[f32]),
) -> Result<(), String> {
    let file = PlanFile::new(&plan(shape, settings, target))?;
    let n_batch = (settings.parallel * settings.step) as u32;
    let sizes = ContextSizes {
        n_ctx: (settings.parallel * settings.length) as u32,
        n_batch,
        n_ubatch: n_batch,
        n_seq_max: settings.parallel as u32,
        threads: settings.threads,
    };
    let options = ContextOptions { position_gaps: settings.rope_stretch > 1, observer };
    let mut ctx = Context::with(model, &Cache::Plan(file.0.clone()), &sizes, options)?;
    let mut tokens = Vec::with_capacity(n_batch as usize);
    for start in (0..settings.length).step_by(settings.step) {
        let end = (start + settings.step).min(settings.length);
        tokens.clear();
        for (seq, stretch) in batch.iter().enumerate() {
            let of = |i: usize| BatchToken {
                token: stretch[i],
                pos: i as i32 * settings.rope_stretch as i32,
                seq: seq as i32,
            };
            tokens.extend((start..end).map(of));
        }
        ctx.decode_batch(&tokens).map_err(|e| format!("at token {start}: {e}"))?;
        for seq in 0..batch.len() {
            for i in start..end {
                each(seq, i, ctx.logits(seq * (end - start) + i - start));
            }
        }
    }
    Ok(())
}

/// Whether the prediction at a position is compared: its successor must be known.
fn compared(i: usize, length: usize, stride: usize) -> bool {
    i + 1 < length && i % stride == stride - 1
}

/// The distributions at 16 bits.
pub fn reference(
    model: &Model,
    shape: &ModelShape,
    batch: &[&[i32]],
    settings: &Settings,
) -> Result<Reference, String> {
    let stride = settings.stride(model.n_vocab());
    let mut all = vec![Vec::new(); batch.len()];
    run(model, shape, batch, settings, None, None, |seq, i, logits| {
        if compared(i, settings.length, stride) {
            log_softmax(logits, &mut all[seq]);
        }
    })?;
    Ok(Reference(all))
}

/// KL divergence from the reference and rise of the loss for one target, a sum for each stretch.
pub fn target(
    model: &Model,
    shape: &ModelShape,
    batch: &[&[i32]],
    settings: &Settings,
    target: Target,
    reference: Option<&Reference>,
) -> Result<Vec<Sums>, String> {
    let Some(Reference(reference)) = reference else { return Err("no reference to compare with".to_string()) };
    let n_vocab = model.n_vocab();
    let stride = settings.stride(n_vocab);
    let mut sums = vec![Sums::default(); batch.len()];
    let mut row = Vec::with_capacity(n_vocab);
    run(model, shape, batch, settings, Some(target), None, |seq, i, logits| {
        if !compared(i, settings.length, stride) {
            return;
        }
        row.clear();
        log_softmax(logits, &mut row);
        let base = &reference[seq][i / stride * n_vocab..][..n_vocab];
        let s = &mut sums[seq];
        s.kl += base.iter().zip(&row).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q)).sum::<f64>();
        let next = batch[seq][i + 1] as usize;
        s.nll += f64::from(base[next]) - f64::from(row[next]);
        s.n += 1.0;
    })?;
    Ok(sums)
}
