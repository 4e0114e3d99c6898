//! Figures of a cache over a range of positions.

use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::eval::stats::{mean_of_runs, share_error, Distribution, Mean};
use crate::eval::{mean_bits, Held, Pass, Passage, Text};

/// An answer whose key lies further back than this many tokens is a far one.
pub const FAR: usize = 4000;

/// Answers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    pub right: usize,
    pub all: usize,
    /// Of these, the ones whose key lies more than [`FAR`] tokens before the answer.
    pub far_right: usize,
    pub far_all: usize,
    /// Right with the reference, wrong here; and the other way about.
    pub lost: usize,
    pub gained: usize,
}

/// A share of independent cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    pub share: f64,
    pub se: Option<f64>,
}

impl Share {
    /// None of nothing.
    pub fn of(count: usize, all: usize) -> Option<Share> {
        let share = count as f64 / all as f64;
        (all > 0).then(|| Share { share, se: share_error(share, all) })
    }
}

/// What a cache held at the end of a range, in the longest passage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldFigures {
    pub tokens: usize,
    pub bytes_held: u64,
    pub bytes_total: u64,
    /// Bits per value of history; none while all is sink and window.
    pub bits_history: Option<f64>,
    /// Mean bits of the stored values by layer; none of llama.cpp's own caches.
    pub widths: Vec<LayerBits>,
}

/// Mean bits of one layer's stored values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerBits {
    pub il: u32,
    pub k: f64,
    pub v: f64,
}

/// Figures of predictions made at positions `from .. to`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    pub from: usize,
    pub to: usize,
    pub predictions: usize,
    /// KL divergence from the reference, nats.
    pub kl: Distribution,
    /// Predictions whose most likely token is the reference's.
    pub same_top: Mean,
    pub perplexity: f64,
    pub perplexity_se: Option<f64>,
    /// Mean of ln(perplexity / the reference's), nats; its error is that of the paired differences.
    pub log_ratio: Mean,
    /// By kind of question.
    pub answers: BTreeMap<String, Answers>,
    pub held: Option<HeldFigures>,
}

/// Entries of a pass's lists that belong to a range of positions.
fn entries(pass: &Pass, range: &Range<usize>) -> Range<usize> {
    let clip = |p: usize| p.saturating_sub(pass.first).min(pass.kl.len());
    clip(range.start)..clip(range.end)
}

/// Values of the predictions of a range, one run per passage.
pub fn runs(passes: &[Pass], ranges: &[Range<usize>], value: impl Fn(&Pass, usize) -> f64) -> Vec<Vec<f64>> {
    let of_pass = |(pass, range): (&Pass, &Range<usize>)| entries(pass, range).map(|i| value(pass, i)).collect();
    passes.iter().zip(ranges).map(of_pass).filter(|run: &Vec<f64>| !run.is_empty()).collect()
}

/// The same of two caches: differences of what each made of the same prediction.
pub fn paired(a: &[Pass], b: &[Pass], ranges: &[Range<usize>], value: impl Fn(&Pass, usize) -> f64) -> Vec<Vec<f64>> {
    let of_pass = |((a, b), range): ((&Pass, &Pass), &Range<usize>)| {
        entries(a, range).filter(|i| *i < b.kl.len()).map(|i| value(a, i) - value(b, i)).collect()
    };
    a.iter().zip(b).zip(ranges).map(of_pass).filter(|run: &Vec<f64>| !run.is_empty()).collect()
}

pub fn kl(pass: &Pass, i: usize) -> f64 {
    f64::from(pass.kl[i])
}

pub fn nll(pass: &Pass, i: usize) -> f64 {
    f64::from(pass.nll[i])
}

/// Whether an answer is right: each of its tokens the most likely one, given the text before. None if not all were scored.
fn is_right(pass: &Pass, tokens: &Range<usize>) -> Option<bool> {
    let first = tokens.start.checked_sub(1 + pass.first)?;
    let hits = pass.hit.get(first..first + tokens.len())?;
    Some(hits.iter().all(|h| *h))
}

fn answers(
    passes: &[Pass],
    reference: &[Pass],
    passages: &[Passage],
    ranges: &[Range<usize>],
) -> BTreeMap<String, Answers> {
    let mut kinds: BTreeMap<String, Answers> = BTreeMap::new();
    for (((pass, base), passage), range) in passes.iter().zip(reference).zip(passages).zip(ranges) {
        for q in passage.questions.iter().filter(|q| range.contains(&q.tokens.start)) {
            let (Some(right), Some(was)) = (is_right(pass, &q.tokens), is_right(base, &q.tokens)) else { continue };
            let kind = kinds.entry(q.kind.clone()).or_default();
            let far = q.tokens.start - q.key > FAR;
            kind.all += 1;
            kind.right += usize::from(right);
            kind.far_all += usize::from(far);
            kind.far_right += usize::from(far && right);
            kind.lost += usize::from(was && !right);
            kind.gained += usize::from(right && !was);
        }
    }
    kinds
}

/// The passage that got furthest: what caches hold is shown of it.
pub fn longest(passages: &[Passage]) -> usize {
    let lengths = passages.iter().enumerate().map(|(i, p)| (p.tokens.len(), std::cmp::Reverse(i)));
    lengths.max().map_or(0, |(_, i)| i.0)
}

impl HeldFigures {
    pub fn of(held: &Held) -> HeldFigures {
        let bits = |tokens| mean_bits(tokens).unwrap_or(0.0);
        HeldFigures {
            tokens: held.tokens,
            bytes_held: held.bytes_held,
            bytes_total: held.bytes_total,
            bits_history: held.bits_history(),
            widths: held.layers.iter().map(|l| LayerBits { il: l.il, k: bits(&l.k), v: bits(&l.v) }).collect(),
        }
    }
}

/// Figures of one cache, over one range of positions in each passage.
pub fn figures(passes: &[Pass], reference: &[Pass], text: &Text, ranges: &[Range<usize>]) -> Figures {
    let kl_runs = runs(passes, ranges, kl);
    let nll_mean = mean_of_runs(&runs(passes, ranges, nll));
    let perplexity = nll_mean.mean.exp();
    let end = ranges.iter().map(|r| r.end).max().unwrap_or(0);
    let held = passes.get(longest(&text.passages)).and_then(|p| p.held.iter().rev().find(|h| h.tokens <= end));
    Figures {
        from: ranges.iter().map(|r| r.start).min().unwrap_or(0),
        to: end,
        predictions: kl_runs.iter().map(Vec::len).sum(),
        kl: Distribution::of_runs(&kl_runs),
        same_top: mean_of_runs(&runs(passes, ranges, |p, i| f64::from(u8::from(p.same_top[i])))),
        perplexity,
        perplexity_se: nll_mean.se.map(|se| perplexity * se),
        log_ratio: mean_of_runs(&paired(passes, reference, ranges, nll)),
        answers: answers(passes, reference, &text.passages, ranges),
        held: held.map(HeldFigures::of),
    }
}

/// All positions of each passage.
pub fn everywhere(text: &Text) -> Vec<Range<usize>> {
    text.passages.iter().map(|p| 0..p.tokens.len()).collect()
}

/// The last eighth of each passage.
pub fn last_eighth(text: &Text) -> Vec<Range<usize>> {
    text.passages.iter().map(|p| p.tokens.len() - p.tokens.len() / 8..p.tokens.len()).collect()
}

/// The same positions in every passage.
pub fn between(text: &Text, range: &Range<usize>) -> Vec<Range<usize>> {
    vec![range.clone(); text.passages.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Located;

    fn pass(first: usize, kl: &[f32], nll: &[f32], hit: &[bool]) -> Pass {
        Pass { first, kl: kl.to_vec(), nll: nll.to_vec(), same_top: hit.to_vec(), hit: hit.to_vec(), ..Pass::default() }
    }

    #[test]
    fn by_hand() {
        let question = |tokens: Range<usize>, key| Located { tokens, key, kind: "recall".to_string() };
        let passage = Passage {
            tokens: vec![0; 6],
            questions: vec![question(1..3, 0), question(4..5, 0), question(5..6, 1)],
            scored_from: 0,
        };
        let text = Text { name: String::new(), bytes: Vec::new(), passages: vec![passage] };
        let base = [pass(0, &[0.0; 5], &[1.0; 5], &[true, true, true, true, false])];
        let other = [pass(0, &[0.1, 0.2, 0.3, 0.4, 0.5], &[1.0, 2.0, 1.0, 2.0, 1.5], &[true, false, true, true, true])];
        let all = figures(&other, &base, &text, &everywhere(&text));
        assert_eq!(all.predictions, 5);
        assert!((all.kl.mean - 0.3).abs() < 1e-7 && (all.kl.max - 0.5).abs() < 1e-7);
        assert!((all.perplexity - 1.5f64.exp()).abs() < 1e-7 && (all.log_ratio.mean - 0.5).abs() < 1e-12);
        let a = all.answers["recall"];
        // the first is lost, the second kept, the third gained
        assert_eq!((a.right, a.all, a.lost, a.gained, a.far_all), (2, 3, 1, 1, 0));
        let part = figures(&other, &base, &text, &between(&text, &(1..3)));
        assert_eq!((part.predictions, part.answers["recall"].all), (2, 1));
        assert!((part.kl.mean - 0.25).abs() < 1e-7);
    }

    #[test]
    fn predictions_that_are_not_scored() {
        let p = [pass(3, &[1.0, 2.0], &[0.0; 2], &[true; 2])];
        assert_eq!(runs(&p, std::slice::from_ref(&(0..4)), kl), [vec![1.0]]);
        assert_eq!(runs(&p, std::slice::from_ref(&(0..3)), kl), Vec::<Vec<f64>>::new());
        assert_eq!(runs(&p, std::slice::from_ref(&(4..9)), kl), [vec![2.0]]);
        assert_eq!(is_right(&p[0], &(2..3)), None);
        assert_eq!(is_right(&p[0], &(4..5)), Some(true));
        assert_eq!(is_right(&p[0], &(5..7)), None);
    }
}
