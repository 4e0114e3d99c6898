//! Does error accumulate?

use super::super::figures::{between, kl, runs};
use super::super::finding::{AttentionFigures, Finding, Growth};
use super::super::number::{count, short, with_error};
use super::super::{Measured, MeasuredText};
use super::{named, Wish};
use crate::eval::stats::fit;
use crate::eval::AttentionSample;

/// The cache whose attention is the yardstick: the same kernels, nothing narrowed.
pub const SIXTEEN: &str = "uniform:16";

/// Earliest position that is looked at: before, much of the text lies in the 16-bit window, and the divergence grows because
/// the window's share of the text falls. Short texts have no choice.
const FROM: usize = 2048;
const FROM_IF_SHORT: usize = 512;

/// Stretches of positions, each 1/STRETCHES of the way in logarithms.
const STRETCHES: usize = 12;

pub fn caches(sensitivities: &[String], bits: &[f64]) -> Vec<Wish> {
    let mut all: Vec<Wish> =
        ["f16", SIXTEEN, "static:8", "static:4", "static:2", "uniform:2"].into_iter().map(named).collect();
    for s in sensitivities {
        for &bits in bits {
            all.push(Wish::Planned { sensitivity: s.clone(), bits, tied: false, layer_rule: false });
        }
    }
    all
}

/// Ends of the stretches.
fn edges(n: usize) -> Vec<usize> {
    let from = if n >= 4 * FROM { FROM } else { FROM_IF_SHORT };
    let ratio = n as f64 / from as f64;
    if ratio <= 1.0 {
        return Vec::new();
    }
    (0..=STRETCHES).map(|i| (from as f64 * ratio.powf(i as f64 / STRETCHES as f64)).round() as usize).collect()
}

/// Two positions in every stretch.
pub fn positions(n: usize) -> Vec<usize> {
    let mut all: Vec<usize> =
        edges(n).windows(2).flat_map(|w| [(w[0] + w[1]) / 2, w[1].saturating_sub(1)]).filter(|p| *p < n).collect();
    all.dedup();
    all
}

pub fn conclude(texts: &[MeasuredText], layers: &[u32]) -> Finding {
    let mut finding = Finding {
        question: "Does error accumulate over a long text? If it does, the divergence from f16 grows with the position. It \
                   is drawn for the output and for the attention's distributions, and a line is laid through the \
                   logarithms: a slope of 0 is no growth, 1 is growth in proportion. Static caches answer the question, at \
                   positions where the 16-bit window is a small part of the text: while its share falls, divergence \
                   rises without any accumulation. In a progressive cache the widths fall as well."
            .to_string(),
        ..Finding::default()
    };
    for text in texts {
        let n = text.text.longest();
        if edges(n).is_empty() {
            finding.answer.push(format!(
                "{}: {} tokens are too short to tell; more than {FROM_IF_SHORT} are needed.",
                text.text.name,
                count(n)
            ));
        }
        for cache in text.caches.iter().skip(1) {
            let found = [output(text, cache), attention(text, cache)];
            for growth in found.into_iter().flatten() {
                finding.answer.push(words(&growth));
                finding.growth.push(growth);
            }
            finding.attention.extend(by_layer(text, cache, layers));
        }
    }
    finding
}

fn words(g: &Growth) -> String {
    let se = g.se.unwrap_or(f64::INFINITY);
    let verdict = if g.slope > 2.0 * se {
        "it grows with the position"
    } else if g.slope < -2.0 * se {
        "it falls with the position"
    } else {
        "no growth shown"
    };
    let ends = [g.points.first(), g.points.last()].map(|p| p.map_or(0.0, |p| p.1));
    format!(
        "{}, {}, {}: slope {} over positions {} to {} ({} to {}): {verdict}.",
        g.text,
        g.cache,
        g.what,
        with_error(g.slope, g.se),
        count(g.from),
        count(g.to),
        short(ends[0]),
        short(ends[1])
    )
}

/// A line through the logarithms of means; none where there is no divergence.
fn growth(text: &MeasuredText, cache: &Measured, what: &'static str, points: Vec<(f64, f64)>) -> Option<Growth> {
    let positive: Vec<(f64, f64)> = points.into_iter().filter(|p| p.1 > 0.0).collect();
    let logs: Vec<(f64, f64)> = positive.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let line = fit(&logs)?;
    Some(Growth {
        text: text.text.name.clone(),
        cache: cache.lane.label.clone(),
        what,
        from: edges(text.text.longest()).first().copied().unwrap_or(0),
        to: text.text.longest(),
        slope: line.slope,
        se: line.se,
        points: positive,
    })
}

fn middle(edges: &[usize]) -> f64 {
    (edges[0] as f64 * edges[1] as f64).sqrt()
}

fn output(text: &MeasuredText, cache: &Measured) -> Option<Growth> {
    let edges = edges(text.text.longest());
    let stretch = |w: &[usize]| {
        let values = runs(&cache.passes, &between(&text.text, &(w[0]..w[1])), kl).concat();
        (!values.is_empty()).then(|| (middle(w), values.iter().sum::<f64>() / values.len() as f64))
    };
    growth(text, cache, "output", edges.windows(2).filter_map(stretch).collect())
}

fn attention(text: &MeasuredText, cache: &Measured) -> Option<Growth> {
    let samples: Vec<&AttentionSample> = cache.passes.iter().flat_map(|p| &p.attention).collect();
    let edges = edges(text.text.longest());
    let stretch = |w: &[usize]| {
        let own = samples.iter().filter(|s| (w[0]..w[1]).contains(&s.position));
        let (n, sum) = own.fold((0usize, 0.0), |(n, sum), s| (n + 1, sum + s.tv));
        (n > 0).then(|| (middle(w), sum / n as f64))
    };
    growth(text, cache, "attention", edges.windows(2).filter_map(stretch).collect())
}

fn by_layer(text: &MeasuredText, cache: &Measured, layers: &[u32]) -> Vec<AttentionFigures> {
    let samples: Vec<&AttentionSample> = cache.passes.iter().flat_map(|p| &p.attention).collect();
    let calls = samples.iter().map(|s| s.call + 1).max().unwrap_or(0);
    let heads = samples.iter().map(|s| s.head + 1).max().unwrap_or(0);
    let mean = |chosen: &dyn Fn(&AttentionSample) -> bool, value: fn(&AttentionSample) -> f64| {
        let own: Vec<f64> = samples.iter().filter(|s| chosen(s)).map(|s| value(s)).collect();
        own.iter().sum::<f64>() / own.len().max(1) as f64
    };
    let figures = |call: usize| {
        let by_head = (0..heads).map(|h| (h, mean(&|s| s.call == call && s.head == h, |s| s.tv)));
        let worst = by_head.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0));
        AttentionFigures {
            text: text.text.name.clone(),
            cache: cache.lane.label.clone(),
            // one call for every layer, unless layers share caches
            layer: if calls == layers.len() { layers[call] } else { call as u32 },
            queries: samples.iter().filter(|s| s.call == call && s.head == 0).count(),
            tv: mean(&|s| s.call == call, |s| s.tv),
            kl: mean(&|s| s.call == call, |s| s.kl),
            worst_head: worst.0,
            worst_tv: worst.1,
        }
    };
    (0..calls).map(figures).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_double_evenly() {
        assert!(edges(512).is_empty() && positions(100).is_empty());
        let e = edges(2048 * 4096);
        assert_eq!((e[0], e[1], e[STRETCHES]), (2048, 4096, 2048 * 4096));
        assert_eq!(positions(2048 * 4096).len(), 2 * STRETCHES);
        assert_eq!((edges(8191)[0], edges(8192)[0]), (512, 2048));
        assert!(positions(600).iter().all(|p| (512..600).contains(p)));
    }
}
