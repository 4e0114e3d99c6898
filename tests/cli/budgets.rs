//! `pmkvq plan --budgets`: the reference implementation's own budgets, layer by layer.

use pmkvq::geometry::Width;
use pmkvq::plan::{Kv, Rule, Status};

use super::tool::Tool;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/kv_budgets.pt");

/// A folder with the shape of the model that the golden budgets were made for: 36 layers, 8 KV heads of 128.
fn tool(name: &str, layers: u32) -> Tool {
    let tool = Tool::new(name);
    let layer = |il| format!("{{\"il\": {il}, \"n_head_kv\": 8, \"head_dim_k\": 128, \"head_dim_v\": 128}}");
    let layers: Vec<String> = (0..layers).map(layer).collect();
    tool.file(
        "shape.json",
        &format!("{{\"arch\": \"llama\", \"n_ctx_train\": 1, \"layers\": [{}]}}", layers.join(",")),
    );
    tool
}

#[test]
fn the_widths_are_those_that_the_reference_allocated() {
    let tool = tool("budgets", 36);
    let ran = tool.good(&format!("plan --shape shape.json --ctx 32768 --budgets {FILE}"));
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    let plan = tool.plan(&format!("--ctx 32768 --budgets {FILE}"));
    // the budgets were saved by the last of the golden allocations
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/allocation_cases.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bits = |w: Width| w.bits() as u64;
    let expected: Vec<u64> = cases[7]["bits"].as_array().unwrap().iter().map(|b| b.as_u64().unwrap()).collect();
    assert_eq!(plan.layers.iter().map(|l| bits(l.k)).collect::<Vec<_>>(), expected);
    assert!(plan.layers.iter().all(|l| l.k == l.v));
    assert_eq!((plan.rule, plan.solver.kv, plan.solver.status), (Rule::Layer, Kv::Tied, Status::Given));
    assert!(plan.sensitivities.is_none() && plan.solver.objective.is_none());
    assert!(plan.budget_bytes >= plan.layout().comfortable_budget());
    // codes alone are what the reference counted
    let pages: u64 = plan.layout().sides.iter().map(|s| s.final_width.bits() as u64 * 32768 * 1024 / 8).sum();
    assert_eq!(pages as f64 / f64::from(1 << 20), cases[7]["used_mib"].as_f64().unwrap());
    // such a plan is read, keeps its widths at another budget, and obeys the other flags
    tool.good(&format!(
        "plan --shape shape.json --ctx 32768 --budgets {FILE} --rule block --static --budget 3G -o plan.json"
    ));
    tool.good("check plan.json --shape shape.json");
    assert!(tool
        .good("show plan.json")
        .out
        .contains("static, at the final widths from the start; rule block; solver given"));
    let again = plan.resolve_budget(Some(plan.budget_bytes + (1 << 20))).unwrap();
    assert_eq!(again.layers, plan.layers);
}

#[test]
fn the_context_decides_what_a_budget_holds() {
    let tool = tool("budgets-ctx", 36);
    // half the context at twice the width
    let plan = tool.plan(&format!("--ctx 16384 --budgets {FILE}"));
    let golden = tool.plan(&format!("--ctx 32768 --budgets {FILE}"));
    for (half, whole) in plan.layers.iter().zip(&golden.layers) {
        assert_eq!(half.k.bits(), 2 * whole.k.bits());
    }
    // not a whole width: the widest that fits, and a remark
    let ran = tool.good(&format!("plan --shape shape.json --ctx 30000 --budgets {FILE} -o plan.json"));
    assert!(ran.err.starts_with("pmkvq: not all budgets are those of a whole width at 30000 tokens"), "{}", ran.err);
    assert_eq!(tool.plan(&format!("--ctx 30000 --budgets {FILE}")).layers, golden.layers);
    // one layer has room for 2 bits only
    let ran = tool.run(&format!("plan --shape shape.json --ctx 40000 --budgets {FILE}"));
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let expected =
        "pmkvq: --budgets: the budget of layer 35, 16 MiB, holds 1.64 bits per value of 40000 tokens, and the \
                    narrowest width is 2; name the context that the budgets were made for (--ctx), at most 32768\n";
    assert_eq!(ran.err, expected);
    let ran = tool.run(&format!("plan --shape shape.json --ctx 32768 --budgets {FILE} --widths 16,8,4"));
    assert!(
        ran.err.contains("layer 35, 16 MiB, holds 2.00 bits") && ran.err.contains("narrowest width is 4"),
        "{}",
        ran.err
    );
}

#[test]
fn budgets_that_can_t_be_used() {
    let tool = tool("budgets-bad", 35);
    let sensitivity = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sensitivity.pt");
    for (args, expected) in [
        (
            format!("--ctx 32768 --budgets {FILE}"),
            "--budgets: budgets of another model: the file has 36, one per layer, and the model 35 layers".to_string(),
        ),
        (format!("--ctx 32768 --budgets {sensitivity}"), format!("{sensitivity}: budgets: expected a list")),
        ("--ctx 32768 --budgets s.json".to_string(), "s.json: ".to_string()),
        ("--ctx 32768 --budgets none.pt".to_string(), "none.pt: No such file".to_string()),
    ] {
        let ran = tool.run(&format!("plan --shape shape.json {args}"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args}");
        assert!(ran.err.starts_with(&format!("pmkvq: {expected}")), "{args}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    }
    for flags in ["--sensitivity s.json", "--uniform 4", "--kv apart", "--sweep"] {
        let ran = tool.run(&format!("plan --shape shape.json --ctx 32768 --budgets {FILE} {flags}"));
        assert_eq!(ran.code, 2, "{flags}");
        assert!(ran.err.contains("cannot be used with"), "{flags}: {}", ran.err);
    }
}
