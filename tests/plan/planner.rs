//! What the planner refuses, how fast it is, and that more memory never costs.

use std::time::{Duration, Instant};

use pmkvq::bytes::Layout;
use pmkvq::geometry::Width;
use pmkvq::plan::{Kv, Status};
use pmkvq::planner::{self, frontier, solve, solve_widths, uniform, Choice, PlannerError, SolveError};
use pmkvq::sensitivity::Sensitivities;
use pmkvq::shape::ModelShape;

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
fn a_frontier_never_rises() {
    for seed in seeds(1, 20) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let shape = samples::random_shape(&mut rng, 12);
        let params = samples::random_params(&mut rng);
        let s = samples::random_sensitivities(&mut rng, &shape);
        let n = 2 * shape.layers.len();
        let least = Layout::new(&shape, &vec![Width::B2; n], &params).least_budget();
        let full = samples::planned(&shape, &vec![Width::B16; n], &params).max(least + 1);
        let budgets: Vec<u64> = (0..40).map(|_| least + rng.next() % (full - least + 1)).collect();
        let kv = rng.pick(&[Kv::Apart, Kv::Tied]);
        let points = frontier(&shape, &s, &params, &budgets, kv, &Width::ALL).unwrap();
        for pair in points.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1.objective() >= pair[1].1.objective(), "seed {seed}");
        }
        for (budget, point) in &points {
            let alone = solve_widths(&shape, &s, &params, *budget, kv, &Width::ALL).unwrap();
            assert!((alone.objective() - point.objective()).abs() <= 1e-9 * alone.objective(), "seed {seed}");
            let finals: Vec<Width> = point.layers.iter().flat_map(|l| [l.k, l.v]).collect();
            assert!(Layout::new(&shape, &finals, &params).least_budget() <= *budget, "seed {seed}");
        }
        let e = frontier(&shape, &s, &params, &[full, least - 1], kv, &Width::ALL).unwrap_err();
        assert!(matches!(e, PlannerError::Budget(_)));
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

/// Sensitivities that leave the solver little to prune by: costs that follow the bytes closely, alike, or in steps.
fn adversarial(kind: usize, rng: &mut Rng, shape: &ModelShape) -> Sensitivities {
    let mut s = samples::random_sensitivities(rng, shape);
    for (layer, at) in s.layers.iter_mut().zip(&shape.layers) {
        for values in [&mut layer.k, &mut layer.v] {
            let heads = f64::from(at.n_head_kv);
            let noise = |rng: &mut Rng, size: f64| 1.0 + size * (rng.unit() as f64 - 0.5);
            *values = match kind {
                // a loss per byte that is the same everywhere, but for one part in a million
                0 => [0.0, 8.0, 12.0, 14.0].map(|c| c * heads * noise(rng, 1e-6)).to_vec(),
                // all alike
                1 => vec![0.0, 1.0, 17.0, 85.0],
                // costs in whole steps, so that very many choices cost the same
                2 => {
                    let step = rng.range(1, 3) as f64;
                    [0.0, 1.0, 3.0, 9.0].map(|c| c * step).to_vec()
                }
                // correlated with the bytes, and a constant on top
                3 => [0.0, 10.0, 14.0, 16.0].map(|c| c * heads + heads.sqrt() * noise(rng, 0.5)).to_vec(),
                // concave: the middle widths lie above the hull, so that half of everything is between two widths
                _ => [0.0, 9.0, 9.5, 10.0].map(|c| c * noise(rng, 0.01)).to_vec(),
            };
        }
    }
    s
}

#[test]
fn eighty_layers_of_the_hardest_kind_take_seconds() {
    for kind in 0..5 {
        for heads_differ in [false, true] {
            for seed in seeds(1, 3) {
                let mut rng = Rng::new(seed);
                let mut shape = samples::shape(80, 8, 128);
                if heads_differ {
                    shape.layers.iter_mut().for_each(|l| l.n_head_kv = rng.range(3, 11) as u32);
                }
                let params = samples::params(131_072);
                let s = adversarial(kind, &mut rng, &shape);
                let (low, high) = (
                    samples::planned(&shape, &[Width::B2; 160], &params),
                    samples::planned(&shape, &[Width::B16; 160], &params),
                );
                let budget = low + (high - low) / 3 + 12_345;
                let start = Instant::now();
                let found = solve_widths(&shape, &s, &params, budget, Kv::Apart, &Width::ALL).unwrap();
                let (took, solver) = (start.elapsed(), &found.solver);
                println!(
                    "kind {kind}, heads {}, seed {seed}: {:?}, objective {:?}, gap {:?} in {took:?}",
                    if heads_differ { "differ" } else { "alike" },
                    solver.status,
                    solver.objective,
                    solver.gap
                );
                assert_eq!((solver.status, solver.gap), (Status::Optimal, Some(0.0)));
                assert!(took < Duration::from_secs(10), "{took:?}");
            }
        }
    }
}

#[test]
fn a_programme_too_hard_says_how_far_it_got() {
    // bytes that add up to a different sum for every choice, and costs that follow them: no model has such sides
    let mut rng = Rng::new(7);
    let items: Vec<Vec<Choice>> = (0..200)
        .map(|_| {
            let size = (1 << 40) + rng.next() % (1 << 40);
            let bytes = [16, 8, 4, 2].map(|w| size / 16 * w + rng.next() % (1 << 20));
            let cost = |bytes: u64| (bytes.abs_diff(1 << 45)) as f64 * (1.0 + 1e-9 * f64::from(rng.unit()));
            bytes.map(cost).into_iter().zip(bytes).map(|(cost, bytes)| Choice { cost, bytes }).collect()
        })
        .collect();
    let budget = items.iter().map(|i| i[0].bytes).sum::<u64>() / 3;
    let start = Instant::now();
    let found = solve(&items, budget).unwrap();
    println!("optimal {}, gap {:e} in {:?}", found.optimal, found.gap(), start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(!found.optimal && found.bytes <= budget && found.bound <= found.objective);
    assert!(found.gap() > 0.0 && found.gap() < 1e-6, "{:e}", found.gap());
}

#[test]
fn a_side_that_stays_at_sixteen_bits_costs_what_sixteen_bits_cost() {
    // no group divides 72: V of layer 0 is stored at 16 bits though 16 is not among the widths
    let (mut shape, params) = (samples::shape(2, 1, 128), samples::params(4096));
    shape.layers[0].head_dim_v = 72;
    let mut s = samples::random_sensitivities(&mut Rng::new(5), &shape);
    s.layers[0].v = vec![0.25, 1e6, 2e6, 3e6];
    let budget = 1 << 30;
    for kv in [Kv::Apart, Kv::Tied] {
        let found = solve_widths(&shape, &s, &params, budget, kv, &[Width::B8, Width::B2]).unwrap();
        assert_eq!(found.layers[0].v, Width::B16);
        assert!(found.solver.objective.unwrap() < 1e6, "{kv:?}: {:?}", found.solver.objective);
        let finals: Vec<Width> = found.layers.iter().flat_map(|l| [l.k, l.v]).collect();
        let again = planner::objective(&shape, &s, &params, &finals).unwrap();
        assert!((again - found.solver.objective.unwrap()).abs() <= 1e-12 * again);
        // the narrowest widths count the same
        let least = Layout::new(&shape, &[Width::B2; 4], &params).least_budget();
        let found = solve_widths(&shape, &s, &params, least, kv, &[Width::B8, Width::B2]).unwrap();
        assert_eq!(found.solver.status, Status::Narrowest);
        assert!(found.solver.objective.unwrap() < 1e6);
    }
}
