//! Transforms from the rows that a model writes and asks for, in one pass at 16 bits.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{pass, Settings};
use crate::ffi::{Attention, Model, Observer};
use crate::geometry::{group_size, Width};
use crate::kernels::codes;
use crate::shape::{LayerShape, ModelShape};
use crate::transform::{hadamard_size, LayerTransforms, RopeOrder, SideStats, Transform, Wanted};

/// How the scales of K are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyScales {
    None,
    /// `s^4 = Var k / E q^2` for each channel: least error of the scores for a given size of error.
    #[default]
    Balance,
    /// SmoothAttention, the paper's: the largest |K| of each rotary pair to a power that is searched for.
    Smooth,
}

/// What the transforms of K and of V consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransformWanted {
    pub center_k: bool,
    pub center_v: bool,
    pub scales: KeyScales,
    pub hadamard_k: bool,
    pub hadamard_v: bool,
    /// The width that `Smooth` is searched for.
    pub width: Width,
    pub order: Option<RopeOrder>,
}

/// Tokens of the first stretch that are kept for `Smooth`, and the last of them whose queries are.
const KEPT: usize = 512;
const ASKED: usize = 64;

/// What was seen of one layer.
struct Layer {
    k: SideStats,
    v: SideStats,
    /// `[n_head_kv][head_dim]`, largest |K|.
    max_k: Vec<f32>,
    /// Rows of the first stretch.
    kept_k: Vec<Vec<f32>>,
    kept_v: Vec<Vec<f32>>,
    kept_q: Vec<Vec<f32>>,
}

/// Transforms for every layer, from all stretches of a text.
///
/// # Errors
/// A text that is too short, a pass that fails, a value that is not a number.
pub fn collect(
    model: &Model,
    shape: &ModelShape,
    tokens: &[i32],
    settings: &Settings,
    wanted: &TransformWanted,
) -> Result<Vec<LayerTransforms>, String> {
    let stretches = settings.split(tokens)?;
    // rows as the model has them
    let plain = Settings { transforms: None, ..settings.clone() };
    let new = |l: &LayerShape| {
        let (n, dk, dv) = (l.n_head_kv as usize, l.head_dim_k as usize, l.head_dim_v as usize);
        let (k, v) = (SideStats::new(n, dk), SideStats::new(n, dv));
        let rows = Vec::new;
        Layer { k, v, max_k: vec![0.0; n * dk], kept_k: rows(), kept_v: rows(), kept_q: rows() }
    };
    let layers: RefCell<HashMap<u32, Layer>> = RefCell::new(shape.layers.iter().map(|l| (l.il, new(l))).collect());
    for (b, batch) in stretches.chunks(plain.parallel).enumerate() {
        let seen = |a: &Attention| {
            if let Some(layer) = layers.borrow_mut().get_mut(&a.il) {
                layer.see(a, b == 0, plain.parallel);
            }
        };
        let observer: Observer = Box::new(seen);
        pass::run(model, shape, batch, &plain, None, Some(observer), |_, _, _| {})?;
    }
    let layers = layers.into_inner();
    let mut all = Vec::with_capacity(shape.layers.len());
    for l in &shape.layers {
        let Some(seen) = layers.get(&l.il).filter(|s| s.k.tokens() > 0) else {
            return Err(format!(
                "layer {}: its attention was not seen, so there is nothing to make transforms from",
                l.il
            ));
        };
        let finite = |s: &SideStats| s.mean().iter().all(|m| m.is_finite());
        if !finite(&seen.k) || !finite(&seen.v) {
            return Err(format!("layer {}: K or V is not a number; the model's weights may be damaged", l.il));
        }
        all.push(LayerTransforms { il: l.il, k: key(seen, l, settings, wanted)?, v: value(seen, wanted) });
    }
    Ok(all)
}

impl Layer {
    fn see(&mut self, a: &Attention, first: bool, parallel: usize) {
        let (mut row, mut q) = (Vec::new(), Vec::new());
        let per_sequence = a.k.n_tokens() / parallel;
        for t in 0..a.k.n_tokens() {
            a.k.copy(t, &mut row);
            a.q.copy(t, &mut q);
            self.k.add(&row);
            self.k.add_queries(&q);
            for (m, x) in self.max_k.iter_mut().zip(&row) {
                *m = m.max(x.abs());
            }
            // tokens of a pass are ordered by sequence: the first sequence's come first
            let keep = first && t < per_sequence && self.kept_k.len() < KEPT;
            if keep {
                self.kept_k.push(row.clone());
                self.kept_q.push(q.clone());
            }
            a.v.copy(t, &mut row);
            self.v.add(&row);
            if keep {
                self.kept_v.push(row.clone());
            }
        }
    }
}

fn value(seen: &Layer, wanted: &TransformWanted) -> Transform {
    seen.v.transform(Wanted { center: wanted.center_v, scales: false, hadamard: wanted.hadamard_v })
}

fn key(seen: &Layer, l: &LayerShape, settings: &Settings, wanted: &TransformWanted) -> Result<Transform, String> {
    let scales = wanted.scales == KeyScales::Balance;
    let mut t = seen.k.transform(Wanted { center: wanted.center_k, scales, hadamard: wanted.hadamard_k });
    if wanted.scales == KeyScales::Smooth {
        t.scales = smooth(seen, l, settings, wanted, &t)?;
    }
    Ok(t)
}

/// Steps of alpha, as the reference has them.
const STEPS: usize = 20;

/// `m^alpha` for the alpha of least squared error of the attention's output with K at the width (PM-KVQ, section 3.4); none
/// if doing nothing is better.
fn smooth(
    seen: &Layer,
    l: &LayerShape,
    settings: &Settings,
    wanted: &TransformWanted,
    base: &Transform,
) -> Result<Option<Vec<f32>>, String> {
    let d = l.head_dim_k as usize;
    let order = wanted
        .order
        .ok_or("the model has no rotary positions, so there are no pairs to scale: take '--key-scales balance'")?;
    let Some(group) = group_size(d, settings.group as usize) else { return Ok(None) };
    let mut max = seen.max_k.clone();
    if let Some(center) = &base.center {
        // of what is left after the center is taken away
        max.fill(0.0);
        for row in &seen.kept_k {
            for ((m, x), c) in max.iter_mut().zip(row).zip(center) {
                *m = m.max((x - c).abs());
            }
        }
    }
    for head in max.chunks_mut(d) {
        for p in 0..d / 2 {
            let (a, b) = order.pair(p, d);
            let m = head[a].max(head[b]);
            (head[a], head[b]) = (m, m);
        }
    }
    let exact = outputs(seen, l, |_, x| x.to_vec());
    let mut best: (f64, Option<Vec<f32>>) = (f64::INFINITY, None);
    // of equal errors the largest alpha
    for step in (0..=STEPS).rev() {
        let alpha = step as f32 / STEPS as f32;
        let scales: Vec<f32> = max.iter().map(|m| m.powf(alpha).clamp(1e-4, 1e4)).collect();
        let t = Transform { scales: (step > 0).then(|| scales.clone()), ..base.clone() };
        let with = outputs(seen, l, |head, x| through(&t, head, x, group, wanted.width));
        let error: f64 = exact.iter().zip(&with).map(|(a, b)| (a - b).powi(2)).sum();
        if error < best.0 {
            best = (error, t.scales);
        }
    }
    Ok(best.1)
}

/// A row of one head as a cache at `width` gives it back, transformed back.
fn through(t: &Transform, head: usize, x: &[f32], group: usize, width: Width) -> Vec<f32> {
    let d = x.len();
    let center = |i: usize| t.center.as_ref().map_or(0.0, |c| c[head * d + i]);
    let scale = |i: usize| t.scales.as_ref().map_or(1.0, |s| s[head * d + i]);
    let mut y: Vec<f32> = (0..d).map(|i| (x[i] - center(i)) / scale(i)).collect();
    let rotate = |y: &mut Vec<f32>| {
        if t.hadamard {
            y.chunks_mut(hadamard_size(d)).for_each(crate::kernels::rotate);
        }
    };
    rotate(&mut y);
    for group in y.chunks_mut(group) {
        let halves: Vec<f32> = group.iter().map(|&x| codes::from_f16(codes::to_f16(x))).collect();
        let (min, max) = codes::range(&halves);
        for (y, x) in group.iter_mut().zip(halves) {
            *y = codes::dequantize(codes::narrow8(codes::code8(x, min, max), width), width, min, max);
        }
    }
    rotate(&mut y);
    (0..d).map(|i| y[i] * scale(i) + center(i)).collect()
}

/// Outputs of the attention for the last queries that were kept, with keys as `keys` gives them (head, row).
fn outputs(seen: &Layer, l: &LayerShape, keys: impl Fn(usize, &[f32]) -> Vec<f32>) -> Vec<f64> {
    let (heads, dk, dv) = (l.n_head_kv as usize, l.head_dim_k as usize, l.head_dim_v as usize);
    let n = seen.kept_k.len();
    let mut out = Vec::new();
    for head in 0..heads {
        let k: Vec<Vec<f32>> = seen.kept_k.iter().map(|r| keys(head, &r[head * dk..][..dk])).collect();
        for t in n.saturating_sub(ASKED)..n {
            let ratio = seen.kept_q[t].len() / dk / heads;
            for h in 0..ratio {
                let q = &seen.kept_q[t][(head * ratio + h) * dk..][..dk];
                let scores: Vec<f64> =
                    k[..=t].iter().map(|k| k.iter().zip(q).map(|(a, b)| f64::from(a * b)).sum::<f64>()).collect();
                let scale = 1.0 / (dk as f64).sqrt();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| ((s - most) * scale).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let mut o = vec![0.0; dv];
                for (w, v) in weights.iter().zip(&seen.kept_v) {
                    for (o, v) in o.iter_mut().zip(&v[head * dv..][..dv]) {
                        *o += w / sum * f64::from(*v);
                    }
                }
                out.extend(o);
            }
        }
    }
    out
}
