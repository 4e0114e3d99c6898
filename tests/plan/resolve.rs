//! The same plan for another budget or another context.

use pmkvq::bytes::{Layout, LayoutParams};
use pmkvq::geometry::Width;
use pmkvq::plan::{Plan, PlanError, Status};

use super::samples;

fn mean_bits(plan: &Plan) -> f64 {
    let finals = plan.finals();
    finals.iter().map(|w| w.bits()).sum::<usize>() as f64 / finals.len() as f64
}

#[test]
fn another_budget_is_solved_for() {
    let plan = samples::rich();
    assert_eq!(plan.resolve_budget(None).unwrap(), plan);
    let same = plan.resolve_budget(Some(plan.budget_bytes)).unwrap();
    assert_eq!(same, plan);
    let full = plan.layout().full_budget();
    let more = plan.resolve_budget(Some(full)).unwrap();
    assert_eq!((more.budget_bytes, mean_bits(&more)), (full, 16.0));
    // what was asked of the solver stays: widths, K and V tied or apart, the sensitivities
    assert_eq!((&more.sensitivities, &more.solver.widths), (&plan.sensitivities, &plan.solver.widths));
    let least = Layout::new(&plan.model, &[Width::B2; 6], &plan.params()).least_budget();
    let tight = plan.resolve_budget(Some(least)).unwrap();
    assert_eq!((tight.solver.status, mean_bits(&tight)), (Status::Narrowest, 2.0));
    let e = plan.resolve_budget(Some(least - 1)).unwrap_err();
    assert!(matches!(e, PlanError::Budget(b) if b.least == least));
}

#[test]
fn a_plan_without_sensitivities_keeps_its_widths() {
    let plan = samples::small();
    let least = plan.layout().least_budget();
    for budget in [least, plan.layout().full_budget()] {
        let other = plan.resolve_budget(Some(budget)).unwrap();
        assert_eq!((&other.layers, other.budget_bytes), (&plan.layers, budget));
    }
    plan.resolve_budget(Some(least - 1)).unwrap_err();
    // nor does a uniform plan that happens to know sensitivities change
    let mut rich = samples::rich();
    rich.solver.status = Status::Uniform;
    let full = rich.layout().full_budget();
    assert_eq!(rich.resolve_budget(Some(full)).unwrap().layers, rich.layers);
}

#[test]
fn another_context() {
    let plan = samples::rich();
    let shorter = plan.with_context(1024, 1).unwrap();
    assert_eq!((shorter.n_ctx, &shorter.layers), (1024, &plan.layers));
    let longer = plan.with_context(plan.n_ctx / 4 * 7, 1).unwrap();
    assert_eq!(longer.budget_bytes, plan.budget_bytes);
    assert!(mean_bits(&longer) < mean_bits(&plan));
    assert!(longer.layout().least_budget() <= longer.budget_bytes);
    assert!(matches!(plan.with_context(1 << 27, 1), Err(PlanError::Budget(_))));
    assert!(matches!(samples::small().with_context(1 << 20, 1), Err(PlanError::Budget(_))));
}

#[test]
fn a_cache_that_is_about_to_be_created() {
    let plan = samples::rich();
    let params = LayoutParams { scratch_bytes: 1 << 20, ..plan.params() };
    // the scratch is larger than planned for; as long as the widths fit the budget they stay
    let mut fits = plan.clone();
    let slack = plan.budget_bytes - plan.layout().least_budget();
    let larger = LayoutParams { scratch_bytes: plan.scratch_bytes + slack, ..params };
    assert_eq!(fits.fit_budget(&plan.model, &larger, false), Ok(plan.budget_bytes));
    assert_eq!(fits, plan);
    // and when they don't, it is solved again
    let larger = LayoutParams { scratch_bytes: larger.scratch_bytes + 1, ..params };
    assert_eq!(fits.fit_budget(&plan.model, &larger, false), Ok(plan.budget_bytes));
    assert!(mean_bits(&fits) < mean_bits(&plan) && fits.budget_bytes == plan.budget_bytes);
    // a budget given on the command line is solved for
    let mut other = plan.clone();
    let full = Layout::new(&plan.model, &[Width::B16; 6], &params).full_budget();
    other.override_budget = Some(full);
    assert_eq!(other.fit_budget(&plan.model, &params, false), Ok(full));
    assert_eq!((mean_bits(&other), other.scratch_bytes), (16.0, 1 << 20));
    // too small, and whose fault it is
    let mut small = Plan { override_budget: Some(1000), ..plan.clone() };
    let e = small.fit_budget(&plan.model, &params, false).unwrap_err();
    assert!(e.starts_with("the budget given: a budget of 1000 B (1000 bytes) is below the least possible"), "{e}");
    let long = LayoutParams { n_ctx: 1 << 20, ..params };
    let e = plan.clone().fit_budget(&plan.model, &long, false).unwrap_err();
    assert!(e.starts_with("the plan's budget: "), "{e}");
    // unless it is an estimate: then the least possible is
    let mut estimate = plan.clone();
    let least = Layout::new(&plan.model, &[Width::B2; 6], &long).least_budget();
    assert_eq!(estimate.fit_budget(&plan.model, &long, true), Ok(least));
}
