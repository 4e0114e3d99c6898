//! A cache that was emptied is as good as new: at 16 bits, with all its pages.

use super::common::*;
use pmkvq::ffi::{Cache, Context};

const N_CTX: u32 = 2048;

fn fill(ctx: &mut Context, tokens: &[i32]) -> Vec<f32> {
    let mut out = Vec::new();
    for (i, chunk) in tokens.chunks(64).enumerate() {
        ctx.decode(chunk, 64 * i as i32, 0).unwrap();
        out.extend(log_probs(ctx, chunk.len()));
    }
    out
}

#[test]
fn an_emptied_cache_repeats_what_a_new_one_does() {
    let model = shipped();
    let args = ["--uniform", "4"];
    let budget = (least_budget(&model_path(), N_CTX, &args) + 200_000).to_string();
    let plan = plan(&model_path(), N_CTX, &["--uniform", "4", "--budget", &budget]);
    let mut ctx = context(&model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, 2, 512));
    let tokens = text(&model, 5000, N_CTX as usize);
    let first = fill(&mut ctx, &tokens);
    let after_first = shrinks(&ctx);
    assert!(after_first[0] > 0 && after_first[1] > 0, "the cache was never short: {after_first:?}");
    let short = &tokens[..300];
    for empty in 0..3 {
        match empty {
            0 => ctx.clear(),
            1 => assert!(ctx.seq_rm(0, -1, -1)),
            _ => assert!(ctx.seq_rm(-1, -1, -1)),
        }
        let before = shrinks(&ctx);
        let again = fill(&mut ctx, short);
        assert_eq!(shrinks(&ctx), before, "emptied in way {empty}: nothing needs to shrink");
        let [b16, narrow @ ..] = tokens_by_width(&ctx);
        assert_eq!((b16 > 0, narrow), (true, [0; 3]), "emptied in way {empty}: all is at 16 bits");
        assert!(again == first[..again.len()], "emptied in way {empty}: other logits than in a new cache");
        ctx.clear();
        assert!(fill(&mut ctx, &tokens) == first, "emptied in way {empty}: filling it again gives other logits");
    }
}

#[test]
fn a_sequence_that_ends_leaves_its_pages_to_others() {
    let model = shipped();
    let least = least_budget(&model_path(), N_CTX, &["--uniform", "2", "--parallel", "2"]).to_string();
    let plan = plan(&model_path(), N_CTX, &["--uniform", "2", "--budget", &least, "--parallel", "2"]);
    let mut ctx = context(&model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, 2, 512));
    let tokens = text(&model, 9000, N_CTX as usize);
    for round in 0..6 {
        let seq = round % 2;
        for (i, chunk) in tokens[..1000].chunks(100).enumerate() {
            ctx.decode(chunk, 100 * i as i32, seq).unwrap();
            log_probs(&ctx, chunk.len());
        }
        // the other one ends, and what it held is there for the next
        ctx.seq_rm(1 - seq, -1, -1);
    }
    let full: Vec<i32> = tokens[..1048].to_vec();
    ctx.decode(&full[..500], 0, 0).unwrap();
    ctx.decode(&full[500..1000], 500, 0).unwrap();
    assert!(ctx.decode(&tokens[..100], 1000, 1).is_err(), "more than the context can't fit");
}
