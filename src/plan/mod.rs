//! The plan: which width each side of each layer may shrink to, and everything a cache is set up with.
//!
//! A JSON file, versioned and strict; `docs/plan.md` describes every field. [`Plan::parse`] refuses what is not
//! consistent in itself, [`Plan::check_model`] what was made for another model.

mod check;
mod config;
mod error;
mod file;
pub mod json;
mod parse;
mod print;
mod resolve;
pub mod size;

use serde::{Serialize, Serializer};

pub(crate) use check::{compare_models, first_difference, Difference};
pub use error::PlanError;
pub use file::{read_limited, write_beside};
pub use json::FieldError;
pub use parse::shape_from_json;
pub(crate) use parse::{per_layer as json_per_layer, shape as json_shape};

use crate::bytes::{Layout, LayoutParams};
use crate::geometry::{Side, Width};
use crate::kernels::RangeRule;
pub use crate::policy::Rule;
use crate::sensitivity::Sensitivities;
use crate::shape::ModelShape;
pub use crate::transform::LayerTransforms;
use crate::transform::Transforms;

/// The version that this build reads and writes.
pub const VERSION: u32 = 1;
/// Largest plan file that is read, bytes.
pub const MAX_FILE: u64 = 256 << 20;
/// Most layers that a plan can have.
pub const MAX_LAYERS: usize = 1024;
/// Most tokens of a context.
pub const MAX_CTX: u32 = 1 << 27;
/// Most tokens of a window.
pub const MAX_WINDOW: u32 = 1 << 20;
/// Most first tokens of a sequence that stay at 16 bits.
pub const MAX_SINK: u32 = 1024;

/// How wide blocks start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initial {
    /// 16 bits: progressive.
    #[default]
    B16,
    /// The final width: static.
    Final,
}

impl Serialize for Initial {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Initial::B16 => s.serialize_u32(16),
            Initial::Final => s.serialize_str("final"),
        }
    }
}

/// Whether K and V of a layer have widths of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kv {
    /// Widths of their own.
    #[default]
    Apart,
    /// One width for both, as in the paper.
    Tied,
}

/// Final widths of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LayerPlan {
    /// Index of the layer in the model.
    pub il: u32,
    pub k: Width,
    pub v: Width,
}

/// What the step to 2 bits does with the ranges of K and of V.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    pub k: RangeRule,
    pub v: RangeRule,
}

impl Ranges {
    pub fn side(&self, side: Side) -> RangeRule {
        match side {
            Side::K => self.k,
            Side::V => self.v,
        }
    }
}

/// How the widths came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The least summed sensitivity that the budget allows, proven.
    Optimal,
    /// The best found before a limit; `gap` says how far it may be from the optimum.
    Limit,
    /// The budget is so small that only the narrowest widths fit, and less than a full window stays at 16 bits.
    Narrowest,
    /// One width for all, no sensitivities.
    Uniform,
    /// The widths were not solved for but given, by layer, no sensitivities.
    Given,
}

impl Status {
    /// As the file has it.
    pub const fn name(self) -> &'static str {
        match self {
            Status::Optimal => "optimal",
            Status::Limit => "limit",
            Status::Narrowest => "narrowest",
            Status::Uniform => "uniform",
            Status::Given => "given",
        }
    }
}

/// What the solver did, and what it was asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Solver {
    pub kv: Kv,
    /// Widths that it could choose from, widest first.
    pub widths: Vec<Width>,
    /// Summed sensitivity; none for uniform plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<f64>,
    pub status: Status,
    /// (objective - lower bound) / objective; 0 if optimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<f64>,
}

/// A plan. The fields are those of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub model: ModelShape,
    /// Tokens that the budget was solved for.
    pub n_ctx: u32,
    /// Sequences that the budget was solved for.
    pub n_seq_max: u32,
    /// Bytes of the cache, everything counted.
    pub budget_bytes: u64,
    /// Of these, what was set aside for the attention's partial results; at run time the real figure counts.
    pub scratch_bytes: u64,
    pub initial: Initial,
    /// First tokens of each sequence that stay at 16 bits.
    pub sink: u32,
    /// Latest tokens of each sequence that stay at 16 bits, at least 128.
    pub window: u32,
    /// Most values along the head dimension that share a (min, max) pair; a multiple of 16 up to 128.
    pub group: u32,
    pub rule: Rule,
    /// Final widths, one entry per layer of the model.
    pub layers: Vec<LayerPlan>,
    /// What the step to 2 bits does with ranges.
    pub ranges: Ranges,
    /// One entry per layer of the model.
    pub transforms: Option<Vec<LayerTransforms>>,
    pub sensitivities: Option<Sensitivities>,
    pub solver: Solver,
    /// A budget from the command line that replaces the plan's at load; not in the file.
    pub override_budget: Option<u64>,
}

impl Plan {
    /// Final widths, side `2 * layer + side`.
    pub fn finals(&self) -> Vec<Width> {
        self.layers.iter().flat_map(|l| [l.k, l.v]).collect()
    }

    /// What the plan was solved for.
    pub fn params(&self) -> LayoutParams {
        LayoutParams {
            n_ctx: self.n_ctx,
            n_seq_max: self.n_seq_max,
            sink: self.sink,
            window: self.window,
            group: self.group,
            scratch_bytes: self.scratch_bytes,
            transform_bytes: self.transform_bytes(),
        }
    }

    /// Bytes of the transforms' vectors and matrices at run time.
    pub fn transform_bytes(&self) -> u64 {
        self.transforms.as_ref().map_or(0, |t| Transforms::new(&self.model, t).bytes)
    }

    /// The layout of the plan's own model, context and widths.
    pub fn layout(&self) -> Layout {
        Layout::new(&self.model, &self.finals(), &self.params())
    }

    /// The same plan under another rule.
    pub fn with_rule(mut self, rule: Rule) -> Plan {
        self.rule = rule;
        self
    }

    /// Sides that stay at 16 bits because no group divides their head dimension, for a warning.
    pub fn ungrouped(&self) -> Vec<(u32, Side)> {
        let sides = self.layout().sides;
        let names = self.model.layers.iter().flat_map(|l| Side::BOTH.map(|s| (l.il, s)));
        names.zip(&sides).filter(|(_, s)| s.group == 0).map(|(name, _)| name).collect()
    }
}

/// The name of a rule, as the file has it.
pub const fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::Block => "block",
        Rule::Layer => "layer",
    }
}

/// A rule by its name.
///
/// # Errors
/// A message that lists the rules.
pub fn parse_rule(name: &str) -> Result<Rule, String> {
    match name {
        "block" => Ok(Rule::Block),
        "layer" => Ok(Rule::Layer),
        _ => Err(format!("'{}' is not a rule: expected 'block' or 'layer'", size::shorten(name))),
    }
}
