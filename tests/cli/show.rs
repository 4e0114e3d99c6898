//! `pmkvq show` and `pmkvq check`.

use super::tool::Tool;

#[test]
fn a_summary_a_table_and_a_picture() {
    let tool = Tool::new("show");
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 8MiB -o plan.json");
    let ran = tool.good("show plan.json");
    assert_eq!(ran.err, "");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "model    a test (llama), 4 layers with a KV cache");
    assert_eq!(lines[1], "context  8192 tokens, 1 sequence(s)");
    assert_eq!(lines[2], "16 bits  the first 1 token(s), the latest 128 to 255 tokens");
    assert!(lines[3].starts_with("budget   8.00 MiB: pages 6.95 MiB, tables 19.00 KiB, parameters "), "{}", lines[3]);
    assert!(lines[4].ends_with("bits per value, all counted; 16 bits would take 32.00 MiB"), "{}", lines[4]);
    assert_eq!(lines[5], "widths   progressive, from 16 bits; rule block; solver optimal");

    // 8 sides, each with a final width, bytes, and mean bits at 8 lengths that never rise
    let head = lines.iter().position(|l| l.starts_with("layer side final")).unwrap();
    assert!(lines[head].ends_with("1024    2048    3072    4096    5120    6144    7168    8192"), "{}", lines[head]);
    for (i, line) in lines[head + 1..head + 9].iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1]), (["0", "1", "2", "3"][i / 2], ["K", "V"][i % 2]));
        let width: f64 = words[2].parse().unwrap();
        assert!(words[4] == "KiB" || words[4] == "MiB");
        let bits: Vec<f64> = words[5..].iter().map(|w| w.parse().unwrap()).collect();
        assert_eq!(bits.len(), 8);
        assert!(bits.windows(2).all(|w| w[1] <= w[0] + 0.5) && bits[7] >= width, "{line}");
    }
    // 64 columns each, at 16 bits first
    let rows: Vec<&str> = lines.iter().filter(|l| l.ends_with('|')).copied().collect();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let picture = row.split('|').nth(1).unwrap();
        assert_eq!(picture.len(), 64, "{row}");
        assert!(picture.starts_with('#') && picture.chars().all(|c| "#842".contains(c)), "{row}");
    }
    let last = lines.last().unwrap();
    assert!(last.trim_start().starts_with("128 ") && last.ends_with(" 8192"), "{last}");
    assert!(lines.iter().all(|l| l.len() <= 100), "wider than a terminal");
}

#[test]
fn a_static_plan_is_at_its_widths_at_once() {
    let tool = Tool::new("static");
    tool.good("plan --shape shape.json --ctx 8192 --uniform 2 --static --rule layer -o plan.json");
    let ran = tool.good("show plan.json");
    assert!(ran.out.contains("widths   static, at the final widths from the start; rule layer; solver uniform"));
    let row = ran.out.lines().find(|l| l.ends_with('|')).unwrap();
    assert!(row.ends_with(&format!("{}|", "2".repeat(50))), "{row}");
}

#[test]
fn another_context() {
    let tool = Tool::new("context");
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 8MiB -o plan.json");
    assert!(tool.good("show plan.json --ctx 4096").out.contains("context  4096 tokens"));
    assert!(tool.good("show plan.json --ctx 1").out.contains("context  1 tokens"));
    assert!(tool.good("show plan.json --ctx 12000").out.contains("context  12000 tokens"));
    let ran = tool.run("show plan.json --ctx 134217728");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("plan.json: budget_bytes: a budget of 8.00 MiB"), "{}", ran.err);
}

#[test]
fn a_very_long_context_is_not_drawn_block_by_block() {
    let tool = Tool::new("long");
    tool.good("plan --shape shape.json --ctx 1048576 --uniform 4 -o plan.json");
    let start = std::time::Instant::now();
    assert!(tool.good("show plan.json").out.lines().any(|l| l.ends_with('|')));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    tool.good("plan --shape shape.json --ctx 134217728 --uniform 4 -o plan.json");
    let ran = tool.good("show plan.json");
    assert!(ran.out.contains("budget ") && ran.out.contains("name fewer with --ctx"), "{}", ran.out);
}

#[test]
fn names_are_safe_for_a_terminal() {
    let tool = Tool::new("names");
    tool.file("shape.json", &super::tool::SHAPE.replace("a test", "\\u001b[31mred\\u0007\\n"));
    tool.good("plan --shape shape.json --ctx 4096 --uniform 4 -o plan.json");
    let ran = tool.good("show plan.json");
    assert!(ran.out.starts_with("model    \\u{1b}[31mred\\u{7}\\n (llama)"), "{}", ran.out);
}

#[test]
fn a_plan_for_another_model() {
    let tool = Tool::new("check");
    tool.good("plan --shape shape.json --ctx 4096 --uniform 4 -o plan.json");
    tool.file("other.json", &super::tool::SHAPE.replacen("\"n_head_kv\": 2", "\"n_head_kv\": 4", 1));
    let ran = tool.run("check plan.json --shape other.json");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let expected =
        "pmkvq: plan.json: the plan is for another model: model.layers[0].n_head_kv is 2 in the plan and 4 in the \
                    model; make a plan with 'pmkvq plan --model'\n";
    assert_eq!(ran.err, expected);
}
