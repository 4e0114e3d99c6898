//! Decoding asks the policy at every token: it must not show.

use std::time::Instant;

use pmkvq::geometry::{Width, BLOCK};
use pmkvq::policy::{CellView, Config, Initial, Policy, PoolConfig, Rule, SeqSet, SideConfig};

/// 36 layers at 131,072 cells, the pool so small that it is always short.
fn config() -> Config {
    let side = |i: usize| SideConfig {
        pool: 0,
        final_width: [Width::B4, Width::B2][i % 2],
        shrinkable: true,
        loss: [0.0, 1.0, 4.0, 16.0].map(|x| x * (1.0 + i as f64)),
        quota: 0,
    };
    let mut config = Config {
        n_ctx: 131_072,
        n_blocks: 1024 + 6,
        n_seq_max: 4,
        sink: 1,
        window: 128,
        initial: Initial::Bits(Width::B16),
        rule: Rule::Block,
        sides: (0..72).map(side).collect(),
        pools: vec![PoolConfig { n_pages: 1, bytes_per_page: 4096 * 8 }],
    };
    config.pools[0].n_pages = config.least_pages()[0] as u32 + 72 * 20;
    config
}

#[test]
fn decoding_at_depth_is_quick() {
    let mut policy = Policy::new(config()).unwrap();
    let n = policy.config().n_blocks as usize * BLOCK;
    let (mut pos, mut seq) = (vec![-1i32; n], vec![[0u64; 4] as SeqSet; n]);
    let mut next = 0;
    let mut feed = |policy: &mut Policy, tokens: i32| {
        let tokens: Vec<_> = (next..next + tokens).map(|p| (p, 0)).collect();
        let start = Instant::now();
        let cells = policy.place(CellView { pos: &pos, seq: &seq }, &tokens).unwrap();
        let placed = start.elapsed();
        for (&c, t) in cells.iter().zip(&tokens) {
            pos[c as usize] = t.0;
            seq[c as usize] = [1, 0, 0, 0];
        }
        next += tokens.len() as i32;
        let start = Instant::now();
        let n_ops = policy.plan_ubatch(CellView { pos: &pos, seq: &seq }, &cells).unwrap().ops.len();
        policy.commit();
        (placed, start.elapsed(), n_ops)
    };
    for _ in 0..250 {
        feed(&mut policy, 512);
    }
    let mut times: Vec<_> = (0..2000).map(|_| feed(&mut policy, 1)).collect();
    let ops: usize = times.iter().map(|t| t.2).sum();
    let mean = times.iter().map(|t| (t.0 + t.1).as_secs_f64()).sum::<f64>() / times.len() as f64;
    times.sort_by_key(|t| t.0 + t.1);
    let (placed, planned, _) = times[times.len() / 2];
    let worst = times.last().unwrap();
    println!(
        "decode at 130,000 cells, 72 sides, pool short: median place {placed:?}, plan {planned:?}; mean {mean:.2e} s"
    );
    println!(
        "slowest: place {:?}, plan {:?}, {} operations; {ops} operations in 2,000 tokens",
        worst.0, worst.1, worst.2
    );
    assert!(ops > 0, "the pool was meant to be short");
    // What is too slow to be right, on any machine: a hundred times what an idle one needs.
    assert!((placed + planned).as_micros() < 5000, "median {placed:?} + {planned:?}");
}
