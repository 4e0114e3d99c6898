//! How long the rest will take: attention reads what was written, so a token costs more the later it comes.

use super::stats::fit;

/// Times of steps, and what is to come.
#[derive(Debug, Default)]
pub struct Pace {
    /// (position, seconds per token)
    steps: Vec<(f64, f64)>,
}

impl Pace {
    /// `n` tokens from `position` on took `seconds`.
    pub fn step(&mut self, position: usize, n: usize, seconds: f64) {
        self.steps.push((position as f64 + n as f64 / 2.0, seconds / n.max(1) as f64));
    }

    /// Seconds that the tokens of `ranges` will take; none before anything was seen.
    pub fn left(&self, ranges: impl IntoIterator<Item = std::ops::Range<usize>>) -> Option<f64> {
        let n = self.steps.len() as f64;
        let mean = self.steps.iter().map(|s| s.1).sum::<f64>() / n;
        let flat = (mean, 0.0);
        let (base, slope) = match self.steps.len() {
            0 => return None,
            1..=3 => flat,
            // a step that waited for something else must not promise that later ones are free
            _ => fit(&self.steps).map_or(flat, |l| if l.slope > 0.0 { (l.intercept, l.slope) } else { flat }),
        };
        let cost = |r: std::ops::Range<usize>| {
            let (a, b) = (r.start as f64, r.end as f64);
            (base * (b - a) + slope * (b * b - a * a) / 2.0).max(0.0)
        };
        Some(ranges.into_iter().map(cost).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_rise_with_the_position() {
        let mut pace = Pace::default();
        assert_eq!(pace.left(std::iter::once(0..10)), None);
        for i in 0..10 {
            // token p costs 1 + p / 10 seconds
            let middle = i as f64 * 10.0 + 5.0;
            pace.step(i * 10, 10, 10.0 * (1.0 + middle / 10.0));
        }
        let rest = pace.left([100..200, 0..100]).unwrap();
        assert!((rest - (100.0 + 1500.0 + 100.0 + 500.0)).abs() < 1e-6, "{rest}");
    }

    #[test]
    fn costs_that_do_not_rise() {
        let mut pace = Pace::default();
        for i in 0..10 {
            pace.step(i * 10, 10, 20.0 - i as f64);
        }
        assert!((pace.left(std::iter::once(100..200)).unwrap() - 155.0).abs() < 1e-9);
    }
}
