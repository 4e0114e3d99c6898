//! `pmkvq plan`

use clap::Args as ClapArgs;
use std::io::Write;
use std::path::PathBuf;

use super::model::{ModelArgs, Shape};
use crate::bytes::{self, human, parse_size, LayoutParams};
use crate::geometry::Width;
use crate::plan::{parse_rule, write_beside, Initial, Kv, Plan, Rule};
use crate::planner;
use crate::sensitivity::SensitivityFile;

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Sensitivities: our JSON, or the reference implementation's sensitivity.pt
    #[arg(long, value_name = "FILE", required_unless_present = "uniform", conflicts_with = "uniform")]
    pub sensitivity: Option<PathBuf>,
    /// Tokens of the context
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=crate::plan::MAX_CTX as i64))]
    pub ctx: u32,
    /// Memory of the KV cache, everything counted: 2GiB, 800M, bytes. Default with --uniform: what the widths need
    #[arg(long, value_name = "SIZE", required_unless_present = "uniform")]
    pub budget: Option<String>,
    /// Where the plan goes (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Widths of K and V of a layer: their own, or one for both as in the paper
    #[arg(long, value_enum, default_value_t = Kv::Apart)]
    pub kv: Kv,
    /// Widths to choose from
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "16,8,4,2")]
    pub widths: Vec<String>,
    /// One final width for everything, without sensitivities
    #[arg(long, value_name = "WIDTH")]
    pub uniform: Option<String>,
    /// Static: blocks are at their final width as soon as they leave the window
    #[arg(long = "static")]
    pub fixed: bool,
    /// Which block shrinks next: block (the cheapest) or layer (the paper's)
    #[arg(long, value_name = "RULE", default_value = "block")]
    pub rule: String,
    /// First tokens of each sequence that stay at 16 bits
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=crate::plan::MAX_SINK as i64))]
    pub sink: u32,
    /// Latest tokens of each sequence that stay at 16 bits
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(128..=crate::plan::MAX_WINDOW as i64))]
    pub window: u32,
    /// Most values along the head dimension that share a (min, max) pair
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub group: u32,
    /// Sequences that run together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub parallel: u32,
}

fn width(text: &str, flag: &str) -> Result<Width, String> {
    let bits = text.trim().parse().ok().and_then(Width::from_bits);
    bits.ok_or_else(|| format!("{flag}: '{text}' is not a width: expected 16, 8, 4 or 2"))
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
}

impl Wanted {
    pub fn new(n_ctx: u32) -> Wanted {
        Wanted { n_ctx, parallel: 1, sink: 1, window: 128, group: 128, rule: Rule::Block, initial: Initial::B16 }
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
        }
    }
}

/// Where a plan's widths come from.
pub enum Source<'a> {
    /// One width, with the budget that it takes unless one is given.
    Uniform(Width, Option<u64>),
    Solve { file: &'a SensitivityFile, budget: u64, kv: Kv, widths: &'a [Width] },
}

pub fn make(model: &Shape, wanted: &Wanted, source: Source) -> Result<Plan, String> {
    let params = wanted.params(model);
    let shape = &model.shape;
    let (solved, budget, sensitivities) = match source {
        Source::Uniform(width, budget) => {
            let layout = bytes::Layout::new(shape, &vec![width; 2 * shape.layers.len()], &params);
            let budget = budget.unwrap_or_else(|| layout.comfortable_budget());
            if budget < layout.least_budget() {
                return Err(bytes::BudgetError { budget, least: layout.least_budget() }.to_string());
            }
            (planner::uniform(shape, width), budget, None)
        }
        Source::Solve { file, budget, kv, widths } => {
            let values = file.for_model(shape).map_err(|e| e.to_string())?;
            let solved = planner::solve_widths(shape, &values, &params, budget, kv, widths).map_err(|e| e.to_string())?;
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
        layers: solved.layers,
        transforms: None,
        sensitivities,
        solver: solved.solver,
        override_budget: None,
    })
}

pub fn run(args: &Args) -> Result<(), String> {
    let budget = args.budget.as_deref().map(parse_size).transpose().map_err(|e| format!("--budget: {e}"))?;
    let widths = args.widths.iter().map(|w| width(w, "--widths")).collect::<Result<Vec<_>, _>>()?;
    let uniform = args.uniform.as_deref().map(|w| width(w, "--uniform")).transpose()?;
    let rule = parse_rule(&args.rule).map_err(|e| format!("--rule: {e}"))?;
    if args.group == 0 || args.group > 128 || !args.group.is_multiple_of(16) {
        return Err(format!("--group: {} is not a multiple of 16 up to 128", args.group));
    }
    let file = match &args.sensitivity {
        Some(path) => Some(SensitivityFile::load(path).map_err(|e| format!("{}: {e}", path.display()))?),
        None => None,
    };
    let model = args.model.read()?;
    let wanted = Wanted {
        n_ctx: args.ctx,
        parallel: args.parallel,
        sink: args.sink,
        window: args.window,
        group: args.group,
        rule,
        initial: if args.fixed { Initial::Final } else { Initial::B16 },
    };
    let source = match (uniform, &file, budget) {
        (Some(w), _, budget) => Source::Uniform(w, budget),
        (None, Some(file), Some(budget)) => Source::Solve { file, budget, kv: args.kv, widths: &widths },
        _ => return Err("--sensitivity and --budget, or --uniform, say what to plan for".to_string()),
    };
    let plan = make(&model, &wanted, source)?;
    let text = plan.to_json();
    for (il, side) in plan.ungrouped() {
        eprintln!("pmkvq: layer {il}, {side}: no group of values divides the head dimension, it stays at 16 bits");
    }
    match &args.output {
        Some(path) => write_beside(path, text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?,
        None => std::io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())?,
    }
    let layout = plan.layout();
    let status = serde_json::to_value(plan.solver.status).ok();
    eprintln!(
        "plan: {} for {} tokens ({} at 16 bits), {}",
        human(plan.budget_bytes),
        plan.n_ctx,
        human(layout.f16_bytes),
        status.as_ref().and_then(|s| s.as_str()).unwrap_or("")
    );
    Ok(())
}
