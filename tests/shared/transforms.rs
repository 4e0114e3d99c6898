//! Transforms of rows at random, and what they are in f64.

use super::rng::Rng;
use pmkvq::kernels::RowTransform;

/// The transform of a side.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub center: Option<Vec<f32>>,
    pub factor: Option<Vec<f32>>,
    pub hadamard: usize,
}

impl Rows {
    /// Any of the parts, or none, for heads of `d` values.
    pub fn new(rng: &mut Rng, n_head_kv: usize, d: usize) -> Rows {
        let n = n_head_kv * d;
        let center = (rng.below(2) == 0).then(|| (0..n).map(|_| 3.0 * rng.normal()).collect());
        let factor = (rng.below(2) == 0).then(|| (0..n).map(|_| (0.5 + rng.unit()) * 2.0).collect());
        let sizes: Vec<usize> = (0..=d.trailing_zeros()).map(|i| 1 << i).collect();
        let hadamard = [0, 1 << d.trailing_zeros(), rng.pick(&sizes)][rng.below(3)];
        Rows { center, factor, hadamard }
    }

    pub fn view(&self) -> RowTransform<'_> {
        RowTransform { center: self.center.as_deref(), factor: self.factor.as_deref(), hadamard: self.hadamard }
    }

    fn at(values: &Option<Vec<f32>>, or: f64, i: usize) -> f64 {
        values.as_ref().map_or(or, |v| f64::from(v[i]))
    }

    /// Row by row of the matrix, and the sum of the magnitudes that each value is made of.
    fn rotated(&self, x: &[f64]) -> Vec<(f64, f64)> {
        let n = self.hadamard.max(1);
        let one = |x: &[f64], i: usize| {
            let scale = 1.0 / (n as f64).sqrt();
            let terms = (0..n).map(|j| if (i & j).count_ones().is_multiple_of(2) { x[j] } else { -x[j] });
            terms.fold((0.0, 0.0), |(sum, all), t| (sum + scale * t, all + scale * t.abs()))
        };
        x.chunks(n).flat_map(|x| (0..n).map(|i| one(x, i)).collect::<Vec<_>>()).collect()
    }

    /// `H f (x - center)` of a row of a KV head: values, and what their rounding is relative to.
    pub fn forward(&self, head_kv: usize, x: &[f32]) -> Vec<(f64, f64)> {
        let at = |i: usize| head_kv * x.len() + i;
        let scaled = |(i, &x): (usize, &f32)| {
            Self::at(&self.factor, 1.0, at(i)) * (f64::from(x) - Self::at(&self.center, 0.0, at(i)))
        };
        self.rotated(&x.iter().enumerate().map(scaled).collect::<Vec<_>>())
    }

    /// `f H x + center`.
    pub fn back(&self, head_kv: usize, x: &[f64]) -> Vec<f64> {
        let at = |i: usize| head_kv * x.len() + i;
        let unscaled = |(i, (y, _)): (usize, (f64, f64))| {
            Self::at(&self.factor, 1.0, at(i)) * y + Self::at(&self.center, 0.0, at(i))
        };
        self.rotated(x).into_iter().enumerate().map(unscaled).collect()
    }
}

/// Rows of one kind of a ubatch, with gaps between them.
pub struct Kind {
    pub n_head: usize,
    pub d: usize,
    /// Floats between heads, and between tokens.
    pub stride: [usize; 2],
    pub x: Vec<f32>,
    pub of: Rows,
}

impl Kind {
    pub fn new(rng: &mut Rng, n_token: usize, n_head: usize, n_head_kv: usize, d: usize) -> Kind {
        let stride = d + rng.below(2) * 8;
        let stride = [stride, stride * n_head + rng.below(2) * 24];
        // an outlier, an offset, tiny ones; the gaps are NaN
        let mut x = vec![f32::NAN; stride[1] * n_token];
        let (outlier, offset) = (rng.below(d), rng.pick(&[0.0, 0.0, 50.0]));
        let size = rng.pick(&[1.0, 1.0, 1e-30, 1e4]);
        for token in 0..n_token {
            for head in 0..n_head {
                for (i, x) in x[token * stride[1] + head * stride[0]..][..d].iter_mut().enumerate() {
                    *x = size * (offset + rng.normal() * if i == outlier { 100.0 } else { 1.0 });
                }
            }
        }
        Kind { n_head, d, stride, x, of: Rows::new(rng, n_head_kv, d) }
    }

    pub fn row(&self, token: usize, head: usize) -> &[f32] {
        &self.x[token * self.stride[1] + head * self.stride[0]..][..self.d]
    }

    /// Panics unless `got` is `[n_token][n_head][d]` of what it should be.
    pub fn check(&self, n_token: usize, n_head_kv: usize, got: &[f32]) {
        let (n_head, d) = (self.n_head, self.d);
        assert_eq!(got.len(), n_token * n_head * d);
        for (r, got) in got.chunks(d).enumerate() {
            let (token, head) = (r / n_head, r % n_head);
            let want = self.of.forward(head / (n_head / n_head_kv), self.row(token, head));
            for (i, (got, (want, of))) in got.iter().zip(want).enumerate() {
                // a sum of up to 512 values by halves, in f32
                let near = (f64::from(*got) - want).abs() <= 1e-6 * of + 1e-37;
                assert!(
                    near,
                    "{got} for {want} at {i} of head {head}, token {token}: {n_head} heads of {d}, {:?}",
                    self.of
                );
            }
        }
    }
}
