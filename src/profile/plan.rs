//! The plans of a profile: everything at 16 bits but one side, which is at its width as soon as it leaves the window.

use std::path::PathBuf;

use super::Settings;
use crate::bytes::{scratch_bytes, Layout, LayoutParams};
use crate::geometry::{group_size, Side, Width};
use crate::plan::{write_beside, Initial, Kv, LayerPlan, Plan, Rule, Solver, Status};
use crate::shape::ModelShape;
use crate::transform::Transforms;

/// The one narrow side of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index in the model's list of layers with a progressive cache.
    pub layer: usize,
    pub side: Side,
    pub width: Width,
}

/// Everything that is to be measured: sides that no group divides stay at 16 bits and have nothing to measure.
pub fn targets(shape: &ModelShape, settings: &Settings) -> Vec<Target> {
    let mut all = Vec::new();
    for (layer, l) in shape.layers.iter().enumerate() {
        for side in Side::BOTH {
            if group_size(l.head_dim(side), settings.group as usize).is_none() {
                continue;
            }
            all.extend(settings.widths.iter().map(|&width| Target { layer, side, width }));
        }
    }
    all
}

/// The plan for a target, or with everything at 16 bits.
pub fn plan(shape: &ModelShape, settings: &Settings, target: Option<Target>) -> Plan {
    let width = |layer, side| match target {
        Some(t) if t.layer == layer && t.side == side => t.width,
        _ => Width::B16,
    };
    let layers: Vec<LayerPlan> = shape
        .layers
        .iter()
        .enumerate()
        .map(|(i, l)| LayerPlan { il: l.il, k: width(i, Side::K), v: width(i, Side::V) })
        .collect();
    let n_ctx = (settings.parallel * settings.length) as u32;
    let mut plan = Plan {
        model: shape.clone(),
        n_ctx,
        n_seq_max: settings.parallel as u32,
        budget_bytes: 0,
        scratch_bytes: 0,
        initial: Initial::Final,
        sink: settings.sink,
        window: settings.window,
        group: settings.group,
        rule: Rule::Block,
        ranges: settings.ranges,
        layers,
        transforms: settings.transforms.clone(),
        sensitivities: None,
        solver: Solver {
            kv: Kv::Apart,
            widths: Width::ALL.to_vec(),
            objective: None,
            status: Status::Uniform,
            gap: None,
        },
        override_budget: None,
    };
    let transform_bytes = plan.transforms.as_ref().map_or(0, |t| Transforms::new(shape, t).bytes);
    // room for everything at 16 bits, whatever the number of query heads
    let n_ubatch = (settings.parallel * settings.step) as u32;
    let scratch = shape.layers.iter().map(|l| scratch_bytes(1024, l.head_dim_v, u64::from(n_ctx), n_ubatch)).max();
    let params = LayoutParams { scratch_bytes: scratch.unwrap_or(0), transform_bytes, ..plan.params() };
    plan.budget_bytes = Layout::new(shape, &plan.finals(), &params).full_budget();
    plan
}

/// A plan in a file that is removed with this.
pub struct PlanFile(pub PathBuf);

impl PlanFile {
    /// # Errors
    /// A temporary folder that can't be written to.
    pub fn new(plan: &Plan) -> Result<PlanFile, String> {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pmkvq-profile-{}-{}.json", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        write_beside(&path, plan.to_json().as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(PlanFile(path))
    }
}

impl Drop for PlanFile {
    fn drop(&mut self) {
        // it may be gone already; there is nobody to tell
        let _ = std::fs::remove_file(&self.0);
    }
}
