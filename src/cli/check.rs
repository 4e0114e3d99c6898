//! `pmkvq check`

use clap::Args as ClapArgs;
use std::path::PathBuf;

use super::model::ModelArgs;
use super::output::print;
use crate::plan::size::shorten;
use crate::plan::{Plan, PlanError};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The plan
    pub plan: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn run(args: &Args) -> Result<(), String> {
    let named = |e: PlanError| format!("{}: {e}", args.plan.display());
    let plan = Plan::load(&args.plan).map_err(named)?;
    let shape = args.model.read()?.shape;
    plan.check_model(&shape).map_err(named)?;
    let (arch, n) = (shorten(&shape.arch), shape.layers.len());
    print(&format!("{}: fits the model ({arch}, {n} layers with a KV cache)\n", args.plan.display()))
}
