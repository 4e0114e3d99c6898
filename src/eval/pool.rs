//! All passages of a text with all caches.

use super::lockstep::{lockstep, Lane, Pass, Steps};
use super::pace::Pace;
use super::text::{Passage, Text};
use crate::ffi::Model;

/// Which contexts are alive together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Together {
    /// All caches: the reference is decoded once.
    #[default]
    All,
    /// The reference and one other (and the reference of the attention, where that is compared): least memory, and the
    /// reference is decoded again for every cache.
    Pairs,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    /// Steps of the work that are done, 0 to 1.
    pub share: f64,
    pub seconds_left: Option<f64>,
}

/// `[lane][passage]`; divergences are from the first lane.
///
/// # Errors
/// As for [`lockstep`].
pub fn run<'t>(
    model: &Model,
    lanes: &[Lane],
    text: &'t Text,
    steps: &Steps,
    together: Together,
    progress: &mut dyn FnMut(Done),
) -> Result<Vec<Vec<Pass>>, String> {
    let groups = groups(lanes.len(), steps, together);
    let mut passes: Vec<Vec<Pass>> = vec![Vec::new(); lanes.len()];
    let total: usize = groups.len() * text.passages.iter().map(|p| p.tokens.len()).sum::<usize>();
    let mut before = 0;
    for (g, group) in groups.iter().enumerate() {
        let chosen: Vec<Lane> = group.iter().map(|i| lanes[*i].clone()).collect();
        let mut steps = steps.clone();
        if let Some((reference, _)) = &mut steps.attention {
            *reference = group.iter().position(|i| i == reference).unwrap_or(0);
        }
        // groups differ in cost, passages of a group in length only
        let mut pace = Pace::default();
        for (i, passage) in text.passages.iter().enumerate() {
            let mut on_step = |at: usize, n: usize, seconds: f64| {
                pace.step(at, n, seconds);
                let share = (before + at + n) as f64 / total as f64;
                let whole = |passages: &'t [Passage]| passages.iter().map(|p| 0..p.tokens.len());
                let own = whole(&text.passages[i + 1..]).chain(std::iter::once(at + n..passage.tokens.len()));
                let later = (g + 1..groups.len()).flat_map(|_| whole(&text.passages));
                progress(Done { share, seconds_left: pace.left(own.chain(later)) });
            };
            let of_group = lockstep(model, &chosen, passage, &steps, &mut on_step)?;
            before += passage.tokens.len();
            for (lane, pass) in group.iter().zip(of_group) {
                // a lane that is in every group gives the same each time
                if passes[*lane].len() == i {
                    passes[*lane].push(pass);
                }
            }
        }
    }
    Ok(passes)
}

/// Lanes that run together; the first lane is in every group.
fn groups(n: usize, steps: &Steps, together: Together) -> Vec<Vec<usize>> {
    if together == Together::All || n <= 2 {
        return vec![(0..n).collect()];
    }
    let mut always = vec![0];
    if let Some((reference, _)) = steps.attention {
        always.push(reference);
    }
    always.dedup();
    let others = (0..n).filter(|i| !always.contains(i));
    let groups: Vec<Vec<usize>> = others.map(|i| always.iter().copied().chain([i]).collect()).collect();
    if groups.is_empty() {
        vec![always]
    } else {
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_hold_every_lane_once_beside_the_references() {
        let plain = Steps::default();
        assert_eq!(groups(4, &plain, Together::All), [[0, 1, 2, 3]]);
        assert_eq!(groups(4, &plain, Together::Pairs), [[0, 1], [0, 2], [0, 3]]);
        assert_eq!(groups(1, &plain, Together::Pairs), [[0]]);
        let probed = Steps { attention: Some((1, vec![])), ..Steps::default() };
        assert_eq!(groups(4, &probed, Together::Pairs), [[0, 1, 2], [0, 1, 3]]);
        let first = Steps { attention: Some((0, vec![])), ..Steps::default() };
        assert_eq!(groups(3, &first, Together::Pairs), [[0, 1], [0, 2]]);
    }
}
