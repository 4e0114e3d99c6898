//! Plans behind the C interface.

use std::ffi::{c_char, c_int};
use std::path::Path;

use super::guard;
use super::text::{read, report};
use super::types::PlanHandle;
use crate::bytes;
use crate::plan::Plan;

/// # Safety
/// The strings are null or terminated; `plan` is writable; `err` is writable for `n_err` bytes.
pub unsafe extern "C" fn plan_load(
    path: *const c_char,
    budget: *const c_char,
    rule: *const c_char,
    plan: *mut *mut PlanHandle,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        // a wrong PMKVQ_CPU is found here and not in every operation of a graph
        crate::kernels::Isa::selected().map_err(|e| e.to_string())?;
        let path = read(path, "the plan's path")?.ok_or("a plan needs a path")?;
        let mut loaded = Plan::load(Path::new(path)).map_err(|e| format!("{path}: {e}"))?;
        if let Some(rule) = read(rule, "the rule")? {
            loaded.rule = crate::plan::parse_rule(rule)?;
        }
        if let Some(budget) = read(budget, "the budget")? {
            let budget = bytes::parse_size(budget).map_err(|e| format!("--pmkvq-budget: {e}"))?;
            loaded.override_budget = Some(budget);
        }
        *plan = Box::into_raw(Box::new(PlanHandle(loaded)));
        Ok(())
    })
}

/// # Safety
/// `plan` comes from [`plan_load`] and is not used again.
pub unsafe extern "C" fn plan_free(plan: *mut PlanHandle) {
    if !plan.is_null() {
        drop(Box::from_raw(plan));
    }
}

/// # Safety
/// `plan` comes from [`plan_load`].
pub unsafe extern "C" fn plan_n_ctx(plan: *const PlanHandle) -> u32 {
    (*plan).0.n_ctx
}

/// # Safety
/// `plan` comes from [`plan_load`]; `arch` is a terminated string; `err` is writable for `n_err` bytes.
pub unsafe extern "C" fn plan_check(
    plan: *const PlanHandle,
    arch: *const c_char,
    n_layer: u32,
    err: *mut c_char,
    n_err: usize,
) -> c_int {
    report(err, n_err, || {
        let model = &(*plan).0.model;
        if let Some(arch) = read(arch, "general.architecture")? {
            if arch != model.arch {
                return Err(format!(
                    "the plan is for another model: its architecture is '{}', the model's is '{arch}'; make a plan with \
                     'pmkvq plan --model'",
                    model.arch
                ));
            }
        }
        // 0: the header does not say
        match model.layers.last() {
            Some(last) if n_layer > 0 && last.il >= n_layer => Err(format!(
                "the plan is for another model: it has a layer {}, the model has {n_layer} layers; make a plan with \
                 'pmkvq plan --model'",
                last.il
            )),
            _ => Ok(()),
        }
    })
}

/// # Safety
/// `plan` comes from [`plan_load`].
pub unsafe extern "C" fn plan_n_cells(plan: *const PlanHandle, n_ctx: u32, n_seq_max: u32) -> u32 {
    guard(0, || {
        let blocks = bytes::n_blocks(n_ctx, n_seq_max, (*plan).0.sink);
        blocks.saturating_mul(crate::geometry::BLOCK as u32)
    })
}
