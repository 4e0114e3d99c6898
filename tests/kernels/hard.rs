//! Queries, keys and values that are hard on codes, integers and halves.

use super::common::{Cache, Rng};
use pmkvq::geometry::BLOCK;

/// What an attention reads, of one head dimension.
pub struct Operands<'a> {
    pub q: &'a mut [f32],
    pub k: &'a mut Cache,
    pub v: &'a mut Cache,
    pub d: usize,
}

/// What makes normal ones hard.
pub type Change = fn(&mut Rng, &mut Operands);

pub const KINDS: [(&str, Change); 8] = [
    ("normal", |_, _| {}),
    ("one large channel in the queries", |_, c| c.q.chunks_mut(c.d).for_each(|q| q[5] *= 30.0)),
    ("large scores", |_, c| c.q.iter_mut().for_each(|x| *x *= 6.0)),
    ("keys far from zero, by channel", |rng, c| {
        let means: Vec<f32> = (0..c.d).map(|_| 8.0 * rng.normal()).collect();
        rewrite(c.k, |x, _, i| *x += means[i]);
    }),
    ("values far from zero, by channel", |rng, c| {
        let means: Vec<f32> = (0..c.d).map(|_| 8.0 * rng.normal()).collect();
        rewrite(c.v, |x, _, i| *x += means[i]);
    }),
    ("two values only, in keys and values", |_, c| {
        for side in [&mut *c.k, &mut *c.v] {
            // not quite: a cache that keeps both exactly has no error to compare with
            rewrite(side, |x, _, _| *x = x.signum() + 0.02 * *x);
        }
    }),
    ("a peak over a long flat tail", |_, c| {
        let peak: Vec<f32> = c.q[..c.d].iter().map(|x| x * 0.4).collect();
        rewrite(c.k, |x, cell, i| *x = if cell == 777 { peak[i] } else { 0.05 * *x });
    }),
    ("the same, values far from zero", |rng, c| {
        let peak: Vec<f32> = c.q[..c.d].iter().map(|x| x * 0.4).collect();
        let means: Vec<f32> = (0..c.d).map(|_| 8.0 * rng.normal()).collect();
        rewrite(c.k, |x, cell, i| *x = if cell == 777 { peak[i] } else { 0.05 * *x });
        rewrite(c.v, |x, _, i| *x += means[i]);
    }),
];

/// Change what cells hold: value, cell, dimension.
pub fn rewrite(c: &mut Cache, mut f: impl FnMut(&mut f32, usize, usize)) {
    let (n, d) = (c.n_head * c.d, c.d);
    for cell in (0..c.given.len() / n).filter(|cell| c.table[cell / BLOCK].width != 0).collect::<Vec<_>>() {
        let mut row = c.given[cell * n..][..n].to_vec();
        row.iter_mut().enumerate().for_each(|(i, x)| f(x, cell, i % d));
        c.put(&row, &[cell as i64]);
    }
}
