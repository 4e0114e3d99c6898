//! Is a planned allocation worth it?

use super::super::figures::{between, everywhere, last_eighth};
use super::super::finding::{compare, tally, worse, Comparison, Correlation, Finding};
use super::super::number::short;
use super::super::{MeasuredText, NamedSensitivities};
use super::{named, Wish};
use crate::eval::stats::rank_correlation;
use crate::geometry::Width;

/// What a plan is compared with, by its sensitivities and bits.
type Other = fn(&str, f64) -> Wish;

fn planned(sensitivity: &str, bits: f64, tied: bool, layer_rule: bool) -> Wish {
    Wish::Planned { sensitivity: sensitivity.to_string(), bits, tied, layer_rule }
}

pub fn caches(sensitivities: &[String], bits: &[f64]) -> Vec<Wish> {
    let mut all = vec![named("f16")];
    for &b in bits {
        all.push(Wish::Uniform { bits: b });
        for s in sensitivities {
            all.extend([planned(s, b, false, false), planned(s, b, true, false), planned(s, b, false, true)]);
        }
    }
    all
}

pub fn conclude(texts: &[MeasuredText], sensitivities: &[NamedSensitivities], bits: &[f64]) -> Finding {
    let mut finding = Finding {
        question: "At equal bytes, is an allocation planned from sensitivities at least as close to f16 as one width for \
                   all? Are K and V better off with widths of their own than tied? Is the rule 'block' at least as good \
                   as 'layer'? And are deeper layers more sensitive?"
            .to_string(),
        ..Finding::default()
    };
    let against: [(&str, Other); 3] = [
        ("uniform widths", |_, bits| Wish::Uniform { bits }),
        ("tied widths", |s, bits| planned(s, bits, true, false)),
        ("the rule 'layer'", |s, bits| planned(s, bits, false, true)),
    ];
    for text in texts {
        for s in sensitivities {
            for (what, other) in against {
                let mut all: Vec<Comparison> = Vec::new();
                for &b in bits {
                    let plan = text.cache(&planned(&s.label, b, false, false).label());
                    let (Some(plan), Some(other)) = (plan, text.cache(&other(&s.label, b).label())) else { continue };
                    let whole = compare(text, plan, other, &everywhere(&text.text));
                    let last = compare(text, plan, other, &last_eighth(&text.text));
                    finding.answer.push(format!(
                        "{}, {b} bits per value, planned from {} against {what}: {} against {} nats over all positions \
                         ({}), {} against {} over the last eighth ({}).",
                        text.text.name,
                        s.label,
                        short(whole.kl_a),
                        short(whole.kl_b),
                        whole.verdict.words(),
                        short(last.kl_a),
                        short(last.kl_b),
                        last.verdict.words()
                    ));
                    finding.comparisons.extend([whole, last]);
                    all.extend(text.intervals().iter().map(|r| compare(text, plan, other, &between(&text.text, r))));
                }
                finding.answer.push(format!(
                    "{}: divergence of the plan against {what}, intervals of all budgets: {}.",
                    text.text.name,
                    tally(all.iter())
                ));
                finding.answer.extend(worse(all.iter()));
                finding.comparisons.extend(all);
            }
        }
    }
    finding.correlations = correlations(sensitivities);
    finding.answer.extend(depth(&finding.correlations));
    finding
}

/// Of sensitivity with depth, by side and width.
pub fn correlations(sensitivities: &[NamedSensitivities]) -> Vec<Correlation> {
    let mut all = Vec::new();
    for s in sensitivities {
        let layers = &s.values.layers;
        let depth: Vec<f64> = layers.iter().map(|l| f64::from(l.il)).collect();
        for width in s.values.widths.iter().filter(|w| **w != Width::B16) {
            for side in ["K", "V"] {
                let values = layers.iter().filter_map(|l| s.values.at(if side == "K" { &l.k } else { &l.v }, *width));
                let with_depth = rank_correlation(&depth, &values.collect::<Vec<f64>>());
                let width = width.bits() as u32;
                all.push(Correlation { label: s.label.clone(), side, width, with_depth, layers: layers.len() });
            }
        }
    }
    all
}

/// Rank correlations in words. With few layers even a large one may be chance: so large by chance in 5% of orders.
fn depth(correlations: &[Correlation]) -> Vec<String> {
    let of = |c: &Correlation| {
        let Some(r) = c.with_depth else { return format!("{} at {} bits: all layers alike", c.side, c.width) };
        format!("{} at {} bits: {r:+.2}", c.side, c.width)
    };
    let mut labels: Vec<&str> = correlations.iter().map(|c| c.label.as_str()).collect();
    labels.dedup();
    let sentence = |label: &&str| {
        let own: Vec<&Correlation> = correlations.iter().filter(|c| c.label == *label).collect();
        let all: Vec<String> = own.iter().map(|c| of(c)).collect();
        let n = own.first().map_or(0, |c| c.layers);
        // normal approximation of Spearman's coefficient, two-sided
        let least = 1.96 / ((n.max(2) - 1) as f64).sqrt();
        let strong = own.iter().filter(|c| c.with_depth.is_some_and(|r| r > least)).count();
        format!(
            "Sensitivities {label}, rank correlation with depth over {n} layers: {}. Above the {least:.2} that chance \
             passes in one order of forty: {strong} of {}.",
            all.join("; "),
            own.len()
        )
    };
    labels.iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensitivity::{LayerSensitivity, Sensitivities};

    #[test]
    fn depth_by_hand() {
        let layer = |il, k: f64, v: f64| LayerSensitivity { il, k: vec![0.0, k], v: vec![0.0, v] };
        let values = Sensitivities {
            source: String::new(),
            method: String::new(),
            widths: vec![Width::B16, Width::B4],
            layers: vec![layer(0, 1.0, 3.0), layer(1, 2.0, 2.0), layer(2, 9.0, 1.0)],
        };
        let found = correlations(&[NamedSensitivities { label: "s".to_string(), values }]);
        let all: Vec<_> = found.iter().map(|c| (c.side, c.width, c.with_depth.unwrap().round())).collect();
        assert_eq!(all, [("K", 4, 1.0), ("V", 4, -1.0)]);
        assert!(depth(&found)[0].contains("K at 4 bits: +1.00; V at 4 bits: -1.00"), "{:?}", depth(&found));
    }
}
