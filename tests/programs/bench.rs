//! `llama-bench` with several plans in one run.

use super::common::*;

#[test]
fn several_plans_in_one_run() {
    let (wide, narrow) = (plan(1024, &["--uniform", "16"]), plan(1024, &["--uniform", "2", "--static"]));
    let list = format!("none,{},{}", wide.text(), narrow.text());
    let run = |format: &str| {
        let output = command("llama-bench")
            .arg("-m")
            .arg(model())
            .args([
                "-p",
                "64",
                "-n",
                "8",
                "-d",
                "256",
                "-r",
                "1",
                "-t",
                "1",
                "-fa",
                "1",
                "-o",
                format,
                "--pmkvq-plan",
                &list,
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    let plans: Vec<&str> = json.as_array().unwrap().iter().map(|r| r["pmkvq_plan"].as_str().unwrap()).collect();
    for name in ["none", wide.text(), narrow.text()] {
        // one for the prompt, one for generation
        assert_eq!(plans.iter().filter(|p| **p == name).count(), 2, "{plans:?}");
    }
    assert!(json.as_array().unwrap().iter().all(|r| r["avg_ts"].as_f64().unwrap() > 0.0));
    let table = run("md");
    assert!(table.lines().next().unwrap().contains("plan"), "{table}");
    assert!(table.contains(narrow.text()) || table.contains("none"), "{table}");
}

#[test]
fn batched_bench_runs_with_a_plan() {
    let plan = plan(2048, &["--uniform", "4", "--parallel", "4"]);
    let output = command("llama-batched-bench")
        .arg("-m")
        .arg(model())
        .args(["-c", "2048", "-npp", "128", "-ntg", "16", "-npl", "1,4", "-t", "1", "--pmkvq-plan", plan.text()])
        .output()
        .unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("|   128 |     16 |    4 |"), "{said}");
}

/// Types of the cache are for runs without a plan; a plan runs once.
#[test]
fn plans_beside_cache_types() {
    let plan = plan(1024, &["--uniform", "4"]);
    let list = format!("none,{}", plan.text());
    let output = command("llama-bench")
        .arg("-m")
        .arg(model())
        .args([
            "-p", "16", "-n", "0", "-r", "1", "-t", "1", "-fa", "1", "-ctk", "f16,q8_0", "-ctv", "f16", "-o", "json",
        ])
        .args(["--pmkvq-plan", &list])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let rows: Vec<(&str, &str)> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["pmkvq_plan"].as_str().unwrap(), r["type_k"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [("none", "f16"), (plan.text(), "f16"), ("none", "q8_0")]);
}
