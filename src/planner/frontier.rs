//! Several budgets solved at once: the least loss that each buys.

use super::{solve_widths, PlannerError, Solved};
use crate::bytes::LayoutParams;
use crate::geometry::Width;
use crate::plan::{Kv, Status};
use crate::sensitivity::Sensitivities;
use crate::shape::ModelShape;

/// Solves for every budget, least first, each once. The loss never rises from one to the next: where the solver stopped
/// before the optimum, widths that were found for a smaller budget are taken if they are better.
///
/// # Errors
/// As for [`solve_widths`], of the least budget.
pub fn frontier(
    shape: &ModelShape,
    sensitivities: &Sensitivities,
    params: &LayoutParams,
    budgets: &[u64],
    kv: Kv,
    widths: &[Width],
) -> Result<Vec<(u64, Solved)>, PlannerError> {
    let mut budgets = budgets.to_vec();
    budgets.sort_unstable();
    budgets.dedup();
    let mut points: Vec<(u64, Solved)> = Vec::with_capacity(budgets.len());
    for budget in budgets {
        let mut found = solve_widths(shape, sensitivities, params, budget, kv, widths)?;
        if let Some((_, before)) = points.last() {
            if let (Some(now), Some(then)) = (found.solver.objective, before.solver.objective) {
                // an optimum is only ever above a smaller budget's by the rounding of sums
                if now > then {
                    let bound = now * (1.0 - found.solver.gap.unwrap_or(0.0));
                    found.layers.clone_from(&before.layers);
                    found.solver.objective = Some(then);
                    if found.solver.status == Status::Limit {
                        found.solver.gap = Some(if then > 0.0 { ((then - bound) / then).max(0.0) } else { 0.0 });
                    }
                }
            }
        }
        points.push((budget, found));
    }
    Ok(points)
}
