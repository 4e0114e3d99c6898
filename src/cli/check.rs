//! `pmkvq check`

use clap::Args as ClapArgs;
use std::path::PathBuf;

use super::model::ModelArgs;
use crate::plan::Plan;

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The plan
    pub plan: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
}

pub fn run(args: &Args) -> Result<(), String> {
    let plan = Plan::load(&args.plan).map_err(|e| format!("{}: {e}", args.plan.display()))?;
    let model = args.model.read()?;
    plan.check_model(&model.shape).map_err(|e| e.to_string())?;
    println!("{}: fits the model ({}, {} layers)", args.plan.display(), model.shape.arch, model.shape.layers.len());
    Ok(())
}
