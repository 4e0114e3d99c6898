//! An operation that fails on one thread of several: the answer is not one that looks right, and the next batch is as if
//! nothing had been. A program of its own, since it registers a table of functions that fail.
#![cfg(feature = "llama")]

#[path = "../llama/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../shared/rng.rs"]
mod rng;
#[path = "../shared/temporary.rs"]
mod temporary;

use common::*;
use pmkvq::capi::types::{OpAttn, OpStore, Runtime};
use pmkvq::capi::RUNTIME;
use pmkvq::ffi::{Cache, Context, ContextSizes};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which operation fails, on the last thread only: none, attention, store.
static FAILS: AtomicU32 = AtomicU32::new(0);

fn fails(operation: u32, ith: c_int, nth: c_int) -> bool {
    ith == nth - 1 && FAILS.load(Ordering::SeqCst) == operation
}

unsafe extern "C" fn op_attn(op: *const OpAttn, ith: c_int, nth: c_int) -> c_int {
    match fails(1, ith, nth) {
        true => -1,
        false => (RUNTIME.op_attn)(op, ith, nth),
    }
}

unsafe extern "C" fn op_store(op: *const OpStore, ith: c_int, nth: c_int) -> c_int {
    match fails(2, ith, nth) {
        true => -1,
        false => (RUNTIME.op_store)(op, ith, nth),
    }
}

extern "C" {
    fn pmkvq_register(runtime: *const Runtime) -> c_int;
}

#[test]
fn a_failure_on_one_thread_is_seen_and_forgotten() {
    let model = shipped();
    // SAFETY: a table of plain values, copied; it lives as long as the program
    let table = Box::leak(Box::new(Runtime { op_attn, op_store, ..unsafe { std::ptr::read(&RUNTIME) } }));
    // SAFETY: as above
    assert_eq!(unsafe { pmkvq_register(table) }, 0);

    let n_ctx = 512;
    let plan = plan(&model_path(), n_ctx, &["--uniform", "8", "--static"]);
    let tokens = text(&model, 30_000, 400);
    let sizes = ContextSizes { threads: 2, ..sizes(n_ctx, 1, 64) };
    let mut ctx = context(&model, &Cache::Plan(plan.0.clone()), &sizes);
    let mut twin = context(&model, &Cache::Plan(plan.0.clone()), &sizes);
    let logits = |ctx: &mut Context, range: std::ops::Range<usize>| {
        ctx.decode(&tokens[range.clone()], range.start as i32, 0).unwrap();
        ctx.logits(range.len() - 1).to_vec()
    };
    assert_eq!(logits(&mut ctx, 0..300), logits(&mut twin, 0..300));
    // one token, whose tasks threads share out among themselves, and several
    for range in [300..301, 301..350] {
        for operation in [1, 2] {
            FAILS.store(operation, Ordering::SeqCst);
            let got = logits(&mut ctx, range.clone());
            FAILS.store(0, Ordering::SeqCst);
            assert!(got.iter().all(|x| x.is_nan()), "operation {operation} failed, and {range:?} looks right");
            assert!(ctx.seq_rm(0, range.start as i32, -1));
        }
        assert_eq!(logits(&mut ctx, range.clone()), logits(&mut twin, range));
    }
}
