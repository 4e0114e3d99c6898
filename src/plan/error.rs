//! Why a plan was refused.

use std::fmt;

use super::json::FieldError;
use crate::bytes::BudgetError;

/// One variant per kind of defect; defects of single fields are in [`FieldError`].
#[derive(Clone, Debug, PartialEq)]
pub enum PlanError {
    /// The file can't be read. The caller names the file.
    Io {
        message: String,
    },
    TooLarge {
        bytes: u64,
        most: u64,
    },
    NotUtf8,
    /// A field is missing, unknown, of the wrong type or out of range; or it is not JSON.
    Field(FieldError),
    /// JSON, but not one of our plans.
    NotAPlan,
    Version {
        found: String,
    },
    /// Layer `index` of `layers` is not the layer that `model.layers` has there.
    LayerOrder {
        path: String,
        found: u32,
        expected: u32,
    },
    /// The plan's own budget is too small for its own widths.
    Budget(BudgetError),
    /// Another model: the first difference.
    Model {
        what: String,
        plan: String,
        model: String,
    },
    /// The budget can't be solved for again.
    Solve {
        message: String,
    },
}

impl From<FieldError> for PlanError {
    fn from(e: FieldError) -> PlanError {
        PlanError::Field(e)
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { message } => f.write_str(message),
            Self::TooLarge { bytes, most } => {
                write!(f, "the file has {bytes} bytes; more than {most} are not read, as it can't be what it should be")
            }
            Self::NotUtf8 => f.write_str("the file is not text (UTF-8)"),
            Self::Field(e) => e.fmt(f),
            Self::NotAPlan => {
                f.write_str("not a plan: the field 'pmkvq_plan' is missing; plans are made with 'pmkvq plan'")
            }
            Self::Version { found } => {
                write!(f, "pmkvq_plan: version {found} is not known to this build: expected 1; make the plan again")
            }
            Self::LayerOrder { path, found, expected } => {
                write!(f, "{path}: layer {found} where model.layers has layer {expected}")
            }
            Self::Budget(e) => write!(f, "budget_bytes: {e}"),
            Self::Model { what, plan, model } => write!(
                f,
                "the plan is for another model: {what} is {plan} in the plan and {model} in the model; \
                 make a plan with 'pmkvq plan --model'"
            ),
            Self::Solve { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for PlanError {}
