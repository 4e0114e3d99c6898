//! The promises one by one, on small caches whose numbers can be followed by hand.

use pmkvq::geometry::{Width, BLOCK};
use pmkvq::policy::{monotone_loss, CellView, Config, ConfigError, Initial, Policy, PolicyError};
use pmkvq::policy::{PoolConfig, Rule, SideConfig};

use super::look;
use super::rng::{seeds, Rng};
use super::walk;
use super::world::{End, World};

pub fn side(final_width: Width, loss: [f64; 4]) -> SideConfig {
    SideConfig { pool: 0, final_width, shrinkable: true, loss, quota: 0 }
}

/// A cache of one pool with `spare` pages over the least.
pub fn config(n_ctx: u32, sides: Vec<SideConfig>, spare: u32) -> Config {
    let mut config = Config {
        n_ctx,
        n_blocks: n_ctx.div_ceil(BLOCK as u32) + 3,
        n_seq_max: 2,
        sink: 1,
        window: 128,
        initial: Initial::Bits(Width::B16),
        rule: Rule::Block,
        sides,
        pools: vec![PoolConfig { n_pages: 1, bytes_per_page: 4096 }],
    };
    config.pools[0].n_pages = config.least_pages()[0] as u32 + spare;
    config
}

fn run(world: &mut World, s: u32, n: usize) {
    let first = world.next_pos(s);
    let tokens: Vec<_> = (0..n as i32).map(|i| (first + i, s)).collect();
    world.ubatch(&tokens, End::Commit).expect("fits");
}

fn widths(world: &World, side: usize) -> Vec<i32> {
    world.policy.table(side).iter().map(|e| e.width).collect()
}

#[test]
fn first_tokens_go_to_the_sink_block_and_sequences_keep_apart() {
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0; 4]); 2], 100));
    run(&mut world, 0, 3);
    run(&mut world, 1, 2);
    run(&mut world, 0, 1);
    let at = |p: i32, s: u32| {
        let cells = look::cells_of(&world.pos, &world.seq, s);
        cells.into_iter().find(|c| world.pos[*c] == p).unwrap()
    };
    assert_eq!((at(0, 0), at(0, 1)), (0, 1));
    assert_eq!((at(1, 0), at(2, 0), at(3, 0)), (BLOCK, BLOCK + 1, BLOCK + 2));
    assert_eq!(at(1, 1), 2 * BLOCK);
}

#[test]
fn pages_come_sixteen_tokens_at_a_time() {
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0; 4]); 2], 100));
    run(&mut world, 0, 1);
    assert_eq!(world.policy.stats().sides[0].pages, 1);
    run(&mut world, 0, 16);
    assert_eq!(world.policy.stats().sides[0].pages, 2);
    run(&mut world, 0, 1);
    assert_eq!(world.policy.stats().sides[0].pages, 3);
    assert_eq!(world.policy.stats().bytes_held, 2 * 3 * 4096);
}

#[test]
fn the_side_that_costs_least_shrinks_first_and_alone_while_that_is_enough() {
    // K is dear, V cheap.
    let sides = vec![side(Width::B2, [0.0, 10.0, 30.0, 90.0]), side(Width::B2, [0.0, 1.0, 2.0, 3.0])];
    // Least: 19 blocks a side, 38 pages; 62 pages more are six blocks of both sides at 16 bits and a bit.
    let mut world = World::new(config(2048, sides, 62));
    let mut first = None;
    for n in 1..=2048 {
        run(&mut world, 0, 1);
        let narrow = |s: usize| widths(&world, s).iter().any(|w| *w != 0 && *w < 16);
        if narrow(0) || narrow(1) {
            first = Some((n, narrow(0), narrow(1)));
            break;
        }
    }
    let (n, k, v) = first.expect("it must shrink at some length");
    // 100 pages: one of a side for the sink, 49 for 784 tokens.
    assert_eq!((n, k, v), (1 + 784 + 1, false, true));
    assert_eq!(widths(&world, 1)[1], 8, "the oldest block goes first");
    assert_eq!(widths(&world, 1)[2], 16);
    while widths(&world, 0).iter().all(|w| matches!(w, 0 | 16)) {
        run(&mut world, 0, 1);
    }
    // By the time K had to shrink, no block of V that may be narrowed could give more.
    let kinds = look::kinds(world.policy.config(), &world.pos, &world.seq, 2);
    for (b, kind) in kinds.iter().enumerate().filter(|k| *k.1 == look::Kind::Past) {
        assert_eq!(widths(&world, 1)[b], 2, "block {b} {kind:?}");
    }
}

#[test]
fn idle_sequences_shrink_before_active_ones() {
    let mut world = World::new(config(2048, vec![side(Width::B4, [0.0; 4]); 2], 50));
    // Sequence 1 is idle and its blocks are at larger positions than the old blocks of 0.
    run(&mut world, 0, 129);
    run(&mut world, 1, 400);
    while world.policy.stats().shrinks == [0; 3] {
        run(&mut world, 0, 1);
    }
    let shrunk: Vec<usize> = (0..world.policy.table(0).len()).filter(|b| widths(&world, 0)[*b] == 8).collect();
    assert_eq!(shrunk.len(), 1);
    assert!(look::has(&world.seq[shrunk[0] * BLOCK], 1), "a block of the active sequence went first");
}

#[test]
fn a_prefill_stores_at_once_what_it_will_not_keep_at_16_bits() {
    let mut world = World::new(config(4096, vec![side(Width::B2, [0.0, 1.0, 2.0, 3.0]); 2], 60));
    run(&mut world, 0, 400);
    let before = world.tables();
    run(&mut world, 0, 2048);
    let stats = world.policy.stats();
    assert!(stats.started_narrow > 0);
    // Old blocks gave no more than was needed once every new one that leaves the window had started as narrow.
    let kinds = look::kinds(world.policy.config(), &world.pos, &world.seq, 2);
    for (b, kind) in kinds.iter().enumerate() {
        for (s, table) in before.iter().enumerate() {
            let (old, new) = (table[b].width, world.policy.table(s)[b].width);
            match kind {
                look::Kind::Past if old == 0 => assert!(new < 16, "block {b} is new and kept at {new} bits"),
                look::Kind::Past | look::Kind::Empty => {}
                _ => assert_eq!(new, 16, "block {b} {kind:?}"),
            }
        }
    }
}

#[test]
fn a_prefill_that_starts_narrow_enough_moves_no_old_block() {
    // All steps cost the same; the new blocks at 8 bits just make the room.
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0, 1.0, 1.5, 1.75]); 2], 2 * 86 - 38));
    run(&mut world, 0, 1 + 384);
    let tokens: Vec<_> = (385..385 + 640).map(|p| (p, 0)).collect();
    let cells = world.policy.place(world.view(), &tokens).unwrap();
    for (&c, t) in cells.iter().zip(&tokens) {
        world.pos[c as usize] = t.0;
        world.seq[c as usize][0] = 1;
    }
    // 1 + 24 + 40 pages of a side at 16 bits: there is room, nothing happens.
    let view = CellView { pos: &world.pos, seq: &world.seq };
    let ops = world.policy.plan_ubatch(view, &cells).unwrap();
    assert!(ops.ops.is_empty() && ops.started_narrow == 0 && ops.pages_taken == 80);
    world.policy.rollback();
    // 50 pages of a side: the four new blocks that leave the window give 16 at 8 bits, and no operation runs.
    let mut tight = World::new(config(2048, vec![side(Width::B2, [0.0, 1.0, 1.5, 1.75]); 2], 2 * 50 - 38));
    run(&mut tight, 0, 1 + 384);
    run(&mut tight, 0, 640);
    assert_eq!(tight.policy.stats().shrinks, [0; 3]);
    assert_eq!(widths(&tight, 0)[1..9], [16, 16, 16, 8, 8, 8, 8, 16]);
}

#[test]
fn static_plans_narrow_what_leaves_the_window_whatever_room_there_is() {
    for initial in [Initial::Final, Initial::Bits(Width::B8)] {
        let mut config = config(2048, vec![side(Width::B2, [0.0; 4]), side(Width::B4, [0.0; 4])], 1000);
        config.initial = initial;
        let mut world = World::new(config);
        for _ in 0..1000 {
            run(&mut world, 0, 1);
        }
        // 999 tokens after the sink: blocks 1 to 7 are full, 8 is open; the window of 128 reaches into block 7.
        let narrow = match initial {
            Initial::Final => [2, 4],
            Initial::Bits(_) => [8, 8],
        };
        for (s, n) in narrow.into_iter().enumerate() {
            assert_eq!(widths(&world, s)[..9], [16, n, n, n, n, n, n, 16, 16]);
        }
    }
}

#[test]
fn a_rolled_back_tail_is_filled_again_in_place() {
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0; 4]); 2], 100));
    run(&mut world, 0, 40);
    let cells = look::cells_of(&world.pos, &world.seq, 0);
    world.seq_rm(0, 30, i32::MAX);
    run(&mut world, 0, 10);
    assert_eq!(look::cells_of(&world.pos, &world.seq, 0), cells);
}

#[test]
fn sinks_and_windows_stay_at_16_bits_in_a_comfortable_pool() {
    for seed in seeds(3000, 40) {
        println!("PMKVQ_SEED={seed}");
        let mut rng = Rng::new(seed);
        let mut config = walk::config(&mut rng);
        config.window = rng.pick(&[128, 128, 200]);
        let blocks = config.window.div_ceil(128) + 2;
        // A block more for every sequence's open one, so that free blocks never run out.
        config.n_blocks = config.n_ctx.div_ceil(128) + config.n_seq_max * (1 + config.window.div_ceil(128)) * 2 + 8;
        let extra = u64::from(config.n_seq_max * blocks + config.sink_blocks()) * 8;
        for (i, least) in config.clone().least_pages().into_iter().enumerate() {
            let sides = config.sides.iter().filter(|s| s.pool == i).count() as u64;
            config.pools[i].n_pages = (least + extra * sides).max(1) as u32;
        }
        let (sink, window, n_seq) = (config.sink as i32, config.window as usize, config.n_seq_max);
        let n_ctx = config.n_ctx as usize;
        let mut world = World::new(config);
        for _ in 0..60 {
            let s = rng.below(n_seq as usize) as u32;
            if rng.chance(8) {
                world.seq_rm(s, 0, i32::MAX);
            }
            let n = rng.pick(&[1, 1, 5, 100, 500]).min(n_ctx - world.used());
            run(&mut world, s, n);
            for s in 0..n_seq {
                let mut cells = look::cells_of(&world.pos, &world.seq, s);
                cells.sort_by_key(|&c| -world.pos[c]);
                for (i, &c) in cells.iter().enumerate() {
                    if i < window || world.pos[c] < sink {
                        for side in 0..world.policy.config().sides.len() {
                            let w = world.policy.table(side)[c / BLOCK].width;
                            assert_eq!(w, 16, "token {i} from the head of sequence {s}, cell {c}, side {side}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn several_ubatches_are_placed_before_the_first_is_planned() {
    // As llama.cpp does for a batch: blocks that were narrow and are empty now must not break up the filling.
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0; 4]); 2], 10));
    run(&mut world, 0, 1800);
    world.seq_rm(0, 0, i32::MAX);
    world.policy.observe(CellView { pos: &world.pos, seq: &world.seq });
    let (mut pos, mut seq) = (world.pos.clone(), world.seq.clone());
    let mut all = Vec::new();
    for first in (0..900).step_by(300) {
        let tokens: Vec<_> = (first..first + 300).map(|p| (p, 0)).collect();
        let cells = world.policy.place(CellView { pos: &pos, seq: &seq }, &tokens).unwrap();
        for (&c, t) in cells.iter().zip(&tokens) {
            pos[c as usize] = t.0;
            seq[c as usize][0] = 1;
        }
        all.extend(cells);
    }
    let expected: Vec<u32> = std::iter::once(0).chain(BLOCK as u32..BLOCK as u32 + 899).collect();
    assert_eq!(all, expected);
}

#[test]
fn image_tokens_that_share_a_position_fill_a_block() {
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0; 4]); 2], 500));
    world.check_place = false;
    run(&mut world, 0, 11);
    world.ubatch(&[(11, 0); 200], End::Commit).unwrap();
    world.ubatch(&[(11, 0); 100], End::Commit).unwrap();
    // The text after an image goes on at a later position.
    world.ubatch(&[(30, 0)], End::Commit).unwrap();
    let cells = look::cells_of(&world.pos, &world.seq, 0);
    let expected: Vec<usize> = std::iter::once(0).chain(BLOCK..BLOCK + 311).collect();
    assert_eq!(cells, expected);
}

type Spoil = fn(&mut Config);

#[test]
fn what_cannot_work_is_refused_by_name() {
    let good = || config(2048, vec![side(Width::B2, [0.0, 1.0, 2.0, 3.0]); 2], 0);
    assert!(Policy::new(good()).is_ok());
    let cases: [(Spoil, ConfigError, &str); 13] = [
        (|c| c.n_ctx = 0, ConfigError::Zero("n_ctx"), "n_ctx"),
        (|c| c.n_seq_max = 0, ConfigError::Zero("n_seq_max"), "n_seq_max"),
        (|c| c.sides.clear(), ConfigError::Zero("sides"), "sides"),
        (|c| c.pools.clear(), ConfigError::Zero("pools"), "pools"),
        (|c| c.n_seq_max = 257, ConfigError::TooManySequences(257), "257"),
        (|c| c.n_blocks = 15, ConfigError::FewBlocks { n_ctx: 2048, n_blocks: 15 }, "16 are needed"),
        (|c| c.n_blocks = 1 << 30, ConfigError::TooLarge { what: "n_blocks", n: 1 << 30 }, "n_blocks"),
        (|c| c.sink = 5000, ConfigError::OnlySinks { sink_blocks: 79, n_blocks: 19 }, "sink"),
        (|c| c.sides[1].pool = 1, ConfigError::NoSuchPool { side: 1, pool: 1 }, "layer entry 0, V"),
        (|c| c.sides[0].loss[2] = f64::NAN, ConfigError::BadLoss { side: 0, width: Width::B4 }, "4 bits"),
        (|c| c.sides[0].loss[3] = 0.5, ConfigError::FallingLoss { side: 0, width: Width::B2 }, "2 bits"),
        (|c| c.pools[0].n_pages -= 1, ConfigError::SmallPool { pool: 0, have: 37, least: 38 }, "38"),
        (|c| c.rule = Rule::Layer, ConfigError::ZeroQuota { side: 0 }, "layer"),
    ];
    for (spoil, error, word) in cases {
        let mut config = good();
        spoil(&mut config);
        let found = Policy::new(config).err().expect("must be refused");
        assert_eq!(found, error);
        assert!(found.to_string().contains(word), "{found}");
    }
    assert_eq!(monotone_loss([0.0, 2.0, 1.0, 3.0]), [0.0, 2.0, 2.0, 3.0]);
}

#[test]
fn a_bad_call_is_an_error_and_changes_nothing() {
    let mut world = World::new(config(2048, vec![side(Width::B2, [0.0; 4]); 2], 0));
    run(&mut world, 0, 200);
    let before = world.tables();
    let n = world.pos.len();
    let short = CellView { pos: &world.pos[1..], seq: &world.seq };
    assert_eq!(world.policy.plan_ubatch(short, &[]).unwrap_err(), PolicyError::View { cells: n - 1, expected: n });
    assert!(world.policy.place(short, &[(0, 0)]).is_none());
    let view = CellView { pos: &world.pos, seq: &world.seq };
    let past = n as u32;
    assert_eq!(world.policy.plan_ubatch(view, &[past]).unwrap_err(), PolicyError::Cell { cell: past });
    let empty = n as u32 - 1;
    assert_eq!(world.policy.plan_ubatch(view, &[empty]).unwrap_err(), PolicyError::Cell { cell: empty });
    assert!(world.policy.place(view, &[(0, 256)]).is_none());
    world.policy.commit();
    assert_eq!(world.tables(), before);
    assert!(world.policy.plan_ubatch(view, &[]).unwrap().ops.is_empty());
}
