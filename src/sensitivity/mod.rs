//! Measured sensitivities: what is lost when one side of one layer is stored at one width.
//!
//! They come from our JSON (`docs/plan.md`), from the `sensitivities` of a plan, or from the reference implementation's
//! `sensitivity.pt`. Values are at least 0 and finite; 0 is allowed (it is what 16 bits cost), negative ones are refused,
//! not clamped.

mod file;
mod notes;
mod pickle;
mod torch;
mod zip;

use std::fmt;

use serde::Serialize;

pub(crate) use file::from_plan;
pub use pickle::PickleError;
pub(crate) use torch::looks_like_torch;
pub use torch::{budgets_from_pt, scales_from_pt, Tensor, TorchError};
pub use zip::ZipError;

use crate::geometry::Width;
use crate::plan::{first_difference, Difference, FieldError, PlanError};
use crate::shape::{LayerShape, ModelShape};

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
    Version {
        found: String,
    },
    /// A layer that occurs twice or out of order.
    Order {
        path: String,
        found: u32,
        least: u32,
    },
    Torch(TorchError),
    /// Measured on another model: the first difference.
    Model {
        what: String,
        file: String,
        model: String,
    },
    /// A value below 0.
    Negative {
        path: String,
        found: String,
    },
    /// A value that is no number.
    NotFinite {
        path: String,
    },
    /// Every value is 0.
    AllZero,
}

impl From<FieldError> for SensitivityError {
    fn from(e: FieldError) -> Self {
        let measured = |path: &str| ["k[", "v[", "k_sensitivity[", "v_sensitivity["].iter().any(|s| path.contains(s));
        match e {
            FieldError::Negative { path, found } if measured(&path) => Self::Negative { path, found },
            FieldError::NotFinite { path } if measured(&path) => Self::NotFinite { path },
            e => Self::Field(e),
        }
    }
}

impl From<TorchError> for SensitivityError {
    fn from(e: TorchError) -> Self {
        match e {
            TorchError::Field(e) => e.into(),
            e => Self::Torch(e),
        }
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
            Self::Negative { path, found } => write!(
                f,
                "{path}: {found} is negative; expected at least 0. A rise of loss that comes out below 0 is noise, and is \
                 not taken for 0 here, as noise would choose the widths then: measure more text, or the KL divergence, \
                 which is never negative"
            ),
            Self::NotFinite { path } => write!(
                f,
                "{path}: NaN and infinities are not allowed; expected a finite number. The measurement overflowed, as \
                 gradients in float16 do: measure again in bfloat16 or float32"
            ),
            Self::AllZero => f.write_str(
                "every sensitivity is 0, so there is nothing to choose widths by; measure them again, or make a plan \
                 without them with --uniform",
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

    /// What one side costs at a width: its value, and nothing at 16 bits unless that was measured.
    pub fn cost(&self, values: &[f64], width: Width) -> Option<f64> {
        match self.at(values, width) {
            None if width == Width::B16 && !self.widths.contains(&width) => Some(0.0),
            found => found,
        }
    }
}

/// Which entry of a list of `n`, one per layer and numbered by position only, belongs to each layer of `shape`.
///
/// Such a list has either as many entries as the model has progressive layers, or one for all layers of a model of which
/// only some are progressive (their numbers have gaps). `None` if it is neither.
pub fn positions(n: usize, shape: &ModelShape) -> Option<Vec<usize>> {
    let layers = &shape.layers;
    if n == layers.len() {
        return Some((0..n).collect());
    }
    let has_gaps = layers.iter().enumerate().any(|(i, l)| l.il != i as u32);
    let places: Vec<usize> = layers.iter().map(|l| l.il as usize).filter(|il| *il < n).collect();
    (has_gaps && places.len() == layers.len()).then_some(places)
}

impl SensitivityFile {
    /// The values for the layers of `shape`, in its order.
    ///
    /// A file that numbers layers by position is read as [`positions`] says.
    ///
    /// # Errors
    /// [`SensitivityError::Model`] with the first difference, [`SensitivityError::AllZero`].
    pub fn for_model(&self, shape: &ModelShape) -> Result<Sensitivities, SensitivityError> {
        if let Some(Difference { what, ours, theirs }) = self.model.as_ref().and_then(|m| first_difference(m, shape)) {
            return Err(SensitivityError::Model { what, file: ours, model: theirs });
        }
        let (layers, wanted) = (&self.values.layers, &shape.layers);
        let mut values = self.values.clone();
        if layers.iter().flat_map(|l| l.k.iter().chain(&l.v)).all(|v| *v == 0.0) {
            return Err(SensitivityError::AllZero);
        }
        if let (true, Some(places)) = (self.by_position, positions(layers.len(), shape)) {
            let at = |(i, l): (usize, &LayerShape)| LayerSensitivity { il: l.il, ..layers[i].clone() };
            values.layers = places.into_iter().zip(wanted).map(at).collect();
            return Ok(values);
        }
        let has_gaps = wanted.iter().enumerate().any(|(i, l)| l.il != i as u32);
        if layers.len() != wanted.len() && !(self.by_position && has_gaps) {
            let (file, model) = (layers.len().to_string(), wanted.len().to_string());
            return Err(SensitivityError::Model { what: "the number of layers".to_string(), file, model });
        }
        values.layers.clear();
        for layer in wanted {
            let Some(found) = layers.iter().find(|l| l.il == layer.il) else {
                let file = format!("one of {} layers without a layer {}", layers.len(), layer.il);
                let model = format!("one with layer {}", layer.il);
                return Err(SensitivityError::Model { what: "the list of layers".to_string(), file, model });
            };
            values.layers.push(found.clone());
        }
        Ok(values)
    }
}
