//! `pmkvq diff`: exit codes as of diff, and what is said of two plans.

use serde_json::Value;

use super::tool::{Tool, SENSITIVITY, SHAPE};

fn two(name: &str) -> Tool {
    let tool = Tool::new(name);
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 6M -o a.json");
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 9M --rule layer -o b.json");
    tool
}

#[test]
fn the_same_plan() {
    let tool = two("diff-same");
    let ran = tool.good("diff a.json a.json");
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("a.json and a.json are the same plan\n", ""));
    // how a file is written does not matter
    let json: Value = serde_json::from_str(&tool.read("a.json")).unwrap();
    tool.file("flat.json", &json.to_string());
    tool.good("diff a.json flat.json");
}

#[test]
fn what_differs_is_listed() {
    let tool = two("diff");
    let ran = tool.run("diff a.json b.json --json diff.json");
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    let row = |name: &str| {
        let found = ran.out.lines().find(|l| l.starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {}", ran.out)).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("budget_bytes"), "budget_bytes 6.00 MiB (6291456) 9.00 MiB (9437184)");
    assert_eq!(row("rule"), "rule block layer");
    assert!(row("bits per value, all counted").ends_with(" 3.00 4.50 1.500"));
    // what is the same is not
    for name in ["window", "model", "n_ctx", "solver.widths", "sensitivities"] {
        assert!(!ran.out.lines().any(|l| l.starts_with(name)), "{name}: {}", ran.out);
    }
    // widths side by side, marked where they differ
    let (a, b) = (
        tool.plan("--ctx 8192 --sensitivity s.json --budget 6M"),
        tool.plan("--ctx 8192 --sensitivity s.json --budget 9M"),
    );
    let rows: Vec<&str> = ran.out.lines().skip_while(|l| !l.starts_with("layer")).skip(1).collect();
    assert_eq!(rows.len(), 4);
    for ((x, y), row) in a.layers.iter().zip(&b.layers).zip(rows) {
        let mark = if (x.k, x.v) == (y.k, y.v) { "" } else { " *" };
        let expected = format!("{} {} {} {} {}{mark}", x.il, x.k, y.k, x.v, y.v);
        assert_eq!(row.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }
    assert!(ran.out.lines().all(|l| l.len() <= 100), "wider than a terminal: {}", ran.out);
    let json: Value = serde_json::from_str(&tool.read("diff.json")).unwrap();
    assert_eq!((&json["same"], &json["same_model"]), (&Value::Bool(false), &Value::Bool(true)));
    assert_eq!(json["fields"]["rule"]["b"], "layer");
    assert_eq!(json["layers"].as_array().unwrap().len(), 4);
    assert_eq!(json["loss"]["by_a"]["a"].as_f64(), a.solver.objective);
    assert_eq!(json["loss"]["by_b"]["b"].as_f64(), b.solver.objective);
}

#[test]
fn the_widths_of_each_by_the_sensitivities_of_both() {
    let tool = Tool::new("diff-cross");
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 8M -o a.json");
    // the same budget, but by other numbers: V is the dear side
    let swapped = SENSITIVITY.replace("\"k\"", "\"x\"").replace("\"v\"", "\"k\"").replace("\"x\"", "\"v\"");
    tool.file("other.json", &swapped);
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity other.json --budget 8M -o c.json");
    let ran = tool.run("diff a.json c.json --json diff.json");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("sensitivities.layers     all layers differ"), "{}", ran.out);
    let json: Value = serde_json::from_str(&tool.read("diff.json")).unwrap();
    let loss = |by: &str, of: &str| json["loss"][by][of].as_f64().unwrap();
    // each is the best by its own numbers, and not by the other's
    assert!(loss("by_a", "a") < loss("by_a", "b") && loss("by_b", "b") < loss("by_b", "a"), "{}", json["loss"]);
    // a plan without sensitivities has none to judge by
    tool.good("plan --shape shape.json --ctx 8192 --uniform 4 -o u.json");
    let ran = tool.run("diff a.json u.json --json diff.json");
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("by those of a") && !ran.out.contains("by those of b"), "{}", ran.out);
    // a width that was not measured has no value
    tool.file(
        "few.json",
        &SENSITIVITY
            .replace("[16, 8, 4, 2]", "[16, 4, 2]")
            .replace("[0, 1, 4, 16]", "[0, 4, 16]")
            .replace("[0, 0.5, 2, 8]", "[0, 2, 8]")
            .replace(", 0.1, 0.4", ", 0.4")
            .replace(", 0.05, 0.2", ", 0.2")
            .replace(", 0.11, 0.41", ", 0.41")
            .replace(", 0.06, 0.21", ", 0.21")
            .replace(", 0.12, 0.42", ", 0.42")
            .replace(", 0.07, 0.22", ", 0.22"),
    );
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity few.json --widths 16,4,2 --budget 6M -o few-plan.json");
    tool.good("plan --shape shape.json --ctx 8192 --uniform 8 -o u8.json");
    let ran = tool.run("diff few-plan.json u8.json");
    assert!(ran.out.contains("not measured"), "{}", ran.out);
}

#[test]
fn plans_for_different_models() {
    let tool = two("diff-models");
    tool.file("other.json", &SHAPE.replacen("\"n_head_kv\": 2", "\"n_head_kv\": 4", 1));
    tool.good("plan --shape other.json --ctx 8192 --uniform 4 -o c.json");
    let ran = tool.run("diff a.json c.json --json diff.json");
    assert_eq!(ran.code, 1);
    let expected = "plans for different models: model.layers[0].n_head_kv is 2 in a and 4 in b";
    assert!(ran.out.contains(expected) && !ran.out.contains("final widths"), "{}", ran.out);
    assert!(ran.out.contains("model.layers             layer(s) 0 differ"), "{}", ran.out);
    let json: Value = serde_json::from_str(&tool.read("diff.json")).unwrap();
    assert_eq!((json["same_model"].as_bool(), json.get("layers")), (Some(false), None));
}

#[test]
fn failures_are_no_difference() {
    let tool = two("diff-bad");
    for (args, expected) in [
        ("diff a.json none.json", "none.json: No such file"),
        ("diff s.json a.json", "s.json: not a plan"),
        ("diff a.json b.json --json none/diff.json", "none/diff.json: No such file"),
    ] {
        let ran = tool.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("pmkvq: {expected}")), "{args}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1);
    }
    assert_eq!(tool.run("diff a.json").code, 2);
}
