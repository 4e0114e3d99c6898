//! What a side's transform is made from: sums over the rows that a model wrote and asked for.

use super::Transform;

/// Which parts of a transform are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub center: bool,
    /// Scales that balance keys against queries; nothing is known of who reads values, so V has none.
    pub scales: bool,
    pub hadamard: bool,
}

/// Sums over rows of one side of one layer, `[n_head_kv][head_dim]` each.
#[derive(Clone, Debug)]
pub struct SideStats {
    head_dim: usize,
    n: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
    /// Rows of queries, all heads of a KV head together.
    n_q: f64,
    squares_q: Vec<f64>,
}

impl SideStats {
    pub fn new(n_head_kv: usize, head_dim: usize) -> SideStats {
        let zeros = || vec![0.0; n_head_kv * head_dim];
        SideStats { head_dim, n: 0.0, sum: zeros(), squares: zeros(), n_q: 0.0, squares_q: zeros() }
    }

    /// A token's row of K or V, `[n_head_kv][head_dim]`.
    pub fn add(&mut self, row: &[f32]) {
        self.n += 1.0;
        for ((s, q), &x) in self.sum.iter_mut().zip(&mut self.squares).zip(row) {
            let x = f64::from(x);
            *s += x;
            *q += x * x;
        }
    }

    /// A token's queries, `[n_head][head_dim]`; head `h` reads KV head `h / (n_head / n_head_kv)`.
    pub fn add_queries(&mut self, row: &[f32]) {
        let (d, n_head_kv) = (self.head_dim, self.sum.len() / self.head_dim);
        let n_head = row.len() / d;
        let ratio = (n_head / n_head_kv).max(1);
        self.n_q += ratio as f64;
        for (h, q) in row.chunks_exact(d).enumerate() {
            let at = (h / ratio).min(n_head_kv - 1) * d;
            for (s, &x) in self.squares_q[at..].iter_mut().zip(q) {
                *s += f64::from(x) * f64::from(x);
            }
        }
    }

    pub fn tokens(&self) -> u64 {
        self.n as u64
    }

    pub fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|s| s / self.n.max(1.0)).collect()
    }

    /// Variance of each channel about its mean, or its mean square.
    fn spread(&self, center: bool) -> Vec<f64> {
        let n = self.n.max(1.0);
        let of = |(q, s): (&f64, &f64)| {
            let mean = if center { s / n } else { 0.0 };
            (q / n - mean * mean).max(0.0)
        };
        self.squares.iter().zip(&self.sum).map(of).collect()
    }

    /// Scales that balance keys against the queries that read them.
    ///
    /// An error of the same size in every channel of `K / s` costs `sum (s q)^2` in the score, and its size goes with
    /// `sum (k / s)^2` where a rotation mixes the channels. The product of both is least where `s^4 = E k^2 / E q^2`. Only
    /// proportions matter: their geometric mean is 1. They stay within a factor of 1,000 of it.
    fn scales(&self, center: bool) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.sum.len());
        let spread = self.spread(center);
        for (k, q) in spread.chunks(self.head_dim).zip(self.squares_q.chunks(self.head_dim)) {
            // a channel that is never used gets what the others have on average
            let floor = |v: &[f64]| 1e-6 * v.iter().sum::<f64>() / v.len() as f64;
            let (least_k, least_q) =
                (floor(k).max(f64::MIN_POSITIVE), (floor(q) / self.n_q.max(1.0)).max(f64::MIN_POSITIVE));
            let raw: Vec<f64> = k
                .iter()
                .zip(q)
                .map(|(k, q)| 0.25 * (k.max(least_k) / (q / self.n_q.max(1.0)).max(least_q)).ln())
                .collect();
            let mean = raw.iter().sum::<f64>() / raw.len() as f64;
            all.extend(raw.iter().map(|r| (r - mean).clamp(-6.9, 6.9).exp() as f32));
        }
        all
    }

    /// The transform that these rows call for.
    pub fn transform(&self, wanted: Wanted) -> Transform {
        Transform {
            center: wanted.center.then(|| self.mean().into_iter().map(|x| x as f32).collect()),
            scales: (wanted.scales && self.n_q > 0.0).then(|| self.scales(wanted.center)),
            matrix: None,
            hadamard: wanted.hadamard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_balance_keys_and_queries() {
        let mut s = SideStats::new(1, 4);
        for sign in [1.0, -1.0] {
            s.add(&[16.0 * sign + 5.0, sign + 5.0, sign, sign]);
            s.add_queries(&[1.0, 1.0, 16.0, 1.0, 1.0, 1.0, 16.0, 1.0]);
        }
        let t = s.transform(Wanted { center: true, scales: true, hadamard: false });
        assert_eq!(t.center.unwrap(), [5.0, 5.0, 0.0, 0.0]);
        let scales = t.scales.unwrap();
        let expected = [4.0, 1.0, 0.25, 1.0];
        assert!(scales.iter().zip(expected).all(|(s, e)| (s - e as f32).abs() < 1e-3), "{scales:?}");
    }
}
