//! Mistakes: each exits non-zero with one message that names the flag or the field, and prints nothing else.

use super::tool::{Tool, SENSITIVITY, SHAPE};

#[test]
fn flags_that_make_no_sense() {
    let tool = Tool::new("bad-flags");
    let uniform = "plan --shape shape.json --ctx 4096 --uniform 4";
    let solve = "plan --shape shape.json --ctx 4096 --sensitivity s.json";
    let cases = [
        ("", "Usage: pmkvq"),
        ("plam", "unrecognized subcommand 'plam'"),
        ("plan", "--ctx <N>"),
        ("plan --ctx 4096 --uniform 4", "<--model <FILE>|--shape <FILE>>"),
        ("plan --shape shape.json --uniform 4", "--ctx <N>"),
        ("plan --shape shape.json --ctx 4096", "--sensitivity <FILE>"),
        ("plan --shape shape.json --model m.gguf --ctx 4096 --uniform 4", "cannot be used with"),
        ("check plan.json", "<--model <FILE>|--shape <FILE>>"),
        ("check --shape shape.json", "<PLAN>"),
        ("show", "<PLAN>"),
        ("show plan.json --ctx 0", "invalid value '0' for '--ctx <N>'"),
        (
            "show plan.json --ctx 134217729",
            "invalid value '134217729' for '--ctx <N>': 134217729 is not in 1..=134217728",
        ),
    ];
    let more = [
        (uniform, "--sensitivity s.json", "'--uniform <WIDTH>' cannot be used with '--sensitivity <FILE>'"),
        (solve, "", "--budget <SIZE>"),
        (solve, "--budget 0", "invalid value '0' for '--budget <SIZE>': '0' is no bytes at all"),
        (solve, "--budget -5", "invalid value '-5' for '--budget <SIZE>': '-5' is negative; a size must be above zero"),
        (solve, "--budget -5GiB", "for '--budget <SIZE>': '-5GiB' is negative"),
        (
            solve,
            "--budget lots",
            "for '--budget <SIZE>': 'lots' is not a size; write bytes, or a number and K, M, G, T",
        ),
        (solve, "--budget 2XB", "for '--budget <SIZE>': '2XB': 'XB' is not a unit"),
        (solve, "--budget 99999T", "for '--budget <SIZE>': '99999T' is more than 1 PiB"),
        (solve, "--budget NaN", "for '--budget <SIZE>': 'NaN' is not a size"),
        (uniform, "--ctx 5", "--ctx"),
        (uniform, "--parallel 0", "invalid value '0' for '--parallel <N>': 0 is not in 1..=256"),
        (uniform, "--parallel 257", "for '--parallel <N>'"),
        (uniform, "--window 127", "invalid value '127' for '--window <N>': 127 is not in 128..=1048576"),
        (uniform, "--sink 1025", "invalid value '1025' for '--sink <N>'"),
        (uniform, "--sink -1", "invalid value '-1' for '--sink <N>'"),
        (uniform, "--group 24", "invalid value '24' for '--group <N>': expected a multiple of 16 from 16 to 128"),
        (uniform, "--group 0", "invalid value '0' for '--group <N>'"),
        (uniform, "--group 256", "invalid value '256' for '--group <N>'"),
        (
            uniform,
            "--rule page",
            "invalid value 'page' for '--rule <RULE>': 'page' is not a rule: expected 'block' or 'layer'",
        ),
        (uniform, "--kv both", "invalid value 'both' for '--kv <KV>'"),
        (
            solve,
            "--budget 1G --widths 8,3",
            "invalid value '3' for '--widths <LIST>': not a width: expected 16, 8, 4 or 2",
        ),
        (solve, "--budget 1G --widths=", "for '--widths <LIST>'"),
        (solve, "--budget 1G --widths 8,-4", "for '--widths <LIST>': not a width"),
        (uniform, "--fast", "unexpected argument '--fast'"),
    ];
    let uniforms = ["3", "0", "-4", "32", "four", "4.0"];
    let ctxs = ["0", "-1", "134217729", "99999999999999999999", "many", "4096.5"];
    let all = cases
        .iter()
        .map(|(args, expected)| (args.to_string(), expected.to_string()))
        .chain(more.iter().map(|(base, args, expected)| (format!("{base} {args}"), expected.to_string())))
        .chain(uniforms.iter().map(|w| {
            let args = format!("plan --shape shape.json --ctx 4096 --uniform {w}");
            (args, format!("invalid value '{w}' for '--uniform <WIDTH>': not a width: expected 16, 8, 4 or 2"))
        }))
        .chain(ctxs.iter().map(|n| {
            let args = format!("plan --shape shape.json --uniform 4 --ctx {n}");
            (args, format!("invalid value '{n}' for '--ctx <N>'"))
        }));
    for (args, expected) in all {
        let ran = tool.run(&args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args}: {}", ran.err);
        assert!(ran.err.contains(&expected), "{args}: {}\n{expected}", ran.err);
        assert!(ran.err.matches("error:").count() <= 1, "{args}: {}", ran.err);
    }
}

/// Runs, expects a failure with exactly one line.
fn fails(tool: &Tool, args: &str, expected: &str) {
    let ran = tool.run(args);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{args}: {}", ran.err);
    assert!(ran.err.starts_with(&format!("pmkvq: {expected}")), "{args}: {}\n{expected}", ran.err);
    assert_eq!(ran.err.lines().count(), 1, "{args}: {}", ran.err);
}

#[test]
fn plan_files() {
    let tool = Tool::new("bad-plans");
    tool.good("plan --shape shape.json --ctx 4096 --uniform 4 -o plan.json");
    let good = tool.read("plan.json");
    std::fs::create_dir(tool.folder.join("folder")).unwrap();
    tool.file("empty.json", "");
    tool.file("half.json", &good[..good.len() / 2]);
    tool.file("version.json", &good.replace("\"pmkvq_plan\": 1", "\"pmkvq_plan\": 7"));
    tool.file("width.json", &good.replacen("\"k\":4", "\"k\":5", 1));
    tool.file("budget.json", &good.replacen("\"budget_bytes\": ", "\"budget_bytes\": 1, \"was\": ", 1));
    let cases = [
        ("none.json", "none.json: No such file or directory"),
        ("folder", "folder: is a folder, not a file"),
        ("empty.json", "empty.json: not valid JSON: the file is empty"),
        ("half.json", "half.json: not valid JSON"),
        (
            "version.json",
            "version.json: pmkvq_plan: version 7 is not known to this build: expected 1; make the plan again",
        ),
        ("width.json", "width.json: layers[0].k: 5 is not a width: expected 16, 8, 4 or 2"),
        ("budget.json", "budget.json: was is not a field that this version knows"),
        ("shape.json", "shape.json: not a plan: the field 'pmkvq_plan' is missing; plans are made with 'pmkvq plan'"),
    ];
    for (name, expected) in cases {
        fails(&tool, &format!("show {name}"), expected);
        fails(&tool, &format!("check {name} --shape shape.json"), expected);
    }
}

#[test]
fn shape_and_sensitivity_files() {
    let tool = Tool::new("bad-inputs");
    tool.file("heads.json", &SHAPE.replacen("\"n_head_kv\": 2", "\"n_head_kv\": 0", 1));
    tool.file(
        "three.json",
        &SENSITIVITY.replace(",\n  {\"il\": 3, \"k\": [0, 0.12, 0.42, 1.8], \"v\": [0, 0.07, 0.22, 0.82]}", ""),
    );
    tool.file("nan.json", &SENSITIVITY.replace("0.41", "NaN"));
    tool.file("minus.json", &SENSITIVITY.replace("0.41", "-0.41"));
    let zero = |il| format!("{{\"il\": {il}, \"k\": [0, 0.0], \"v\": [0, -0.0]}}");
    let zeros: Vec<String> = (0..4).map(zero).collect();
    let head = "\"pmkvq_sensitivity\": 1, \"source\": \"\", \"method\": \"\", \"widths\": [8, 2]";
    tool.file("zero.json", &format!("{{{head}, \"layers\": [{}]}}", zeros.join(",")));
    let with = |shape: &str, s: &str| format!("plan --shape {shape} --sensitivity {s} --ctx 4096 --budget 16M");
    tool.good(&with("shape.json", "s.json"));
    let cases = [
        (with("none.json", "s.json"), "none.json: No such file"),
        (with("heads.json", "s.json"), "heads.json: layers[0].n_head_kv: 0 is out of range: expected 1 to 1024"),
        (with("s.json", "s.json"), "s.json: pmkvq_sensitivity is not a field that this version knows"),
        (with("shape.json", "none.json"), "none.json: No such file"),
        (with("shape.json", "shape.json"), "shape.json: not a sensitivity file: "),
        (with("shape.json", "nan.json"), "nan.json: layers[2].k[2]: NaN and infinities are not allowed; expected a finite number. The measurement overflowed"),
        (with("shape.json", "minus.json"), "minus.json: layers[2].k[2]: -0.41 is negative; expected at least 0. A rise of loss that comes out below 0 is noise"),
        (with("shape.json", "zero.json"), "zero.json: every sensitivity is 0, so there is nothing to choose widths by"),
        (
            with("shape.json", "three.json"),
            "three.json: the sensitivities are of another model: the number of layers is 3 in the file and 4 in the model",
        ),
    ];
    for (args, expected) in cases {
        fails(&tool, &args, expected);
    }
}

#[test]
fn sensitivities_that_are_odd_are_remarked_on() {
    let tool = Tool::new("odd");
    let plan = |s: &str| tool.good(&format!("plan --shape shape.json --sensitivity {s} --ctx 4096 --budget 3M"));
    tool.file("zeros.json", &SENSITIVITY.replace("[0, 0.1, 0.4, 1.6]", "[0, 0, 0, 1.6]"));
    let ran = plan("zeros.json");
    let zeros =
        "pmkvq: zeros.json: 2 of 24 sensitivities below 16 bits are 0 (layer 1 K at 8 bits; layer 1 K at 4 bits): the \
                 planner narrows these sides for nothing";
    assert!(ran.err.starts_with(zeros), "{}", ran.err);
    assert_eq!(ran.err.lines().count(), 2, "{}", ran.err);
    // a dear width is passed over
    tool.file("falls.json", &SENSITIVITY.replace("[0, 1, 4, 16]", "[0, 5, 4, 16]"));
    let ran = plan("falls.json");
    let falls =
        "pmkvq: falls.json: a narrower width costs less than a wider one (layer 0 K, 4.000e0 at 4 bits and 5.000e0 \
                 at 8): the planner takes the numbers as they are and never chooses the wider one there";
    assert!(ran.err.starts_with(falls), "{}", ran.err);
    for budget in ["3M", "4M", "6M", "9M"] {
        let plan = tool.plan(&format!("--sensitivity falls.json --ctx 4096 --budget {budget}"));
        assert_ne!(plan.layers[0].k.bits(), 8, "{budget}");
    }
    // many are counted, few are named
    tool.file(
        "many.json",
        &SENSITIVITY.replace(", 0.05, 0.2, 0.8]", ", 0, 0, 0]").replace(", 0.06, 0.21, 0.81]", ", 0, 0, 0]"),
    );
    let ran = plan("many.json");
    assert!(ran.err.starts_with("pmkvq: many.json: 6 of 24 ") && ran.err.contains("; 2 more): "), "{}", ran.err);
    assert_eq!(plan("s.json").err.lines().count(), 1);
}

#[test]
fn a_hostile_pickle_is_refused_and_nothing_runs() {
    let tool = Tool::new("pickle");
    // a zip with one stored entry, whose pickle calls os.system
    let pickle = b"\x80\x02cos\nsystem\nX\x0b\0\0\0touch owned\x85R.";
    let name = b"x/data.pkl";
    let crc = !pickle.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    let mut common = [20u16, 0, 0, 0, 0].map(u16::to_le_bytes).concat();
    common.extend([crc, pickle.len() as u32, pickle.len() as u32].map(u32::to_le_bytes).concat());
    common.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
    let local = [b"PK\x03\x04".to_vec(), common.clone(), name.to_vec(), pickle.to_vec()].concat();
    let central = [b"PK\x01\x02\x14\0".to_vec(), common, vec![0; 14], name.to_vec()].concat();
    let mut file = [local.clone(), central.clone(), b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec()].concat();
    file.extend([central.len() as u32, local.len() as u32].map(u32::to_le_bytes).concat());
    file.extend([0, 0]);
    std::fs::write(tool.folder.join("evil.pt"), file).unwrap();
    for flags in ["--sensitivity evil.pt --budget 8M", "--budgets evil.pt"] {
        let args = format!("plan --shape shape.json --ctx 4096 {flags}");
        fails(&tool, &args, "evil.pt: the pickle names 'os.system' at byte 2");
        assert!(tool.run(&args).err.ends_with("refused, and nothing was executed\n"));
    }
    assert!(!tool.names().contains(&"owned".to_string()));
}

#[test]
fn budgets_below_the_least_possible() {
    let tool = Tool::new("bad-budgets");
    let least = |flags: &str| {
        let ran = tool.run(&format!("plan --shape shape.json --ctx 8192 --budget 1K {flags}"));
        assert_eq!(ran.code, 1);
        let start =
            "pmkvq: a budget of 1.00 KiB (1024 bytes) is below the least possible for this model, 8192 tokens, \
                     1 sequence(s) and these widths, ";
        let rest = ran.err.strip_prefix(start).unwrap_or_else(|| panic!("{}", ran.err)).to_string();
        assert!(rest.ends_with("raise the budget, shorten the context or allow narrower widths\n"), "{rest}");
        rest.split_once('(').unwrap().1.split_once(' ').unwrap().0.parse::<u64>().unwrap()
    };
    for flags in ["--uniform 4", "--sensitivity s.json", "--sensitivity s.json --widths 16,8 --kv tied"] {
        let least = least(flags);
        // the least that is named is enough, and a byte less is not
        tool.good(&format!("plan --shape shape.json --ctx 8192 {flags} --budget {least}"));
        let ran = tool.run(&format!("plan --shape shape.json --ctx 8192 {flags} --budget {}", least - 1));
        assert_eq!(ran.code, 1, "{flags}");
    }
}

#[test]
fn a_width_that_was_not_measured() {
    let tool = Tool::new("measured");
    let layer = |il| format!("{{\"il\": {il}, \"k\": [0.1, 0.4], \"v\": [0.1, 0.2]}}");
    let layers: Vec<String> = (0..4).map(layer).collect();
    let head = "\"pmkvq_sensitivity\": 1, \"source\": \"\", \"method\": \"\", \"widths\": [8, 4]";
    tool.file("few.json", &format!("{{{head}, \"layers\": [{}]}}", layers.join(",")));
    let args = "plan --shape shape.json --sensitivity few.json --ctx 4096 --budget 8M";
    fails(&tool, args, "the sensitivities have no values for 2 bits: leave 2 out of --widths, or measure it");
    tool.good(&format!("{args} --widths 16,8,4"));
}

#[test]
fn a_model_that_is_not_there() {
    let tool = Tool::new("bad-model");
    tool.file("text.gguf", "not a model");
    tool.file("empty.gguf", "");
    for (name, reason) in [
        ("none.gguf", "No such file"),
        ("text.gguf", "invalid magic characters: 'not '"),
        ("empty.gguf", "failed to read magic"),
    ] {
        let ran = tool.run(&format!("plan --model {name} --ctx 4096 --uniform 4"));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{}", ran.err);
        assert!(ran.err.contains(name), "{}", ran.err);
        if !cfg!(feature = "llama") {
            assert!(ran.err.contains("this build has no llama.cpp to read models with: use --shape"), "{}", ran.err);
        } else {
            assert!(ran.err.contains(reason), "{}", ran.err);
        }
    }
}

#[test]
fn a_cache_that_no_machine_holds() {
    let tool = Tool::new("absurd");
    let layer = |il| format!("{{\"il\": {il}, \"n_head_kv\": 1024, \"head_dim_k\": 4096, \"head_dim_v\": 4096}}");
    let layers: Vec<String> = (0..1024).map(layer).collect();
    tool.file(
        "shape.json",
        &format!("{{\"arch\": \"llama\", \"n_ctx_train\": 1, \"layers\": [{}]}}", layers.join(",")),
    );
    let ran = tool.run("plan --shape shape.json --ctx 134217728 --uniform 16");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("which no machine has; shorten the context (--ctx)"), "{}", ran.err);
}
