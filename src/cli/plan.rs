//! `pmkvq plan`

use clap::Args as ClapArgs;
use std::path::PathBuf;

use super::model::{ModelArgs, Shape};
use super::output::print;
use crate::bytes::{self, human, parse_size, LayoutParams};
use crate::geometry::Width;
use crate::kernels::RangeRule;
use crate::plan::size::{shorten, LARGEST};
use crate::plan::{parse_rule, write_beside, Initial, Kv, Plan, Ranges, Rule, MAX_CTX, MAX_SINK, MAX_WINDOW};
use crate::planner;
use crate::sensitivity::SensitivityFile;
use crate::shape::LayerShape;
use crate::transform::{LayerTransforms, Transform, Transforms, TransformsFile};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Sensitivities: our JSON, or the reference implementation's sensitivity.pt
    #[arg(long, value_name = "FILE", required_unless_present = "uniform", conflicts_with = "uniform")]
    pub sensitivity: Option<PathBuf>,
    /// Tokens of the context
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CTX as i64))]
    pub ctx: u32,
    /// Memory of the KV cache, everything counted: 2GiB, 800M, bytes. Default with --uniform: what the widths need
    #[arg(long, value_name = "SIZE", required_unless_present = "uniform", allow_hyphen_values = true, value_parser = parse_size)]
    pub budget: Option<u64>,
    /// Where the plan goes (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Widths of K and V of a layer: their own, or one for both as in the paper
    #[arg(long, value_enum, default_value_t = Kv::Apart)]
    pub kv: Kv,
    /// Widths to choose from
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "16,8,4,2", allow_negative_numbers = true, value_parser = width)]
    pub widths: Vec<Width>,
    /// One final width for everything, without sensitivities
    #[arg(long, value_name = "WIDTH", allow_negative_numbers = true, value_parser = width)]
    pub uniform: Option<Width>,
    /// Static: blocks are at their final width as soon as they leave the window
    #[arg(long = "static")]
    pub fixed: bool,
    /// Which block shrinks next: block (the cheapest) or layer (the paper's)
    #[arg(long, value_name = "RULE", default_value = "block", value_parser = parse_rule)]
    pub rule: Rule,
    /// Transforms of K and V: a file from 'pmkvq profile --transforms' or from the exporter, the reference implementation's
    /// rep_scales.pt, 'hadamard', or 'none'
    #[arg(long, value_name = "FILE|NAME", default_value = "none")]
    pub transforms: String,
    /// What the step to 2 bits does with a group's range: fit it anew, or shift codes and keep it as the paper does. One for
    /// both, or K's and V's: shift,fit
    #[arg(long, value_name = "RULE", default_value = "fit", value_parser = ranges)]
    pub range: Ranges,
    /// First tokens of each sequence that stay at 16 bits
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=MAX_SINK as i64))]
    pub sink: u32,
    /// Latest tokens of each sequence that stay at 16 bits
    #[arg(long, value_name = "N", default_value_t = 128, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(128..=MAX_WINDOW as i64))]
    pub window: u32,
    /// Most values along the head dimension that share a (min, max) pair
    #[arg(long, value_name = "N", default_value_t = 128, allow_negative_numbers = true, value_parser = group)]
    pub group: u32,
    /// Sequences that run together
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub parallel: u32,
}

pub fn width(text: &str) -> Result<Width, String> {
    let bits = text.trim().parse().ok().and_then(Width::from_bits);
    bits.ok_or_else(|| "not a width: expected 16, 8, 4 or 2".to_string())
}

pub fn group(text: &str) -> Result<u32, String> {
    let group = text.parse().ok().filter(|g| (16..=128).contains(g) && g % 16 == 0);
    group.ok_or_else(|| "expected a multiple of 16 from 16 to 128".to_string())
}

/// # Errors
/// A name that is no rule.
pub fn ranges(text: &str) -> Result<Ranges, String> {
    let rule = |name: &str| {
        RangeRule::from_name(name.trim()).ok_or_else(|| format!("'{}' is no range rule: expected shift or fit", shorten(name)))
    };
    match text.split_once(',') {
        None => rule(text).map(|r| Ranges { k: r, v: r }),
        Some((k, v)) => Ok(Ranges { k: rule(k)?, v: rule(v)? }),
    }
}

/// Transforms by the name that `--transforms` gives.
///
/// # Errors
/// A file that is none of those that are read, or not this model's.
pub fn transforms(name: &str, model: &Shape) -> Result<Option<Vec<LayerTransforms>>, String> {
    match name {
        "none" => Ok(None),
        "hadamard" => {
            let layer = |l: &LayerShape| LayerTransforms { il: l.il, k: Transform::hadamard(), v: Transform::hadamard() };
            Ok(Some(model.shape.layers.iter().map(layer).collect()))
        }
        path => {
            let file = TransformsFile::load(path.as_ref(), &model.shape, model.rope_order);
            Ok(Some(file.map_err(|e| format!("--transforms {path}: {e}"))?.layers))
        }
    }
}

/// What is asked of [`make`] besides the model.
pub struct Wanted {
    pub n_ctx: u32,
    pub parallel: u32,
    pub sink: u32,
    pub window: u32,
    pub group: u32,
    pub rule: Rule,
    pub initial: Initial,
    pub ranges: Ranges,
    pub transforms: Option<Vec<LayerTransforms>>,
}

impl Wanted {
    #[cfg(feature = "llama")]
    pub fn new(n_ctx: u32) -> Wanted {
        Wanted {
            n_ctx,
            parallel: 1,
            sink: 1,
            window: 128,
            group: 128,
            rule: Rule::Block,
            initial: Initial::B16,
            ranges: Ranges { k: RangeRule::Fit, v: RangeRule::Fit },
            transforms: None,
        }
    }

    fn params(&self, model: &Shape) -> LayoutParams {
        let cells = u64::from(bytes::n_blocks(self.n_ctx, self.parallel, self.sink)) * 128;
        let scratch = model
            .shape
            .layers
            .iter()
            .zip(&model.n_head)
            // llama.cpp's default ubatch
            .map(|(l, &n_head)| bytes::scratch_bytes(n_head, l.head_dim_v, cells, 512.min(self.n_ctx)))
            .max();
        LayoutParams {
            n_ctx: self.n_ctx,
            n_seq_max: self.parallel,
            sink: self.sink,
            window: self.window,
            group: self.group,
            scratch_bytes: scratch.unwrap_or(0),
            transform_bytes: self.transforms.as_ref().map_or(0, |t| Transforms::new(&model.shape, t).bytes),
        }
    }
}

/// Sequences of `llama-server` where `-np` is not given.
const SERVER_SLOTS: u32 = 4;

/// Where a plan's widths come from.
pub enum Source<'a> {
    /// One width, with the budget that it takes unless one is given.
    Uniform(Width, Option<u64>),
    Solve {
        file: &'a SensitivityFile,
        budget: u64,
        kv: Kv,
        widths: &'a [Width],
    },
}

/// A plan for a model.
///
/// # Errors
/// Sensitivities that are not this model's, a width that was not measured, a budget below the least possible, which is
/// named.
pub fn make(model: &Shape, wanted: &Wanted, source: Source) -> Result<Plan, String> {
    let params = wanted.params(model);
    let shape = &model.shape;
    let (solved, budget, sensitivities) = match source {
        Source::Uniform(width, budget) => {
            let widths = vec![width; 2 * shape.layers.len()];
            let layout = bytes::Layout::new(shape, &widths, &params);
            // room for the slots that llama-server has unless told otherwise: their partly filled blocks
            let served = LayoutParams { n_seq_max: params.n_seq_max.max(SERVER_SLOTS), ..params };
            let least = bytes::Layout::new(shape, &widths, &served).least_budget();
            let budget = budget.unwrap_or_else(|| layout.comfortable_budget().max(least));
            if budget > LARGEST {
                return Err(format!(
                    "{} would be needed, which no machine has; shorten the context (--ctx)",
                    human(budget)
                ));
            }
            if budget < layout.least_budget() {
                return Err(bytes::BudgetError { budget, least: layout.least_budget() }.to_string());
            }
            (planner::uniform(shape, width), budget, None)
        }
        Source::Solve { file, budget, kv, widths } => {
            let values = file.for_model(shape).map_err(|e| e.to_string())?;
            let solved =
                planner::solve_widths(shape, &values, &params, budget, kv, widths).map_err(|e| e.to_string())?;
            (solved, budget, Some(values))
        }
    };
    Ok(Plan {
        model: shape.clone(),
        n_ctx: wanted.n_ctx,
        n_seq_max: wanted.parallel,
        budget_bytes: budget,
        scratch_bytes: params.scratch_bytes,
        initial: wanted.initial,
        sink: wanted.sink,
        window: wanted.window,
        group: wanted.group,
        rule: wanted.rule,
        ranges: wanted.ranges,
        layers: solved.layers,
        transforms: wanted.transforms.clone(),
        sensitivities,
        solver: solved.solver,
        override_budget: None,
    })
}

pub fn run(args: &Args) -> Result<(), String> {
    let file = match &args.sensitivity {
        Some(path) => Some(SensitivityFile::load(path).map_err(|e| format!("{}: {e}", path.display()))?),
        None => None,
    };
    let model = args.model.read()?;
    if let (Some(file), Some(path)) = (&file, &args.sensitivity) {
        // said here, where the file has a name
        file.for_model(&model.shape).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let wanted = Wanted {
        n_ctx: args.ctx,
        parallel: args.parallel,
        sink: args.sink,
        window: args.window,
        group: args.group,
        rule: args.rule,
        initial: if args.fixed { Initial::Final } else { Initial::B16 },
        ranges: args.range,
        transforms: transforms(&args.transforms, &model)?,
    };
    let source = match (args.uniform, &file, args.budget) {
        (Some(w), _, budget) => Source::Uniform(w, budget),
        (None, Some(file), Some(budget)) => Source::Solve { file, budget, kv: args.kv, widths: &args.widths },
        _ => return Err("--sensitivity and --budget, or --uniform, say what to plan for".to_string()),
    };
    let plan = make(&model, &wanted, source)?;
    let text = plan.to_json();
    for (il, side) in plan.ungrouped() {
        eprintln!("pmkvq: layer {il}, {side}: no group of values divides the head dimension, it stays at 16 bits");
    }
    match &args.output {
        Some(path) => write_beside(path, text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?,
        None => print(&text)?,
    }
    let layout = plan.layout();
    eprintln!(
        "plan: {} for {} tokens ({} at 16 bits), {}",
        human(plan.budget_bytes),
        plan.n_ctx,
        human(layout.f16_bytes),
        plan.solver.status.name()
    );
    Ok(())
}
