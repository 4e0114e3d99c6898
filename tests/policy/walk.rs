//! Random plans and random sequences of what llama.cpp does to a cache.

use pmkvq::geometry::{Width, BLOCK};
use pmkvq::policy::{Config, Initial, PoolConfig, Rule, SideConfig};

use super::rng::{seeds, Rng};
use super::world::{End, World};

/// A random plan: finals from 2 to 16 bits, K and V apart, several pools.
pub fn config(rng: &mut Rng) -> Config {
    let n_pools = rng.range(1, 3);
    let n_seq_max = rng.pick(&[1, 1, 2, 3, 8]);
    let sink = rng.pick(&[0, 1, 1, 4, 20]);
    let n_ctx = rng.range(130, 1800) as u32;
    let uniform = rng.chance(20);
    let sides: Vec<SideConfig> = (0..2 * rng.range(1, 4))
        .map(|_| {
            let mut loss = [0.0; 4];
            if !uniform {
                for i in 1..4 {
                    // Dear and cheap steps in any order, some free.
                    loss[i] = loss[i - 1] + rng.below(4) as f64 * rng.below(100) as f64;
                }
            }
            SideConfig {
                pool: rng.below(n_pools),
                final_width: rng.pick(&Width::ALL),
                shrinkable: rng.chance(90),
                loss,
                quota: rng.range(1, 60) as u32,
            }
        })
        .collect();
    let mut config = Config {
        n_ctx,
        n_blocks: 0,
        n_seq_max,
        sink,
        window: rng.pick(&[0, 1, 100, 128, 128, 300]),
        initial: match rng.below(5) {
            0 => Initial::Final,
            1 => Initial::Bits(rng.pick(&Width::ALL)),
            _ => Initial::Bits(Width::B16),
        },
        rule: if rng.chance(20) { Rule::Layer } else { Rule::Block },
        sides,
        pools: vec![PoolConfig { n_pages: 1, bytes_per_page: 1 }; n_pools],
    };
    // Without slack there are just cells enough, and sequences have to share blocks.
    let slack = if rng.chance(50) { config.sink_blocks() + rng.below(6) as u32 } else { 0 };
    config.n_blocks = (n_ctx.div_ceil(BLOCK as u32) + slack).max(config.sink_blocks() + 1);
    let spare = rng.pick(&[0usize, 0, 1, 20, 200]);
    for (pool, least) in config.least_pages().into_iter().enumerate() {
        config.pools[pool] = PoolConfig {
            n_pages: least as u32 + rng.below(spare + 1) as u32,
            bytes_per_page: rng.pick(&[4096, 2048 * 3, 32 * 80]),
        };
    }
    config
}

/// One step of the walk.
fn step(world: &mut World, rng: &mut Rng) {
    let n_seq = world.policy.config().n_seq_max as usize;
    let s = rng.below(n_seq) as u32;
    match rng.below(100) {
        // Decode: one to three tokens of some sequences.
        0..=44 => {
            let mut tokens = Vec::new();
            for s in 0..n_seq as u32 {
                if rng.chance(60) {
                    let first = world.next_pos(s);
                    tokens.extend((0..rng.range(1, 3) as i32).map(|i| (first + i, s)));
                }
            }
            let end = match rng.below(20) {
                0 => End::Rollback,
                1 => End::Partly,
                2 => End::Twice,
                _ => End::Commit,
            };
            world.ubatch(&tokens, end);
        }
        45..=69 => prefill(world, rng, s),
        70..=79 => world.seq_rm(s, 0, i32::MAX),
        80..=89 => {
            let from = rng.below(world.next_pos(s) as usize + 1) as i32;
            world.seq_rm(s, from, i32::MAX);
        }
        90..=91 => {
            let from = rng.below(world.next_pos(s) as usize + 1) as i32;
            world.seq_rm(s, from, from + rng.range(1, 200) as i32);
        }
        92..=95 => {
            let to = rng.below(n_seq) as u32;
            if to != s {
                world.seq_cp(s, to);
            }
        }
        96..=97 => world.seq_keep(s),
        98 => {
            let tell = rng.chance(50);
            world.clear(tell);
        }
        _ => {
            let view = pmkvq::policy::CellView { pos: &world.pos, seq: &world.seq };
            world.policy.observe(view);
        }
    }
}

/// 1 to 2,048 tokens of a sequence in one ubatch or several.
fn prefill(world: &mut World, rng: &mut Rng, s: u32) {
    let room = world.policy.config().n_ctx as usize - world.used();
    let most = rng.pick(&[40, 300, 2048]);
    let mut left = rng.range(1, most).min(room + rng.below(2));
    let n_ubatch = rng.pick(&[64, 128, 512, 2048]);
    while left > 0 {
        let first = world.next_pos(s);
        let n = left.min(n_ubatch);
        let tokens: Vec<_> = (0..n as i32).map(|i| (first + i, s)).collect();
        let end = match rng.below(40) {
            0 => End::Rollback,
            1 => End::Partly,
            _ => End::Commit,
        };
        if world.ubatch(&tokens, end).is_none() {
            return;
        }
        left -= n;
    }
}

#[test]
fn random_walks() {
    for seed in seeds(1, 150) {
        println!("PMKVQ_SEED={seed}");
        let mut rng = Rng::new(seed);
        let mut world = World::new(config(&mut rng));
        // `observe` tells placement more than the slow placement knows, where entries are stale.
        for _ in 0..80 {
            step(&mut world, &mut rng);
        }
        world.check_storage();
    }
}

/// To the last cell, with a pool of exactly the least size: any number of sequences, ending in any order.
#[test]
fn the_least_pool_holds_a_full_context() {
    for seed in seeds(1000, 60) {
        println!("PMKVQ_SEED={seed}");
        let mut rng = Rng::new(seed);
        let mut config = config(&mut rng);
        let least = config.least_pages();
        for (pool, least) in config.pools.iter_mut().zip(least) {
            pool.n_pages = (least as u32).max(1);
        }
        let n_ctx = config.n_ctx as usize;
        let n_seq = config.n_seq_max as usize;
        let mut world = World::new(config);
        for _ in 0..4 {
            while world.used() < n_ctx {
                let s = rng.below(n_seq) as u32;
                let n = rng.pick(&[1, 1, 7, 130, 700]).min(n_ctx - world.used());
                let first = world.next_pos(s);
                let tokens: Vec<_> = (0..n as i32).map(|i| (first + i, s)).collect();
                world.ubatch(&tokens, End::Commit).expect("fits");
            }
            let at_floor = world.policy.stats();
            for (pool, stats) in at_floor.pools.iter().enumerate() {
                assert!(stats.pages_used <= world.policy.config().pools[pool].n_pages);
            }
            assert!(world.ubatch(&[(world.next_pos(0), 0)], End::Commit).is_none());
            for _ in 0..rng.range(1, n_seq) {
                world.seq_rm(rng.below(n_seq) as u32, 0, i32::MAX);
            }
        }
    }
}

/// When the cache empties, whoever empties it, it is at 16 bits again.
#[test]
fn an_emptied_cache_is_at_16_bits_again() {
    for seed in seeds(2000, 40) {
        println!("PMKVQ_SEED={seed}");
        let mut rng = Rng::new(seed);
        let mut config = config(&mut rng);
        config.initial = Initial::Bits(Width::B16);
        config.rule = Rule::Block;
        let mut world = World::new(config);
        for _ in 0..30 {
            step(&mut world, &mut rng);
        }
        world.clear(rng.chance(50));
        world.ubatch(&[(0, 0), (1, 0)], End::Commit).unwrap();
        let tokens = world.policy.tokens_by_width(world.view());
        assert!(tokens.iter().all(|t| *t == [2, 0, 0, 0]), "{tokens:?}");
    }
}
