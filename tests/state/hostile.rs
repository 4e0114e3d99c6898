//! States that were cut short or damaged: an error that names the thing, or other values, never more.

use super::rng::{seeds, Rng};
use super::sim::{Setup, Sim};
use pmkvq::geometry::Width;
use pmkvq::kernels::RangeRule;
use pmkvq::policy::{Initial, Rule};
use pmkvq::state::{self, Head};

fn sim(n_ctx: u32) -> Sim {
    let setup = Setup {
        n_ctx,
        shapes: vec![[(64, 64), (64, 64)], [(96, 48), (32, 32)]],
        finals: vec![Width::B2; 4],
        range: RangeRule::Fit,
        sink: 1,
        window: 64,
        initial: Initial::Bits(Width::B16),
        rule: Rule::Block,
        spare: 0,
    };
    Sim::new(&setup, 3)
}

fn message(bytes: &[u8], sim: &Sim, transforms: u64) -> String {
    Head::read(&mut &bytes[..], &sim.shapes, transforms, sim.policy.config().n_ctx).unwrap_err()
}

#[test]
fn a_head_that_does_not_fit_says_why() {
    let mut from = sim(600);
    from.decode(0, 500);
    let bytes = from.save(Some(0)).bytes;
    for (what, got) in [
        ("with a plan", message(b"\x01\0\0\0\0\0\0\0and so on", &from, 7)),
        ("other transforms", message(&bytes, &from, 8)),
        ("500 tokens, the context 256", message(&bytes, &sim(256), 7)),
        ("layers", {
            let mut other = sim(600);
            other.shapes.truncate(2);
            message(&bytes, &other, 7)
        }),
        ("another model", {
            let mut other = sim(600);
            other.shapes[3].head_dim = 64;
            message(&bytes, &other, 7)
        }),
    ] {
        assert!(got.contains(what), "'{what}' is not in: {got}");
    }
}

#[test]
fn every_state_that_was_cut_short_is_refused() {
    let mut from = sim(600);
    from.decode(0, 300);
    let state = from.save(Some(0));
    let head = state.head.bytes();
    for n in (0..head).step_by(7).chain([head - 1]) {
        assert!(!message(&state.bytes[..n], &from, 7).is_empty(), "{n} bytes were enough");
    }
    let rest = &state.bytes[head..];
    for n in [0, 1, 1000, rest.len() - 1] {
        let mut to = sim(600);
        let placed = to.place_and_plan(&state.head);
        let fresh: Vec<u32> = placed.starts.iter().map(|s| s.0).collect();
        let policy = &to.policy;
        let tables = |side: usize, block: usize| policy.table(side)[block];
        let result =
            state::restore(&state.head, &to.shapes, &placed.cells, &fresh, &tables, &mut to.memory, &mut &rest[..n]);
        assert!(result.is_err(), "{n} bytes of data were enough");
    }
}

#[test]
fn damaged_heads_do_no_harm() {
    let mut from = sim(600);
    from.decode(0, 500);
    let state = from.save(Some(0));
    for seed in seeds(0, 300) {
        let rng = &mut Rng::new(seed);
        let mut bytes = state.bytes.clone();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(state.head.bytes());
            bytes[at] = rng.next() as u8;
        }
        let mut to = sim(600);
        to.decode(1, 90);
        let Ok(head) = Head::read(&mut &bytes[..], &to.shapes, 7, 600) else { continue };
        if head.n_cells() + 90 > 600 {
            continue;
        }
        let placed = to.place_and_plan(&head);
        let fresh: Vec<u32> = placed.starts.iter().map(|s| s.0).collect();
        let policy = &to.policy;
        let tables = |side: usize, block: usize| policy.table(side)[block];
        let mut rest = &bytes[head.bytes()..];
        let _ = state::restore(&head, &to.shapes, &placed.cells, &fresh, &tables, &mut to.memory, &mut rest);
        to.forget(0, 0);
        to.check();
    }
}
