//! How far the attention of one cache is from another's: distributions over positions, by layer and query head.

use crate::capi::probe::Seen;

/// One query of one head.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct AttentionSample {
    pub position: usize,
    /// Call of the attention within the graph: the layer, where every layer has a progressive cache.
    pub call: usize,
    pub head: usize,
    /// KL divergence from the reference's weights, nats.
    pub kl: f64,
    /// Total variation: half the sum of the differences, 0 to 1.
    pub tv: f64,
}

/// Which position each cell of a context holds. Caches place tokens as they like, so cells are not compared.
#[derive(Debug, Default)]
pub struct Positions {
    of_cell: Vec<i32>,
}

impl Positions {
    /// Tokens at `first ..` went to `cells`.
    pub fn put(&mut self, first: usize, cells: &[i64]) {
        for (position, &cell) in (first as i32..).zip(cells) {
            let Ok(cell) = usize::try_from(cell) else { continue };
            if cell >= self.of_cell.len() {
                self.of_cell.resize(cell + 1, -1);
            }
            self.of_cell[cell] = position;
        }
    }

    /// Weights by position, `[position]`.
    fn sort(&self, weights: &[(i64, f64)], n: usize) -> Vec<f64> {
        let mut sorted = vec![0.0; n];
        for &(cell, weight) in weights {
            let position = usize::try_from(cell).ok().and_then(|c| self.of_cell.get(c)).copied();
            if let Some(at) = position.and_then(|p| sorted.get_mut(usize::try_from(p).ok()?)) {
                *at += weight;
            }
        }
        sorted
    }
}

/// Weights of one query: `[call][head][position]`.
pub type ByPosition = Vec<Vec<Vec<f64>>>;

/// The weights of the only query that was asked for, at `position`.
pub fn by_position(seen: &Seen, positions: &Positions, position: usize) -> ByPosition {
    let of_call = |call: &Vec<_>| -> Vec<Vec<f64>> {
        let heads: &[Vec<(i64, f64)>] = call.first().map_or(&[], |w: &Vec<Vec<(i64, f64)>>| w);
        heads.iter().map(|weights| positions.sort(weights, position + 1)).collect()
    };
    seen.calls.iter().map(of_call).collect()
}

/// Distances of weights from those of the reference.
pub fn compare(reference: &ByPosition, other: &ByPosition, position: usize) -> Vec<AttentionSample> {
    let mut samples = Vec::new();
    for (call, (p, q)) in reference.iter().zip(other).enumerate() {
        for (head, (p, q)) in p.iter().zip(q).enumerate() {
            let kl = p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum();
            let tv = p.iter().zip(q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
            samples.push(AttentionSample { position, call, head, kl, tv });
        }
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // three tokens; the caches place them differently
        let (mut a, mut b) = (Positions::default(), Positions::default());
        a.put(0, &[0, 1]);
        a.put(2, &[2]);
        b.put(0, &[7, 0, 1]);
        let seen = |weights: [(i64, f64); 3]| Seen { cells: Vec::new(), calls: vec![vec![vec![weights.to_vec()]]] };
        let p = by_position(&seen([(0, 0.5), (1, 0.25), (2, 0.25)]), &a, 2);
        let q = by_position(&seen([(0, 0.5), (1, 0.25), (7, 0.25)]), &b, 2);
        assert_eq!(q, vec![vec![vec![0.25, 0.5, 0.25]]]);
        let samples = compare(&p, &q, 2);
        assert_eq!(samples.len(), 1);
        let s = samples[0];
        assert!((s.tv - 0.25).abs() < 1e-15 && (s.kl - 0.25 * std::f64::consts::LN_2).abs() < 1e-15, "{s:?}");
    }
}
