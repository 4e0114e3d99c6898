//! What is odd about sensitivities, though they can be used.

use super::Sensitivities;
use crate::geometry::{Side, Width};

/// Most places that a note lists.
const LISTED: usize = 4;

impl Sensitivities {
    /// A sentence for each oddity that is allowed but may not be meant: zeros, and widths that cost less than wider ones.
    pub fn notes(&self) -> Vec<String> {
        let sides = || self.layers.iter().flat_map(|l| [(l.il, Side::K, &l.k), (l.il, Side::V, &l.v)]);
        let mut notes = Vec::new();
        let (mut zeros, mut all) = (Vec::new(), 0);
        let mut falls = Vec::new();
        for (il, side, values) in sides() {
            let mut wider: Option<(Width, f64)> = None;
            for (&width, &value) in self.widths.iter().zip(values) {
                if width < Width::B16 {
                    all += 1;
                    if value == 0.0 {
                        zeros.push(format!("layer {il} {side} at {width} bits"));
                    }
                }
                if let Some((w, v)) = wider.filter(|(_, v)| value < *v) {
                    falls.push(format!("layer {il} {side}, {value:.3e} at {width} bits and {v:.3e} at {w}"));
                }
                wider = Some((width, value));
            }
        }
        if !zeros.is_empty() {
            notes.push(format!(
                "{} of {all} sensitivities below 16 bits are 0 ({}): the planner narrows these sides for nothing; measure \
                 more text if they are not free",
                zeros.len(),
                listed(&zeros)
            ));
        }
        if !falls.is_empty() {
            notes.push(format!(
                "a narrower width costs less than a wider one ({}): the planner takes the numbers as they are and never \
                 chooses the wider one there, and while memory fills the step between the two counts as free; measure more \
                 text if that is noise",
                listed(&falls)
            ));
        }
        notes
    }
}

fn listed(places: &[String]) -> String {
    let some = places[..places.len().min(LISTED)].join("; ");
    match places.len() - places.len().min(LISTED) {
        0 => some,
        more => format!("{some}; {more} more"),
    }
}
