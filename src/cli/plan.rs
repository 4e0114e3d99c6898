//! `pmkvq plan`

use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};

use super::model::{ModelArgs, Shape};
use super::output::{print, write};
use super::sweep::{self, Budgets};
use super::verify;
use crate::bytes::{self, human, parse_size, LayoutParams};
use crate::geometry::Width;
use crate::kernels::RangeRule;
use crate::plan::size::{shorten, LARGEST};
use crate::plan::{parse_rule, read_limited, Initial, Kv, Plan, Ranges, Rule, MAX_CTX, MAX_SINK, MAX_WINDOW};
use crate::planner::{self, Solved};
use crate::sensitivity::{budgets_from_pt, Sensitivities, SensitivityFile, MAX_FILE};
use crate::shape::{LayerShape, ModelShape};
use crate::transform::{LayerTransforms, Transform, Transforms, TransformsFile};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Sensitivities: our JSON, or the reference implementation's sensitivity.pt
    #[arg(long, value_name = "FILE", required_unless_present_any = ["uniform", "budgets", "calibrate"], conflicts_with = "uniform")]
    pub sensitivity: Option<PathBuf>,
    /// Measure the sensitivities on this text now, under transforms that are made from it too unless --transforms names some
    /// (as 'pmkvq profile' does, which has more to choose from). Needs --model
    #[arg(long, value_name = "TEXT", requires = "model", conflicts_with_all = ["sensitivity", "uniform", "budgets"])]
    pub calibrate: Option<PathBuf>,
    /// Tokens of the text that --calibrate runs, at most
    #[arg(long, value_name = "N", default_value_t = 8192, requires = "calibrate", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub calibrate_tokens: u32,
    /// The reference implementation's kv_budgets.pt, in place of sensitivities: MiB of each layer, made for a context of
    /// --ctx tokens. They give the widths, K and V alike; the rule is then layer unless --rule says otherwise
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sensitivity", "uniform", "kv", "sweep"])]
    pub budgets: Option<PathBuf>,
    /// Tokens of the context
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CTX as i64))]
    pub ctx: u32,
    /// Memory of the KV cache, everything counted: 2GiB, 800M, bytes. Default with --uniform and --budgets: what the widths
    /// need
    #[arg(long, value_name = "SIZE", required_unless_present_any = ["uniform", "budgets", "sweep"], allow_hyphen_values = true, value_parser = parse_size)]
    pub budget: Option<u64>,
    /// Where the plan goes (default: standard output); with --sweep a folder for all plans, plan-BYTES.json
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Solve for several budgets and print the frontier of bytes against expected loss. LIST is auto, auto:N, A,B,... or
    /// FROM..TO[:N] (N budgets in equal ratios), each a size, or bits per value with everything counted: 2.5b
    #[arg(long, value_name = "LIST", num_args = 0..=1, default_missing_value = "auto", group = "report", value_parser = Budgets::parse,
        conflicts_with_all = ["uniform", "budget"])]
    pub sweep: Option<Budgets>,
    /// Measure the plan on a text before it is written, and refuse one that is worse than the uniform plan with no more
    /// memory. Needs --model
    #[arg(long, value_name = "TEXT", group = "report", conflicts_with = "uniform")]
    pub verify: Option<PathBuf>,
    /// Tokens of the text that --verify measures, at most
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "verify", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CTX as i64))]
    pub verify_tokens: u32,
    /// Threads of --calibrate and --verify
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub threads: u32,
    /// Where the figures of --sweep or --verify go as JSON
    #[arg(long, value_name = "FILE", requires = "report")]
    pub json: Option<PathBuf>,
    /// Where the picture of --sweep goes
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
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
    /// Which block shrinks next: block (the cheapest) or layer (the paper's) [default: block; with --budgets layer]
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    pub rule: Option<Rule>,
    /// Transforms of K and V: a file from 'pmkvq profile --make-transforms' or from the exporter, the reference
    /// implementation's rep_scales.pt, 'hadamard', or 'none'
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
        RangeRule::from_name(name.trim())
            .ok_or_else(|| format!("'{}' is no range rule: expected shift or fit", shorten(name)))
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
            let layer =
                |l: &LayerShape| LayerTransforms { il: l.il, k: Transform::hadamard(), v: Transform::hadamard() };
            Ok(Some(model.shape.layers.iter().map(layer).collect()))
        }
        path => {
            let file = TransformsFile::load(path.as_ref(), &model.shape, model.rope_order);
            Ok(Some(file.map_err(|e| format!("--transforms {path}: {e}"))?.layers))
        }
    }
}

/// What is asked of [`make`] besides the model.
#[derive(Clone)]
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

    pub fn params(&self, model: &Shape) -> LayoutParams {
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
    /// MiB of each layer, with the budget that their widths take unless one is given.
    Budgets {
        mib: &'a [f64],
        budget: Option<u64>,
        widths: &'a [Width],
    },
}

/// The budget of widths that nobody solved for: what was asked for, or what they need.
fn fixed_budget(model: &Shape, params: &LayoutParams, finals: &[Width], asked: Option<u64>) -> Result<u64, String> {
    let layout = bytes::Layout::new(&model.shape, finals, params);
    // room for the slots that llama-server has unless told otherwise: their partly filled blocks
    let served = LayoutParams { n_seq_max: params.n_seq_max.max(SERVER_SLOTS), ..*params };
    let least = bytes::Layout::new(&model.shape, finals, &served).least_budget();
    let budget = asked.unwrap_or_else(|| layout.comfortable_budget().max(least));
    if budget > LARGEST {
        return Err(format!("{} would be needed, which no machine has; shorten the context (--ctx)", human(budget)));
    }
    layout.check(budget).map_err(|e| e.to_string())?;
    Ok(budget)
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
            let budget = fixed_budget(model, &params, &vec![width; 2 * shape.layers.len()], budget)?;
            (planner::uniform(shape, width), budget, None)
        }
        Source::Solve { file, budget, kv, widths } => {
            let values = file.for_model(shape).map_err(|e| e.to_string())?;
            let solved =
                planner::solve_widths(shape, &values, &params, budget, kv, widths).map_err(|e| e.to_string())?;
            (solved, budget, Some(values))
        }
        Source::Budgets { mib, budget, widths } => {
            let (solved, exact) = planner::widths_from_budgets(shape, wanted.n_ctx, wanted.group, mib, widths)
                .map_err(|e| format!("--budgets: {e}"))?;
            if !exact {
                sayln!(
                    "pmkvq: not all budgets are those of a whole width at {} tokens; the widest that fits was taken. Check that \
                     --ctx is the context that they were made for",
                    wanted.n_ctx
                );
            }
            let finals: Vec<Width> = solved.layers.iter().flat_map(|l| [l.k, l.v]).collect();
            (solved, fixed_budget(model, &params, &finals, budget)?, None)
        }
    };
    Ok(assemble(shape, wanted, &params, solved, budget, sensitivities))
}

/// A plan of widths that were found.
pub fn assemble(
    shape: &ModelShape,
    wanted: &Wanted,
    params: &LayoutParams,
    solved: Solved,
    budget: u64,
    sensitivities: Option<Sensitivities>,
) -> Plan {
    Plan {
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
    }
}

/// What a cache does to K and V, as `pmkvq profile` writes it behind the method.
pub fn stored_as(ranges: Ranges, transforms: Option<&[LayerTransforms]>) -> String {
    let mut text = format!("range {}/{}", ranges.k.name(), ranges.v.name());
    if let Some(t) = transforms.and_then(<[_]>::first) {
        text += &format!(", K {}, V {}", t.k.summary(), t.v.summary());
    }
    text
}

/// A note if sensitivities are from a profile of another kind of cache than the plan's.
pub(super) fn other_cache(method: &str, wanted: &Wanted) -> Option<String> {
    let measured = &method[method.find("; ").and_then(|_| method.find("range "))?..];
    let planned = stored_as(wanted.ranges, wanted.transforms.as_deref());
    (measured != planned).then(|| {
        format!(
            "the sensitivities were measured with {measured}, and the plan has {planned}: they say little about it; give both \
             commands the same --transforms and --range"
        )
    })
}

/// Measures the model itself.
#[cfg(feature = "llama")]
fn calibrate(args: &Args, text: &Path, model: &Shape, wanted: &mut Wanted) -> Result<SensitivityFile, String> {
    let path = args.model.model.as_deref().ok_or("--calibrate runs the model: name it with --model")?;
    let (n, threads) = (args.calibrate_tokens as usize, args.threads);
    super::profile::calibrate(path, model, text, n, threads, wanted, &args.widths, args.output.as_deref())
}

#[cfg(not(feature = "llama"))]
fn calibrate(_: &Args, _: &Path, _: &Shape, _: &mut Wanted) -> Result<SensitivityFile, String> {
    Err("this build has no llama.cpp to run models with: measure sensitivities elsewhere (--sensitivity)".to_string())
}

/// What `read` makes of a file; messages name the file.
fn named<T, E: std::fmt::Display>(path: &Path, read: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, String> {
    read(path).map_err(|e| format!("{}: {e}", path.display()))
}

pub fn run(args: &Args) -> Result<(), String> {
    // clap's own rule is silent where --budget excludes --sweep
    if args.svg.is_some() && args.sweep.is_none() {
        return Err("--svg is the picture of a sweep: add --sweep, without --budget".to_string());
    }
    let file = args.sensitivity.as_deref().map(|path| named(path, SensitivityFile::load)).transpose()?;
    let budgets = args.budgets.as_deref().map(|path| named(path, read_budgets)).transpose()?;
    let model = args.model.read()?;
    if let (Some(file), Some(path)) = (&file, &args.sensitivity) {
        // said here, where the file has a name
        let values = named(path, |_| file.for_model(&model.shape))?;
        for note in values.notes() {
            sayln!("pmkvq: {}: {note}", path.display());
        }
    }
    let mut wanted = Wanted {
        n_ctx: args.ctx,
        parallel: args.parallel,
        sink: args.sink,
        window: args.window,
        group: args.group,
        rule: args.rule.unwrap_or(if args.budgets.is_some() { Rule::Layer } else { Rule::Block }),
        initial: if args.fixed { Initial::Final } else { Initial::B16 },
        ranges: args.range,
        transforms: transforms(&args.transforms, &model)?,
    };
    if let Some(note) = file.as_ref().and_then(|f| other_cache(&f.values.method, &wanted)) {
        sayln!("pmkvq: {note}");
    }
    let file = match &args.calibrate {
        Some(text) => Some(calibrate(args, text, &model, &mut wanted)?),
        None => file,
    };
    if let (Some(budgets), Some(file)) = (&args.sweep, &file) {
        return sweep::run(args, budgets, &model, &wanted, file);
    }
    let source = match (args.uniform, &file, &budgets, args.budget) {
        (Some(w), _, _, budget) => Source::Uniform(w, budget),
        (None, Some(file), _, Some(budget)) => Source::Solve { file, budget, kv: args.kv, widths: &args.widths },
        (None, None, Some(mib), budget) => Source::Budgets { mib, budget, widths: &args.widths },
        _ => return Err("--sensitivity and --budget, --budgets, or --uniform, say what to plan for".to_string()),
    };
    let plan = make(&model, &wanted, source)?;
    warn_ungrouped(&plan);
    if let Some(text) = &args.verify {
        verify::run(args, text, &model, &plan)?;
    }
    let text = plan.to_json();
    match &args.output {
        Some(path) => write(path, &text)?,
        None => print(&text)?,
    }
    let layout = plan.layout();
    sayln!(
        "plan: {} for {} tokens ({} at 16 bits), {}",
        human(plan.budget_bytes),
        plan.n_ctx,
        human(layout.f16_bytes),
        plan.solver.status.name()
    );
    Ok(())
}

fn read_budgets(path: &Path) -> Result<Vec<f64>, String> {
    let bytes = read_limited(path, MAX_FILE).map_err(|e| e.to_string())?;
    budgets_from_pt(&bytes).map_err(|e| e.to_string())
}

pub fn warn_ungrouped(plan: &Plan) {
    for (il, side) in plan.ungrouped() {
        sayln!("pmkvq: layer {il}, {side}: no group of values divides the head dimension, it stays at 16 bits");
    }
}
