//! What the run time needs of the transforms: one buffer of f32, and where in it each side's parts lie.

use super::{hadamard_size, matrix, LayerTransforms, Transform};
use crate::geometry::Side;
use crate::shape::ModelShape;

/// The middle of a transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factor {
    #[default]
    None,
    /// `[n_head_kv][head_dim]`, multiplied value by value.
    Scale,
    /// `[n_head_kv][head_dim][head_dim]`.
    Matrix,
}

/// One side of a layer. Offsets are bytes from the start of the buffer, multiples of 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideTransform {
    /// Rows of the Hadamard matrix that comes last; 0: none. It is known without being kept anywhere.
    pub hadamard: usize,
    pub center: bool,
    pub offset_center: u64,
    pub factor: Factor,
    /// Of what is stored.
    pub offset_forward: u64,
    /// Of the queries (K: the inverse's transpose) or of the output (V: the inverse).
    pub offset_inverse: u64,
}

/// All sides of a model, side `2 * layer + side`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transforms {
    pub sides: Vec<SideTransform>,
    pub bytes: u64,
}

impl Transforms {
    /// Where everything goes. `layers` has one entry per layer of `shape`.
    pub fn new(shape: &ModelShape, layers: &[LayerTransforms]) -> Transforms {
        let mut out = Transforms::default();
        for (layer, of) in shape.layers.iter().zip(layers) {
            for side in Side::BOTH {
                let t = of.side(side);
                let (d, n) = (layer.head_dim(side), layer.n_head_kv as usize);
                let mut s = SideTransform::default();
                if t.hadamard && hadamard_size(d) > 1 {
                    s.hadamard = hadamard_size(d);
                }
                if t.center.is_some() {
                    s.center = true;
                    s.offset_center = out.take(n * d);
                }
                let values = match (&t.scales, &t.matrix) {
                    (Some(_), _) => Some((Factor::Scale, n * d)),
                    (None, Some(_)) => Some((Factor::Matrix, n * d * d)),
                    _ => None,
                };
                if let Some((factor, values)) = values {
                    s.factor = factor;
                    s.offset_forward = out.take(values);
                    s.offset_inverse = out.take(values);
                }
                out.sides.push(s);
            }
        }
        out
    }

    fn take(&mut self, values: usize) -> u64 {
        let at = self.bytes;
        self.bytes += (4 * values as u64).next_multiple_of(64);
        at
    }
}

/// The buffer's content, `transforms.bytes / 4` values.
///
/// # Errors
/// A matrix that can't be inverted; plans are checked for that when they are read, so there its field was named.
pub fn write_all(
    transforms: &Transforms,
    shape: &ModelShape,
    layers: &[LayerTransforms],
    out: &mut [f32],
) -> Result<(), String> {
    out.fill(0.0);
    for (i, (layer, of)) in shape.layers.iter().zip(layers).enumerate() {
        for side in Side::BOTH {
            let (t, s) = (of.side(side), &transforms.sides[2 * i + side.index()]);
            let d = layer.head_dim(side);
            let mut put = |offset: u64, values: &mut dyn Iterator<Item = f32>| {
                for (o, v) in out[offset as usize / 4..].iter_mut().zip(values) {
                    *o = v;
                }
            };
            if let Some(center) = &t.center {
                put(s.offset_center, &mut center.iter().copied());
            }
            if let Some(scales) = &t.scales {
                put(s.offset_forward, &mut scales.iter().map(|x| 1.0 / x));
                put(s.offset_inverse, &mut scales.iter().copied());
            } else if t.matrix.is_some() {
                let inverse =
                    inverses(t, d).ok_or_else(|| format!("layer {}, {side}: the matrix can't be inverted", of.il))?;
                // what ggml_mul_mat takes: row i of M makes value i
                let of_query = |m: &[f64]| if side == Side::K { matrix::transposed(m, d) } else { m.to_vec() };
                put(s.offset_forward, &mut t.matrix.iter().flatten().copied());
                put(s.offset_inverse, &mut inverse.chunks(d * d).flat_map(of_query).map(|x| x as f32));
            }
        }
    }
    Ok(())
}

/// Inverses of a transform's matrices, head after head; `None` if one has none.
pub(super) fn inverses(t: &Transform, d: usize) -> Option<Vec<f64>> {
    let mut all = Vec::new();
    for m in t.matrix.as_deref()?.chunks(d * d) {
        let m: Vec<f64> = m.iter().map(|&x| f64::from(x)).collect();
        all.extend(matrix::inverse(&m, d)?);
    }
    Some(all)
}
