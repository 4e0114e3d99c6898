//! Whether a plan fits: its own budget, and a model.

use super::{Plan, PlanError};
use crate::shape::ModelShape;

impl Plan {
    /// Whether the plan's budget holds a full context at the plan's widths.
    pub(super) fn check_budget(&self) -> Result<(), PlanError> {
        self.layout().check(self.budget_bytes).map_err(PlanError::Budget)
    }

    /// Whether the plan was made for a model with this cache: architecture, layers, KV heads, head dimensions. The name
    /// and the trained context are for people and not compared, so that a fine-tuned model can use its parent's plan.
    ///
    /// # Errors
    /// [`PlanError::Model`] with the first difference.
    pub fn check_model(&self, model: &ModelShape) -> Result<(), PlanError> {
        match first_difference(&self.model, model) {
            Some(Difference { what, ours, theirs }) => Err(PlanError::Model { what, plan: ours, model: theirs }),
            None => Ok(()),
        }
    }
}

/// Where two models' caches differ.
pub(crate) struct Difference {
    pub what: String,
    pub ours: String,
    pub theirs: String,
}

/// The first difference between two models as far as a cache goes, in words.
pub(crate) fn compare_models(a: &ModelShape, b: &ModelShape) -> Option<String> {
    first_difference(a, b).map(|Difference { what, ours, theirs }| format!("{what} is {ours} in a and {theirs} in b"))
}

/// The first difference between two models as far as a cache goes; names and trained contexts don't count.
pub(crate) fn first_difference(ours: &ModelShape, theirs: &ModelShape) -> Option<Difference> {
    let differ = |what: String, ours: &dyn ToString, theirs: &dyn ToString| {
        Some(Difference { what, ours: ours.to_string(), theirs: theirs.to_string() })
    };
    if ours.arch != theirs.arch {
        let quoted = |s: &str| format!("'{}'", super::size::shorten(s));
        return differ("the architecture".to_string(), &quoted(&ours.arch), &quoted(&theirs.arch));
    }
    let (ours, theirs) = (&ours.layers, &theirs.layers);
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
        if let Some((name, a, b)) = fields.into_iter().find(|(_, a, b)| a != b) {
            return differ(format!("model.layers[{i}].{name}"), &a, &b);
        }
    }
    None
}
