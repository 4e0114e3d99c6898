//! The rule `layer` against the timing of the paper authors' reference cache (`golden/progressive_traces.json`).
//!
//! The reference keeps 0 to `n_window - 1` tokens at 16 bits: what came since it last flushed. Ours keeps at least
//! `n_window`, so that it holds a block of 128 more at 16 bits, and it gives the sink a page of its own. With these 9
//! pages added to the reference's budget it must shrink no earlier than the reference does.

use pmkvq::geometry::{Width, BLOCK};
use pmkvq::policy::{Config, Initial, PoolConfig, Rule, SideConfig};
use serde::Deserialize;

use super::look::{self, Kind};
use super::world::{End, World};

#[derive(Deserialize)]
struct Trace {
    budget_mib: f64,
    n_kv_heads: u64,
    head_dim: u64,
    n_sink: u32,
    n_window: u32,
    events: Vec<(u32, serde_json::Value)>,
}

/// Pages of one side under a trace's budget.
fn budget(trace: &Trace) -> u32 {
    let page = 32 * trace.head_dim * trace.n_kv_heads;
    (trace.budget_mib * 1024.0 * 1024.0 / 2.0 / page as f64) as u32
}

fn world(trace: &Trace, quota: u32) -> World {
    let n_ctx = 4096;
    World::new(Config {
        n_ctx,
        n_blocks: n_ctx / BLOCK as u32 + 3,
        n_seq_max: 1,
        sink: trace.n_sink,
        window: trace.n_window,
        initial: Initial::Bits(Width::B16),
        rule: Rule::Layer,
        sides: vec![SideConfig { pool: 0, final_width: Width::B2, shrinkable: true, loss: [0.0; 4], quota }; 2],
        // The quotas alone decide.
        pools: vec![PoolConfig { n_pages: 1000, bytes_per_page: 32 * trace.head_dim * trace.n_kv_heads }],
    })
}

/// At which token counts the narrowest block reaches 8, 4, 2 bits, and where the quota no longer holds everything.
fn events(trace: &Trace, quota: u32) -> Vec<u32> {
    let mut world = world(trace, quota);
    world.check_place = false;
    let mut events = Vec::new();
    let mut level = 16;
    for n in 1..=4096 {
        world.ubatch(&[(n as i32 - 1, 0)], End::Commit).unwrap();
        let table = world.policy.table(0);
        let lowest = table.iter().map(|e| e.width).filter(|w| *w > 0).min().unwrap();
        if lowest < level {
            check_demand(&world, level as u32, quota);
            events.push(n);
            level = lowest;
        }
        if world.policy.stats().sides[0].pages > quota {
            let kinds = look::kinds(world.policy.config(), &world.pos, &world.seq, 1);
            let may = |b: &usize| kinds[*b] == Kind::Past;
            assert!((0..table.len()).filter(may).all(|b| table[b].width == 2), "over its quota with room to shrink");
            events.push(n);
            break;
        }
    }
    events
}

/// At the level before, the side would have been over its quota.
fn check_demand(world: &World, level: u32, quota: u32) {
    let kinds = look::kinds(world.policy.config(), &world.pos, &world.seq, 1);
    let pages: usize = world
        .policy
        .table(0)
        .iter()
        .zip(&kinds)
        .map(|(entry, kind)| match kind {
            Kind::Past => level as usize / 2,
            _ => entry.pages.iter().filter(|p| **p >= 0).count(),
        })
        .sum();
    assert!(pages > quota as usize, "went below {level} bits though {pages} of {quota} pages were enough");
}

#[test]
fn the_rule_layer_shrinks_no_earlier_than_the_reference() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/progressive_traces.json"));
    let traces: Vec<Trace> = serde_json::from_str(&text.unwrap()).unwrap();
    assert_eq!(traces.len(), 3);
    for trace in &traces {
        let found = events(trace, budget(trace) + 9);
        let theirs: Vec<u32> = trace.events.iter().map(|e| e.0).collect();
        println!("window {}: reference {theirs:?}, ours {found:?}", trace.n_window);
        assert_eq!(found.len(), theirs.len());
        for (ours, theirs) in found.iter().zip(&theirs) {
            assert!(ours >= theirs);
            if trace.n_window as usize == BLOCK {
                // To the token: the window's block of 128, the sink's token, and that we look at the first token too many.
                assert_eq!(*ours, theirs + 130);
            }
        }
    }
}

#[test]
fn the_rule_layer_shrinks_when_its_quota_demands_it() {
    let trace = Trace { budget_mib: 0.0, n_kv_heads: 1, head_dim: 128, n_sink: 1, n_window: 128, events: Vec::new() };
    for quota in [1, 17, 25, 32, 33, 50, 64] {
        // `events` checks every fall against the demand.
        let found = events(&trace, quota);
        assert!(found.windows(2).all(|w| w[0] <= w[1]), "{found:?}");
        assert!(!found.is_empty());
    }
}
