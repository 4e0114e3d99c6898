//! `llama-perplexity --kl-divergence`: `pmkvq eval` measures the same; what fast kernels change.

use super::common::*;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The number behind a name in what llama-perplexity prints.
fn printed(text: &str, name: &str) -> f64 {
    let line =
        text.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no '{name}' in {text}"));
    let rest = line.split_once(':').unwrap().1.trim();
    rest.split([' ', '%']).next().unwrap().parse().unwrap()
}

/// llama-perplexity on the shipped model and `file`, in steps of 16 tokens.
fn perplexity(file: &Temporary, base: &Temporary, args: &[&str], kernels: Option<&str>) -> String {
    let mut program = command("llama-perplexity");
    program.arg("-m").arg(model()).args(["-f", file.text(), "-c", CHUNK, "-b", STEP, "-ub", STEP, "-t", "1"]);
    program.args(["--kl-divergence-base", base.text()]).args(args).env("OMP_WAIT_POLICY", "passive");
    if let Some(kernels) = kernels {
        program.env("PMKVQ_CPU", kernels);
    }
    let output = program.output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

const CHUNK: &str = "1024";
const STEP: &str = "16";

fn heldout(n: usize) -> Temporary {
    let heldout = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("model/heldout.txt")).unwrap();
    Temporary::with("txt", &heldout[..n])
}

/// What the fast kernels change in a model's predictions, against kernels that do one value after the other in f32, is less
/// than what summing up in f16 changes (upstream's flash attention of few tokens, against none).
#[test]
fn fast_kernels_change_less_than_sums_in_f16() {
    let (file, base) = (heldout(2500), Temporary::new("kld"));
    perplexity(&file, &base, &["-fa", "off"], None);
    let allowed = printed(&perplexity(&file, &base, &["-fa", "on", "--kl-divergence"], None), "Mean    KLD");
    println!("sums in f16: mean KL divergence {allowed:.2e}");
    assert!(allowed > 5e-6, "upstream's sums in f16 are as good as those in f32: this compares nothing");
    for width in ["16", "8", "4", "2"] {
        let plan = plan(1024, &["--uniform", width, "--static"]);
        perplexity(&file, &base, &["--pmkvq-plan", plan.text()], Some("reference"));
        let said = perplexity(&file, &base, &["--pmkvq-plan", plan.text(), "--kl-divergence"], None);
        let kl = printed(&said, "Mean    KLD");
        println!("{width} bits: mean KL divergence of the fast kernels {kl:.2e}");
        assert!(kl < allowed, "{width} bits: {kl:e} against {allowed:e}");
    }
}

#[test]
fn kl_divergence_agrees_with_the_report() {
    let (file, base) = (heldout(3000), Temporary::new("kld"));
    let static_2 = plan(1024, &["--uniform", "2", "--static"]);
    // the report's f16 is without flash attention, which sums in f16 in small batches
    perplexity(&file, &base, &["-fa", "off"], None);
    let said = perplexity(&file, &base, &["--kl-divergence", "--pmkvq-plan", static_2.text()], None);

    let json = Temporary::new("json");
    let list = format!("f16,{}", static_2.text());
    let output = Command::new(env!("CARGO_BIN_EXE_pmkvq"))
        .args(["eval", "-m"])
        .arg(model())
        .args(["-f", file.text(), "--cache", &list, "--chunk", CHUNK, "--step", STEP, "-t", "1", "--json", json.text()])
        .env("OMP_WAIT_POLICY", "passive")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
    let all = &report["texts"][0]["caches"][1]["all"];
    // two chunks, of each the second half but for the last token, which nothing follows
    assert_eq!(all["predictions"], 2 * 511);
    assert_eq!(report["texts"][0]["scored_from"], 512);
    let ours = |path: &str| all.pointer(path).unwrap().as_f64().unwrap();
    // base logits are stored in 16 bits over a range of 16 nats: 2.4e-4 a step, and figures are printed to 1e-6
    let pairs = [
        ("Mean    KLD", "/kl/mean", 1.0, 1e-5),
        ("Median  KLD", "/kl/median", 1.0, 2e-5),
        ("99.0%   KLD", "/kl/p99", 1.0, 2e-4),
        ("Maximum KLD", "/kl/max", 1.0, 5e-4),
        ("Mean PPL(Q)   ", "/perplexity", 1.0, 2e-5),
        ("Mean ln(PPL(Q)/PPL(base))", "/log_ratio/mean", 1.0, 1e-5),
        ("Same top p", "/same_top/mean", 100.0, 0.1),
    ];
    for (name, path, factor, tolerance) in pairs {
        let (theirs, ours) = (printed(&said, name), factor * ours(path));
        println!("{name}: {theirs} by llama-perplexity, {ours} here, difference {:.2e}", (theirs - ours).abs());
        assert!((theirs - ours).abs() <= tolerance, "{name}: {theirs} against {ours}");
    }
    // the numbers are not all nothing
    assert!(ours("/kl/mean") > 1e-4);
}
