//! The report of `pmkvq eval`: what several caches do to the same text. `docs/report.md` defines every number.

pub mod figures;
pub mod finding;
pub mod made;
mod number;
mod page;
pub mod presets;
mod svg;

use serde::Serialize;
use std::ops::Range;

use crate::eval::{Held, Lane, Pass, Text};
use crate::sensitivity::Sensitivities;
use figures::{between, everywhere, figures, last_eighth, longest, runs, Figures};
use finding::Finding;
pub use made::{Made, ModelIdentity};
pub use page::html;

/// Version of `report.json`.
pub const VERSION: u32 = 1;

/// Points of a curve over position.
const BINS: usize = 64;

/// Everything that is written down.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub pmkvq_report: u32,
    pub made: Made,
    pub model: ModelIdentity,
    /// Tokens decoded at once.
    pub step: usize,
    pub threads: u32,
    pub finding: Option<Finding>,
    pub texts: Vec<TextReport>,
    pub sensitivities: Vec<NamedSensitivities>,
}

/// A sensitivity file that plans were made from.
#[derive(Clone, Debug, Serialize)]
pub struct NamedSensitivities {
    pub label: String,
    pub values: Sensitivities,
}

/// All caches on one text.
#[derive(Clone, Debug, Serialize)]
pub struct TextReport {
    pub name: String,
    /// Of the text that was read, before it was cut to the context.
    pub sha256: String,
    pub bytes: usize,
    /// Passages with a context of their own, and the tokens of all of them.
    pub passages: usize,
    pub tokens: usize,
    /// Tokens of each context.
    pub n_ctx: u32,
    /// Position of the first scored prediction of a passage.
    pub scored_from: usize,
    /// The first one is what the others are compared with.
    pub caches: Vec<CacheReport>,
}

/// One cache on one text.
#[derive(Clone, Debug, Serialize)]
pub struct CacheReport {
    pub label: String,
    /// What the cache is, in words.
    pub what: String,
    /// Bits per value of a full context, all that is allocated counted.
    pub bits_all: f64,
    pub all: Figures,
    pub last_eighth: Figures,
    pub intervals: Vec<Figures>,
    /// Over position, finely.
    pub curve: Vec<Bin>,
    /// Of the longest passage.
    pub held: Vec<Held>,
    /// Least number of tokens after which a block was narrower than 16 bits.
    pub first_shrink: Option<usize>,
    /// Time spent decoding.
    pub seconds: f64,
}

/// Means of predictions at neighbouring positions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub from: usize,
    pub to: usize,
    /// KL divergence from the reference, nats.
    pub kl: f64,
    /// Negative log likelihood, nats.
    pub nll: f64,
}

/// A cache that was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    pub lane: Lane,
    pub what: String,
    /// One per passage.
    pub passes: Vec<Pass>,
}

/// A text that was measured, for presets and for figures.
#[derive(Clone, Debug)]
pub struct MeasuredText {
    pub text: Text,
    pub n_ctx: u32,
    /// The first one is what the others are compared with.
    pub caches: Vec<Measured>,
}

impl MeasuredText {
    pub fn cache(&self, label: &str) -> Option<&Measured> {
        self.caches.iter().find(|c| c.lane.label == label)
    }

    /// Intervals of positions: doubling from 1,024, the last one ends with the longest passage.
    pub fn intervals(&self) -> Vec<Range<usize>> {
        let ends = lengths(self.text.longest());
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let scored = |(a, b): (usize, &usize)| a.max(self.scored_from())..*b;
        starts.zip(&ends).map(scored).filter(|r| !r.is_empty()).collect()
    }

    pub fn scored_from(&self) -> usize {
        self.text.passages.iter().map(|p| p.scored_from).min().unwrap_or(0)
    }

    /// Figures of all caches. `values_per_token`: K and V of one token, all layers.
    pub fn report(&self, values_per_token: u64) -> TextReport {
        let reference = self.caches.first().map(|c| c.passes.as_slice()).unwrap_or_default();
        TextReport {
            name: self.text.name.clone(),
            sha256: made::sha256(&self.text.bytes),
            bytes: self.text.bytes.len(),
            passages: self.text.passages.len(),
            tokens: self.text.passages.iter().map(|p| p.tokens.len()).sum(),
            n_ctx: self.n_ctx,
            scored_from: self.scored_from(),
            caches: self.caches.iter().map(|c| self.cache_report(c, reference, values_per_token)).collect(),
        }
    }

    fn cache_report(&self, cache: &Measured, reference: &[Pass], values_per_token: u64) -> CacheReport {
        let over = |ranges: &[Range<usize>]| figures(&cache.passes, reference, &self.text, ranges);
        let held = cache.passes.get(longest(&self.text.passages)).map(|p| p.held.clone()).unwrap_or_default();
        CacheReport {
            label: cache.lane.label.clone(),
            what: cache.what.clone(),
            bits_all: held.last().map_or(0.0, |h| h.bits_all(values_per_token, self.n_ctx)),
            all: over(&everywhere(&self.text)),
            last_eighth: over(&last_eighth(&self.text)),
            intervals: self.intervals().iter().map(|r| over(&between(&self.text, r))).collect(),
            curve: self.curve(cache),
            held,
            first_shrink: cache.passes.iter().filter_map(|p| p.first_shrink).min(),
            seconds: cache.passes.iter().map(|p| p.seconds).sum(),
        }
    }

    fn curve(&self, cache: &Measured) -> Vec<Bin> {
        let edge = |i: usize| self.text.longest() * i / BINS;
        let bins = (0..BINS).map(|i| edge(i)..edge(i + 1)).filter_map(|range| {
            let ranges = between(&self.text, &range);
            let mean = |value: fn(&Pass, usize) -> f64| {
                let values = runs(&cache.passes, &ranges, value).concat();
                (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
            };
            Some(Bin { from: range.start, to: range.end, kl: mean(figures::kl)?, nll: mean(figures::nll)? })
        });
        bins.collect()
    }
}

/// Ends of the intervals: doubling from 1,024 and half-way in the last stretch, and the end.
pub fn lengths(n: usize) -> Vec<usize> {
    let mut all: Vec<usize> = std::iter::successors(Some(1024), |l| Some(l * 2)).take_while(|l| *l < n).collect();
    if all.last().is_some_and(|l| l * 3 / 2 < n && *l >= 8192) {
        all.push(all[all.len() - 1] * 3 / 2);
    }
    all.push(n);
    all
}

/// Lengths at which it is noted what caches hold: the ends of the intervals, and [`BINS`] points between.
pub fn samples(n: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (1..=BINS).map(|i| n * i / BINS).chain(lengths(n)).filter(|l| *l > 0).collect();
    all.sort_unstable();
    all.dedup();
    all
}
