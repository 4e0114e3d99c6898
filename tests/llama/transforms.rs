//! Transforms change what is stored, not what comes out: at 16 bits every one of them is exact attention, up to rounding.

use super::common::*;
use super::models::{gemma3n, llama, mimo2, Heads};
use pmkvq::ffi::{describe_model, Cache, Model, PlainType};
use pmkvq::plan::{LayerTransforms, Plan};
use pmkvq::transform::Transform;
use std::path::Path;

const N_CTX: u32 = 1024;

fn run(model: &Model, cache: &Cache) -> Vec<f32> {
    let mut ctx = context(model, cache, &sizes(N_CTX, 1, 512));
    let mut rng = Rng::new(3);
    let tokens: Vec<i32> = (0..500).map(|_| rng.below(model.n_vocab()) as i32).collect();
    let (mut out, mut at) = (Vec::new(), 0);
    for n in [300, 130, 50].into_iter().chain(std::iter::repeat_n(1, 20)) {
        ctx.decode(&tokens[at..at + n], at as i32, 0).unwrap();
        out.extend(log_probs(&ctx, n));
        at += n;
    }
    out
}

/// One side's transform: `kind` counts through the combinations of parts.
fn random(rng: &mut Rng, n_head_kv: usize, d: usize, kind: usize, center: bool) -> Transform {
    let mut t = Transform { hadamard: kind & 1 == 1, ..Transform::default() };
    if center && kind & 2 == 2 {
        t.center = Some((0..n_head_kv * d).map(|_| rng.normal()).collect());
    }
    match kind / 4 % 3 {
        0 => {}
        1 => t.scales = Some((0..n_head_kv * d).map(|_| (0.7 * rng.normal()).exp()).collect()),
        _ => {
            // well conditioned: a diagonal with some noise
            let value = |i: usize, rng: &mut Rng| {
                let (row, column) = (i / d % d, i % d);
                0.3 / (d as f32).sqrt() * rng.normal() + f32::from(row == column)
            };
            t.matrix = Some((0..n_head_kv * d * d).map(|i| value(i, rng)).collect());
        }
    }
    t
}

/// The plan of a file with transforms in it.
fn with(plan: &Path, rng: &mut Rng, kinds: [usize; 2], center: bool) -> Temporary {
    let mut plan = Plan::load(plan).unwrap();
    let layer = |l: &pmkvq::shape::LayerShape| LayerTransforms {
        il: l.il,
        k: random(rng, l.n_head_kv as usize, l.head_dim_k as usize, kinds[0], center),
        v: random(rng, l.n_head_kv as usize, l.head_dim_v as usize, kinds[1], center),
    };
    plan.transforms = Some(plan.model.layers.iter().map(layer).collect());
    plan.budget_bytes += plan.transform_bytes();
    let file = Temporary::new("json");
    std::fs::write(&file.0, plan.to_json()).unwrap();
    assert_eq!(Plan::load(&file.0).unwrap(), plan, "a plan comes back as it was written");
    file
}

fn check(name: &str, path: &Path, center: bool) {
    poison();
    let model = Model::load(path).unwrap();
    let exact = run(&model, &Cache::Plain(PlainType::F32));
    let plain = plan(path, N_CTX, &["--uniform", "16"]);
    let without = run(&model, &Cache::Plan(plain.0.clone()));
    let base = mean(&divergences(&exact, &without, model.n_vocab()));
    seeds(0, 1, |_, rng| {
        for kinds in [[1, 0], [0, 1], [2, 0], [0, 2], [4, 5], [7, 3], [8, 9], [11, 10], [3, 11]] {
            let plan = with(&plain.0, rng, kinds, center);
            let kl = mean(&divergences(&exact, &run(&model, &Cache::Plan(plan.0.clone())), model.n_vocab()));
            println!("{name}, kinds {kinds:?}: mean KL divergence {kl:.2e}, without transforms {base:.2e}");
            // f16 rounds a matrix's or a scaled channel's values a little worse or better
            assert!(kl < 4.0 * base + 2e-7, "{name}, kinds {kinds:?}: {kl}, without {base}");
        }
    });
}

#[test]
fn every_kind_is_exact_attention() {
    let of = |n_head, n_head_kv, head_dim| Heads { n_head, n_head_kv, head_dim };
    for heads in [of(4, 2, 64), of(6, 2, 80), of(2, 1, 128), of(4, 4, 96)] {
        check(&format!("{heads:?}"), &llama(heads).0, true);
    }
}

#[test]
fn with_sinks_and_v_of_its_own_dimension() {
    check("K 96, V 64", &mimo2(Heads { n_head: 4, n_head_kv: 2, head_dim: 96 }, 64).0, false);
}

#[test]
fn layers_that_read_another_layers_cache() {
    check("gemma3n", &gemma3n().0, true);
}

#[test]
fn centers_beside_sinks_are_refused() {
    let path = mimo2(Heads { n_head: 4, n_head_kv: 2, head_dim: 96 }, 64);
    let model = Model::load(&path.0).unwrap();
    let plain = plan(&path.0, N_CTX, &["--uniform", "16"]);
    let plan = with(&plain.0, &mut Rng::new(1), [2, 0], true);
    assert!(pmkvq::ffi::Context::new(&model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, 1, 512)).is_err());
}

/// llama.cpp clears a cache by zeroing all of its buffers, the transforms' among them.
#[test]
fn a_cleared_cache_keeps_its_transforms() {
    poison();
    let path = llama(Heads { n_head: 4, n_head_kv: 2, head_dim: 64 });
    let model = Model::load(&path.0).unwrap();
    let plain = plan(&path.0, N_CTX, &["--uniform", "4"]);
    let plan = with(&plain.0, &mut Rng::new(5), [7, 11], true);
    let mut ctx = context(&model, &Cache::Plan(plan.0.clone()), &sizes(N_CTX, 1, 512));
    let tokens: Vec<i32> = (0..400).map(|i| i * 7 % model.n_vocab() as i32).collect();
    let mut said = || {
        ctx.decode(&tokens[..300], 0, 0).unwrap();
        ctx.decode(&tokens[300..], 300, 0).unwrap();
        let said = log_probs(&ctx, 100);
        ctx.clear();
        said
    };
    assert_eq!(said(), said());
}

/// What the plan says its transforms take is what is allocated for them, and part of the budget.
#[test]
fn transforms_are_counted() {
    let path = llama(Heads { n_head: 4, n_head_kv: 2, head_dim: 64 });
    let shape = describe_model(&path.0).unwrap().shape;
    let model = Model::load(&path.0).unwrap();
    let plain = plan(&path.0, N_CTX, &["--uniform", "4"]);
    let file = with(&plain.0, &mut Rng::new(5), [11, 7], true);
    let plan = Plan::load(&file.0).unwrap();
    let ctx = context(&model, &Cache::Plan(file.0.clone()), &sizes(N_CTX, 1, 512));
    let bytes = &ctx.describe().unwrap()["bytes"];
    assert_eq!(bytes["transforms"].as_u64().unwrap(), plan.transform_bytes());
    let total = bytes["total"].as_u64().unwrap();
    assert!(total <= plan.budget_bytes, "{total} of {}", plan.budget_bytes);
    // a matrix and its inverse, a center, for K; scales and their inverses, a center, for V; rotations take nothing
    let layer = 4 * 2 * (2 * 64 * 64 + 64) + 4 * 2 * (2 * 64 + 64);
    assert_eq!(plan.transform_bytes(), (shape.layers.len() * layer) as u64);
}
