//! The planner against trying everything, on programmes small enough for that.

use pmkvq::bytes::{Layout, LayoutParams};
use pmkvq::geometry::Width;
use pmkvq::plan::{Kv, Status};
use pmkvq::planner::{self, solve, solve_widths, Choice};
use pmkvq::sensitivity::Sensitivities;
use pmkvq::shape::ModelShape;

use super::rng::{seeds, Rng};
use super::samples;

/// The least cost within the budget, by trying every combination; `None` if nothing fits.
fn best(items: &[Vec<Choice>], budget: u64) -> Option<f64> {
    let Some((item, rest)) = items.split_first() else { return Some(0.0) };
    let tried = item.iter().filter(|c| c.bytes <= budget);
    tried.filter_map(|c| Some(c.cost + best(rest, budget - c.bytes)?)).min_by(f64::total_cmp)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// A cost: some alike, some zero, some of very different sizes.
fn cost(rng: &mut Rng, kind: usize) -> f64 {
    match kind {
        0 => rng.below(4) as f64,
        1 => rng.next() as f64 / u64::MAX as f64,
        2 => 10f64.powf(rng.range(0, 16) as f64 - 10.0),
        3 => 1.0 + rng.below(1000) as f64 * 1e-9,
        _ => 1e-80 * rng.below(1000) as f64,
    }
}

#[test]
fn any_programme() {
    for seed in seeds(1, 20_000) {
        let mut rng = Rng::new(seed);
        let (kind, unit) = (rng.below(5), rng.pick(&[1u64, 7, 4096, 32 << 20]));
        let items: Vec<Vec<Choice>> = (0..rng.range(1, 7))
            .map(|_| {
                let n = rng.range(1, 4);
                (0..n).map(|_| Choice { cost: cost(&mut rng, kind), bytes: unit * rng.below(200) as u64 }).collect()
            })
            .collect();
        let sum =
            |f: fn(u64, u64) -> u64| items.iter().map(|i| i.iter().map(|c| c.bytes).reduce(f).unwrap()).sum::<u64>();
        let (least, most) = (sum(u64::min), sum(u64::max));
        let budget = least + rng.next() % (most - least + 1);
        let found = solve(&items, budget).unwrap();
        let best = best(&items, budget).unwrap();
        let chosen = items.iter().zip(&found.choice).map(|(item, c)| item[*c]);
        assert_eq!(chosen.clone().map(|c| c.bytes).sum::<u64>(), found.bytes, "seed {seed}");
        assert!(found.bytes <= budget, "seed {seed}");
        assert!(close(chosen.map(|c| c.cost).sum(), found.objective), "seed {seed}");
        assert!(found.optimal, "seed {seed}: gave up, {} against {best}", found.objective);
        assert!(close(found.objective, best), "seed {seed}, kind {kind}: {} against {best}", found.objective);
        assert!(found.bound <= best * (1.0 + 1e-9), "seed {seed}");
    }
}

/// The programme that the planner should solve, built from the byte accounting directly.
fn items(shape: &ModelShape, s: &Sensitivities, params: &LayoutParams, kv: Kv, widths: &[Width]) -> Vec<Vec<Choice>> {
    let n = 2 * shape.layers.len();
    let layouts: Vec<Layout> = widths.iter().map(|&w| Layout::new(shape, &vec![w; n], params)).collect();
    let side = |i: usize| -> Vec<Choice> {
        let layer = &s.layers[i / 2];
        let values = if i.is_multiple_of(2) { &layer.k } else { &layer.v };
        let choice = |(layout, &w): (&Layout, &Width)| {
            let side = &layout.sides[i];
            // a side without a group stays at 16 bits, and costs that
            let w = if side.group == 0 { Width::B16 } else { w };
            Choice { cost: s.at(values, w).unwrap(), bytes: side.planned_bytes(layout.pools[side.pool].page_row_bytes) }
        };
        layouts.iter().zip(widths).map(choice).collect()
    };
    match kv {
        Kv::Apart => (0..n).map(side).collect(),
        Kv::Tied => (0..n / 2)
            .map(|i| {
                let pairs = side(2 * i).into_iter().zip(side(2 * i + 1));
                pairs.map(|(k, v)| Choice { cost: k.cost + v.cost, bytes: k.bytes + v.bytes }).collect()
            })
            .collect(),
    }
}

#[test]
fn any_small_model() {
    let (mut narrowest, mut solved) = (0, 0);
    for seed in seeds(1, 400) {
        let mut rng = Rng::new(seed);
        let shape = samples::random_shape(&mut rng, 4);
        let params = samples::random_params(&mut rng);
        let s = samples::random_sensitivities(&mut rng, &shape);
        let kv = rng.pick(&[Kv::Apart, Kv::Tied]);
        let mut widths: Vec<Width> = Width::ALL.into_iter().filter(|_| rng.chance(75)).collect();
        if widths.is_empty() {
            widths.push(Width::B2);
        }
        let n = 2 * shape.layers.len();
        let at = |w: Width| samples::planned(&shape, &vec![w; n], &params);
        let least = Layout::new(&shape, &vec![*widths.last().unwrap(); n], &params).least_budget();
        let budget = least + rng.next() % (at(Width::B16).saturating_sub(least) + 2);

        let found = solve_widths(&shape, &s, &params, budget, kv, &widths).unwrap();
        let finals: Vec<Width> = found.layers.iter().flat_map(|l| [l.k, l.v]).collect();
        let layout = Layout::new(&shape, &finals, &params);
        let grouped: Vec<bool> = layout.sides.iter().map(|s| s.group != 0).collect();
        let fits = |(w, grouped): (&Width, &bool)| if *grouped { widths.contains(w) } else { *w == Width::B16 };
        assert!(finals.iter().zip(&grouped).all(fits), "seed {seed}");
        if kv == Kv::Tied {
            let both = grouped.chunks(2).map(|g| g[0] && g[1]);
            assert!(found.layers.iter().zip(both).all(|(l, both)| !both || l.k == l.v), "seed {seed}");
        }
        assert_eq!(
            planner::objective(&shape, &s, &params, &finals).map(|o| close(o, found.solver.objective.unwrap())),
            Some(true)
        );
        let objective = found.solver.objective.unwrap();
        match best(&items(&shape, &s, &params, kv, &widths), budget - params.scratch_bytes) {
            Some(best) => {
                solved += 1;
                assert_eq!((found.solver.status, found.solver.gap), (Status::Optimal, Some(0.0)), "seed {seed}");
                assert!(close(objective, best), "seed {seed}: {objective} against {best}");
                assert!(samples::planned(&shape, &finals, &params) <= budget, "seed {seed}");
            }
            None => {
                narrowest += 1;
                assert_eq!(found.solver.status, Status::Narrowest, "seed {seed}");
                assert!(finals.iter().zip(&grouped).all(|(w, grouped)| !grouped || w == widths.last().unwrap()));
            }
        }
        // whatever the status, the plan holds its budget
        let plan = samples::plan(&shape, &params, budget, found, Some(s));
        pmkvq::plan::Plan::parse(&plan.to_json()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    println!("{solved} solved, {narrowest} at the narrowest");
    assert!(solved > 100 || std::env::var("PMKVQ_SEED").is_ok());
}

/// The least cost by `good_lp`, a branch and bound over the linear relaxation that shares nothing with the planner's search.
fn by_good_lp(items: &[Vec<Choice>], budget: u64) -> f64 {
    use good_lp::{constraint, microlp, variable, variables, Expression, Solution as _, SolverModel};
    let mut vars = variables!();
    let picks: Vec<Vec<_>> = items.iter().map(|i| i.iter().map(|_| vars.add(variable().binary())).collect()).collect();
    let all = || items.iter().flatten().zip(picks.iter().flatten());
    let cost: Expression = all().map(|(c, &x)| c.cost * x).sum();
    let bytes: Expression = all().map(|(c, &x)| c.bytes as f64 * x).sum();
    let mut model = vars.minimise(cost).using(microlp).with(constraint!(bytes <= budget as f64));
    for xs in &picks {
        let one: Expression = xs.iter().copied().sum();
        model = model.with(constraint!(one == 1.0));
    }
    let found = model.solve().unwrap();
    all().map(|(c, &x)| if found.value(x) > 0.5 { c.cost } else { 0.0 }).sum()
}

#[test]
fn programmes_too_large_to_try_everything() {
    for seed in seeds(1, 40) {
        let mut rng = Rng::new(seed);
        let items: Vec<Vec<Choice>> = (0..rng.range(15, 40))
            .map(|_| {
                let (scale, heads) = (10f64.powi(rng.range(0, 3) as i32), rng.range(1, 4) as u64);
                let mut costs: Vec<f64> = (0..3).map(|_| scale * f64::from(rng.unit())).collect();
                costs.sort_by(f64::total_cmp);
                [(8, 0.0), (4, costs[0]), (2, costs[1]), (1, costs[2])]
                    .map(|(pages, cost)| Choice { cost, bytes: heads * pages })
                    .to_vec()
            })
            .collect();
        let most: u64 = items.iter().map(|i| i[0].bytes).sum();
        let budget = most / 8 + rng.next() % (most / 2);
        let found = solve(&items, budget).unwrap();
        let theirs = by_good_lp(&items, budget);
        println!("seed {seed}: {} items, {} against {theirs}", items.len(), found.objective);
        assert!(found.optimal && (found.objective - theirs).abs() <= 1e-6 * theirs.max(1e-6), "seed {seed}");
    }
}
