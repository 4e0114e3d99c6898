//! The C interface: one table of functions that the programs register with llama.cpp at start (`llama/pmkvq.h`).
//!
//! Nothing unwinds across it: a panic becomes an error like any other. Errors are messages fit for a user.

pub mod cache;
mod describe;
mod ops;
mod plan;
pub mod probe;
mod state;
mod tables;
mod text;
pub mod types;

use std::ffi::c_int;

use types::Runtime;

/// The table. Lives as long as the program.
pub static RUNTIME: Runtime = Runtime {
    abi_version: types::ABI_VERSION,
    size: std::mem::size_of::<Runtime>() as u32,
    plan_load: plan::plan_load,
    plan_free: plan::plan_free,
    plan_n_ctx: plan::plan_n_ctx,
    plan_check: plan::plan_check,
    plan_n_cells: plan::plan_n_cells,
    cache_new: cache::cache_new,
    cache_free: cache::cache_free,
    cache_desc: cache::cache_desc,
    cache_meta_bytes: cache::cache_meta_bytes,
    cache_pool: cache::cache_pool,
    cache_side: cache::cache_side,
    cache_transform: cache::cache_transform,
    write_transforms: cache::write_transforms,
    observe: cache::observe,
    place: cache::place,
    plan_ubatch: cache::plan_ubatch,
    commit: cache::commit,
    commit_partly: cache::commit_partly,
    rollback: cache::rollback,
    reset: cache::reset,
    sync_table: tables::sync_table,
    table_changes: tables::table_changes,
    state_size: state::state_size,
    state_save: state::state_save,
    state_open: state::state_open,
    state_place: state::state_place,
    state_plan: state::state_plan,
    state_restore: state::state_restore,
    describe: cache::describe,
    op_store: ops::op_store,
    op_shrink: ops::op_shrink,
    op_attn: ops::op_attn,
    op_merge: ops::op_merge,
    op_load: ops::op_load,
    op_transform: ops::op_transform,
};

/// Hands the table to llama.cpp. To be called first in `main` of every program that links the patched library.
#[cfg(feature = "llama")]
pub fn register() {
    extern "C" {
        fn pmkvq_register(runtime: *const Runtime) -> c_int;
    }
    // SAFETY: the table is static and of the version that the header in this tree declares
    let status = unsafe { pmkvq_register(&RUNTIME) };
    assert_eq!(status, 0, "llama/pmkvq.h and src/capi/types.rs disagree");
}

/// What every function returns on failure when it has no code of its own.
const FAILED: c_int = -1;

/// Runs `f`; a panic becomes `fallback`.
fn guard<T>(fallback: T, f: impl FnOnce() -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(fallback)
}

#[cfg(test)]
mod tests;
