//! What is written is read back as it was, to the last bit of every number.

use pmkvq::geometry::Width;
use pmkvq::plan::{Initial, Kv, Plan, Rule, Status};
use pmkvq::planner::{solve_widths, uniform};
use pmkvq::sensitivity::SensitivityFile;

use super::rng::{seeds, Rng};
use super::samples;

fn back(plan: &Plan) {
    let text = plan.to_json();
    assert_eq!(&Plan::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), plan);
    assert!(text.ends_with("}\n"));
}

#[test]
fn plans_come_back() {
    back(&samples::small());
    back(&samples::rich());
    let mut plan = samples::rich().with_rule(Rule::Layer);
    plan.initial = Initial::Final;
    plan.model.name = "\"\\\u{7} ünï {}".to_string();
    back(&plan);
}

#[test]
fn random_plans_come_back() {
    for seed in seeds(1, 300) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let shape = samples::random_shape(&mut rng, 6);
        let params = samples::random_params(&mut rng);
        let s = samples::random_sensitivities(&mut rng, &shape);
        let width = rng.pick(&Width::ALL);
        let budget =
            samples::planned(&shape, &vec![width; 2 * shape.layers.len()], &params) + rng.below(1 << 20) as u64;
        let kv = rng.pick(&[Kv::Apart, Kv::Tied]);
        let mut solved = solve_widths(&shape, &s, &params, budget, kv, &Width::ALL).unwrap();
        if rng.chance(20) {
            solved = uniform(&shape, width);
        }
        let s = rng.chance(70).then_some(s);
        let mut plan = samples::plan(&shape, &params, budget, solved, s);
        plan.solver.status = rng.pick(&[Status::Optimal, Status::Limit, Status::Narrowest, Status::Uniform]);
        back(&plan);
    }
}

#[test]
fn sensitivity_files_come_back() {
    for seed in seeds(1, 100) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let shape = samples::random_shape(&mut rng, 6);
        let values = samples::random_sensitivities(&mut rng, &shape);
        let model = rng.chance(50).then_some(shape);
        let file = SensitivityFile { model, by_position: false, values };
        assert_eq!(SensitivityFile::parse(&file.to_json()).unwrap(), file);
    }
}

#[test]
fn a_sum_of_the_largest_sensitivities_is_still_an_objective() {
    let mut plan = samples::rich();
    let s = plan.sensitivities.as_mut().unwrap();
    s.layers.iter_mut().flat_map(|l| l.k.iter_mut().chain(&mut l.v)).for_each(|v| *v = 1e100);
    plan.solver.objective = Some(6e100);
    back(&plan);
}
