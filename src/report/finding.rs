//! What a preset found: its question, the answer in words, and the numbers that the words were made from.

use serde::Serialize;
use std::ops::Range;

use super::figures::{kl, paired, runs};
use super::number::{count, short};
use super::{Measured, MeasuredText};
use crate::eval::stats::{mean_of_runs, Mean};

/// A question and its answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Finding {
    pub preset: String,
    pub question: String,
    /// Sentences, computed from the data.
    pub answer: Vec<String>,
    pub comparisons: Vec<Comparison>,
    pub growth: Vec<Growth>,
    pub attention: Vec<AttentionFigures>,
    pub correlations: Vec<Correlation>,
}

/// Two caches on the same predictions.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub text: String,
    /// Positions.
    pub from: usize,
    pub to: usize,
    pub a: String,
    pub b: String,
    /// Mean KL divergence from the reference, nats.
    pub kl_a: f64,
    pub kl_b: f64,
    /// Mean of the paired differences, a - b.
    pub difference: Mean,
    /// Bytes that the caches allocate.
    pub bytes_a: u64,
    pub bytes_b: u64,
    pub verdict: Verdict,
}

/// Which of two caches is closer to the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// a's divergence is smaller by more than two standard errors.
    Lower,
    /// a's divergence is larger by more than two standard errors.
    Higher,
    /// Neither, or there is no error to tell it from.
    NoDifference,
}

impl Verdict {
    fn of(difference: Mean) -> Verdict {
        match difference.se {
            // exactly equal predictions have no error at all
            Some(se) if difference.mean < -2.0 * se => Verdict::Lower,
            Some(se) if difference.mean > 2.0 * se => Verdict::Higher,
            _ => Verdict::NoDifference,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Verdict::Lower => "lower",
            Verdict::Higher => "higher",
            Verdict::NoDifference => "no difference shown",
        }
    }
}

/// How a divergence changes with the position: a straight line through logarithms.
#[derive(Clone, Debug, Serialize)]
pub struct Growth {
    pub text: String,
    pub cache: String,
    /// `output` (KL divergence of the next token, nats) or `attention` (total variation).
    pub what: &'static str,
    /// Positions that the line was laid through.
    pub from: usize,
    pub to: usize,
    /// Exponent: the divergence grows like position to this power.
    pub slope: f64,
    pub se: Option<f64>,
    /// (position, mean divergence)
    pub points: Vec<(f64, f64)>,
}

/// Distance of one layer's attention from the 16-bit cache's.
#[derive(Clone, Debug, Serialize)]
pub struct AttentionFigures {
    pub text: String,
    pub cache: String,
    /// Layer of the model, or the number of the attention in the graph where the two differ.
    pub layer: u32,
    pub queries: usize,
    /// Means over queries and heads.
    pub tv: f64,
    pub kl: f64,
    /// Of the worst head.
    pub worst_head: usize,
    pub worst_tv: f64,
}

/// Rank correlation of sensitivity with depth.
#[derive(Clone, Debug, Serialize)]
pub struct Correlation {
    pub label: String,
    pub side: &'static str,
    pub width: u32,
    /// Spearman's; none where it can't be told.
    pub with_depth: Option<f64>,
    pub layers: usize,
}

/// Compares two caches over ranges, one per passage.
pub fn compare(text: &MeasuredText, a: &Measured, b: &Measured, ranges: &[Range<usize>]) -> Comparison {
    let mean = |m: &Measured| mean_of_runs(&runs(&m.passes, ranges, kl)).mean;
    let bytes = |m: &Measured| {
        let held = m.passes.iter().filter_map(|p| p.held.last());
        held.map(|h| h.bytes_total).max().unwrap_or(0)
    };
    let difference = mean_of_runs(&paired(&a.passes, &b.passes, ranges, kl));
    Comparison {
        text: text.text.name.clone(),
        from: ranges.iter().map(|r| r.start).min().unwrap_or(0),
        to: ranges.iter().map(|r| r.end).max().unwrap_or(0),
        a: a.lane.label.clone(),
        b: b.lane.label.clone(),
        kl_a: mean(a),
        kl_b: mean(b),
        difference,
        bytes_a: bytes(a),
        bytes_b: bytes(b),
        verdict: Verdict::of(difference),
    }
}

impl Comparison {
    /// One line for people.
    pub fn words(&self) -> String {
        format!(
            "{} against {} at positions {} to {}: {} against {} nats, {}",
            self.a,
            self.b,
            count(self.from),
            count(self.to),
            short(self.kl_a),
            short(self.kl_b),
            self.verdict.words()
        )
    }
}

/// "2 lower, 1 higher, 4 without a difference that could be shown".
pub fn tally<'a>(comparisons: impl Iterator<Item = &'a Comparison> + Clone) -> String {
    let n = |v| comparisons.clone().filter(|c| c.verdict == v).count();
    format!(
        "{} lower, {} higher, {} without a difference that could be shown",
        n(Verdict::Lower),
        n(Verdict::Higher),
        n(Verdict::NoDifference)
    )
}

/// Those in which a is worse, for people.
pub fn worse<'a>(comparisons: impl Iterator<Item = &'a Comparison>) -> Option<String> {
    let all: Vec<String> = comparisons.filter(|c| c.verdict == Verdict::Higher).map(Comparison::words).collect();
    (!all.is_empty()).then(|| format!("Higher: {}.", all.join("; ")))
}
