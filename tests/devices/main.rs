//! Layers on several devices: some on the CPU, the others on what stands for one or two devices with memory of their own
//! (`PMKVQ_FORCE_DEVICE_PATH`), as with several GPUs or a part of the layers offloaded. A program of its own with one test,
//! since it changes the environment.
#![cfg(feature = "llama")]

#[path = "../llama/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../shared/gguf.rs"]
mod gguf;
#[path = "../shared/log.rs"]
mod log;
#[path = "../llama/models.rs"]
#[allow(dead_code)]
mod models;
#[path = "../shared/rng.rs"]
mod rng;
#[path = "../shared/temporary.rs"]
mod temporary;

use common::*;
use models::{mimo2, Heads};
use pmkvq::ffi::{Cache, Context, Model};
use pmkvq::plan::Plan;
use std::path::Path;

const N_CTX: u32 = 1024;

/// A context whose layers are where the list says.
fn open<'m>(model: &'m Model, plan: &Temporary, list: &str) -> Context<'m> {
    try_open(model, plan, list, 256).unwrap()
}

fn try_open<'m>(model: &'m Model, plan: &Temporary, list: &str, n_ubatch: u32) -> Result<Context<'m>, String> {
    std::env::set_var("PMKVQ_FORCE_DEVICE_PATH", list);
    let ctx = Context::new(model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, 2, n_ubatch));
    std::env::remove_var("PMKVQ_FORCE_DEVICE_PATH");
    ctx
}

/// Scratch and lists count to the byte, and no buffer is larger than what was counted: the log would warn of it. The heads of
/// the model, values of a row of V, and pools on each device.
fn all_that_is_allocated_counts(path: &Path, n_head: u64, head_dim_v: u64, n_pools: u64) {
    let model = Model::load(path).unwrap();
    log::collect();
    let args = ["--uniform", "2", "--parallel", "2"];
    let with = |budget: u64| plan(path, N_CTX, &[&args[..], &["--budget", &budget.to_string()]].concat());
    let scratch = |ctx: &Context| ctx.describe().unwrap()["bytes"]["scratch"].as_u64().unwrap();
    let roomy = with(12 << 20);
    let loaded = Plan::load(&roomy.0).unwrap();
    let on_cpu = loaded.scratch_bytes;
    assert_eq!(scratch(&try_open(&model, &roomy, "0", 512).unwrap()), on_cpu, "the CPU has no lists");

    let pad = |bytes: u64| bytes.next_multiple_of(32);
    // 256 operations and a count for each pool, the sides; and 16 lists with what 16 tokens see of items of 64 cells
    let operations = 256 * 80 + n_pools * 256 * 4 + pad(2 * loaded.layers.len() as u64 * 24);
    let items = 2 * u64::from(pmkvq::bytes::n_blocks(N_CTX, 2, loaded.sink));
    let seen = pad(4 * (16 * items.div_ceil(32) + 16 + 17 + 16 * items));
    let row = 4 * n_head * (head_dim_v + 2);
    for list in ["1", "1,2"] {
        let ctx = try_open(&model, &roomy, list, 512).unwrap();
        let n_devices = ctx.describe().unwrap()["devices"].as_array().unwrap().len() as u64;
        assert_eq!(scratch(&ctx), n_devices * (1024 * row + operations + seen), "{list}");
        // the least: fewer parts, no lists of what is seen
        let scarce = n_devices * (512 * row + operations);
        let least = least_budget(path, N_CTX, &args) - on_cpu + scarce;
        let tight = try_open(&model, &with(least), list, 512).unwrap();
        assert_eq!(scratch(&tight), scarce, "{list}, tight");
        assert_eq!(tight.describe().unwrap()["bytes"]["total"].as_u64().unwrap(), least, "{list}, tight");
        assert!(try_open(&model, &with(least - 1), list, 512).is_err(), "{list}: a byte too few is enough");
        assert!(log::collected().contains(&format!("({least} bytes)")), "{list}: the least is not named");
    }
}

fn decode(ctx: &mut Context, tokens: &[i32], pos: i32, seq: i32) -> Vec<f32> {
    let mut out = Vec::new();
    for (i, chunk) in tokens.chunks(50).enumerate() {
        ctx.decode(chunk, pos + 50 * i as i32, seq).unwrap();
        out.extend(log_probs(ctx, chunk.len()));
    }
    out
}

/// A text, a shift, a state that goes away and comes back.
fn live(ctx: &mut Context, tokens: &[i32]) -> Vec<f32> {
    let mut out = decode(ctx, &tokens[..600], 0, 0);
    let state = ctx.state(Some(0)).unwrap();
    assert!(ctx.seq_rm(0, 10, 110));
    ctx.seq_add(0, 110, -1, -100);
    out.extend(decode(ctx, &tokens[600..700], 500, 0));
    assert!(ctx.seq_rm(0, -1, -1));
    ctx.set_state(&state, Some(1)).unwrap();
    out.extend(decode(ctx, &tokens[600..900], 600, 1));
    out
}

/// States are gathered and spread in the compute buffer, between two graphs that would be the same.
fn save_between_tokens(model: &Model, plan: &Temporary, tokens: &[i32], list: &str, n_ubatch: u32) {
    let run = |save: bool| {
        let mut ctx = try_open(model, plan, list, n_ubatch).unwrap();
        let mut out = decode(&mut ctx, &tokens[..300], 0, 0);
        for (i, token) in tokens[300..320].iter().enumerate() {
            ctx.decode(&[*token], 300 + i as i32, 0).unwrap();
            if save && i % 5 == 3 {
                let state = ctx.state(Some(0)).unwrap();
                ctx.set_state(&state, Some(0)).unwrap();
                assert!(ctx.state(Some(0)).unwrap() == state, "{list}: not what was saved");
            }
            out.extend(log_probs(&ctx, 1));
        }
        out
    };
    assert!(run(true) == run(false), "{list}, {n_ubatch}: a state that was saved in between changes what is said");
}

#[test]
fn layers_on_several_devices() {
    let model = shipped();
    log::collect();
    let tokens = text(&model, 80_000, 1000);
    let n = model.n_vocab();
    for width in ["16", "8", "4", "2"] {
        let args = ["--uniform", width, "--parallel", "2", "--static"];
        let roomy = plan(&model_path(), N_CTX, &[&args[..], &["--budget", "12M"]].concat());
        let want = live(&mut open(&model, &roomy, "0"), &tokens);
        let on_one = live(&mut open(&model, &roomy, "1"), &tokens);
        for list in ["1,2", "2,1,1", "1,2,3"] {
            let got = live(&mut open(&model, &roomy, list), &tokens);
            assert!(got == on_one, "{width} bits on {list}: not what one device says");
        }
        // parts of the sum are other ones on a device, and a code may be the next one
        for list in ["1", "0,1", "1,0", "0,1,0,2"] {
            let got = live(&mut open(&model, &roomy, list), &tokens);
            let kl = mean(&divergences(&want, &got, n));
            println!("{width} bits on {list}: divergence {kl:.1e} from the CPU");
            assert!(kl < 1e-5, "{width} bits on {list}: {kl}");
        }
        // with a compute buffer that has room for few rows, and with a larger one
        for n_ubatch in [1, 256] {
            save_between_tokens(&model, &roomy, &tokens, "1,2", n_ubatch);
        }
        // what one has saved another takes
        let mut from = open(&model, &roomy, "0,1,2");
        decode(&mut from, &tokens[..500], 0, 0);
        let state = from.state(None).unwrap();
        let mut to = open(&model, &roomy, "1,0");
        to.set_state(&state, None).unwrap();
        assert!(to.state(None).unwrap() == state, "{width} bits: a state changes on its way between devices");
    }
    // short of room everywhere: every device shrinks its own
    let args = ["--uniform", "2", "--parallel", "2"];
    let roomy = plan(&model_path(), N_CTX, &[&args[..], &["--budget", "12M"]].concat());
    for list in ["1,2", "0,1", "1,2,3"] {
        // every device has partial results of its own
        let scratch = open(&model, &roomy, list).describe().unwrap()["bytes"]["scratch"].as_u64().unwrap();
        let budget = least_budget(&model_path(), N_CTX, &args) + scratch;
        let tight = plan(&model_path(), N_CTX, &[&args[..], &["--budget", &budget.to_string()]].concat());
        let mut ctx = open(&model, &tight, list);
        live(&mut ctx, &tokens);
        decode(&mut ctx, &tokens[..100], 0, 0);
        let shrunk = shrinks(&ctx);
        assert!(shrunk[..3].iter().all(|n| *n > 0), "{list}: {shrunk:?}");
        let held = ctx.describe().unwrap();
        assert!(held["bytes"]["total"].as_u64().unwrap() <= budget, "{list}: {held}");
    }
    all_that_is_allocated_counts(&model_path(), 2, 128, 1);
    let heads = Heads { n_head: 4, n_head_kv: 2, head_dim: 96 };
    all_that_is_allocated_counts(&mimo2(heads, 64).0, 4, 64, 2);
    let log = log::collected();
    assert!(!log.contains("count against the budget"), "{log}");
    assert!(log.contains("CPU as device 2") && !log.contains("compute buffer has become larger"), "{log}");
}
