//! Is it worth starting at 16 bits?

use super::super::figures::{between, everywhere};
use super::super::finding::{compare, tally, worse, Comparison, Finding};
use super::super::number::{count, short};
use super::super::{Measured, MeasuredText};
use super::{named, Wish};

/// Final widths, bits.
const WIDTHS: [u32; 3] = [8, 4, 2];

/// What nothing is ever narrowed in: the kernels' own rounding and no more.
const SIXTEEN: &str = "uniform:16";

pub fn caches() -> Vec<Wish> {
    let pairs = WIDTHS.iter().flat_map(|w| [named(&format!("uniform:{w}")), named(&format!("static:{w}"))]);
    [named("f16"), named(SIXTEEN)].into_iter().chain(pairs).collect()
}

pub fn conclude(texts: &[MeasuredText]) -> Finding {
    let mut finding = Finding {
        question:
            "A progressive cache starts at 16 bits and narrows what it must when memory is short; a static one has \
                   its final width from the start. At the same final width and the same bytes, is the progressive one \
                   at least as close to f16 at every length? And is it f16's equal until its first shrink?"
                .to_string(),
        ..Finding::default()
    };
    for text in texts {
        for width in WIDTHS {
            let labels = [format!("uniform:{width}"), format!("static:{width}")];
            let [Some(progressive), Some(fixed)] = labels.each_ref().map(|l| text.cache(l)) else { continue };
            let ranges = text.intervals().into_iter().map(|r| between(&text.text, &r));
            let all: Vec<Comparison> = ranges.map(|r| compare(text, progressive, fixed, &r)).collect();
            let whole = compare(text, progressive, fixed, &everywhere(&text.text));
            finding.answer.push(format!(
                "{}, final width {width}: over all positions {} nats progressive, {} static ({}). Divergence of the \
                 progressive cache by interval: {}.",
                text.text.name,
                short(whole.kl_a),
                short(whole.kl_b),
                whole.verdict.words(),
                tally(all.iter())
            ));
            finding.answer.extend(worse(all.iter()));
            finding.answer.extend(text.cache(SIXTEEN).map(|s| until_the_first_shrink(progressive, s)));
            finding.comparisons.push(whole);
            finding.comparisons.extend(all);
        }
    }
    finding
}

/// Whether predictions before the first shrink are those of a cache that never shrinks, bit for bit.
fn until_the_first_shrink(progressive: &Measured, sixteen: &Measured) -> String {
    let (mut same, mut all, mut largest) = (0usize, 0usize, 0f64);
    for (p, s) in progressive.passes.iter().zip(&sixteen.passes) {
        let n = p.first_shrink.map_or(p.kl.len(), |at| at.saturating_sub(p.first).min(p.kl.len()));
        for i in 0..n.min(s.kl.len()) {
            all += 1;
            same += usize::from(p.kl[i] == s.kl[i] && p.nll[i] == s.nll[i]);
            largest = largest.max(f64::from((p.kl[i] - s.kl[i]).abs()));
        }
    }
    let label = &progressive.lane.label;
    let first = progressive.passes.iter().filter_map(|p| p.first_shrink).min();
    let until = first.map_or("nothing ever shrank".to_string(), |n| format!("first shrink after {} tokens", count(n)));
    if same == all {
        format!(
            "{label}: {until}; all {} predictions before it are those of a cache that stays at 16 bits, bit for bit \
             (from f16 as llama.cpp computes it both differ by the rounding of sums, see {SIXTEEN}).",
            count(all)
        )
    } else {
        format!(
            "{label}: {until}; of {} predictions before it {} are those of a cache that stays at 16 bits bit for bit, \
             the largest difference is {} nats.",
            count(all),
            count(same),
            short(largest)
        )
    }
}
