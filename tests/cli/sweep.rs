//! `pmkvq plan --sweep`: the frontier as table, JSON, picture and plans.

use serde_json::Value;

use super::tool::{Tool, SENSITIVITY, SHAPE};

const SWEEP: &str = "plan --shape shape.json --ctx 8192 --sensitivity s.json --sweep";

fn json(tool: &Tool, name: &str) -> Value {
    serde_json::from_str(&tool.read(name)).unwrap()
}

fn points(json: &Value) -> Vec<(u64, f64)> {
    let points = json["points"].as_array().unwrap().iter();
    points.map(|p| (p["budget_bytes"].as_u64().unwrap(), p["loss"].as_f64().unwrap())).collect()
}

#[test]
fn from_the_least_possible_to_all_at_sixteen_bits() {
    let tool = Tool::new("sweep");
    let ran = tool.good(&format!("{SWEEP} --json sweep.json"));
    assert_eq!(ran.err, "");
    let json = json(&tool, "sweep.json");
    let points = points(&json);
    assert_eq!(points.len(), 12);
    assert!(points.windows(2).all(|w| w[0].0 < w[1].0 && w[1].1 <= w[0].1), "{points:?}");
    // nothing below the first, nothing to be gained above the last
    let least =
        tool.run(&format!("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget {}", points[0].0 - 1));
    assert!(least.err.contains("is below the least possible"), "{}", least.err);
    assert_eq!(points[11].1, 0.0);
    // every point is the plan of its budget
    for ((budget, loss), p) in points.iter().zip(json["points"].as_array().unwrap()) {
        let plan = tool.plan(&format!("--ctx 8192 --sensitivity s.json --budget {budget}"));
        assert!((plan.solver.objective.unwrap() - loss).abs() <= 1e-12 * loss);
        assert_eq!(p["layers"], serde_json::to_value(&plan.layers).unwrap());
        assert_eq!(p["status"], plan.solver.status.name());
        let values = 8192.0 * 4.0 * 2.0 * 256.0;
        assert_eq!(p["bits_per_value"].as_f64().unwrap(), *budget as f64 * 8.0 / values);
    }
    // 2 bits and a pair of 16 bits per group of 128; the ends are uniform, and marked
    let (first, last) = (&json["points"][0], &json["points"][11]);
    assert_eq!((first["history_bits"].as_f64(), first["uniform"].as_u64()), (Some(2.25), Some(2)));
    assert_eq!((last["history_bits"].as_f64(), last["uniform"].as_u64()), (Some(16.0), Some(16)));
    let uniform = json["uniform"].as_array().unwrap();
    assert_eq!(uniform.iter().map(|u| u["uniform"].as_u64().unwrap()).collect::<Vec<_>>(), [16, 8, 4, 2]);
    for u in uniform {
        assert!(u["planned_loss"].as_f64() <= u["loss"].as_f64(), "{u}");
    }
    assert!(uniform[2]["planned_loss"].as_f64() < uniform[2]["loss"].as_f64(), "planning buys nothing at 4 bits");

    let rows: Vec<&str> =
        ran.out.lines().filter(|l| l.contains("  optimal  ") || l.contains("  narrowest  ")).collect();
    assert_eq!(rows.len(), 12, "{}", ran.out);
    assert!(
        rows[0].ends_with("2222 / 2222  uniform 2") && rows[11].ends_with("#### / ####  uniform 16"),
        "{}",
        ran.out
    );
    assert_eq!(
        ran.out.lines().filter(|l| l.contains("  uniform ")).count()
            - rows.iter().filter(|l| l.contains("  uniform ")).count(),
        4
    );
    assert!(ran.out.lines().all(|l| l.len() <= 100), "wider than a terminal: {}", ran.out);
    // the same run gives the same bytes
    assert_eq!(tool.good(&format!("{SWEEP} auto:12")).out, ran.out);
}

#[test]
fn budgets_as_people_write_them() {
    let tool = Tool::new("sweep-list");
    let with = |list: &str| {
        tool.good(&format!("{SWEEP} {list} --json sweep.json"));
        points(&json(&tool, "sweep.json")).into_iter().map(|p| p.0).collect::<Vec<_>>()
    };
    // sizes, and bits per value of 16,777,216 values; in order, each once
    assert_eq!(with("8M,4b,6MiB"), [6 << 20, 8 << 20]);
    assert_eq!(with("3b..12b:3"), [6 << 20, 12 << 20, 24 << 20]);
    assert_eq!(with("6M..20M:2"), [6 << 20, 20 << 20]);
    assert_eq!(with("6M..6M:3"), [6 << 20]);
    assert_eq!(with("6M..9M").len(), 12);
    assert_eq!(with("auto:3").len(), 3);
    // K and V tied cost no less, and fewer widths neither
    let loss = |flags: &str| {
        tool.good(&format!("{SWEEP} 8M {flags} --json sweep.json"));
        points(&json(&tool, "sweep.json"))[0].1
    };
    assert!(loss("--kv tied") >= loss("") && loss("--widths 8,2") > loss(""));
}

#[test]
fn plans_in_a_folder() {
    let tool = Tool::new("sweep-plans");
    tool.good(&format!("{SWEEP} 6M,8M,9M --rule layer -o plans"));
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(tool.folder.join("plans")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["plan-6291456.json", "plan-8388608.json", "plan-9437184.json"]);
    tool.good("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 8M --rule layer -o one.json");
    assert_eq!(tool.read("plans/plan-8388608.json"), tool.read("one.json"));
    // again, over what is there
    tool.good(&format!("{SWEEP} 8M -o plans"));
    assert_eq!(names().len(), 3);
    let ran = tool.run(&format!("{SWEEP} 8M -o s.json"));
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("pmkvq: s.json: "), "{}", ran.err);
    assert_eq!(tool.read("s.json"), SENSITIVITY);
}

#[test]
fn a_picture_that_stands_by_itself() {
    let tool = Tool::new("sweep-svg");
    tool.file("shape.json", &SHAPE.replace("a test", "<script>alert(1)</script> & \\u0007\\\"more\\\""));
    tool.good(&format!("{SWEEP} --svg sweep.svg"));
    let svg = tool.read("sweep.svg");
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;") && !svg.contains('\u{7}'), "{svg}");
    // nothing from elsewhere but the name of the format
    assert_eq!(svg.matches("http").count(), 1);
    // 12 budgets and what is solved for 4 uniform plans, and each once more in the key
    assert_eq!(svg.matches("<circle").count(), 12 + 4 + 1);
    assert_eq!(svg.matches("stroke=\"#c2410c\"").count(), 4 + 1);
    for text in
        ["everything counted (MiB)", "bits per value", ">4 bits<", ">16 bits<", ">0.1<", "summed sensitivity: gradient"]
    {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    // a number that is none would be no place
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    // tags close
    for tag in ["text", "title", "svg"] {
        assert_eq!(svg.matches(&format!("<{tag}")).count(), svg.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    // one budget, and losses that are all zero
    tool.file("s.json", &SENSITIVITY.replace("[0, 1, 4, 16]", "[0, 0, 0, 16]"));
    tool.good(&format!("{SWEEP} 30M --svg one.svg"));
    assert!(!tool.read("one.svg").contains("NaN"));
}

#[test]
fn sweeps_that_make_no_sense() {
    let tool = Tool::new("sweep-bad");
    let cases = [
        ("--sweep 8M,lots", "'lots' is not a size"),
        ("--sweep 0b", "'0b' is not a number of bits per value: expected up to 64, as in 2.5b"),
        ("--sweep 65b", "'65b' is not a number of bits per value"),
        ("--sweep auto:1", "'1' is not a number of budgets: expected 2 to 1000"),
        ("--sweep auto:many", "'many' is not a number of budgets"),
        ("--sweep 8M:4", "only auto and FROM..TO take a number of budgets"),
        ("--sweep 8M..", "a size is missing"),
        ("--sweep 8M --budget 8M", "cannot be used with"),
        ("--budget 8M --json x.json", "--sweep [<LIST>]|--verify <TEXT>"),
        ("--sweep 8M --verify text.txt", "cannot be used with"),
    ];
    for (flags, expected) in cases {
        let ran = tool.run(&format!("plan --shape shape.json --ctx 8192 --sensitivity s.json {flags}"));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{flags}: {}", ran.err);
        assert!(ran.err.contains(expected), "{flags}: {}", ran.err);
    }
    let ran = tool.run("plan --shape shape.json --ctx 8192 --uniform 4 --sweep");
    assert_eq!(ran.code, 2, "{}", ran.err);
    let ran = tool.run("plan --shape shape.json --ctx 8192 --sensitivity s.json --budget 8M --svg x.svg");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert_eq!(ran.err, "pmkvq: --svg is the picture of a sweep: add --sweep, without --budget\n");
    for (flags, expected) in [
        ("9M..8M", "--sweep: 9.00 MiB .. 8.00 MiB: the first must be the smaller one"),
        ("1K,8M", "a budget of 1.00 KiB (1024 bytes) is below the least possible"),
    ] {
        let ran = tool.run(&format!("{SWEEP} {flags} -o plans --json sweep.json --svg sweep.svg"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{flags}");
        assert!(ran.err.starts_with(&format!("pmkvq: {expected}")), "{flags}: {}", ran.err);
        assert_eq!(tool.names(), ["s.json", "shape.json"], "something was written");
    }
}
