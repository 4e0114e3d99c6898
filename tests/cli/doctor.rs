//! `pmkvq doctor`, `--version`, `--help`.

use super::tool::Tool;

#[test]
fn what_the_build_is_made_of() {
    let tool = Tool::new("doctor");
    let ran = tool.good("doctor");
    assert_eq!(ran.err, "");
    for line in
        ["pmkvq  ", "upstream     llama.cpp ", "patches      ", "backends     ", "CPU features ", "kernels      "]
    {
        assert!(ran.out.lines().any(|l| l.starts_with(line)), "{line}: {}", ran.out);
    }
    // the CPU is a device of every build, and runs every operation
    let devices: Vec<_> = ran.out.lines().filter(|l| l.starts_with("device       ")).collect();
    let cpu = devices.iter().find(|l| l.starts_with("device       CPU: ")).expect(&ran.out);
    assert!(cpu.contains("has the progressive KV cache's operations"), "{cpu}");
    let backends = ran.out.lines().find(|l| l.starts_with("backends ")).unwrap();
    assert!(backends.split_whitespace().any(|b| b == "CPU"), "{backends}");
    let patches = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/patches/series")).unwrap();
    for patch in patches.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
        assert!(ran.out.contains(patch.trim()), "{patch}: {}", ran.out);
    }
}

#[test]
fn kernels_that_this_cpu_lacks() {
    let tool = Tool::new("isa");
    let ran = tool.command("doctor").env("PMKVQ_CPU", "abacus").output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(String::from_utf8(ran.stderr).unwrap().contains("PMKVQ_CPU"));
    assert!(ran.stdout.is_empty());
}

#[test]
fn help_and_version() {
    let tool = Tool::new("help");
    assert_eq!(tool.good("--version").out, format!("pmkvq {}\n", env!("CARGO_PKG_VERSION")));
    let help = tool.good("--help").out;
    for command in ["plan", "show", "check", "diff", "doctor"] {
        assert!(help.contains(&format!("  {command} ")), "{help}");
    }
    let help = tool.good("plan --help").out;
    for flag in [
        "--model",
        "--shape",
        "--sensitivity",
        "--ctx",
        "--budget",
        "--output",
        "--kv",
        "--widths",
        "--uniform",
        "--static",
        "--rule",
        "--budgets",
        "--sweep",
        "--verify",
        "--json",
        "--svg",
    ] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
}
