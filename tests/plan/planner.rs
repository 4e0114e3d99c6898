//! What the planner refuses, how fast it is, and that more memory never costs.

use std::time::{Duration, Instant};

use pmkvq::bytes::Layout;
use pmkvq::geometry::Width;
use pmkvq::plan::{Kv, Status};
use pmkvq::planner::{solve, solve_widths, uniform, Choice, PlannerError, SolveError};

use super::rng::{seeds, Rng};
use super::samples;

#[test]
fn a_budget_below_the_least_possible_names_the_least_possible() {
    let (shape, params) = (samples::shape(4, 2, 128), samples::params(8192));
    let s = samples::random_sensitivities(&mut Rng::new(1), &shape);
    let subsets: [&[Width]; 3] = [&Width::ALL, &[Width::B8, Width::B4], &[Width::B16]];
    for widths in subsets {
        let least = Layout::new(&shape, &[*widths.last().unwrap(); 8], &params).least_budget();
        for kv in [Kv::Apart, Kv::Tied] {
            for budget in [1, least - 1] {
                let e = solve_widths(&shape, &s, &params, budget, kv, widths).unwrap_err();
                assert!(matches!(&e, PlannerError::Budget(b) if b.least == least && b.budget == budget));
                let text = e.to_string();
                assert!(text.contains(&format!("({least} bytes)")) && text.contains("allow narrower widths"), "{text}");
            }
            solve_widths(&shape, &s, &params, least, kv, widths).unwrap();
        }
    }
}

#[test]
fn unusable_input() {
    let (shape, params) = (samples::shape(2, 1, 128), samples::params(4096));
    let mut s = samples::random_sensitivities(&mut Rng::new(1), &shape);
    let solve = |s: &_, widths: &[Width]| solve_widths(&shape, s, &params, 1 << 30, Kv::Apart, widths).unwrap_err();
    assert_eq!(solve(&s, &[]), PlannerError::NoWidths);
    assert!(solve(&s, &[]).to_string().contains("--widths"));
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let mut s = s.clone();
        s.layers[1].v[2] = bad;
        assert_eq!(solve(&s, &Width::ALL), PlannerError::Value { il: 1 });
    }
    s.layers.iter_mut().flat_map(|l| [&mut l.k, &mut l.v]).for_each(|v| v.truncate(3));
    s.widths.truncate(3);
    let e = solve(&s, &[Width::B16, Width::B2]);
    assert_eq!(e, PlannerError::NotMeasured { width: Width::B2 });
    assert!(e.to_string().contains("leave 2 out of --widths"), "{e}");
    s.layers.pop();
    assert_eq!(solve(&s, &Width::ALL), PlannerError::Layers { expected: 2, found: 1 });
    assert_eq!(
        solve(&s, &Width::ALL).to_string(),
        "the sensitivities are for 1 layers, the model has 2 with a KV cache"
    );
}

#[test]
fn unusable_programmes() {
    let choice = |cost, bytes| Choice { cost, bytes };
    assert_eq!(solve(&[vec![choice(0.0, 1)], vec![]], 10), Err(SolveError::Input { item: 1 }));
    assert_eq!(solve(&[vec![choice(f64::NAN, 1)]], 10), Err(SolveError::Input { item: 0 }));
    assert_eq!(solve(&[vec![choice(-1.0, 1)]], 10), Err(SolveError::Input { item: 0 }));
    assert_eq!(
        solve(&[vec![choice(0.0, u64::MAX)], vec![choice(0.0, u64::MAX)]], 10),
        Err(SolveError::Budget { least: u64::MAX })
    );
    let none = solve(&[], 0).unwrap();
    assert_eq!((none.objective, none.bytes, none.optimal), (0.0, 0, true));
    // bytes of nothing, costs of everything
    let found = solve(&[vec![choice(f64::MAX / 4.0, 0), choice(0.0, 11)], vec![choice(1.0, 0)]], 10).unwrap();
    assert_eq!(found.choice, [0, 0]);
}

#[test]
fn sixteen_bits_cost_nothing_unless_measured() {
    let (shape, params) = (samples::shape(2, 1, 128), samples::params(4096));
    let mut s = samples::random_sensitivities(&mut Rng::new(3), &shape);
    s.layers.iter_mut().flat_map(|l| [&mut l.k, &mut l.v]).for_each(|v| *v = v.split_off(1));
    s.widths.remove(0);
    let plenty = samples::planned(&shape, &[Width::B16; 4], &params);
    let found = solve_widths(&shape, &s, &params, plenty, Kv::Apart, &Width::ALL).unwrap();
    assert_eq!(found.solver.objective, Some(0.0));
    assert!(found.layers.iter().all(|l| l.k == Width::B16 && l.v == Width::B16));
}

#[test]
fn uniform_plans() {
    let shape = samples::shape(5, 1, 128);
    for width in Width::ALL {
        let found = uniform(&shape, width);
        assert_eq!(found.layers.len(), 5);
        assert!(found.layers.iter().enumerate().all(|(i, l)| l.il == i as u32 && l.k == width && l.v == width));
        assert_eq!((found.solver.status, found.solver.objective), (Status::Uniform, None));
        assert_eq!(found.solver.widths, [width]);
    }
}

#[test]
fn more_memory_never_costs_and_apart_is_never_worse_than_tied() {
    for seed in seeds(1, 20) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let shape = samples::random_shape(&mut rng, 12);
        let params = samples::random_params(&mut rng);
        let s = samples::random_sensitivities(&mut rng, &shape);
        let n = 2 * shape.layers.len();
        let (low, high) = (
            samples::planned(&shape, &vec![Width::B2; n], &params),
            samples::planned(&shape, &vec![Width::B16; n], &params),
        );
        let mut last = f64::INFINITY;
        for i in 0..=8 {
            let budget = low.max(high) - (8 - i) * high.saturating_sub(low) / 8;
            let objective = |kv| {
                let found = solve_widths(&shape, &s, &params, budget, kv, &Width::ALL).unwrap();
                found.solver.objective.unwrap()
            };
            let (apart, tied) = (objective(Kv::Apart), objective(Kv::Tied));
            assert!(apart <= tied * (1.0 + 1e-9) && apart <= last * (1.0 + 1e-9), "{apart}, {tied}, {last}");
            last = apart;
        }
    }
}

#[test]
fn eighty_layers_take_seconds() {
    let (shape, params) = (samples::shape(80, 8, 128), samples::params(131_072));
    for seed in seeds(1, 5) {
        let s = samples::random_sensitivities(&mut Rng::new(seed), &shape);
        for (kv, width) in [(Kv::Apart, Width::B4), (Kv::Tied, Width::B4), (Kv::Apart, Width::B2)] {
            // odd bytes, so that nothing fits exactly
            let budget = samples::planned(&shape, &[width; 160], &params) + 123_456_789;
            let start = Instant::now();
            let found = solve_widths(&shape, &s, &params, budget, kv, &Width::ALL).unwrap();
            let took = start.elapsed();
            println!("seed {seed}, {kv:?}: {:?} {:?} in {took:?}", found.solver.status, found.solver.objective);
            assert_eq!(found.solver.status, Status::Optimal);
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
    }
}
