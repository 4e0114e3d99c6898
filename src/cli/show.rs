//! `pmkvq show`

use clap::Args as ClapArgs;
use std::path::PathBuf;

use crate::bytes::human;
use crate::geometry::{Side, Width, BLOCK};
use crate::plan::Plan;
use crate::policy::fall::{simulate, Sample};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The plan
    pub plan: PathBuf,
    /// Another context than the plan's, tokens
    #[arg(long, value_name = "N")]
    pub ctx: Option<u32>,
}

/// Columns of the picture.
const COLUMNS: u32 = 64;

pub fn run(args: &Args) -> Result<(), String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", args.plan.display());
    let mut plan = Plan::load(&args.plan).map_err(|e| named(&e))?;
    if let Some(n_ctx) = args.ctx {
        if n_ctx == 0 {
            return Err("--ctx: a context of 0 tokens".to_string());
        }
        plan = plan.with_context(n_ctx, plan.n_seq_max).map_err(|e| named(&e))?;
    }
    let layout = plan.layout();
    let pages = layout.pool_pages(plan.budget_bytes).map_err(|e| named(&e))?;
    let parts = layout.breakdown(&pages);
    println!("model    {} ({}), {} layers with a KV cache", plan.model.name, plan.model.arch, plan.layers.len());
    println!("context  {} tokens, {} sequence(s)", plan.n_ctx, plan.n_seq_max);
    println!(
        "16 bits  the first {} token(s), the latest {} to {} tokens",
        plan.sink,
        plan.window,
        plan.window as usize + 2 * BLOCK - 1
    );
    println!(
        "budget   {}: pages {}, tables {}, parameters {}, scratch {}",
        human(plan.budget_bytes),
        human(parts.pages),
        human(parts.tables),
        human(parts.params),
        human(parts.scratch)
    );
    println!(
        "         {:.2} bits per value, all counted; 16 bits would take {}",
        parts.total() as f64 * 8.0 / layout.n_values.max(1) as f64,
        human(layout.f16_bytes)
    );
    let lengths: Vec<u32> =
        (1..=COLUMNS).map(|i| (u64::from(plan.n_ctx) * u64::from(i) / u64::from(COLUMNS)).max(1) as u32).collect();
    let samples = simulate(plan.policy_config(&layout, &pages, &plan.params()), &lengths, BLOCK as u32)
        .map_err(|e| e.to_string())?;
    table(&plan, &samples);
    picture(&plan, &samples);
    Ok(())
}

fn sides(plan: &Plan) -> impl Iterator<Item = (usize, u32, Side, Width)> + '_ {
    plan.layers.iter().enumerate().flat_map(|(i, l)| [(2 * i, l.il, Side::K, l.k), (2 * i + 1, l.il, Side::V, l.v)])
}

/// Mean bits of the stored values by side, at eighths of the context.
fn table(plan: &Plan, samples: &[Sample]) {
    let step = (samples.len() / 8).max(1);
    let at: Vec<&Sample> = samples.iter().skip(step - 1).step_by(step).collect();
    println!("\nmean bits of a value by context length\n");
    print!("layer side final");
    for s in &at {
        print!("{:>8}", s.n_tokens);
    }
    println!();
    for (side, il, name, last) in sides(plan) {
        print!("{il:>5} {name:>4} {last:>5}");
        for s in &at {
            print!("{:>8.2}", s.mean_bits(side));
        }
        println!();
    }
}

/// A row per side, a column per context length, a letter for the width that most of its tokens have.
fn picture(plan: &Plan, samples: &[Sample]) {
    println!("\nwidth of most tokens, context growing to the right ('#' is 16 bits)\n");
    for (side, il, name, _) in sides(plan) {
        let row: String = samples
            .iter()
            .map(|s| {
                let most = (0..4).max_by_key(|&w| s.tokens[side][w]).unwrap_or(0);
                ['#', '8', '4', '2'][most]
            })
            .collect();
        println!("{il:>5} {name} |{row}|");
    }
    let (first, last) = (samples.first().map_or(0, |s| s.n_tokens), samples.last().map_or(0, |s| s.n_tokens));
    println!("        {first:<width$}{last:>8}", width = COLUMNS as usize - 7);
}
