//! The probe sees the attention of real decodes, and changes nothing.

use super::common::*;
use pmkvq::capi::probe::{Probe, Seen};
use pmkvq::ffi::{Cache, PlainType};

const STEP: usize = 16;

/// Decodes in steps; `probe` says what to look at in the step that starts at a token.
fn decode(
    cache: &Cache,
    tokens: &[i32],
    threads: u32,
    probe: impl Fn(usize) -> Option<Probe>,
) -> (Vec<f32>, Vec<(usize, Seen)>) {
    let model = shipped();
    let mut ctx = context(&model, cache, &pmkvq::ffi::ContextSizes { threads, ..sizes(1024, 1, 512) });
    let (mut last, mut seen) = (Vec::new(), Vec::new());
    for (i, step) in tokens.chunks(STEP).enumerate() {
        let at = i * STEP;
        match probe(at) {
            None => ctx.decode(step, at as i32, 0).unwrap(),
            Some(probe) => {
                let (done, found) = probe.watch(|| ctx.decode(step, at as i32, 0));
                done.unwrap();
                seen.push((at, found.unwrap()));
            }
        }
        last = log_probs(&ctx, step.len());
    }
    (last, seen)
}

#[test]
fn every_layer_and_head_is_seen_and_nothing_changes() {
    let plan = plan(&model_path(), 1024, &["--uniform", "2", "--static"]);
    let cache = Cache::Plan(plan.0.clone());
    let tokens = text(&shipped(), 5000, 640);
    for threads in [1, 2] {
        let look = |at: usize| match at {
            600.. => Some(Probe { tokens: vec![3, 15] }),
            _ => Some(Probe::default()),
        };
        let (watched, seen) = decode(&cache, &tokens, threads, look);
        let (alone, _) = decode(&cache, &tokens, threads, |_| None);
        assert_eq!(watched, alone, "{threads} thread(s)");
        let mut cells: Vec<i64> = Vec::new();
        for (at, seen) in seen {
            assert_eq!(seen.cells.len(), STEP);
            cells.extend(&seen.cells);
            if at < 600 {
                assert!(seen.calls.is_empty());
                continue;
            }
            assert_eq!(seen.calls.len(), 6, "one call for each layer");
            for (call, queries) in seen.calls.iter().flat_map(|c| c.iter().zip([3, 15])).collect::<Vec<_>>().into_iter()
            {
                assert_eq!(call.len(), 2, "two query heads");
                for weights in call {
                    // every position up to the query's own, each once
                    let mut found: Vec<usize> = weights
                        .iter()
                        .map(|(cell, _)| cells.iter().position(|c| c == cell).expect("a cell that no token went to"))
                        .collect();
                    found.sort_unstable();
                    assert_eq!(found, (0..=at + queries).collect::<Vec<_>>());
                    assert!((weights.iter().map(|w| w.1).sum::<f64>() - 1.0).abs() < 1e-9);
                }
            }
        }
    }
}

#[test]
fn plain_caches_are_not_seen() {
    let tokens = text(&shipped(), 5000, 32);
    let (_, seen) = decode(&Cache::Plain(PlainType::F16), &tokens, 1, |_| Some(Probe { tokens: vec![0] }));
    assert!(seen.iter().all(|(_, s)| s.cells.is_empty() && s.calls.is_empty()));
}

/// A decode that unwinds, or another thread's, leaves nothing switched on.
#[test]
fn a_panic_switches_it_off() {
    let plan = plan(&model_path(), 1024, &["--uniform", "4"]);
    let panicked = std::panic::catch_unwind(|| Probe { tokens: vec![0] }.watch(|| panic!("on purpose")));
    assert!(panicked.is_err());
    let tokens = text(&shipped(), 5000, 32);
    let cache = Cache::Plan(plan.0.clone());
    let ((), seen) = Probe { tokens: vec![0] }.watch(|| {
        std::thread::scope(|s| s.spawn(|| decode(&cache, &tokens, 1, |_| None)).join().unwrap());
    });
    assert!(seen.unwrap().cells.is_empty());
}
