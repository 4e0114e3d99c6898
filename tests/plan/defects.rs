//! One defect at a time: the message names the field and what was expected there.

use pmkvq::plan::{Plan, PlanError};
use pmkvq::shape::ModelShape;

const PLAN: &str = r#"{
  "pmkvq_plan": 1,
  "model": {
    "arch": "llama",
    "name": "a test",
    "n_ctx_train": 4096,
    "layers": [
      {"il": 0, "n_head_kv": 1, "head_dim_k": 128, "head_dim_v": 128},
      {"il": 2, "n_head_kv": 1, "head_dim_k": 128, "head_dim_v": 128}
    ]
  },
  "n_ctx": 4096,
  "n_seq_max": 1,
  "budget_bytes": 2000000,
  "scratch_bytes": 0,
  "initial": 16,
  "sink": 1,
  "window": 128,
  "group": 128,
  "rule": "block",
  "ranges": {"k": "fit", "v": "shift"},
  "layers": [
    {"il": 0, "k": 8, "v": 2},
    {"il": 2, "k": 4, "v": 2}
  ],
  "transforms": [
    {"il": 0, "k": "none", "v": "none"},
    {"il": 2, "k": "none", "v": "none"}
  ],
  "sensitivities": {
    "source": "by hand",
    "method": "gradient",
    "widths": [16, 8, 4, 2],
    "layers": [
      {"il": 0, "k": [0, 0.5, 1.5, 4], "v": [0, 0.25, 0.75, 2]},
      {"il": 2, "k": [0, 0.5, 1.25, 3], "v": [0, 0.125, 0.5, 1]}
    ]
  },
  "solver": {"kv": "apart", "widths": [16, 8, 4, 2], "objective": 4.75, "status": "optimal", "gap": 0}
}"#;

/// The message that a text gets.
fn message(text: &str) -> String {
    match Plan::parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

/// Replaces `from`, which must occur, and expects a message that starts so.
fn expect(cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        assert_eq!(PLAN.matches(from).count(), 1, "{from}");
        let found = message(&PLAN.replace(from, to));
        assert!(found.starts_with(expected), "{from} -> {to}:\n{found}\n{expected}");
        assert!(found.len() < 400 && !found.contains('\n'), "{found}");
    }
}

#[test]
fn the_plan_that_the_defects_are_made_in_is_good() {
    let plan = Plan::parse(PLAN).unwrap();
    assert_eq!(plan.layers[1].il, 2);
    assert_eq!(plan.sensitivities.unwrap().layers[1].k, [0.0, 0.5, 1.25, 3.0]);
}

#[test]
fn what_is_not_json() {
    assert_eq!(message(""), "not valid JSON: the file is empty");
    assert_eq!(message(" \n\t"), "not valid JSON: the file is empty");
    for text in ["hello", "GGUF\u{3}", "\u{feff}{}", "{'a': 1}", "{\"pmkvq_plan\": 1,}", "[1, 2", "{}{}"] {
        assert!(message(text).starts_with("not valid JSON"), "{text}: {}", message(text));
    }
    for text in ["[]", "1", "null", "\"plan\""] {
        assert!(message(text).starts_with("the file: "), "{}", message(text));
        assert!(message(text).ends_with(" is not an object"), "{}", message(text));
    }
    expect(&[
        ("\"sink\": 1,", "\"sink\": 01,", "not valid JSON at sink: "),
        ("\"k\": 8,", "\"k\": 8;", "not valid JSON at layers[0]"),
        ("\"rule\": \"block\"", "\"rule\": \"blo\nck\"", "not valid JSON at rule: "),
        ("\"rule\": \"block\"", "\"rule\": \"\\ud800\"", "not valid JSON at rule: "),
        ("\"rule\": \"block\"", "\"rule\": block", "not valid JSON at rule: "),
    ]);
}

#[test]
fn a_plan_cut_off_anywhere_is_refused() {
    for n in 0..PLAN.len() {
        let cut = message(&PLAN[..n]);
        assert!(cut.starts_with("not valid JSON"), "{n}: {cut}");
    }
    assert!(message(&PLAN[..PLAN.len() / 2]).contains("EOF"));
}

#[test]
fn versions() {
    expect(&[
        ("\"pmkvq_plan\": 1,", "", "not a plan: the field 'pmkvq_plan' is missing; plans are made with 'pmkvq plan'"),
        (
            "_plan\": 1",
            "_plan\": 2",
            "pmkvq_plan: version 2 is not known to this build: expected 1; make the plan again",
        ),
        ("_plan\": 1", "_plan\": \"1\"", "pmkvq_plan: version '1' is not known"),
        ("_plan\": 1", "_plan\": 1.0", "pmkvq_plan: version 1.0 is not known"),
        ("_plan\": 1", "_plan\": null", "pmkvq_plan: version null is not known"),
    ]);
    // the version is looked at before the fields, which another version may have
    let other = PLAN.replace("_plan\": 1", "_plan\": 2").replace("\"rule\"", "\"new\"");
    assert!(message(&other).starts_with("pmkvq_plan: version 2"));
    assert_eq!(message("{}"), message(&PLAN.replace("\"pmkvq_plan\": 1,", "")));
}

/// The plan without a field, named as in messages: `layers[0].k`.
fn without(path: &str) -> String {
    let mut plan: serde_json::Value = serde_json::from_str(PLAN).unwrap();
    let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    plan.pointer_mut(parent).and_then(|p| p.as_object_mut()).and_then(|p| p.remove(name)).expect(path);
    plan.to_string()
}

#[test]
fn every_field_is_missed() {
    let needed = [
        "model",
        "model.arch",
        "model.n_ctx_train",
        "model.layers",
        "model.layers[1].il",
        "model.layers[1].n_head_kv",
        "model.layers[0].head_dim_k",
        "model.layers[0].head_dim_v",
        "n_ctx",
        "n_seq_max",
        "budget_bytes",
        "initial",
        "sink",
        "window",
        "group",
        "rule",
        "layers",
        "layers[0].il",
        "layers[0].k",
        "layers[1].v",
        "transforms[0].il",
        "transforms[0].k",
        "transforms[1].v",
        "sensitivities.source",
        "sensitivities.method",
        "sensitivities.widths",
        "sensitivities.layers",
        "sensitivities.layers[1].il",
        "sensitivities.layers[1].k",
        "sensitivities.layers[0].v",
        "solver",
        "solver.kv",
        "solver.widths",
        "solver.status",
    ];
    for path in needed {
        assert_eq!(message(&without(path)), format!("{path} is missing"));
    }
    let optional =
        ["model.name", "scratch_bytes", "ranges", "transforms", "sensitivities", "solver.objective", "solver.gap"];
    for path in optional {
        Plan::parse(&without(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    }
}

#[test]
fn fields_that_nobody_knows() {
    expect(&[
        (
            "\"sink\": 1,",
            "\"sink\": 1, \"sinks\": 2,",
            "sinks is not a field that this version knows; expected one of: pmkvq_plan, model, n_ctx,",
        ),
        ("\"arch\": ", "\"heads\": 1, \"arch\": ", "model.heads is not a field"),
        ("{\"il\": 0, \"n_head_kv\"", "{\"k\": 1, \"il\": 0, \"n_head_kv\"", "model.layers[0].k is not a field"),
        (
            "\"k\": 4,",
            "\"k\": 4, \"q\": 4,",
            "layers[1].q is not a field that this version knows; expected one of: il, k, v",
        ),
        ("\"source\"", "\"sourc\": 1, \"source\"", "sensitivities.sourc is not a field"),
        ("\"kv\"", "\"kv \": 1, \"kv\"", "solver.kv  is not a field"),
        ("\"sink\": 1,", "\"sink\": 1, \"\": 2,", " is not a field"),
    ]);
    let long = PLAN.replace("\"sink\": 1,", &format!("\"sink\": 1, \"{}\": 1,", "x".repeat(100_000)));
    assert!(message(&long).len() < 400);
}

#[test]
fn fields_that_occur_twice() {
    expect(&[
        ("\"sink\": 1,", "\"sink\": 1, \"sink\": 1,", "sink occurs twice; leave one of the two"),
        ("\"pmkvq_plan\": 1,", "\"pmkvq_plan\": 1, \"pmkvq_plan\": 2,", "pmkvq_plan occurs twice"),
        ("\"k\": 4,", "\"k\": 4, \"k\": 2,", "layers[1].k occurs twice"),
        ("\"arch\": ", "\"arch\": \"qwen3\", \"\\u0061rch\": ", "model.arch occurs twice"),
        ("\"method\"", "\"widths\": [2], \"method\"", "sensitivities.widths occurs twice"),
    ]);
}

#[test]
fn numbers_of_the_wrong_kind_or_size() {
    expect(&[
        ("\"n_ctx\": 4096", "\"n_ctx\": 0", "n_ctx: 0 is out of range: expected 1 to 134217728"),
        ("\"n_ctx\": 4096", "\"n_ctx\": 134217729", "n_ctx: 134217729 is out of range"),
        ("\"n_ctx\": 4096", "\"n_ctx\": -1", "n_ctx: -1 is negative; expected at least 0"),
        ("\"n_ctx\": 4096", "\"n_ctx\": 4096.5", "n_ctx: 4096.5 is not a whole number"),
        ("\"n_ctx\": 4096", "\"n_ctx\": \"4096\"", "n_ctx: '4096' is not a whole number"),
        ("\"n_ctx\": 4096", "\"n_ctx\": 99999999999999999999999999", "n_ctx: 1e+26 is out of range"),
        ("\"n_ctx\": 4096", "\"n_ctx\": 18446744073709551615", "n_ctx: 18446744073709551615 is out of range"),
        ("\"n_ctx\": 4096", "\"n_ctx\": true", "n_ctx: true is not a whole number"),
        ("\"n_ctx\": 4096", "\"n_ctx\": {}", "n_ctx: an object is not a whole number"),
        ("\"n_seq_max\": 1", "\"n_seq_max\": 0", "n_seq_max: 0 is out of range: expected 1 to 256"),
        ("\"n_seq_max\": 1", "\"n_seq_max\": 257", "n_seq_max: 257 is out of range: expected 1 to 256"),
        ("_bytes\": 2000000", "_bytes\": 0", "budget_bytes: 0 is out of range: expected 1 to 1125899906842624"),
        ("_bytes\": 2000000", "_bytes\": 1125899906842625", "budget_bytes: 1125899906842625 is out of range"),
        ("_bytes\": 2000000", "_bytes\": -2000000", "budget_bytes: -2000000 is negative"),
        ("scratch_bytes\": 0", "scratch_bytes\": -1", "scratch_bytes: -1 is negative"),
        ("\"sink\": 1", "\"sink\": 1025", "sink: 1025 is out of range: expected 0 to 1024"),
        ("\"window\": 128", "\"window\": 127", "window: 127 is out of range: expected 128 to 1048576"),
        ("\"group\": 128", "\"group\": 24", "group: 24 is out of range: expected a multiple of 16 from 16 to 128"),
        ("\"group\": 128", "\"group\": 256", "group: 256 is out of range: expected 16 to 128"),
        ("\"initial\": 16", "\"initial\": 8", "initial: 8 is not known: expected 16 (progressive) or 'final' (static)"),
        ("\"initial\": 16", "\"initial\": \"16\"", "initial: '16' is not known"),
        ("\"rule\": \"block\"", "\"rule\": \"page\"", "rule: 'page' is not known: expected 'block' or 'layer'"),
        ("\"rule\": \"block\"", "\"rule\": \"Block\"", "rule: 'Block' is not known"),
        ("\"rule\": \"block\"", "\"rule\": 1", "rule: 1 is not a text"),
        (
            "{\"il\": 0, \"n_head_kv\": 1",
            "{\"il\": 0, \"n_head_kv\": 0",
            "model.layers[0].n_head_kv: 0 is out of range",
        ),
        (
            "{\"il\": 0, \"n_head_kv\": 1",
            "{\"il\": 0, \"n_head_kv\": 9999",
            "model.layers[0].n_head_kv: 9999 is out of range",
        ),
        (
            "{\"il\": 0, \"n_head_kv\": 1, \"head_dim_k\": 128",
            "{\"il\": 0, \"n_head_kv\": 1, \"head_dim_k\": 0",
            "model.layers[0].head_dim_k: 0 is out of range: expected 1 to 4096",
        ),
        ("\"arch\": \"llama\"", "\"arch\": 3", "model.arch: 3 is not a text"),
        ("\"objective\": 4.75", "\"objective\": -4.75", "solver.objective: -4.75 is negative"),
        ("\"kv\": \"apart\"", "\"kv\": \"both\"", "solver.kv: 'both' is not known: expected 'apart' or 'tied'"),
        (
            "\"optimal\"",
            "\"best\"",
            "solver.status: 'best' is not known: expected 'optimal', 'limit', 'narrowest', 'uniform' or 'given'",
        ),
    ]);
}

#[test]
fn widths() {
    expect(&[
        ("\"k\": 8", "\"k\": 3", "layers[0].k: 3 is not a width: expected 16, 8, 4 or 2"),
        ("\"k\": 8", "\"k\": 1", "layers[0].k: 1 is not a width"),
        ("\"k\": 8", "\"k\": 32", "layers[0].k: 32 is not a width"),
        ("\"k\": 8", "\"k\": -8", "layers[0].k: -8 is not a width"),
        ("\"k\": 8", "\"k\": 8.0", "layers[0].k: 8.0 is not a width"),
        ("\"k\": 8", "\"k\": \"8\"", "layers[0].k: '8' is not a width"),
        ("\"k\": 8", "\"k\": null", "layers[0].k: null is not a width"),
        (
            "\"gradient\",\n    \"widths\": [16, 8, 4, 2]",
            "\"gradient\",\n    \"widths\": [16, 4, 8, 2]",
            "sensitivities.widths: widths must fall from one to the next, as in [16, 8, 4, 2]",
        ),
        (
            "\"apart\", \"widths\": [16, 8, 4, 2]",
            "\"apart\", \"widths\": [2, 4]",
            "solver.widths: widths must fall from one to the next",
        ),
        ("\"apart\", \"widths\": [16, 8, 4, 2]", "\"apart\", \"widths\": [4, 4]", "solver.widths: widths must fall"),
        (
            "\"apart\", \"widths\": [16, 8, 4, 2]",
            "\"apart\", \"widths\": []",
            "solver.widths has 0 entries: expected at least one",
        ),
        (
            "\"apart\", \"widths\": [16, 8, 4, 2]",
            "\"apart\", \"widths\": [16, 6]",
            "solver.widths[1]: 6 is not a width",
        ),
        ("\"apart\", \"widths\": [16, 8, 4, 2]", "\"apart\", \"widths\": 16", "solver.widths: 16 is not a list"),
    ]);
}

#[test]
fn numbers_that_are_none() {
    let path = "sensitivities.layers[0].k[2]";
    for bad in
        ["NaN", "-NaN", "nan", "Infinity", "-Infinity", "inf", "1e999", "-1e999", "\"NaN\"", "\"-inf\"", "\"Infinity\""]
    {
        let expected = format!("{path}: NaN and infinities are not allowed; expected a finite number");
        expect(&[("[0, 0.5, 1.5, 4]", &format!("[0, 0.5, {bad}, 4]"), &expected)]);
    }
    expect(&[
        (
            "[0, 0.5, 1.5, 4]",
            "[0, 0.5, -1.5, 4]",
            "sensitivities.layers[0].k[2]: -1.5 is negative; expected at least 0",
        ),
        ("[0, 0.5, 1.5, 4]", "[0, 0.5, null, 4]", "sensitivities.layers[0].k[2]: null is not a number"),
        ("[0, 0.5, 1.5, 4]", "[0, 0.5, \"1.5\", 4]", "sensitivities.layers[0].k[2]: '1.5' is not a number"),
        (
            "[0, 0.5, 1.5, 4]",
            "[0, 0.5, 1e101, 4]",
            "sensitivities.layers[0].k[2]: 1e101 is out of range: expected at most 1e100",
        ),
        ("\"n_ctx\": 4096", "\"n_ctx\": NaN", "n_ctx: NaN and infinities"),
        ("\"n_ctx\": 4096", "\"n_ctx\": 1e999", "n_ctx: NaN and infinities"),
        ("\"k\": 8", "\"k\": NaN", "layers[0].k: NaN and infinities"),
        ("\"objective\": 4.75", "\"objective\": NaN", "solver.objective: NaN and infinities"),
    ]);
    assert!(message("NaN").starts_with("line 1, column 1: NaN"));
    // such words are fine in texts
    Plan::parse(&PLAN.replace("by hand", "NaN, 1e999, -Infinity")).unwrap();
}

#[test]
fn counts_that_disagree() {
    let one = "    {\"il\": 0, \"k\": 8, \"v\": 2},\n";
    let pair = "{\"il\": 0, \"k\": \"none\", \"v\": \"none\"},";
    expect(&[
        (one, "", "layers has 1 entries: expected 2, one per entry of model.layers"),
        (one, &one.repeat(2), "layers has 3 entries: expected 2, one per entry of model.layers"),
        (pair, "", "transforms has 1 entries: expected 2, one per entry of model.layers"),
        (
            "[0, 0.5, 1.5, 4]",
            "[0, 0.5, 1.5]",
            "sensitivities.layers[0].k has 3 entries: expected 4, one per entry of widths",
        ),
        ("[0, 0.125, 0.5, 1]", "[]", "sensitivities.layers[1].v has 0 entries: expected 4"),
        ("[0, 0.125, 0.5, 1]", "1", "sensitivities.layers[1].v: 1 is not a list"),
    ]);
    let start = PLAN.find("{\"il\": 0, \"n_head_kv\"").unwrap();
    let end = PLAN.find("]\n  },\n  \"n_ctx\"").unwrap();
    let none = [&PLAN[..start], &PLAN[end..]].concat();
    assert_eq!(message(&none), "model.layers has 0 entries: expected 1 to 1024");
    let layer = |il: usize| format!("{{\"il\": {il}, \"n_head_kv\": 1, \"head_dim_k\": 128, \"head_dim_v\": 128}}");
    let many: Vec<String> = (0..1025).map(layer).collect();
    let many = [&PLAN[..start], &many.join(","), &PLAN[end..]].concat();
    assert_eq!(message(&many), "model.layers has 1025 entries: expected 1 to 1024");
}

#[test]
fn layers_out_of_order() {
    expect(&[
        (
            "{\"il\": 2, \"n_head_kv\"",
            "{\"il\": 0, \"n_head_kv\"",
            "model.layers[1].il: 0 is out of range: expected 1 to",
        ),
        ("{\"il\": 2, \"k\": 4", "{\"il\": 1, \"k\": 4", "layers[1].il: layer 1 where model.layers has layer 2"),
        ("{\"il\": 0, \"k\": 8", "{\"il\": 2, \"k\": 8", "layers[0].il: layer 2 where model.layers has layer 0"),
        ("{\"il\": 2, \"k\": \"none\"", "{\"il\": 3, \"k\": \"none\"", "transforms[1].il: layer 3 where"),
        ("{\"il\": 0, \"k\": [", "{\"il\": 5, \"k\": [", "sensitivities.layers[0].il: layer 5 where"),
        ("{\"il\": 2, \"k\": 4", "{\"il\": 4294967296, \"k\": 4", "layers[1].il: 4294967296 is out of range"),
        (
            "{\"il\": 2, \"n_head_kv\"",
            "{\"il\": 134217729, \"n_head_kv\"",
            "model.layers[1].il: 134217729 is out of range",
        ),
    ]);
}

#[test]
fn transforms_that_make_no_sense() {
    let (before, d) = ("\"k\": \"none\", \"v\": \"none\"},", 128);
    let row = |x: &str| format!("[{}]", vec![x; d].join(", "));
    let k = |transform: String| format!("\"k\": {transform}, \"v\": \"none\"}},");
    // 65,536 bytes, one more than a multiple of three
    let zeros = "A".repeat((4 * d * d).div_ceil(3) * 4 - 2) + "==";
    let cases = [
        (k("\"turned\"".into()), "transforms[0].k: 'turned' is not known: expected 'none', 'hadamard'"),
        (k("[1]".into()), "transforms[0].k: a list is not an object"),
        (k("{\"whiten\": 1}".into()), "transforms[0].k.whiten is not a field that this version knows"),
        (k("{\"hadamard\": 1}".into()), "transforms[0].k.hadamard: 1 is not true or false"),
        (
            k(format!("{{\"scales\": [{0}, {0}]}}", row("1"))),
            "transforms[0].k.scales has 2 entries: expected 1, one per KV head",
        ),
        (k("{\"center\": [[1, 2]]}".into()), "transforms[0].k.center[0] has 2 entries: expected 128"),
        (
            k(format!("{{\"scales\": [{}]}}", row("0"))),
            "transforms[0].k.scales[0][0]: 0 is out of range: expected 1e-6 to 1e6",
        ),
        (k(format!("{{\"scales\": [{}]}}", row("-1"))), "transforms[0].k.scales[0][0]: -1 is out of range"),
        (k(format!("{{\"center\": [{}]}}", row("1e39"))), "transforms[0].k.center[0][0]: NaN and infinities"),
        (k("{\"matrix\": \"?\"}".into()), "transforms[0].k.matrix: a text that is not base64"),
        (k("{\"matrix\": \"AAAA\"}".into()), "transforms[0].k.matrix has 3 entries: expected 65536"),
        (k(format!("{{\"matrix\": \"{zeros}\"}}")), "transforms[0].k.matrix: 'AAAA"),
    ];
    let cases: Vec<(&str, &str, &str)> =
        cases.iter().map(|(with, message)| (before, with.as_str(), *message)).collect();
    expect(&cases);
}

#[test]
fn a_budget_below_the_least_possible() {
    let layout = Plan::parse(PLAN).unwrap().layout();
    let least = layout.least_budget();
    let with = |budget: u64| Plan::parse(&PLAN.replace("2000000", &budget.to_string()));
    with(least).unwrap();
    let e = with(least - 1).unwrap_err();
    assert!(matches!(&e, PlanError::Budget(b) if b.least == least && b.budget == least - 1));
    let text = e.to_string();
    assert!(text.starts_with("budget_bytes: a budget of"), "{text}");
    assert!(text.contains(&format!("({least} bytes)")) && text.contains("raise the budget"), "{text}");
    // a context that the budget was not made for
    assert!(message(&PLAN.replace("\"n_ctx\": 4096", "\"n_ctx\": 134217728")).starts_with("budget_bytes: "));
}

#[test]
fn absurd_nesting() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for n in [100, 1000, 100_000, 1_000_000] {
            message(&open.repeat(n));
            let text = format!("{}1{}", open.repeat(n), close.repeat(n));
            message(&text);
            let inside = PLAN.replace("\"sink\": 1", &format!("\"sink\": {text}"));
            assert!(message(&inside).contains("sink"), "{}", message(&inside));
            assert!(message(&inside).len() < 400);
        }
    }
}

/// What makes another model of a model.
type Change<'a> = &'a dyn Fn(&mut ModelShape);

#[test]
fn another_model() {
    let plan = Plan::parse(PLAN).unwrap();
    plan.check_model(&plan.model).unwrap();
    let mut model = plan.model.clone();
    (model.name, model.n_ctx_train) = ("fine-tuned".to_string(), 1);
    plan.check_model(&model).unwrap();

    let refused = |change: Change| {
        let mut model = plan.model.clone();
        change(&mut model);
        plan.check_model(&model).unwrap_err().to_string()
    };
    let start = "the plan is for another model: ";
    let end = "; make a plan with 'pmkvq plan --model'";
    let cases: [(&str, Change); 6] = [
        ("the architecture is 'llama' in the plan and 'qwen3' in the model", &|m| m.arch = "qwen3".to_string()),
        ("the number of layers with a progressive cache is 2 in the plan and 1 in the model", &|m| {
            m.layers.truncate(1)
        }),
        ("model.layers[1].il is 2 in the plan and 1 in the model", &|m| m.layers[1].il = 1),
        ("model.layers[0].n_head_kv is 1 in the plan and 8 in the model", &|m| m.layers[0].n_head_kv = 8),
        ("model.layers[1].head_dim_k is 128 in the plan and 64 in the model", &|m| m.layers[1].head_dim_k = 64),
        ("model.layers[1].head_dim_v is 128 in the plan and 64 in the model", &|m| m.layers[1].head_dim_v = 64),
    ];
    for (what, change) in cases {
        assert_eq!(refused(change), format!("{start}{what}{end}"));
    }
}

#[test]
fn shape_files() {
    let shape = |text: &str| pmkvq::plan::shape_from_json(text);
    let good = r#"{"arch": "llama", "n_ctx_train": 0, "layers": [{"il": 7, "n_head_kv": 2, "head_dim_k": 96, "head_dim_v": 64}]}"#;
    let found = shape(good).unwrap();
    assert_eq!((found.name.as_str(), found.layers[0].il, found.layers[0].head_dim_k), ("", 7, 96));
    let cases = [
        ("\"arch\": \"llama\", ", "", "arch is missing"),
        ("\"il\": 7", "\"il\": -7", "layers[0].il: -7 is negative"),
        ("\"il\": 7", "\"il\": 7, \"heads\": 1", "layers[0].heads is not a field"),
        ("96", "96.5", "layers[0].head_dim_k: 96.5 is not a whole number"),
        ("}]}", "}]", "not valid JSON"),
    ];
    for (from, to, expected) in cases {
        let found = shape(&good.replace(from, to)).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{found}");
    }
    assert_eq!(shape("[]").unwrap_err().to_string(), "the file: a list is not an object");
}
