//! The plan in `docs/plan.md` is what the command beside it makes of the files beside it, and its frontier what the shipped
//! model's sensitivities give.

use super::tool::Tool;

#[test]
fn the_command_makes_the_plan() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    let blocks: Vec<&str> = page.split("```json\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let [plan, sensitivity, _, shape] = blocks[..] else { panic!("four files") };
    let tool = Tool::new("docs");
    tool.file("s.json", sensitivity);
    tool.file("shape.json", shape);
    let command = page.split("`pmkvq ").find(|c| c.starts_with("plan --shape")).unwrap().split('`').next().unwrap();
    assert_eq!(tool.good(command).out, plan);
}

#[cfg(feature = "llama")]
#[test]
fn the_frontier_is_the_shipped_model_s() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    let section = page.split("\n## Several budgets at once\n").nth(1).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/model");
    let ran = Tool::new("docs-sweep")
        .good(&format!("plan -m {model}/pmkvq-tiny.gguf --ctx 16384 --sensitivity {model}/sensitivity.json --sweep"));
    let rows: Vec<&str> = section.split("```").nth(1).unwrap().lines().skip(1).filter(|l| l.trim() != "...").collect();
    assert!(rows.len() > 10);
    for row in rows {
        assert!(ran.out.lines().any(|l| l == row), "{row}\n{}", ran.out);
    }
}
