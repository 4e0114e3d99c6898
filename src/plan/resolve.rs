//! The same plan for another budget or another context.

use super::{Plan, PlanError, Status};
use crate::bytes::{Layout, LayoutParams};
use crate::planner;
use crate::shape::ModelShape;

impl Plan {
    /// The plan for another budget: solved again if it has sensitivities, else with the widths that it has.
    ///
    /// # Errors
    /// A budget below the least possible, which is named.
    pub fn resolve_budget(&self, budget: Option<u64>) -> Result<Plan, PlanError> {
        match budget {
            None => Ok(self.clone()),
            Some(budget) => self.solve_again(&self.model, &self.params(), budget),
        }
    }

    /// The plan for another context: with the widths that it has if they fit the budget, else solved again.
    ///
    /// # Errors
    /// A budget below the least possible, which is named.
    pub fn with_context(&self, n_ctx: u32, n_seq_max: u32) -> Result<Plan, PlanError> {
        let plan = Plan { n_ctx, n_seq_max, ..self.clone() };
        if plan.check_budget().is_ok() {
            return Ok(plan);
        }
        self.solve_again(&self.model, &plan.params(), self.budget_bytes)
    }

    /// Makes the plan fit a cache that is about to be created, and returns the cache's budget in bytes. A budget that
    /// was given on the command line is solved for; without one the plan's widths stay as they are unless the context
    /// no longer fits with them. With `estimate` a budget that is too small is enlarged to the least possible.
    ///
    /// # Errors
    /// A budget below the least possible, which is named.
    pub fn fit_budget(&mut self, shape: &ModelShape, params: &LayoutParams, estimate: bool) -> Result<u64, String> {
        let budget = self.override_budget.unwrap_or(self.budget_bytes);
        let least = Layout::new(shape, &self.finals(), params).least_budget();
        if self.override_budget.is_none() && budget >= least {
            return Ok(budget);
        }
        let solved = match self.solve_again(shape, params, budget) {
            Err(PlanError::Budget(e)) if estimate => self.solve_again(shape, params, e.least),
            other => other,
        };
        let name = if self.override_budget.is_some() { "the budget given" } else { "the plan's budget" };
        *self = solved.map_err(|e| match e {
            PlanError::Budget(e) => format!("{name}: {e}"),
            other => other.to_string(),
        })?;
        Ok(self.budget_bytes)
    }

    fn solve_again(&self, shape: &ModelShape, params: &LayoutParams, budget: u64) -> Result<Plan, PlanError> {
        let mut plan = Plan {
            n_ctx: params.n_ctx,
            n_seq_max: params.n_seq_max,
            scratch_bytes: params.scratch_bytes,
            budget_bytes: budget,
            ..self.clone()
        };
        // widths that nobody solved for stay, whatever the plan knows of sensitivities
        let solved = !matches!(self.solver.status, Status::Uniform | Status::Given);
        if let (Some(s), true) = (&self.sensitivities, solved) {
            let (kv, widths) = (self.solver.kv, &self.solver.widths);
            let solved = planner::solve_widths(shape, s, params, budget, kv, widths).map_err(|e| match e {
                planner::PlannerError::Budget(e) => PlanError::Budget(e),
                e => PlanError::Solve { message: e.to_string() },
            })?;
            plan.layers = solved.layers;
            plan.solver = solved.solver;
        }
        plan.check_budget()?;
        Ok(plan)
    }
}
