//! The bytes that are printed are the bytes that are allocated, and what the process grows by. A program of its own: nothing
//! else may grow meanwhile. One test, for the same reason.
#![cfg(feature = "llama")]

#[path = "../llama/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../shared/gguf.rs"]
mod gguf;
#[path = "../shared/log.rs"]
mod log;
#[path = "../llama/models.rs"]
#[allow(dead_code)]
mod models;
#[path = "../shared/rng.rs"]
mod rng;
#[path = "../shared/temporary.rs"]
mod temporary;

use common::*;
use models::{llama, Heads};
use pmkvq::ffi::{Cache, Context, ContextSizes, Model};

/// Memory of this process that is in use, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

/// The number before " MiB" behind `label` in the log, bytes.
fn logged(log: &str, label: &str) -> f64 {
    let after = log.split(label).nth(1).unwrap_or_else(|| panic!("no '{label}' in: {log}"));
    let number = after.split(" MiB").next().unwrap().trim();
    number.parse::<f64>().unwrap_or_else(|e| panic!("{e}: '{number}'")) * 1048576.0
}

fn close(a: f64, b: f64, share: f64) -> bool {
    (a - b).abs() <= share * b
}

#[test]
fn printed_bytes_are_allocated_bytes() {
    // 12 KiB a token at 16 bits: what llama.cpp keeps for a cell besides (some 60 bytes) is little beside it
    let path = llama(Heads { n_head: 8, n_head_kv: 8, head_dim: 128 });
    let model = Model::load(&path.0).unwrap();
    log::collect();
    let n_ctx = 65536;
    for args in [["--uniform", "8"].as_slice(), &["--uniform", "4"], &["--uniform", "2", "--budget", "300M"]] {
        let plan = plan(&path.0, n_ctx, args);
        let budget = pmkvq::plan::Plan::load(&plan.0).unwrap().budget_bytes;
        log::collected().clear();
        let before = resident();
        let sizes = ContextSizes { n_ctx, n_batch: 8, n_ubatch: 8, n_seq_max: 1, threads: 1 };
        let mut ctx = Context::new(&model, &Cache::Plan(plan.0.clone()), &sizes).unwrap();
        let reserved = log::collected().matches("reserving ...").count();
        for i in 0..40 {
            ctx.decode(&[1, 2, 3, 4, 5, 6, 7, 8], 8 * i, 0).unwrap();
        }
        let grown = (resident() - before) as f64;
        let log = log::collected().clone();
        let held = ctx.describe().unwrap();
        let bytes = |name: &str| held["bytes"][name].as_f64().unwrap();
        println!(
            "{args:?}: budget {budget}, allocated {}, of it scratch {}, grown by {grown}",
            bytes("total"),
            bytes("scratch")
        );
        let buffers = bytes("pages") + bytes("tables_and_parameters");
        assert!(bytes("total") <= budget as f64, "{args:?}: over the budget");
        assert!(budget as f64 - bytes("total") < 1e6, "{args:?}: budget left unused");
        assert!(close(logged(&log, "KV buffer size ="), buffers, 1e-4), "{args:?}: not what ggml allocated: {log}");
        assert!(
            close(logged(&log, "log_sizes: size ="), bytes("total"), 1e-4),
            "{args:?}: not what was printed: {log}"
        );
        assert!(close(grown, bytes("total"), 0.02), "{args:?}: grown by {grown}, printed {}", bytes("total"));
        assert_eq!(log.matches("reserving ...").count(), reserved, "{args:?}: a reserve after start: {log}");
    }
}
