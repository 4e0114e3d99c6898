//! `llama-perplexity --kl-divergence` with a plan, and that `pmkvq eval` measures the same.

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

#[test]
fn kl_divergence_agrees_with_the_report() {
    const CHUNK: &str = "1024";
    const STEP: &str = "16";
    let heldout = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("model/heldout.txt")).unwrap();
    let file = Temporary::with("txt", &heldout[..3000]);
    let base = Temporary::new("kld");
    let static_2 = plan(1024, &["--uniform", "2", "--static"]);
    let perplexity = |args: &[&str]| {
        let output = command("llama-perplexity")
            .arg("-m")
            .arg(model())
            .args([
                "-f",
                file.text(),
                "-c",
                CHUNK,
                "-b",
                STEP,
                "-ub",
                STEP,
                "-t",
                "1",
                "--kl-divergence-base",
                base.text(),
            ])
            .args(args)
            .env("OMP_WAIT_POLICY", "passive")
            .output()
            .unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{said}");
        said
    };
    // the report's f16 is without flash attention, which sums in f16 in small batches
    perplexity(&["-fa", "off"]);
    let said = perplexity(&["--kl-divergence", "--pmkvq-plan", static_2.text()]);

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
