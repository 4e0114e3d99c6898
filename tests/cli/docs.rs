//! The plan in `docs/plan.md` is what the command beside it makes of the files beside it.

use super::tool::Tool;

#[test]
fn the_command_makes_the_plan() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    let blocks: Vec<&str> = page.split("```json\n").skip(1).map(|b| b.split("```").next().unwrap()).collect();
    let [plan, sensitivity, shape] = blocks[..] else { panic!("three files") };
    let tool = Tool::new("docs");
    tool.file("s.json", sensitivity);
    tool.file("shape.json", shape);
    let command = page.split("`pmkvq ").find(|c| c.starts_with("plan --shape")).unwrap().split('`').next().unwrap();
    assert_eq!(tool.good(command).out, plan);
}
