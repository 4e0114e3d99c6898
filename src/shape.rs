//! What the cache needs to know of a model: which layers have K and V of their own, and their dimensions.

use serde::{Deserialize, Serialize};

use crate::geometry::Side;

/// One layer with a progressive cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerShape {
    /// Index of the layer in the model.
    pub il: u32,
    pub n_head_kv: u32,
    pub head_dim_k: u32,
    pub head_dim_v: u32,
}

impl LayerShape {
    pub fn head_dim(&self, side: Side) -> usize {
        match side {
            Side::K => self.head_dim_k as usize,
            Side::V => self.head_dim_v as usize,
        }
    }
}

/// The identity of a model, as far as its KV cache goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// `general.architecture` of the GGUF.
    pub arch: String,
    /// `general.name` of the GGUF; for people, never compared.
    #[serde(default)]
    pub name: String,
    /// The context that the model was trained for, tokens.
    pub n_ctx_train: u32,
    /// Layers with a progressive cache, in order of `il`. Sliding-window and recurrent layers are not among them.
    pub layers: Vec<LayerShape>,
}
