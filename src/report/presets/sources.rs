//! Sensitivities of several sources: measured with stretched positions (`interpolation`), or on several kinds of text
//! (`transfer`). Plans are made from each, at the same bytes, and used on every text.

use super::super::figures::everywhere;
use super::super::finding::{compare, tally, Comparison, Finding, Verdict};
use super::super::number::short;
use super::super::{MeasuredText, NamedSensitivities};
use super::{named, Wish};

fn planned(sensitivity: &str, bits: f64) -> Wish {
    Wish::Planned { sensitivity: sensitivity.to_string(), bits, tied: false, layer_rule: false }
}

pub fn caches(sensitivities: &[String], bits: &[f64]) -> Vec<Wish> {
    let mut all = vec![named("f16")];
    for &b in bits {
        all.push(Wish::Uniform { bits: b });
        all.extend(sensitivities.iter().map(|s| planned(s, b)));
    }
    all
}

/// Every source against `base` on one text; the sentence, and the comparisons.
fn against(
    text: &MeasuredText,
    sensitivities: &[NamedSensitivities],
    base: &str,
    bits: f64,
) -> Option<(String, Vec<Comparison>)> {
    let own = text.cache(&planned(base, bits).label())?;
    let whole = everywhere(&text.text);
    let others = sensitivities.iter().filter(|s| s.label != base);
    let all: Vec<Comparison> = others
        .filter_map(|s| Some(compare(text, text.cache(&planned(&s.label, bits).label())?, own, &whole)))
        .collect();
    let first = all.first()?;
    let list = |c: &Comparison| format!("{} {} ({})", c.a, short(c.kl_a), c.verdict.words());
    let mut sentence = format!(
        "{}, {bits} bits per value: {} {} nats; {}.",
        text.text.name,
        first.b,
        short(first.kl_b),
        all.iter().map(list).collect::<Vec<_>>().join("; ")
    );
    if let Some(uniform) = text.cache(&Wish::Uniform { bits }.label()) {
        let c = compare(text, own, uniform, &whole);
        sentence += &format!(" Uniform widths at these bytes: {}.", short(c.kl_b));
    }
    Some((sentence, all))
}

pub fn interpolation(texts: &[MeasuredText], sensitivities: &[NamedSensitivities], bits: &[f64]) -> Finding {
    let mut finding = Finding {
        question:
            "The paper measures sensitivities on short text with positions stretched by s, as if it were long. Do \
                   plans made so serve long text better than those of s = 1 (the first file), and short text no worse?"
                .to_string(),
        ..Finding::default()
    };
    let base = sensitivities.first().map_or("", |s| s.label.as_str());
    for text in texts {
        for &b in bits {
            let Some((sentence, all)) = against(text, sensitivities, base, b) else { continue };
            finding.answer.push(sentence);
            let best = all.iter().filter(|c| c.verdict == Verdict::Lower).min_by(|x, y| x.kl_a.total_cmp(&y.kl_a));
            finding.answer.push(match best {
                Some(c) => format!("Best at that: {}.", c.words()),
                None => format!("None is shown to be better than {base}: {}.", tally(all.iter())),
            });
            finding.comparisons.extend(all);
        }
    }
    finding
}

pub fn transfer(texts: &[MeasuredText], sensitivities: &[NamedSensitivities], bits: &[f64]) -> Finding {
    let mut finding = Finding {
        question:
            "Does a plan made on one kind of text serve another? On every text, plans made elsewhere are compared with \
                   the one made on that kind of text (the sensitivities whose label is the text's name without its \
                   ending)."
                .to_string(),
        ..Finding::default()
    };
    let mut all = Vec::new();
    for text in texts {
        let stem = text.text.name.rsplit_once('.').map_or(text.text.name.as_str(), |(stem, _)| stem);
        let own = sensitivities.iter().find(|s| s.label == stem).or(sensitivities.first());
        let Some(own) = own else { continue };
        if own.label != stem {
            finding.answer.push(format!(
                "{}: no sensitivities are called '{stem}'; plans are compared with those of {}.",
                text.text.name, own.label
            ));
        }
        for &b in bits {
            if let Some((sentence, found)) = against(text, sensitivities, &own.label, b) {
                finding.answer.push(sentence);
                all.extend(found);
            }
        }
    }
    finding
        .answer
        .push(format!("Divergence of plans made on other text than the one they are used on: {}.", tally(all.iter())));
    finding.comparisons = all;
    finding
}
