//! What the graph tells the attention of its batch: whether the tokens are of one sequence. The CPU's kernels don't ask, so a
//! wrong answer shows nowhere else here; CUDA's choose their tiles by it. A program of its own with one test, since it registers
//! another table of functions and changes the environment.
#![cfg(feature = "llama")]

#[path = "../llama/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../shared/gguf.rs"]
mod gguf;
#[path = "../llama/models.rs"]
#[allow(dead_code)]
mod models;
#[path = "../shared/rng.rs"]
mod rng;
#[path = "../shared/temporary.rs"]
mod temporary;

use common::*;
use models::{mimo2, Heads};
use pmkvq::capi::types::{OpAttn, Runtime};
use pmkvq::capi::RUNTIME;
use pmkvq::ffi::{BatchToken, Cache, Context, Model};
use std::ffi::c_int;
use std::path::Path;
use std::sync::Mutex;

/// Sequences of a batch's tokens, and what the attentions of its ubatches must be told.
type Batch = (&'static [i32], &'static [(u32, u32)]);

/// (tokens, are they of one sequence) of every attention, as it was told.
static TOLD: Mutex<Vec<(u32, u32)>> = Mutex::new(Vec::new());

unsafe extern "C" fn op_attn(op: *const OpAttn, ith: c_int, nth: c_int) -> c_int {
    if ith == 0 {
        TOLD.lock().unwrap().push(((*op).n_tokens, (*op).one_seq));
    }
    (RUNTIME.op_attn)(op, ith, nth)
}

extern "C" {
    fn pmkvq_register(runtime: *const Runtime) -> c_int;
}

/// Sequences of the tokens of a batch.
fn decode(ctx: &mut Context, sequences: &[i32]) {
    let batch: Vec<BatchToken> = sequences
        .iter()
        .enumerate()
        .map(|(i, &seq)| {
            let before = sequences[..i].iter().filter(|&&s| s == seq).count() as i32;
            BatchToken { token: 1 + i as i32 % 50, pos: ctx.pos_max(seq) + 1 + before, seq }
        })
        .collect();
    ctx.decode_batch(&batch).unwrap();
}

/// `n_attn` layers have a progressive cache. Ubatches are of up to 8 tokens.
fn check(path: &Path, n_attn: usize) {
    let model = Model::load(path).unwrap();
    let plan = plan(path, 512, &["--uniform", "8", "--static", "--parallel", "3"]);
    // SAFETY: a table of plain values, copied; it lives as long as the program
    let table = Box::leak(Box::new(Runtime { op_attn, ..unsafe { std::ptr::read(&RUNTIME) } }));
    // SAFETY: as above
    assert_eq!(unsafe { pmkvq_register(table) }, 0);
    let mut ctx = context(&model, &Cache::Plan(plan.0.clone()), &sizes(512, 3, 8));
    // a batch, and what each of its ubatches is told. Sizes come again, so that a graph could be used again that should not be
    let cases: [Batch; 14] = [
        (&[0], &[(1, 1)]),
        (&[0, 0, 0], &[(3, 1)]),
        (&[0, 0, 0], &[(3, 1)]),
        (&[0, 1, 2], &[(3, 0)]),
        (&[1, 1, 1], &[(3, 1)]),
        (&[1, 1, 0], &[(3, 0)]),
        (&[2, 2, 2], &[(3, 1)]),
        (&[2], &[(1, 1)]),
        (&[0, 1], &[(2, 0)]),
        (&[1, 1], &[(2, 1)]),
        (&[0; 16], &[(8, 1), (8, 1)]),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], &[(8, 1), (8, 1)]),
        (&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[(8, 0), (8, 1)]),
        (&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2], &[(8, 0), (5, 0)]),
    ];
    for (sequences, want) in cases {
        TOLD.lock().unwrap().clear();
        decode(&mut ctx, sequences);
        let want: Vec<_> = want.iter().flat_map(|of_ubatch| vec![*of_ubatch; n_attn]).collect();
        assert_eq!(*TOLD.lock().unwrap(), want, "(tokens, one sequence) of each layer for {sequences:?}");
    }
    assert!(ctx.n_reused() > 0, "no graph was used again");
}

#[test]
fn whether_tokens_are_of_one_sequence() {
    // a GPU's kernels are not in the table
    std::env::set_var("CUDA_VISIBLE_DEVICES", "");
    check(&model_path(), 6);
    // two layers that attend to everything and one with a sliding window, which is another function of the graph
    check(&mimo2(Heads { n_head: 4, n_head_kv: 2, head_dim: 64 }, 64).0, 2);
}
