//! Where a model's shape comes from: a GGUF, through llama.cpp, or a JSON file that describes it.

use clap::Args;
use std::path::PathBuf;

use crate::plan::{read_limited, shape_from_json};
use crate::shape::ModelShape;
use crate::transform::RopeOrder;

#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct ModelArgs {
    /// The model, a GGUF file
    #[arg(long, short, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// The model's shape as JSON, in place of the model itself (docs/plan.md)
    #[arg(long, value_name = "FILE")]
    pub shape: Option<PathBuf>,
}

/// A shape, and the largest row of partial results of its attention, query heads times (head_dim_v + 2).
pub struct Shape {
    pub shape: ModelShape,
    pub n_head: Vec<u32>,
    /// How the model lays out the pairs that RoPE rotates; none where nobody says.
    pub rope_order: Option<RopeOrder>,
}

impl ModelArgs {
    pub fn read(&self) -> Result<Shape, String> {
        match (&self.model, &self.shape) {
            (Some(model), _) => from_gguf(model),
            (None, Some(path)) => {
                let bytes = read_limited(path, 1 << 20).map_err(|e| format!("{}: {e}", path.display()))?;
                let text = String::from_utf8(bytes).map_err(|_| format!("{}: not text (UTF-8)", path.display()))?;
                let shape = shape_from_json(&text).map_err(|e| format!("{}: {e}", path.display()))?;
                // the file doesn't say: as many query heads as KV heads
                let n_head = shape.layers.iter().map(|l| l.n_head_kv).collect();
                Ok(Shape { shape, n_head, rope_order: None })
            }
            (None, None) => Err("name a model with --model, or its shape with --shape".to_string()),
        }
    }
}

#[cfg(feature = "llama")]
fn from_gguf(path: &std::path::Path) -> Result<Shape, String> {
    crate::capi::register();
    let found = crate::ffi::describe_model(path)?;
    Ok(Shape { shape: found.shape, n_head: found.n_head, rope_order: found.rope_order })
}

#[cfg(not(feature = "llama"))]
fn from_gguf(path: &std::path::Path) -> Result<Shape, String> {
    Err(format!("{}: this build has no llama.cpp to read models with: use --shape", path.display()))
}
