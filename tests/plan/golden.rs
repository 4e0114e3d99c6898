//! The allocation cases of the paper authors' reference implementation (`golden/allocation_cases.json`).

use std::collections::HashMap;

use pmkvq::planner::{solve, Choice, SolveError};
use serde::Deserialize;

/// Values per layer by width.
type ByWidth = HashMap<String, Vec<f64>>;

#[derive(Deserialize)]
struct Case {
    fbit_choices: Vec<u64>,
    k_sensitivity: ByWidth,
    v_sensitivity: ByWidth,
    memory_budget_mib: f64,
    hidden_size: u64,
    max_len: u64,
    bits: Vec<u64>,
    objective: f64,
    used_mib: f64,
}

impl Case {
    /// An item per layer: K and V tied, codes only, as the reference counts.
    fn items(&self) -> Vec<Vec<Choice>> {
        let choice = |layer: usize, bits: &u64| Choice {
            cost: self.k_sensitivity[&bits.to_string()][layer] + self.v_sensitivity[&bits.to_string()][layer],
            bytes: 2 * self.max_len * self.hidden_size * bits / 8,
        };
        (0..self.bits.len()).map(|layer| self.fbit_choices.iter().map(|bits| choice(layer, bits)).collect()).collect()
    }

    fn budget(&self) -> u64 {
        (self.memory_budget_mib * f64::from(1 << 20)) as u64
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/allocation_cases.json"));
    serde_json::from_str(&text.unwrap()).unwrap()
}

#[test]
fn all_eight_cases_reach_the_reference_objective() {
    let cases = cases();
    assert_eq!(cases.len(), 8);
    for (i, case) in cases.iter().enumerate() {
        let items = case.items();
        // our reading of the case gives the reference's own figures for the reference's own choice
        let at = |bits: &u64| case.fbit_choices.iter().position(|b| b == bits).unwrap();
        let theirs: Vec<Choice> = items.iter().zip(&case.bits).map(|(item, bits)| item[at(bits)]).collect();
        assert!((theirs.iter().map(|c| c.cost).sum::<f64>() - case.objective).abs() <= 1e-9 * case.objective);
        assert_eq!(theirs.iter().map(|c| c.bytes).sum::<u64>() as f64, case.used_mib * f64::from(1 << 20));

        let found = solve(&items, case.budget()).unwrap();
        println!("case {i}: {} layers, reference {}, found {}", items.len(), case.objective, found.objective);
        assert!((found.objective - case.objective).abs() <= 1e-9 * case.objective);
        assert!(found.optimal && found.gap() == 0.0 && found.bound <= found.objective * (1.0 + 1e-12));
        let ours = items.iter().zip(&found.choice).map(|(item, c)| item[*c]);
        assert_eq!(ours.clone().map(|c| c.bytes).sum::<u64>(), found.bytes);
        assert!(found.bytes <= case.budget());
        assert!((ours.map(|c| c.cost).sum::<f64>() - found.objective).abs() <= 1e-9 * case.objective);
    }
}

#[test]
fn below_the_least_possible_each_case_names_it() {
    for case in cases() {
        let least =
            2 * case.max_len * case.hidden_size * case.fbit_choices.iter().min().unwrap() / 8 * case.bits.len() as u64;
        assert_eq!(solve(&case.items(), least - 1), Err(SolveError::Budget { least }));
        assert_eq!(solve(&case.items(), least).unwrap().bytes, least);
    }
}
