//! `docs/plan.md` tells the truth: its files are read, its figures are those of the code, no field is left out.

use std::collections::BTreeSet;

use pmkvq::plan::{shape_from_json, Plan};
use pmkvq::sensitivity::SensitivityFile;
use pmkvq::transform::TransformsFile;

/// The page, and its JSON blocks: plan, sensitivities, transforms, shape.
fn page() -> (String, [String; 4]) {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    let blocks = page.split("```json\n").skip(1).map(|b| b.split("```").next().unwrap().to_string());
    let blocks: Vec<String> = blocks.collect();
    (page, blocks.try_into().expect("four files"))
}

#[test]
fn the_files_are_read() {
    let (_, [plan, sensitivity, transforms, shape]) = page();
    let plan = Plan::parse(&plan).unwrap();
    let file = SensitivityFile::parse(&sensitivity).unwrap();
    let shape = shape_from_json(&shape).unwrap();
    assert_eq!(plan.model, shape);
    // the page has four values a head, so that they can be read
    let mut small = shape.clone();
    for layer in &mut small.layers {
        (layer.head_dim_k, layer.head_dim_v) = (4, 4);
    }
    let transforms = TransformsFile::parse(&transforms, &small).unwrap();
    assert_eq!(transforms.layers[0].k.scales, Some(vec![2.0, 2.0, 1.0, 1.0]));
    assert!(transforms.layers[0].v.hadamard && transforms.layers[1].k.is_none());
    assert_eq!(plan.sensitivities, Some(file.for_model(&shape).unwrap()));
}

#[test]
fn every_field_has_a_row() {
    let (page, [plan, sensitivity, transforms, shape]) = page();
    let sections: Vec<&str> = page.split("\n## ").collect();
    let files = [
        ("The plan file", plan),
        ("The sensitivity file", sensitivity),
        ("The transforms file", transforms),
        ("The shape file", shape),
    ];
    for (heading, text) in files {
        let section = sections.iter().find(|s| s.starts_with(heading)).unwrap();
        let rows: String = section.lines().filter(|l| l.starts_with("| `")).collect();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        for field in value.as_object().unwrap().keys() {
            assert!(rows.contains(&format!("`{field}`")), "{heading}: {field}");
        }
    }
    // the fields that a message lists are those that the page has
    let (_, [plan, ..]) = self::page();
    let e = Plan::parse(&plan.replace("\"sink\"", "\"sinks\"")).unwrap_err().to_string();
    let listed = e.split("expected one of: ").nth(1).unwrap().split(", ").map(str::to_string);
    let rows = sections[1].lines().filter_map(|l| Some(l.strip_prefix("| `")?.split('`').next()?.to_string()));
    let statuses = ["optimal", "limit", "narrowest", "uniform", "given", "solver.status"];
    let rows: BTreeSet<String> = rows.filter(|r| !statuses.contains(&r.as_str())).collect();
    assert_eq!(rows, listed.collect());
}

#[test]
fn the_figures_are_the_code_s() {
    let (page, [plan, ..]) = page();
    let plan = Plan::parse(&plan).unwrap();
    let layout = plan.layout();
    let commas = |n: u64| {
        let digits = n.to_string();
        let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|c| std::str::from_utf8(c).unwrap()).collect();
        groups.join(",")
    };
    let [k, v] = [&layout.sides[0], &layout.sides[1]];
    let rows = [
        ("least", k.least_pages, v.least_pages, layout.least_budget()),
        ("comfortable", k.comfortable_pages, v.comfortable_pages, layout.comfortable_budget()),
        ("full", k.full_pages, v.full_pages, layout.full_budget()),
    ];
    for (name, k, v, bytes) in rows {
        let row = format!("| {name} | {k} | {v} | {} |", commas(bytes));
        assert!(page.contains(&row), "{row}");
    }
    let pages = layout.pool_pages(plan.budget_bytes).unwrap();
    let quotas = layout.quotas(&pages);
    let text = page.replace('\n', " ");
    for figure in [
        format!("{} blocks, pages of {} bytes", layout.n_blocks, commas(layout.pools[0].page_row_bytes)),
        format!("tables of 4 * {} bytes, parameters of 4 * {}", commas(k.table_bytes), commas(k.params_bytes)),
        format!("scratch of {}", commas(layout.scratch_bytes)),
        format!("{} bytes without pages", commas(layout.fixed_bytes)),
        format!("a single pool of {} pages", pages[0]),
        format!("K {} pages, V {}", quotas[0], quotas[1]),
    ] {
        assert!(text.contains(&figure), "{figure}");
    }
    assert_eq!((quotas[0], quotas[1]), (quotas[2], quotas[3]));
}
