//! What can't work is refused at start: one message that names the thing and the way out, before any weights are loaded.

use super::common::*;
use std::process::Output;

/// Runs a program that should refuse; its message must hold all of `words`.
fn refuses(name: &str, args: &[&str], words: &[&str]) {
    let output: Output = command(name).arg("-m").arg(model()).args(args).output().unwrap();
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(!output.status.success(), "{name} {args:?} did not fail: {said}");
    // an abort or a crash has no exit code
    assert!(output.status.code().is_some(), "{name} {args:?} died: {:?}: {said}", output.status);
    for word in words {
        assert!(said.contains(word), "{name} {args:?}: '{word}' is not in: {said}");
    }
    assert!(!said.contains("load_tensors: "), "{name} {args:?}: weights were loaded first: {said}");
}

/// The programs that take common arguments, with what they need to start at all.
fn programs() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("llama-completion", vec!["-p", "a", "-n", "1", "-no-cnv"]),
        ("llama-server", vec!["--port", "0"]),
        ("llama-perplexity", vec!["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/model/heldout.txt")]),
        ("llama-batched-bench", vec!["-npp", "16", "-ntg", "4", "-npl", "1"]),
        ("llama-fit-params", vec![]),
        ("llama-cli", vec!["-p", "a", "-st"]),
    ]
}

#[test]
fn plans_that_are_none() {
    let good = plan(1024, &["--uniform", "4"]);
    let json = std::fs::read_to_string(&good.0).unwrap();
    let other_arch = Temporary::with("json", json.replace("\"llama\"", "\"qwen2\"").as_bytes());
    let version = Temporary::with("json", json.replace("\"pmkvq_plan\": 1", "\"pmkvq_plan\": 99").as_bytes());
    let truncated = Temporary::with("json", &json.as_bytes()[..json.len() / 2]);
    let not_json = Temporary::with("json", b"\x7fELF");
    let empty = Temporary::with("json", b"");
    let negative = Temporary::with("json", json.replace("\"budget_bytes\": ", "\"budget_bytes\": -").as_bytes());
    let nan = Temporary::with("json", json.replace("\"window\": 128", "\"window\": NaN").as_bytes());
    let width = Temporary::with("json", json.replacen("\"k\":4", "\"k\":5", 1).as_bytes());
    let cases: [(&Temporary, &[&str]); 8] = [
        (&other_arch, &["qwen2", "llama", "pmkvq plan"]),
        (&version, &["pmkvq_plan", "99"]),
        (&truncated, &["layers"]),
        (&not_json, &["pmkvq-plan"]),
        (&empty, &["empty"]),
        (&negative, &["budget_bytes"]),
        (&nan, &["window"]),
        (&width, &["layers[0].k", "5"]),
    ];
    for (name, args) in programs() {
        refuses(name, &[&args[..], &["--pmkvq-plan", "/nowhere/plan.json"]].concat(), &["/nowhere/plan.json"]);
        for (plan, words) in &cases {
            refuses(name, &[&args[..], &["--pmkvq-plan", plan.text()]].concat(), words);
        }
    }
}

/// What a header can't tell is found when the context is made; the programs fail all the same.
#[test]
fn a_plan_for_other_heads() {
    let good = plan(1024, &["--uniform", "4"]);
    let json = std::fs::read_to_string(&good.0).unwrap();
    let heads = Temporary::with("json", json.replacen("\"n_head_kv\":1", "\"n_head_kv\":2", 1).as_bytes());
    for (name, args) in programs() {
        let output =
            command(name).arg("-m").arg(model()).args(&args).args(["--pmkvq-plan", heads.text()]).output().unwrap();
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(!output.status.success() && output.status.code().is_some(), "{name}: {:?} {said}", output.status);
        assert!(said.contains("n_head_kv"), "{name}: {said}");
    }
}

#[test]
fn budgets_and_rules() {
    let plan = plan(1024, &["--uniform", "4"]);
    let with = |args: &[&'static str]| {
        [&["--pmkvq-plan", plan.text()], args].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--pmkvq-budget", "0"], &["budget", "'0'"]),
        (&["--pmkvq-budget", "-5M"], &["budget", "negative"]),
        (&["--pmkvq-budget", "99999T"], &["budget", "1 PiB"]),
        (&["--pmkvq-budget", "lots"], &["budget", "lots"]),
        (&["--pmkvq-budget", "10K"], &["budget", "least possible"]),
        (&["--pmkvq-rule", "fancy"], &["fancy", "block", "layer"]),
    ];
    for (name, args) in programs() {
        for (flags, words) in &cases {
            let flags = with(flags);
            let all: Vec<&str> = args.iter().copied().chain(flags.iter().map(String::as_str)).collect();
            let output = command(name).arg("-m").arg(model()).args(&all).output().unwrap();
            let said = text(&output.stderr) + &text(&output.stdout);
            // memory fitting may enlarge a budget that is too small to report what is needed
            if name == "llama-fit-params" && words.contains(&"least possible") {
                continue;
            }
            assert!(
                !output.status.success() && output.status.code().is_some(),
                "{name} {flags:?}: {:?} {said}",
                output.status
            );
            for word in *words {
                assert!(said.contains(word), "{name} {flags:?}: '{word}' is not in: {said}");
            }
        }
        refuses(name, &[&args[..], &["--pmkvq-budget", "1G"]].concat(), &["--pmkvq-budget", "--pmkvq-plan"]);
    }
}

/// A program's context need not be what `-c` says: the message names it.
#[test]
fn a_budget_for_less_than_a_program_takes() {
    let plan = plan(512, &["--uniform", "4"]);
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/model/heldout.txt");
    let args = ["-f", text, "-c", "512", "--pmkvq-plan", plan.text()];
    refuses("llama-perplexity", &args, &["least possible", "2048 tokens, 4 sequence(s)"]);
}

#[test]
fn options_that_contradict_a_plan() {
    let plan = plan(1024, &["--uniform", "4"]);
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("llama-completion", &["-p", "a", "-no-cnv", "-c", "-5"], &["-c -5"]),
        ("llama-server", &["-c", "-1"], &["-c -1"]),
        ("llama-completion", &["-p", "a", "-no-cnv", "-fa", "off"], &["flash attention", "-fa off"]),
        ("llama-completion", &["-p", "a", "-no-cnv", "-ctk", "q8_0"], &["-ctk"]),
        ("llama-server", &["-fa", "off"], &["flash attention", "-fa off"]),
        ("llama-server", &["-ctv", "q4_0"], &["-ctv"]),
    ];
    for (name, args, words) in cases {
        refuses(name, &[args, &["--pmkvq-plan", plan.text()]].concat(), words);
    }
}

#[test]
fn bench_refuses_at_start_as_well() {
    let plan = plan(1024, &["--uniform", "4"]);
    for (args, word) in [
        (vec!["--pmkvq-plan", "/nowhere/plan.json"], "/nowhere/plan.json"),
        (vec!["--pmkvq-plan", plan.text(), "--pmkvq-budget", "0"], "budget"),
        (vec!["--pmkvq-plan", plan.text(), "-fa", "0"], "flash attention"),
    ] {
        let output = command("llama-bench")
            .arg("-m")
            .arg(model())
            .args(["-p", "16", "-n", "0", "-r", "1", "-t", "1"])
            .args(&args)
            .output()
            .unwrap();
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(!output.status.success() && output.status.code().is_some(), "{args:?}: {:?} {said}", output.status);
        assert!(said.contains(word), "{args:?}: {said}");
    }
}
