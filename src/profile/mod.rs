//! Native calibration: what it costs to store one side of one layer at one width, measured with the engine itself.
//!
//! For every layer with a progressive cache, for K and V apart and each width, a text is run with a static plan whose only
//! narrow side is that one, so that every read of the cache behind the 16-bit sink and window sees what the width leaves
//! (PM-KVQ, section 3.3, with a measured loss in place of the first-order estimate). Measured are the KL divergence from
//! the same text at 16 bits, and the rise of the loss.
//!
//! Several stretches of the text run side by side in one context, a few tokens of each at a time: many tokens in a pass,
//! and yet the cache is read as in decoding.

mod leftover;
mod pass;
mod plan;
mod result;
mod rows;

pub use leftover::Leftover;
pub use plan::Target;
pub use result::{Measure, Profile};
pub use rows::{collect, KeyScales, TransformWanted};

use std::path::Path;
use std::time::{Duration, Instant};

use crate::ffi::Model;
use crate::geometry::Width;
use crate::plan::Ranges;
use crate::shape::ModelShape;
use crate::transform::LayerTransforms;

/// How a text is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Stretches of the text that run side by side, each a sequence of its own.
    pub parallel: usize,
    /// Tokens of a stretch.
    pub length: usize,
    /// Stretches in all, a multiple of `parallel`.
    pub stretches: usize,
    /// Tokens of each sequence that are decoded at once.
    pub step: usize,
    /// Positions step by this (positional interpolation: PM-KVQ, equation 12).
    pub rope_stretch: u32,
    /// Widths to measure, without 16.
    pub widths: Vec<Width>,
    pub sink: u32,
    pub window: u32,
    pub group: u32,
    pub ranges: Ranges,
    pub transforms: Option<Vec<LayerTransforms>>,
    pub threads: u32,
}

/// Most bytes of reference distributions that are kept; with a large vocabulary only every n-th position is compared.
const MOST_REFERENCE: usize = 1 << 29;

impl Settings {
    /// Every so many-th position is compared.
    fn stride(&self, n_vocab: usize) -> usize {
        (self.parallel * self.length * n_vocab * 4).div_ceil(MOST_REFERENCE)
    }

    /// The stretches of a text, as evenly spread over it as they fit.
    ///
    /// # Errors
    /// A text that is too short, with the tokens that are needed.
    pub fn split<'t>(&self, tokens: &'t [i32]) -> Result<Vec<&'t [i32]>, String> {
        // what lies within the window is read at 16 bits: below that there is nothing to measure
        let least = self.window as usize + 2 * crate::geometry::BLOCK;
        if self.length < least {
            return Err(format!(
                "stretches of {} tokens lie almost whole in the 16-bit window: take at least {least} (--length)",
                self.length
            ));
        }
        if self.length as u64 * u64::from(self.rope_stretch) > i32::MAX as u64 {
            return Err(format!(
                "{} tokens stepped by {} go beyond the largest position, {}: take shorter stretches (--length) or a smaller \
                 --rope-stretch",
                self.length,
                self.rope_stretch,
                i32::MAX
            ));
        }
        let needed = self.stretches * self.length;
        if tokens.len() < needed {
            return Err(format!(
                "the text has {} tokens; {} stretches of {} need {needed}: give a longer text, fewer stretches \
                 (--stretches) or shorter ones (--length)",
                tokens.len(),
                self.stretches,
                self.length
            ));
        }
        let apart = if self.stretches > 1 { (tokens.len() - self.length) / (self.stretches - 1) } else { 0 };
        Ok((0..self.stretches).map(|i| &tokens[i * apart..][..self.length]).collect())
    }
}

/// Whoever waits for a profile.
pub trait Waiting {
    /// So many of all passes are done; the rest will take about so long.
    fn passes(&mut self, done: usize, all: usize, left: Duration);
}

/// Sums of one pass over one stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    pub kl: f64,
    pub nll: f64,
    pub n: f64,
}

/// Measures a model. `shape` is what [`crate::ffi::describe_model`] says of it. What is done is kept in `leftover`, so that
/// an interrupted run goes on where it stopped.
///
/// # Errors
/// A text that is too short, a context that can't be created, a decode that fails, a result that is not a number.
pub fn profile(
    model: &Model,
    shape: &ModelShape,
    tokens: &[i32],
    settings: &Settings,
    leftover: &mut Leftover,
    waiting: &mut dyn Waiting,
) -> Result<Profile, String> {
    let stretches = settings.split(tokens)?;
    let targets = plan::targets(shape, settings);
    if targets.is_empty() {
        return Err(
            "no group of values divides the head dimensions of this model: all of it stays at 16 bits, and there is \
                    nothing to measure"
                .to_string(),
        );
    }
    let n_batches = stretches.len() / settings.parallel;
    // the reference pass of each batch first
    let all = n_batches * (targets.len() + 1);
    let (mut done, mut timed, started) = (0, 0, Instant::now());
    let mut result = Profile::new(shape, settings, &targets);
    for (b, batch) in stretches.chunks(settings.parallel).enumerate() {
        let known: Vec<Option<Vec<Sums>>> = (0..targets.len()).map(|t| leftover.get(b, t + 1)).collect();
        let mut reference = None;
        for (t, target) in targets.iter().enumerate() {
            let sums = match &known[t] {
                Some(sums) => sums.clone(),
                None => {
                    if reference.is_none() {
                        reference = Some(pass::reference(model, shape, batch, settings)?);
                        timed += 1;
                    }
                    timed += 1;
                    let sums = pass::target(model, shape, batch, settings, *target, reference.as_ref())?;
                    leftover.put(b, t + 1, &sums)?;
                    sums
                }
            };
            result.add(t, &sums);
            done += 1;
            let each = started.elapsed() / (timed.max(1) as u32);
            waiting.passes(done + b + 1, all, each * (all - done - b - 1) as u32);
        }
    }
    result.check()?;
    Ok(result)
}

/// What identifies a run: the arguments that its result depends on.
pub fn identity(model: &Path, shape: &ModelShape, tokens: &[i32], settings: &Settings) -> serde_json::Value {
    let transforms = settings.transforms.as_ref().map(|t| {
        let json = crate::transform::layers_json(t, shape);
        fnv(json.iter().flat_map(|l| l.to_string().into_bytes()))
    });
    serde_json::json!({
        "model": model.file_name().map(|n| n.to_string_lossy()),
        "model_bytes": std::fs::metadata(model).map(|m| m.len()).ok(),
        "shape": shape,
        "text": fnv(tokens.iter().flat_map(|t| t.to_le_bytes())),
        "parallel": settings.parallel,
        "length": settings.length,
        "stretches": settings.stretches,
        "step": settings.step,
        "rope_stretch": settings.rope_stretch,
        "widths": settings.widths,
        "sink": settings.sink,
        "window": settings.window,
        "group": settings.group,
        "ranges": [settings.ranges.k.name(), settings.ranges.v.name()],
        "transforms": transforms,
    })
}

/// An identity as a short name.
pub fn digest(identity: &serde_json::Value) -> String {
    fnv(identity.to_string().into_bytes())
}

/// FNV-1a, 64 bits: tells texts apart, nothing more.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> String {
    let hash =
        bytes.into_iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}
