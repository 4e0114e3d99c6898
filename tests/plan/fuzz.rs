//! Plans with mutations: nothing panics, and what is accepted is read back as it was.

use pmkvq::plan::Plan;
use pmkvq::sensitivity::SensitivityFile;

use super::rng::{seeds, Rng};
use super::samples;

/// Pieces that JSON, and plans, are made of, and some that they are not.
const TOKENS: [&str; 44] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    "null",
    "true",
    "NaN",
    "-Infinity",
    "1e999",
    "1e100",
    "1e-320",
    "-0",
    "-0.0",
    "-1",
    "0",
    "1",
    "2",
    "4",
    "8",
    "16",
    "128",
    "16.0",
    "255.5",
    "134217728",
    "1125899906842624",
    "18446744073709551615",
    "99999999999999999999",
    "\"none\"",
    "\"final\"",
    "\"layer\"",
    "\"k\"",
    "\"il\"",
    "\"tied\"",
    "\"uniform\"",
    "[]",
    "{}",
    "\\u0000",
    "\\ud800",
    "é",
    "\u{1f600}",
];

/// One mutation: bytes flipped, removed, repeated or moved, or a piece put in place of another.
fn mutate(rng: &mut Rng, text: &mut Vec<u8>) {
    let n = text.len();
    let at = rng.below(n);
    let end = (at + 1 + rng.below(12)).min(n);
    match rng.below(7) {
        0 => text[at] ^= 1 << rng.below(8),
        1 => drop(text.drain(at..end)),
        2 => text.truncate(at.max(1)),
        3 => {
            let piece = text[at..end].to_vec();
            let to = rng.below(n);
            text.splice(to..to, piece);
        }
        4 => drop(text.splice(at..at, rng.pick(&TOKENS).bytes())),
        _ => {
            // a number, word or text as a whole
            let piece = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'"' | b'_' | b'+');
            let start = text[..at].iter().rposition(|c| !piece(*c)).map_or(0, |i| i + 1);
            let end = text[at..].iter().position(|c| !piece(*c)).map_or(n, |i| at + i);
            drop(text.splice(start..end.max(start), rng.pick(&TOKENS).bytes()));
        }
    }
}

#[test]
fn no_mutation_of_a_plan_panics() {
    let bases = [samples::small().to_json(), samples::rich().to_json()];
    let mut accepted = 0;
    for seed in seeds(1, 40_000) {
        let mut rng = Rng::new(seed);
        let mut text = bases[rng.below(2)].clone().into_bytes();
        for _ in 0..rng.range(1, 4) {
            mutate(&mut rng, &mut text);
        }
        let Ok(text) = String::from_utf8(text) else { continue };
        let outcome = std::panic::catch_unwind(|| match Plan::parse(&text) {
            Err(e) => {
                let message = e.to_string();
                assert!(!message.is_empty() && message.len() < 500 && !message.contains('\n'), "{message}");
                false
            }
            Ok(plan) => {
                assert_eq!(Plan::parse(&plan.to_json()).unwrap(), plan);
                let layout = plan.layout();
                let pages = layout.pool_pages(plan.budget_bytes).unwrap();
                let config = plan.policy_config(&layout, &pages, &plan.params());
                config.check().unwrap();
                let _ = plan.resolve_budget(Some(plan.budget_bytes / 2));
                true
            }
        });
        match outcome {
            Ok(ok) => accepted += usize::from(ok),
            Err(_) => panic!("seed {seed} (run it alone with PMKVQ_SEED={seed})\n{text}"),
        }
    }
    println!("{accepted} accepted");
    assert!(accepted > 100 || std::env::var("PMKVQ_SEED").is_ok(), "the mutations are too wild to test anything");
}

#[test]
fn no_mutation_of_a_sensitivity_file_panics() {
    let plan = samples::rich();
    let file = SensitivityFile { model: Some(plan.model), by_position: false, values: plan.sensitivities.unwrap() };
    let json = file.to_json().into_bytes();
    let torch = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sensitivity.pt")).unwrap();
    for seed in seeds(1, 20_000) {
        let mut rng = Rng::new(seed);
        let mut bytes = if rng.chance(50) { json.clone() } else { torch.clone() };
        for _ in 0..rng.range(1, 4) {
            mutate(&mut rng, &mut bytes);
        }
        let outcome = std::panic::catch_unwind(|| match SensitivityFile::from_bytes(&bytes, "fuzz") {
            Ok(file) => {
                let again = SensitivityFile::parse(&file.to_json()).unwrap();
                assert_eq!(again.values, file.values);
            }
            Err(e) => assert!(e.to_string().len() < 500, "{e}"),
        });
        assert!(outcome.is_ok(), "seed {seed} (run it alone with PMKVQ_SEED={seed})");
    }
}
