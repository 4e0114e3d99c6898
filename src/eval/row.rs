//! One prediction: the distribution that a row of logits stands for, and how far another one is from it.

/// Appends the log probabilities that logits stand for.
pub fn log_softmax(logits: &[f32], out: &mut Vec<f32>) {
    let log_sum = log_sum(logits) as f32;
    out.extend(logits.iter().map(|l| l - log_sum));
}

/// Index of the largest value; the last one of equal ones.
pub fn top(row: &[f32]) -> usize {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}

/// Logarithm of the sum of exponentials, nats.
fn log_sum(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(max) + logits.iter().map(|l| f64::from(l - max).exp()).sum::<f64>().ln()
}

/// A distribution that others are compared with: logits of a step are gone after the next one, this is a copy.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Log probabilities, nats.
    log_probs: Vec<f64>,
    top: usize,
}

impl Reference {
    pub fn new(logits: &[f32]) -> Reference {
        let log_sum = log_sum(logits);
        Reference { log_probs: logits.iter().map(|l| f64::from(*l) - log_sum).collect(), top: top(logits) }
    }
}

/// What is kept of a prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// KL divergence of this distribution from the reference's, nats; 0 for the reference itself.
    pub kl: f64,
    /// Negative log likelihood of the token that follows, nats.
    pub nll: f64,
    /// The most likely token is the reference's.
    pub same_top: bool,
    /// The most likely token is the one that follows.
    pub hit: bool,
}

/// Measures logits; `None` if any of them is NaN, or none is finite.
pub fn measure(logits: &[f32], next: i32, reference: Option<&Reference>) -> Option<Measured> {
    let (log_sum, best) = (log_sum(logits), top(logits));
    if !log_sum.is_finite() {
        return None;
    }
    let next = usize::try_from(next).ok().filter(|n| *n < logits.len())?;
    let kl = reference.map_or(0.0, |r| {
        let terms = r.log_probs.iter().zip(logits).map(|(p, q)| {
            let probability = p.exp();
            // what never happens costs nothing, also where the other distribution excludes it as well
            if probability == 0.0 {
                0.0
            } else {
                probability * (p - (f64::from(*q) - log_sum))
            }
        });
        terms.sum()
    });
    Some(Measured {
        kl,
        nll: log_sum - f64::from(logits[next]),
        same_top: reference.is_none_or(|r| r.top == best),
        hit: best == next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2
        let ln = |p: f32| p.ln() + 3.5;
        let reference = Reference::new(&[0.5, 0.25, 0.25].map(ln));
        let m = measure(&[0.25, 0.5, 0.25].map(ln), 1, Some(&reference)).unwrap();
        assert!((m.kl - 0.25 * std::f64::consts::LN_2).abs() < 1e-6, "{m:?}");
        assert!((m.nll - std::f64::consts::LN_2).abs() < 1e-6, "{m:?}");
        assert!(!m.same_top && m.hit);
        let same = measure(&[0.5, 0.25, 0.25].map(ln), 2, Some(&reference)).unwrap();
        assert!(same.kl.abs() < 1e-15 && same.same_top && !same.hit);
        assert!((same.nll - 4f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn tokens_that_never_happen() {
        let never = f32::NEG_INFINITY;
        let reference = Reference::new(&[0.0, never, 0.0]);
        let m = measure(&[0.0, never, 0.0], 0, Some(&reference)).unwrap();
        assert!(m.kl == 0.0 && (m.nll - std::f64::consts::LN_2).abs() < 1e-15);
        assert!(measure(&[0.0, f32::NAN, 0.0], 0, None).is_none());
        assert!(measure(&[never, never], 0, None).is_none());
        assert!(measure(&[0.0, 0.0], 2, None).is_none() && measure(&[0.0, 0.0], -1, None).is_none());
    }
}
