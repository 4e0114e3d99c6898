//! Text from the programs with a plan.

use super::common::*;

const PROMPT: &str = "@WXYZ=4711\nAnd God said, Let there be light: and there was light.\n@HJKL=92\n?WXYZ=";

#[test]
fn a_plan_of_16_bits_generates_what_upstream_does() {
    let plan = plan(1024, &["--uniform", "16"]);
    let without = complete(PROMPT, 60, &["-c", "1024"]);
    let with = complete(PROMPT, 60, &["-c", "1024", "--pmkvq-plan", plan.text()]);
    assert!(without.status.success() && with.status.success(), "{}", text(&with.stderr));
    assert_eq!(text(&with.stdout), text(&without.stdout));
    assert!(text(&with.stdout).contains("?WXYZ=4711"), "{}", text(&with.stdout));
}

#[test]
fn the_context_is_the_plans_unless_it_is_named() {
    let plan = plan(2048, &["--uniform", "4"]);
    let output = complete("a", 1, &["-c", "0", "-v", "--pmkvq-plan", plan.text()]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|l| l.contains("n_ctx ") && l.contains("2048"));
    assert!(line.is_some(), "no n_ctx of 2048 in: {said}");
}

/// More context than the plan's budget was made for: the widths are solved for again, or the least is named.
#[test]
fn a_longer_context_than_the_plans_is_solved_for_or_refused() {
    let plan = plan(1024, &["--uniform", "8"]);
    let output = complete("a", 1, &["-c", "8192", "--pmkvq-plan", plan.text()]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{said}");
    assert!(said.contains("least possible"), "{said}");
    let more = complete("a", 1, &["-c", "8192", "--pmkvq-plan", plan.text(), "--pmkvq-budget", "64M"]);
    assert!(more.status.success(), "{}", text(&more.stderr));
}

#[test]
fn perplexity_with_a_plan_of_16_bits_is_that_of_f16() {
    let ppl = |args: &[&str]| -> f64 {
        let output = command("llama-perplexity")
            .arg("-m")
            .arg(model())
            .args([
                "-f",
                concat!(env!("CARGO_MANIFEST_DIR"), "/model/heldout.txt"),
                "-c",
                "512",
                "--chunks",
                "8",
                "-t",
                "1",
            ])
            .args(args)
            .output()
            .unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let line = said.lines().find(|l| l.contains("Final estimate")).unwrap_or_else(|| panic!("{said}"));
        let after = line.split("PPL = ").nth(1).unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    // -c 512 runs several sequences in one cache
    let plan = plan(2048, &["--uniform", "16", "--parallel", "4"]);
    let (plain, ours) = (ppl(&[]), ppl(&["--pmkvq-plan", plan.text()]));
    assert!((plain - ours).abs() < 1e-3 * plain, "{plain} without, {ours} with a plan");
}

/// A prompt is read from a file instead of being computed again.
#[test]
fn a_prompt_cache_continues_where_it_ended() {
    let plan = plan(1024, &["--uniform", "4", "--static"]);
    let heldout = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/model/heldout.txt")).unwrap();
    let prompt = format!("@WXYZ=4711\n{}\n?WXYZ=", &heldout[..600]);
    let file = Temporary::new("cache");
    let args = ["-c", "1024", "--pmkvq-plan", plan.text(), "--prompt-cache", file.text()];
    let first = complete(&prompt, 20, &args);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(file.0.exists(), "no prompt cache was written: {}", text(&first.stderr));
    let again = complete(&prompt, 20, &[&args[..], &["-v"]].concat());
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(text(&first.stdout).contains("?WXYZ=4711"), "{}", text(&first.stdout));
    assert_eq!(text(&again.stdout), text(&first.stdout));
    assert!(text(&again.stderr).contains("session file has exact match"), "{}", text(&again.stderr));
    // of another plan's widths it is taken, too; what is no state is refused
    let other = super::common::plan(1024, &["--uniform", "2"]);
    let taken = complete(&prompt, 5, &["-c", "1024", "--pmkvq-plan", other.text(), "--prompt-cache", file.text()]);
    assert!(text(&taken.stdout).contains("?WXYZ=4711"), "{}", text(&taken.stderr));
    let plain = complete(&prompt, 5, &["-c", "1024", "--prompt-cache", file.text()]);
    assert!(!plain.status.success() && plain.status.code().is_some(), "a plain cache took a plan's state");
}

/// Generation past the end of the context.
#[test]
fn a_full_context_shifts() {
    let plan = plan(256, &["--uniform", "4"]);
    let output = complete(PROMPT, 500, &["-c", "256", "--pmkvq-plan", plan.text(), "--context-shift", "--ignore-eos"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout.len() >= 500, "{} bytes", output.stdout.len());
}
