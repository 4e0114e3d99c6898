//! Decoding that is aborted anywhere leaves a cache that goes on as if nothing had been.

use super::common::*;
use pmkvq::ffi::{Cache, DecodeError};

#[test]
fn an_aborted_decode_leaves_a_cache_that_goes_on() {
    let model = shipped();
    let n_ctx = 1024;
    // two pools would need two head dimensions: the shipped model has one, the architectures' test has others
    let least = (least_budget(&model_path(), n_ctx, &["--uniform", "8"]) + 50_000).to_string();
    let plan = plan(&model_path(), n_ctx, &["--uniform", "8", "--budget", &least]);
    let tokens = text(&model, 40_000, 1000);
    seeds(7000, 6, |seed, rng| {
        let mut ctx = context(&model, &Cache::Plan(plan.0.clone()), &sizes(n_ctx, 1, 48));
        let mut whole = oracle(&model, &sizes(n_ctx, 1, 48));
        let (mut at, mut aborted) = (0usize, 0);
        while at < tokens.len() {
            let n = (1 + rng.below(200)).min(tokens.len() - at);
            let batch = &tokens[at..at + n];
            if rng.below(3) > 0 {
                // a graph of this model has some 200 nodes, and a batch up to five of them
                ctx.abort_after(Some(rng.below(1200) as u32));
            }
            match ctx.decode(batch, at as i32, 0) {
                Ok(()) => {}
                Err(DecodeError::Aborted) => aborted += 1,
                Err(e) => panic!("seed {seed}: {e}"),
            }
            ctx.abort_after(None);
            // what was finished stays; the rest is decoded again
            let from = (ctx.pos_max(0) + 1) as usize;
            assert!((at..=at + n).contains(&from), "seed {seed}: {from} tokens after a batch of {at}..{}", at + n);
            let n_whole = at + n - from;
            whole.decode(batch, at as i32, 0).unwrap();
            if n_whole > 0 {
                ctx.decode(&batch[from - at..], from as i32, 0).unwrap();
                let want = log_probs(&whole, n);
                let got = log_probs(&ctx, n_whole);
                let n_vocab = model.n_vocab();
                let kl = mean(&divergences(&want[(from - at) * n_vocab..], &got, n_vocab));
                assert!(kl < 1e-3, "seed {seed}: mean KL divergence {kl} after an abort at {from}");
            }
            at += n;
        }
        assert!(aborted > 0, "seed {seed}: nothing was aborted");
        assert!(shrinks(&ctx)[0] > 0, "seed {seed}: nothing shrank");
    });
}
