//! `pmkvq show`

use clap::Args as ClapArgs;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::output::print;
use crate::bytes::{human, Breakdown, Layout};
use crate::geometry::{Side, Width, BLOCK};
use crate::plan::size::shorten;
use crate::plan::{rule_name, Initial, Plan, MAX_CTX};
use crate::policy::fall::{simulate, Sample};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The plan
    pub plan: PathBuf,
    /// Another context than the plan's, tokens
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CTX as i64))]
    pub ctx: Option<u32>,
}

/// Columns of the picture.
const COLUMNS: u32 = 64;

/// Longest context whose fall is drawn, tokens: the policy runs over every block of it.
const MAX_DRAWN: u32 = 1 << 22;

pub fn run(args: &Args) -> Result<(), String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", args.plan.display());
    let mut plan = Plan::load(&args.plan).map_err(|e| named(&e))?;
    if let Some(n_ctx) = args.ctx {
        plan = plan.with_context(n_ctx, plan.n_seq_max).map_err(|e| named(&e))?;
    }
    print(&describe(&plan).map_err(|e| named(&e))?)
}

/// What is printed of a plan.
fn describe(plan: &Plan) -> Result<String, String> {
    let layout = plan.layout();
    let pages = layout.pool_pages(plan.budget_bytes).map_err(|e| e.to_string())?;
    let mut out = String::new();
    // writing to a String does not fail
    let _ = summary(plan, &layout, &layout.breakdown(&pages), &mut out);
    if plan.n_ctx > MAX_DRAWN {
        let _ = writeln!(out, "\nthe fall of widths is drawn up to {MAX_DRAWN} tokens: name fewer with --ctx");
        return Ok(out);
    }
    let lengths: Vec<u32> =
        (1..=COLUMNS).map(|i| (u64::from(plan.n_ctx) * u64::from(i) / u64::from(COLUMNS)).max(1) as u32).collect();
    // a block at a time, as decoding fills it; in a long context four steps a column, as a prefill would
    let step = (plan.n_ctx / (4 * COLUMNS)).next_multiple_of(BLOCK as u32).max(BLOCK as u32);
    let config = plan.policy_config(&layout, &pages, &plan.params());
    let samples = simulate(config, &lengths, step).map_err(|e| e.to_string())?;
    let _ = table(plan, &layout, &samples, &mut out);
    let _ = picture(plan, &samples, &mut out);
    Ok(out)
}

fn summary(plan: &Plan, layout: &Layout, parts: &Breakdown, out: &mut String) -> std::fmt::Result {
    let (name, arch) = (shorten(&plan.model.name), shorten(&plan.model.arch));
    writeln!(out, "model    {name} ({arch}), {} layers with a KV cache", plan.layers.len())?;
    writeln!(out, "context  {} tokens, {} sequence(s)", plan.n_ctx, plan.n_seq_max)?;
    // whole blocks are narrowed: the one that the window begins in waits for its newest token
    let most = plan.window as usize + BLOCK - 1;
    writeln!(out, "16 bits  the first {} token(s), the latest {} to {most} tokens", plan.sink, plan.window)?;
    let [budget, pages, tables, params, scratch] =
        [plan.budget_bytes, parts.pages, parts.tables, parts.params, parts.scratch].map(human);
    write!(out, "budget   {budget}: pages {pages}, tables {tables}, parameters {params}, scratch {scratch}")?;
    match parts.transforms {
        0 => writeln!(out)?,
        n => writeln!(out, ", transforms {}", human(n))?,
    }
    let bits = parts.total() as f64 * 8.0 / layout.n_values.max(1) as f64;
    writeln!(out, "         {bits:.2} bits per value, all counted; 16 bits would take {}", human(layout.f16_bytes))?;
    let start = match plan.initial {
        Initial::B16 => "progressive, from 16 bits",
        Initial::Final => "static, at the final widths from the start",
    };
    let (rule, status) = (rule_name(plan.rule), plan.solver.status.name());
    writeln!(out, "widths   {start}; rule {rule}; solver {status}")?;
    // most plans have the same parts everywhere
    let mut kinds: Vec<String> = Vec::new();
    for t in plan.transforms.iter().flatten() {
        let kind = format!("K {}, V {}", t.k.summary(), t.v.summary());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if !kinds.is_empty() {
        writeln!(out, "stored   {}", kinds.join("; "))?;
    }
    writeln!(out, "2 bits   range of K {}, of V {}", plan.ranges.k.name(), plan.ranges.v.name())
}

fn sides(plan: &Plan) -> impl Iterator<Item = (usize, u32, Side, Width)> + '_ {
    plan.layers.iter().enumerate().flat_map(|(i, l)| [(2 * i, l.il, Side::K, l.k), (2 * i + 1, l.il, Side::V, l.v)])
}

/// Final width and the bytes of a full context at it, then the mean bits of the stored values, at eighths of the context.
fn table(plan: &Plan, layout: &Layout, samples: &[Sample], out: &mut String) -> std::fmt::Result {
    let step = (samples.len() / 8).max(1);
    let at: Vec<&Sample> = samples.iter().skip(step - 1).step_by(step).collect();
    writeln!(out, "\nfinal width and what a full context takes at it; mean bits of a value by context length\n")?;
    write!(out, "layer side final       bytes")?;
    for s in &at {
        write!(out, "{:>8}", s.n_tokens)?;
    }
    writeln!(out)?;
    for (side, il, name, last) in sides(plan) {
        let name = name.to_string();
        write!(out, "{il:>5} {name:>4} {last:>5} {:>11}", human(layout.least_bytes(side)), last = last.bits())?;
        for s in &at {
            write!(out, "{:>8.2}", s.mean_bits(side))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A row per side, a column per context length, a letter for the width that most of its tokens have.
fn picture(plan: &Plan, samples: &[Sample], out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nwidth of most tokens, context growing to the right ('#' is 16 bits)\n")?;
    for (side, il, name, _) in sides(plan) {
        let row: String = samples
            .iter()
            .map(|s| {
                let most = (0..4).max_by_key(|&w| s.tokens[side][w]).unwrap_or(0);
                ['#', '8', '4', '2'][most]
            })
            .collect();
        writeln!(out, "{il:>5} {name} |{row}|")?;
    }
    let (first, last) = (samples.first().map_or(0, |s| s.n_tokens), samples.last().map_or(0, |s| s.n_tokens));
    writeln!(out, "         {first:<width$}{last:>8}", width = COLUMNS as usize - 8)
}
