//! Transforms of keys and values before they are stored.
//!
//! A group's codes have one grid for all its values, so what the grid loses depends on how the values lie. Per KV head, a
//! row of K or V is stored as
//!
//! ```text
//! x' = H * M * (x - center)
//! ```
//!
//! with a diagonal or full matrix M and a Hadamard rotation H, each optional. Queries become `H * M^-T * q`, so that every
//! score loses the same constant and softmax doesn't notice; of V the output becomes `M^-1 * H * o + center`, as softmax
//! weights sum to one. `scales` are the paper's key scales (PM-KVQ, section 3.4: K is divided by them, Q multiplied);
//! subtracting a center costs no bits and takes away what the heads' channels have in common (a bias of K, for one).
//!
//! They are applied at run time, after RoPE (`llama/pmkvq-graph.cpp`), so that weights stay as they are.

mod data;
mod file;
mod json;
mod matrix;
mod stats;

pub use data::{write_all, Factor, SideTransform, Transforms};
pub use file::{RopeOrder, TransformsFile};
pub(crate) use json::{from_plan, layers_json};
pub use matrix::inverse;
pub use stats::{SideStats, Wanted};

use crate::geometry::Side;
use crate::shape::ModelShape;

/// What happens to one side of one layer. `center` and `scales` are `[n_head_kv][head_dim]`, `matrix` is
/// `[n_head_kv][head_dim][head_dim]`, rows first: `(M x)[i] = sum_j M[i][j] x[j]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transform {
    /// Subtracted first.
    pub center: Option<Vec<f32>>,
    /// Divides. Never together with `matrix`.
    pub scales: Option<Vec<f32>>,
    /// Multiplies from the left.
    pub matrix: Option<Vec<f32>>,
    /// Comes last: orthonormal Hadamard matrices of the largest power of two that divides the head dimension.
    pub hadamard: bool,
}

impl Transform {
    pub fn hadamard() -> Transform {
        Transform { hadamard: true, ..Transform::default() }
    }

    pub fn is_none(&self) -> bool {
        *self == Transform::default()
    }

    /// For a table: `center+scales+hadamard`.
    pub fn summary(&self) -> String {
        let parts = [
            (self.center.is_some(), "center"),
            (self.scales.is_some(), "scales"),
            (self.matrix.is_some(), "matrix"),
            (self.hadamard, "hadamard"),
        ];
        let names: Vec<&str> = parts.iter().filter(|p| p.0).map(|p| p.1).collect();
        if names.is_empty() {
            "none".to_string()
        } else {
            names.join("+")
        }
    }
}

/// Transforms of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTransforms {
    /// Index of the layer in the model.
    pub il: u32,
    pub k: Transform,
    pub v: Transform,
}

impl LayerTransforms {
    pub fn side(&self, side: Side) -> &Transform {
        match side {
            Side::K => &self.k,
            Side::V => &self.v,
        }
    }

    pub fn side_mut(&mut self, side: Side) -> &mut Transform {
        match side {
            Side::K => &mut self.k,
            Side::V => &mut self.v,
        }
    }
}

/// No transform anywhere, one entry per layer.
pub fn none(shape: &ModelShape) -> Vec<LayerTransforms> {
    let none =
        |l: &crate::shape::LayerShape| LayerTransforms { il: l.il, k: Transform::default(), v: Transform::default() };
    shape.layers.iter().map(none).collect()
}

/// Rows of the Hadamard matrix for a head dimension: the largest power of two that divides it.
pub const fn hadamard_size(head_dim: usize) -> usize {
    1 << head_dim.trailing_zeros()
}
