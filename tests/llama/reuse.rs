//! Graphs are reused as often as with llama.cpp's own cache, whatever shrinks meanwhile.

use super::common::*;
use pmkvq::ffi::{Cache, PlainType};

#[test]
fn graphs_are_reused_as_often_as_upstream() {
    let model = shipped();
    let n_ctx = 2048;
    let least = (least_budget(&model_path(), n_ctx, &["--uniform", "4"]) + 100_000).to_string();
    let plan = plan(&model_path(), n_ctx, &["--uniform", "4", "--budget", &least]);
    let tokens = text(&model, 20_000, 1900);
    let run = |cache: &Cache| {
        let mut ctx = context(&model, cache, &sizes(n_ctx, 1, 512));
        for (i, &t) in tokens.iter().enumerate() {
            ctx.decode(&[t], i as i32, 0).unwrap();
        }
        (ctx.n_reused(), ctx.describe().map(|_| shrinks(&ctx)))
    };
    let (plain, _) = run(&Cache::Plain(PlainType::F16));
    let (ours, shrinks) = run(&Cache::Plan(plan.0.clone()));
    println!("{} tokens: {plain} graphs reused with f16, {ours} with a plan; shrinks {shrinks:?}", tokens.len());
    assert!(shrinks.unwrap()[1] > 0, "nothing shrank, so nothing was tested");
    // a graph is built for every 256 cells; the sink's block moves that by one at most
    assert!(ours + 1 >= plain, "{ours} reused with a plan, {plain} without");
}
