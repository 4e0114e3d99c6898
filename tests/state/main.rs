//! States: what is saved from one cache and restored into another is what was stored, at the width that it has now.
//! Pools hold 0xFF bytes at first. Seeds are printed; `PMKVQ_SEED=n` runs that seed alone.

mod copies;
mod hostile;
#[path = "../shared/rng.rs"]
mod rng;
mod sim;

use pmkvq::geometry::Width;
use pmkvq::kernels::RangeRule;
use pmkvq::policy::{Initial, Rule};
use rng::{seeds, Rng};
use sim::{Setup, Sim};

fn setup(rng: &mut Rng) -> Setup {
    Setup {
        n_ctx: rng.pick(&[256, 600, 1100]),
        // (head dimension, group) of K and V of a layer
        shapes: vec![[(64, 64), (64, 64)], [(96, 48), (32, 32)]],
        finals: (0..4).map(|_| rng.pick(&[Width::B16, Width::B8, Width::B4, Width::B2])).collect(),
        range: rng.pick(&[RangeRule::Shift, RangeRule::Fit]),
        sink: rng.pick(&[0, 1, 4]),
        window: rng.pick(&[0, 64, 128]),
        initial: rng.pick(&[Initial::Bits(Width::B16), Initial::Final]),
        rule: rng.pick(&[Rule::Block, Rule::Layer]),
        // pages over the least, of 100
        spare: rng.pick(&[0, 10, 50, 300]),
    }
}

/// Tokens of some sequence, or some are forgotten.
fn live(sim: &mut Sim, rng: &mut Rng) {
    let seq = rng.below(3) as u32;
    match rng.below(8) {
        0 => sim.forget(seq, 0),
        1 => {
            let from = rng.below(sim.next(seq).max(1) as usize) as i32;
            sim.forget(seq, from);
        }
        2 => sim.share(seq, (seq + 1) % 3),
        _ => {
            let most = rng.pick(&[1, 30, 300]);
            sim.decode(seq, 1 + rng.below(most));
        }
    }
}

#[test]
fn what_is_restored_is_what_was_stored() {
    let mut seen = [0; 4];
    seeds(0, 60).into_iter().for_each(|seed| {
        println!("seed {seed}");
        let rng = &mut Rng::new(seed);
        let from_setup = setup(rng);
        let mut from = Sim::new(&from_setup, seed);
        // another budget and other final widths; the same ranges, as codes tell nothing of them
        let to_setup = Setup { range: from_setup.range, ..setup(rng) };
        let mut to = Sim::new(&to_setup, seed);
        for _ in 0..25 {
            live(&mut from, rng);
            live(&mut to, rng);
        }
        for _ in 0..4 {
            let seq = rng.chance(80).then(|| rng.below(3) as u32);
            let state = from.save(seq);
            from.check();
            for (sum, n) in seen.iter_mut().zip(state.widths()) {
                *sum += n;
            }
            // into itself, or into the other
            let target = if rng.chance(40) { &mut from } else { &mut to };
            let fits = target.restore(&state, rng.below(3) as u32);
            target.check();
            if fits {
                for _ in 0..5 {
                    live(target, rng);
                    target.check();
                }
            }
        }
    });
    assert!(
        std::env::var_os("PMKVQ_SEED").is_some() || seen.iter().all(|n| *n > 0),
        "not every width was saved: {seen:?}"
    );
}

/// No block is empty: a saved block's cells go into holes of blocks that have other widths.
#[test]
fn what_is_packed_into_holes_is_what_was_stored() {
    let mut split = 0;
    for seed in seeds(2000, 30) {
        println!("seed {seed}");
        let rng = &mut Rng::new(seed);
        let finals = vec![Width::B2, Width::B2, Width::B4, Width::B2];
        let setup = Setup { finals, n_ctx: 1100, initial: Initial::Bits(Width::B16), window: 64, ..setup(rng) };
        let mut from = Sim::new(&Setup { spare: rng.pick(&[50, 300]), ..setup.clone() }, seed);
        from.decode(0, 300);
        let state = from.save(Some(0));
        let mut to = Sim::new(&Setup { spare: 10, ..setup }, seed);
        // three sequences take all blocks, and leave holes
        while to.room() > 0 {
            let seq = rng.below(3) as u32;
            to.decode(seq, 1 + rng.below(200));
        }
        to.punch(rng, 40);
        to.check();
        if to.restore(&state, 3) {
            to.check();
            split += usize::from(to.has_mixed_widths());
        }
    }
    assert!(std::env::var_os("PMKVQ_SEED").is_some() || split > 10, "only {split} caches had several widths");
}

#[test]
fn other_groups_get_the_values_anew() {
    for seed in seeds(1000, 10) {
        println!("seed {seed}");
        let rng = &mut Rng::new(seed);
        let shapes = vec![[(64, 64), (64, 64)], [(96, 48), (32, 32)]];
        let groups = vec![[(64, 32), (64, 16)], [(96, 96), (32, 16)]];
        let setup = Setup {
            shapes,
            finals: vec![Width::B8, Width::B4, Width::B8, Width::B4],
            spare: 0,
            n_ctx: 600,
            ..setup(rng)
        };
        let mut from = Sim::new(&setup, seed);
        from.decode(0, 550);
        let mut to = Sim::new(&Setup { shapes: groups, ..setup.clone() }, seed);
        let state = from.save(Some(0));
        assert!(to.restore(&state, 1));
        to.check();
    }
}

/// A state of one sequence tells nothing of the others, though they share its pages.
#[test]
fn a_state_holds_nothing_of_other_sequences() {
    let rng = &mut Rng::new(5);
    let setup = Setup { finals: vec![Width::B2; 4], spare: 0, n_ctx: 600, sink: 1, rule: Rule::Block, ..setup(rng) };
    let state = |other: usize| {
        let mut sim = Sim::new(&setup, 1);
        sim.decode(0, 200);
        sim.share(0, 1);
        sim.forget(0, 0);
        // tokens of the other sequence, in cells between those of the first
        sim.forget(1, 150);
        sim.salt = other as u64;
        sim.fill_holes(0);
        sim.save(Some(1)).bytes
    };
    assert!(!state(1).is_empty());
    assert!(state(1) == state(2), "what another sequence holds shows in the state");
}
