//! `pmkvq plan`: what each flag does to the plan.

use pmkvq::bytes::{Layout, LayoutParams};
use pmkvq::geometry::Width;
use pmkvq::plan::{Initial, Kv, Rule, Status};

use super::tool::Tool;

const SOLVE: &str = "--ctx 8192 --sensitivity s.json --budget 8MiB";

#[test]
fn a_solved_plan() {
    let tool = Tool::new("solved");
    let ran = tool.good(&format!("plan --shape shape.json {SOLVE}"));
    // talk is on the other side
    assert_eq!(ran.err, "plan: 8.00 MiB for 8192 tokens (32.00 MiB at 16 bits), optimal\n");
    let plan = tool.plan(SOLVE);
    assert_eq!((plan.budget_bytes, plan.n_ctx, plan.n_seq_max), (8 << 20, 8192, 1));
    assert_eq!((plan.sink, plan.window, plan.group), (1, 128, 128));
    assert_eq!((plan.rule, plan.initial), (Rule::Block, Initial::B16));
    assert_eq!((plan.solver.kv, plan.solver.status), (Kv::Apart, Status::Optimal));
    assert_eq!(plan.solver.widths, Width::ALL);
    let s = plan.sensitivities.as_ref().unwrap();
    assert_eq!((s.source.as_str(), s.layers[0].k[2]), ("by hand", 4.0));
    // the sensitive layer is wider, and K is no narrower than V
    assert!(plan.layers[0].k > plan.layers[1].k && plan.layers.iter().all(|l| l.k >= l.v), "{:?}", plan.layers);
    // the same run gives the same bytes
    assert_eq!(tool.good(&format!("plan --shape shape.json {SOLVE}")).out, ran.out);
}

#[test]
fn a_plan_from_the_reference_s_own_file() {
    let tool = Tool::new("torch");
    let layer = |il| format!("{{\"il\": {il}, \"n_head_kv\": 8, \"head_dim_k\": 128, \"head_dim_v\": 128}}");
    let layers: Vec<String> = (0..32).map(layer).collect();
    tool.file(
        "shape.json",
        &format!("{{\"arch\": \"llama\", \"n_ctx_train\": 1, \"layers\": [{}]}}", layers.join(",")),
    );
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sensitivity.pt");
    let plan = tool.plan(&format!("--ctx 32768 --sensitivity {file} --budget 1GiB"));
    assert_eq!((plan.layers.len(), plan.solver.status), (32, Status::Optimal));
    assert_eq!(plan.sensitivities.unwrap().source, "sensitivity.pt");
}

#[test]
fn uniform() {
    let tool = Tool::new("uniform");
    for width in Width::ALL {
        let plan = tool.plan(&format!("--ctx 8192 --uniform {width}"));
        assert!(plan.layers.iter().all(|l| l.k == width && l.v == width));
        assert_eq!((plan.solver.status, plan.sensitivities.is_none()), (Status::Uniform, true));
        // and so that llama-server's four slots fit as well
        let params = LayoutParams { n_seq_max: 4, ..plan.params() };
        let least = Layout::new(&plan.model, &plan.finals(), &params).least_budget();
        assert_eq!(plan.budget_bytes, plan.layout().comfortable_budget().max(least));
    }
    let plan = tool.plan("--ctx 8192 --uniform 4 --budget 20M");
    assert_eq!(plan.budget_bytes, 20 << 20);
}

#[test]
fn flags() {
    let tool = Tool::new("flags");
    let with = |flags: &str| tool.plan(&format!("{SOLVE} {flags}"));
    assert_eq!(with("--static").initial, Initial::Final);
    assert_eq!(with("--rule layer").rule, Rule::Layer);
    let tied = with("--kv tied");
    assert!(tied.layers.iter().all(|l| l.k == l.v));
    assert_eq!(tied.solver.kv, Kv::Tied);
    assert!(tied.solver.objective >= with("--kv apart").solver.objective);
    let few = with("--widths 8,4,2");
    assert_eq!(few.solver.widths, [Width::B8, Width::B4, Width::B2]);
    assert!(few.finals().iter().all(|w| *w < Width::B16));
    // in any order
    assert_eq!(with("--widths 2,8,4"), few);
    let several = with("--parallel 4");
    assert_eq!(several.n_seq_max, 4);
    assert!(several.solver.objective > with("").solver.objective, "windows of four sequences take room");
    let plan = with("--sink 4 --window 256 --group 64");
    assert_eq!((plan.sink, plan.window, plan.group), (4, 256, 64));
}

#[test]
fn a_side_that_no_group_divides_is_warned_of() {
    let tool = Tool::new("ungrouped");
    tool.file("shape.json", &super::tool::SHAPE.replacen("\"head_dim_v\": 128", "\"head_dim_v\": 72", 1));
    let ran = tool.good("plan --shape shape.json --ctx 4096 --uniform 4");
    let warning = "pmkvq: layer 0, V: no group of values divides the head dimension, it stays at 16 bits\n";
    assert!(ran.err.starts_with(warning), "{}", ran.err);
}

#[test]
fn a_plan_made_is_accepted() {
    let tool = Tool::new("made");
    for flags in ["--uniform 2", "--uniform 4 --static --rule layer", "--sensitivity s.json --budget 5M --parallel 3"] {
        tool.good(&format!("plan --shape shape.json --ctx 4096 {flags} -o plan.json"));
        let ran = tool.good("check plan.json --shape shape.json");
        assert_eq!(ran.out, "plan.json: fits the model (llama, 4 layers with a KV cache)\n");
        assert_eq!(ran.err, "");
        tool.good("show plan.json");
    }
}
