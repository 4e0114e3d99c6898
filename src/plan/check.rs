//! Whether a plan fits: its own budget, and a model.

use super::{Plan, PlanError};
use crate::bytes::BudgetError;
use crate::shape::ModelShape;

impl Plan {
    /// Whether the plan's budget holds a full context at the plan's widths.
    pub(super) fn check_budget(&self) -> Result<(), PlanError> {
        let least = self.layout().least_budget();
        if self.budget_bytes < least {
            return Err(PlanError::Budget(BudgetError { budget: self.budget_bytes, least }));
        }
        Ok(())
    }

    /// Whether the plan was made for a model with this cache: architecture, layers, KV heads, head dimensions. The name
    /// and the trained context are for people and not compared, so that a fine-tuned model can use its parent's plan.
    ///
    /// # Errors
    /// [`PlanError::Model`] with the first difference.
    pub fn check_model(&self, model: &ModelShape) -> Result<(), PlanError> {
        let differ = |what: String, plan: &dyn ToString, model: &dyn ToString| {
            Err(PlanError::Model { what, plan: plan.to_string(), model: model.to_string() })
        };
        if self.model.arch != model.arch {
            let quoted = |s: &str| format!("'{}'", super::size::shorten(s));
            return differ("the architecture".to_string(), &quoted(&self.model.arch), &quoted(&model.arch));
        }
        let (ours, theirs) = (&self.model.layers, &model.layers);
        if ours.len() != theirs.len() {
            return differ("the number of layers with a progressive cache".to_string(), &ours.len(), &theirs.len());
        }
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            let fields = [
                ("il", a.il, b.il),
                ("n_head_kv", a.n_head_kv, b.n_head_kv),
                ("head_dim_k", a.head_dim_k, b.head_dim_k),
                ("head_dim_v", a.head_dim_v, b.head_dim_v),
            ];
            for (name, a, b) in fields {
                if a != b {
                    return differ(format!("model.layers[{i}].{name}"), &a, &b);
                }
            }
        }
        Ok(())
    }
}
