//! `pmkvq plan --verify`: a plan that is measured before it is written.
#![cfg(feature = "llama")]

use serde_json::Value;

use super::tool::Tool;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/model/pmkvq-tiny.gguf");
/// Text that asks for what stands further up.
const ANSWERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/model/demo.txt");
const TEXT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/model/heldout.txt");

/// Sensitivities of the shipped model's six layers: one row for K, one for V.
fn sensitivities(method: &str, k: &str, v: &str) -> String {
    let layers: Vec<String> = (0..6).map(|il| format!("{{\"il\": {il}, \"k\": {k}, \"v\": {v}}}")).collect();
    format!(
        "{{\"pmkvq_sensitivity\": 1, \"source\": \"by hand\", \"method\": \"{method}\", \"widths\": [16, 8, 4, 2], \"layers\": [{}]}}",
        layers.join(",")
    )
}

fn json(tool: &Tool) -> Value {
    serde_json::from_str(&tool.read("v.json")).unwrap()
}

#[test]
fn a_good_plan_is_measured_and_written() {
    let tool = Tool::new("verify");
    tool.file("kl.json", &sensitivities("KL divergence", "[0, 1e-7, 1e-4, 1e-2]", "[0, 1e-8, 1e-5, 1e-3]"));
    let args = format!(
        "plan --model {MODEL} --ctx 2048 --budget 2600K --verify {TEXT} --verify-tokens 512 -t 1 --json v.json"
    );
    let ran = tool.good(&format!("{args} --sensitivity kl.json -o plan.json"));
    let names: Vec<&str> = ran.err.lines().skip(2).take(4).map(|l| l.split("  ").next().unwrap()).collect();
    let uniform = ["uniform 2, at its final width", "uniform 2, as it runs"];
    assert_eq!(names, ["plan, at its final widths", "plan, as it runs", uniform[0], uniform[1]], "{}", ran.err);
    assert!(ran.err.contains("predicted: KL 0.0"), "{}", ran.err);
    assert!(ran.err.contains("the plan is for 2048 tokens and the text ends before"), "{}", ran.err);
    let found = json(&tool);
    assert_eq!((found["tokens"].as_u64(), found["step"].as_u64()), (Some(512), Some(16)));
    let kl = |i: usize| found["caches"][i]["kl"].as_f64().unwrap();
    // a running cache is no worse than one at its final widths, and both are something
    assert!(kl(0) > 1e-7 && kl(1) <= kl(0) && kl(0) < kl(2), "{found}");
    assert_eq!(found["uniform"]["worse"], false);
    let plan = pmkvq::plan::Plan::parse(&tool.read("plan.json")).unwrap();
    assert_eq!(found["predicted"]["kl"].as_f64(), plan.solver.objective);
    // without --verify the same plan, and nothing stays behind
    tool.good(&format!("plan --model {MODEL} --ctx 2048 --budget 2600K --sensitivity kl.json -o again.json"));
    assert_eq!(tool.read("again.json"), tool.read("plan.json"));
}

#[test]
fn a_plan_worse_than_a_uniform_one_is_refused() {
    let tool = Tool::new("verify-bad");
    // numbers that say the opposite of the truth: all to V, nothing to K
    tool.file("wrong.json", &sensitivities("gradient", "[0, 1e-9, 1e-8, 1e-7]", "[0, 1, 2, 4]"));
    tool.file("plan.json", "precious");
    let args = format!(
        "plan --model {MODEL} --ctx 1024 --budget 2200K --sensitivity wrong.json --range shift --verify {ANSWERS}"
    );
    let ran = tool.run(&format!("{args} --verify-tokens 1024 -t 1 --json v.json -o plan.json"));
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
    let last = ran.err.lines().last().unwrap();
    assert!(
        last.starts_with("pmkvq: the plan measures worse than uniform 4 bits, which needs no more memory: "),
        "{last}"
    );
    assert!(last.contains("or take --uniform 4. No plan was written"), "{last}");
    // a gradient foretells no divergence
    assert!(ran.err.contains("predicted: nothing") && json(&tool)["predicted"].is_null(), "{}", ran.err);
    assert_eq!(json(&tool)["uniform"]["worse"], true);
    assert_eq!(tool.read("plan.json"), "precious");
}

#[test]
fn texts_that_can_t_verify_anything() {
    let tool = Tool::new("verify-text");
    tool.file("kl.json", &sensitivities("KL", "[0, 1, 2, 4]", "[0, 1, 2, 4]"));
    tool.file("short.txt", &"x".repeat(384));
    std::fs::write(tool.folder.join("binary.txt"), [0xff, 0xfe]).unwrap();
    let args = format!("plan --model {MODEL} --sensitivity kl.json");
    for (flags, expected) in [
        (
            "--ctx 2048 --budget 3M --verify short.txt",
            "short.txt: 384 tokens are too few to verify a plan: at least 385",
        ),
        ("--ctx 2048 --budget 3M --verify none.txt", "none.txt: No such file"),
        ("--ctx 2048 --budget 3M --verify binary.txt", "binary.txt: not text (UTF-8)"),
        ("--ctx 2048 --budget 3M --verify short.txt --verify-tokens 64", "--verify: at least 385 tokens are needed"),
        ("--ctx 256 --budget 3M --verify short.txt", "--verify: at least 385 tokens are needed"),
    ] {
        let ran = tool.run(&format!("{args} {flags} -o plan.json"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{flags}");
        assert!(ran.err.starts_with(&format!("pmkvq: {expected}")), "{flags}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    let ran = tool.run(&format!("plan --ctx 4096 --shape shape.json --uniform 4 --verify {TEXT}"));
    assert_eq!(ran.code, 2, "{}", ran.err);
    let ran = tool.run(&format!("plan --ctx 4096 --shape shape.json --sensitivity s.json --budget 8M --verify {TEXT}"));
    assert_eq!((ran.code, ran.err.as_str()), (1, "pmkvq: --verify needs --model\n"));
    assert!(!tool.names().contains(&"plan.json".to_string()));
}
