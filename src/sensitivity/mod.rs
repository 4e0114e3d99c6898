//! Measured sensitivities: what is lost when one side of one layer is stored at one width.
//!
//! They come from our JSON (`docs/plan.md`), from the `sensitivities` of a plan, or from the reference implementation's
//! `sensitivity.pt`. Values are at least 0 and finite; 0 is allowed (it is what 16 bits cost), negative ones are refused,
//! not clamped.

mod file;
mod pickle;
mod torch;
mod zip;

use std::fmt;

use serde::Serialize;

pub(crate) use file::from_plan;
pub use pickle::PickleError;
pub use torch::{budgets_from_pt, scales_from_pt, Tensor, TorchError};
pub use zip::ZipError;

use crate::geometry::Width;
use crate::plan::{FieldError, PlanError};
use crate::shape::ModelShape;

/// Version of the JSON format.
pub const VERSION: u32 = 1;
/// Largest sensitivity file that is read, bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// Sensitivities of one layer, in the order of [`Sensitivities::widths`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSensitivity {
    pub il: u32,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
}

/// Sensitivities of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivities {
    /// Where they come from: a file, a text, a command; for people.
    pub source: String,
    /// How they were measured: `gradient`, `native`, ...; for people.
    pub method: String,
    /// Widths that were measured, widest first.
    pub widths: Vec<Width>,
    pub layers: Vec<LayerSensitivity>,
}

/// A sensitivity file as read: it may name its model, and may number its layers by position only.
#[derive(Clone, Debug, PartialEq)]
pub struct SensitivityFile {
    pub model: Option<ModelShape>,
    /// Layers are numbered from 0 because the file does not say (the reference's format).
    pub by_position: bool,
    pub values: Sensitivities,
}

/// Why sensitivities were refused.
#[derive(Clone, Debug, PartialEq)]
pub enum SensitivityError {
    /// The file can't be read.
    File(PlanError),
    Field(FieldError),
    NotSensitivities,
    Version { found: String },
    /// A layer that occurs twice or out of order.
    Order { path: String, found: u32, least: u32 },
    Torch(TorchError),
    /// Measured on another model: the first difference.
    Model { what: String, file: String, model: String },
}

impl From<FieldError> for SensitivityError {
    fn from(e: FieldError) -> Self {
        Self::Field(e)
    }
}

impl From<TorchError> for SensitivityError {
    fn from(e: TorchError) -> Self {
        Self::Torch(e)
    }
}

impl fmt::Display for SensitivityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(e) => e.fmt(f),
            Self::Field(e) => e.fmt(f),
            Self::NotSensitivities => f.write_str(
                "not a sensitivity file: the field 'pmkvq_sensitivity' is missing, and it is not a torch file either",
            ),
            Self::Version { found } => {
                write!(f, "pmkvq_sensitivity: version {found} is not known to this build: expected 1")
            }
            Self::Order { path, found, least } => {
                write!(f, "{path}: layer {found} is out of order: expected at least {least}, each layer once")
            }
            Self::Torch(e) => e.fmt(f),
            Self::Model { what, file, model } => write!(
                f,
                "the sensitivities are of another model: {what} is {file} in the file and {model} in the model; measure \
                 them on this model"
            ),
        }
    }
}

impl std::error::Error for SensitivityError {}

impl Sensitivities {
    /// Value of each of the widths 16, 8, 4, 2 for one side's list; none where it was not measured.
    pub fn at(&self, values: &[f64], width: Width) -> Option<f64> {
        let i = self.widths.iter().position(|w| *w == width)?;
        values.get(i).copied()
    }
}

impl SensitivityFile {
    /// The values for the layers of `shape`, in its order. A file that numbers layers by position fits a model with as
    /// many progressive layers, or one whose progressive layers are all among the file's.
    ///
    /// # Errors
    /// [`SensitivityError::Model`] with the first difference.
    pub fn for_model(&self, shape: &ModelShape) -> Result<Sensitivities, SensitivityError> {
        let differ = |what: &str, file: String, model: String| {
            Err(SensitivityError::Model { what: what.to_string(), file, model })
        };
        if let Some(model) = &self.model {
            if model.arch != shape.arch {
                return differ("the architecture", format!("'{}'", model.arch), format!("'{}'", shape.arch));
            }
            if model.layers.len() != shape.layers.len() {
                let (a, b) = (model.layers.len(), shape.layers.len());
                return differ("the number of layers", a.to_string(), b.to_string());
            }
            for (i, (a, b)) in model.layers.iter().zip(&shape.layers).enumerate() {
                if a != b {
                    return differ(&format!("model.layers[{i}]"), format!("{a:?}"), format!("{b:?}"));
                }
            }
        }
        let layers = &self.values.layers;
        let mut values = self.values.clone();
        if self.by_position && layers.len() == shape.layers.len() {
            for (layer, shape) in values.layers.iter_mut().zip(&shape.layers) {
                layer.il = shape.il;
            }
            return Ok(values);
        }
        if !self.by_position && layers.len() != shape.layers.len() {
            return differ("the number of layers", layers.len().to_string(), shape.layers.len().to_string());
        }
        values.layers.clear();
        for layer in &shape.layers {
            match layers.iter().find(|l| l.il == layer.il) {
                Some(found) => values.layers.push(found.clone()),
                None => {
                    let has = format!("one of {} layers without a layer {}", layers.len(), layer.il);
                    return differ("the list of layers", has, format!("one with layer {}", layer.il));
                }
            }
        }
        Ok(values)
    }
}
