//! Every program with a KV cache knows the flags and says so.

use super::common::*;

#[test]
fn every_program_with_a_cache_shows_the_flags() {
    for (name, path) in WITH_CACHE {
        let output = std::process::Command::new(path).arg("--help").output().unwrap();
        assert!(output.status.success(), "{name} --help");
        let help = text(&output.stdout) + &text(&output.stderr);
        for flag in ["--pmkvq-plan", "--pmkvq-budget", "--pmkvq-rule"] {
            assert!(help.contains(flag), "{name} --help does not show {flag}");
        }
        if name != "llama-bench" {
            for variable in ["LLAMA_ARG_PMKVQ_PLAN", "LLAMA_ARG_PMKVQ_BUDGET", "LLAMA_ARG_PMKVQ_RULE"] {
                assert!(help.contains(variable), "{name} --help does not show {variable}");
            }
        }
    }
}

#[test]
fn quantize_is_there_and_has_no_cache() {
    let output = std::process::Command::new(QUANTIZE).arg("--help").output().unwrap();
    let help = text(&output.stdout) + &text(&output.stderr);
    assert!(help.contains("Q4_0") && !help.contains("pmkvq"), "{help}");
}

#[test]
fn the_environment_gives_plan_budget_and_rule() {
    let plan = plan(1024, &["--uniform", "4"]);
    let run = |budget: &str| {
        command("llama-completion")
            .arg("-m")
            .arg(model())
            .args(["-p", "@ABCD=12\n?ABCD=", "-n", "2", "--temp", "0", "-no-cnv", "--no-warmup", "-t", "1", "-v"])
            .env("LLAMA_ARG_PMKVQ_PLAN", &plan.0)
            .env("LLAMA_ARG_PMKVQ_BUDGET", budget)
            .env("LLAMA_ARG_PMKVQ_RULE", "layer")
            .output()
            .unwrap()
    };
    let good = run("4M");
    assert!(good.status.success(), "{}", text(&good.stderr));
    assert!(text(&good.stderr).contains("f16 would need"), "the cache's size is logged: {}", text(&good.stderr));
    let bad = run("zero");
    assert!(!bad.status.success());
    assert!(text(&bad.stderr).contains("zero"), "{}", text(&bad.stderr));
}
