//! A plan that never leaves 16 bits is llama.cpp's own f16 cache, up to the rounding of sums.

use super::common::*;
use pmkvq::ffi::{Cache, PlainType};

/// Decodes a text in steps and returns the log probabilities.
fn run(cache: &Cache, step: usize, n: usize) -> (Vec<f32>, usize) {
    let model = shipped();
    let tokens = text(&model, 0, n);
    let mut ctx = context(&model, cache, &sizes(4096, 1, 512));
    let mut out = Vec::new();
    for (i, chunk) in tokens.chunks(step).enumerate() {
        ctx.decode(chunk, (i * step) as i32, 0).unwrap();
        out.extend(log_probs(&ctx, chunk.len()));
    }
    (out, model.n_vocab())
}

#[test]
fn a_plan_that_stays_at_16_bits_is_the_f16_cache() {
    let plan = plan(&model_path(), 4096, &["--uniform", "16"]);
    let (f16, n_vocab) = run(&Cache::Plain(PlainType::F16), 512, 4096);
    let (ours, _) = run(&Cache::Plan(plan.0.clone()), 512, 4096);
    let kl = mean(&divergences(&f16, &ours, n_vocab));
    println!("mean KL divergence {kl:.3e}");
    assert!(kl < 1e-6, "mean KL divergence {kl}");
    for (i, (a, b)) in f16.chunks(n_vocab).zip(ours.chunks(n_vocab)).enumerate() {
        // two tokens that are as likely as each other may change places
        let (a_top, b_top) = (top(a), top(b));
        assert!(a_top == b_top || a[a_top] - a[b_top] < 1e-3, "top token {i} differs");
    }
}

/// In batches of fewer than 64 tokens llama.cpp's own f16 attention sums values up in f16, and is further from an attention
/// that rounds nothing than ours is: so that is what ours is held against.
#[test]
fn in_small_steps_16_bits_are_closer_to_exact_than_upstream() {
    let plan = plan(&model_path(), 4096, &["--uniform", "16"]);
    for (step, n) in [(37, 4096), (1, 1000)] {
        let (exact, n_vocab) = run(&Cache::Plain(PlainType::F32), step, n);
        let (f16, _) = run(&Cache::Plain(PlainType::F16), step, n);
        let (ours, _) = run(&Cache::Plan(plan.0.clone()), step, n);
        let (kl, kl_f16) = (mean(&divergences(&exact, &ours, n_vocab)), mean(&divergences(&exact, &f16, n_vocab)));
        println!("steps of {step}: mean KL divergence {kl:.3e}, f16 {kl_f16:.3e}");
        assert!(kl < 1e-6 && kl <= kl_f16, "steps of {step}: mean KL divergence {kl}, f16 {kl_f16}");
    }
}

#[test]
fn a_plan_of_8_bits_is_no_further_than_q8_0() {
    let plan = plan(&model_path(), 4096, &["--uniform", "8", "--static"]);
    for step in [512, 37] {
        let (exact, n_vocab) = run(&Cache::Plain(PlainType::F32), step, 4096);
        let (ours, _) = run(&Cache::Plan(plan.0.clone()), step, 4096);
        let (q8, _) = run(&Cache::Plain(PlainType::Q8_0), step, 4096);
        let (kl, kl_q8) = (mean(&divergences(&exact, &ours, n_vocab)), mean(&divergences(&exact, &q8, n_vocab)));
        println!("steps of {step}: mean KL divergence {kl:.3e}, q8_0 {kl_q8:.3e}");
        assert!(kl <= kl_q8, "steps of {step}: mean KL divergence {kl}, q8_0 {kl_q8}");
    }
}
