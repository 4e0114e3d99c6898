//! `pmkvq eval`: a whole report of the shipped model, and what it says to bad input.

use super::common::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder for a report, removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("pmkvq-report-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Folder(folder)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn eval(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmkvq"));
    command.args(["eval", "-m"]).arg(model()).args(["-t", "1"]).args(args);
    command.env("OMP_WAIT_POLICY", "passive").output().unwrap()
}

fn good(args: &[&str]) -> String {
    let output = eval(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn heldout() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("model/heldout.txt")).unwrap()
}

fn some_text(n: usize) -> Temporary {
    Temporary::with("txt", &heldout().as_bytes()[..n])
}

/// Tags that are closed in the right order, attributes in quotes; returns how often each tag is opened.
fn well_formed(html: &str) -> std::collections::BTreeMap<String, usize> {
    let mut open: Vec<String> = Vec::new();
    let mut count = std::collections::BTreeMap::new();
    let body = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    for part in body.split('<').skip(1) {
        let (tag, rest) = part.split_once('>').unwrap_or_else(|| panic!("an open tag: {part}"));
        assert!(!rest.contains('>') || rest.contains("sans-serif"), "a stray '>': {rest}");
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes: {tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed out of order near: {rest:.60}");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_string();
        *count.entry(name.clone()).or_insert(0) += 1;
        if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    count
}

fn needs_nothing_else(html: &str) {
    for word in ["http", "src=", "href=", "url(", "@import", "<script", "<link", "<img", "<iframe", "onload"] {
        assert!(!html.contains(word), "the page has '{word}' in it");
    }
}

fn caches(report: &Value) -> &Vec<Value> {
    report["texts"][0]["caches"].as_array().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

#[test]
fn a_report() {
    let (file, folder) = (some_text(1700), Folder::new("whole"));
    let plan = plan(1792, &["--uniform", "4", "--rule", "layer"]);
    let list = format!("f16,q8_0,static:2,uniform:2@window=256@sink=4,{}", plan.text());
    let out = good(&["-f", file.text(), "--cache", &list, "-o", folder.text()]);
    assert!(out.contains("last eighth") && out.contains("static:2"), "{out}");
    let report: Value = serde_json::from_str(&folder.read("report.json")).unwrap();
    assert_eq!(report["pmkvq_report"], 1);
    let made = &report["made"];
    assert!(made["command"].as_str().unwrap().contains("eval -m") && made["llama_commit"] == "0c1e57098");
    assert_eq!(report["model"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["texts"][0]["bytes"], 1700);
    let caches = caches(&report);
    assert_eq!(caches.len(), 5);
    for cache in caches {
        let label = &cache["label"];
        let (all, last) = (&cache["all"], &cache["last_eighth"]);
        assert_eq!(all["predictions"], 1699, "{label}");
        let parts: u64 =
            cache["intervals"].as_array().unwrap().iter().map(|i| i["predictions"].as_u64().unwrap()).sum();
        assert_eq!(parts, 1699, "{label}");
        let kl = &all["kl"];
        assert!(number(&kl["median"]) <= number(&kl["p90"]) && number(&kl["p99"]) <= number(&kl["max"]), "{label}");
        assert!((3.0..3.5).contains(&number(&all["perplexity"])), "{label}: {all}");
        assert_eq!(last["to"], 1700);
        assert_eq!(cache["curve"].as_array().unwrap().len(), 64, "{label}");
    }
    let mean = |i: usize| number(&caches[i]["all"]["kl"]["mean"]);
    assert_eq!(mean(0), 0.0);
    assert!(mean(1) > 1e-6 && mean(1) < 1e-4, "q8_0: {}", mean(1));
    assert!(mean(2) > 5.0 * mean(1) && mean(2) > mean(3), "static 2 bits: {}, progressive {}", mean(2), mean(3));
    // llama.cpp's own caches by definition, 2-bit codes with 32 bits of parameters for 128 values
    let bits = |i: usize| {
        let held = caches[i]["held"].as_array().unwrap().last().unwrap();
        number(&held["history_bits"]) / number(&held["history_values"])
    };
    assert_eq!([bits(0), bits(1), bits(2)], [16.0, 8.5, 2.25]);
    assert_eq!(number(&caches[1]["bits_all"]), 8.5);
    assert!(caches[0]["first_shrink"].is_null() && caches[2]["first_shrink"].as_u64().unwrap() >= 256);
    assert!(caches[3]["what"].as_str().unwrap().contains("sink 4, window 256"), "{}", caches[3]["what"]);

    let html = folder.read("report.html");
    needs_nothing_else(&html);
    let tags = well_formed(&html);
    // KL, perplexity, ratio, bytes; a map for each plan
    assert_eq!(tags["figure"], 4 + 3);
    for cache in caches {
        let label = cache["label"].as_str().unwrap();
        let drawn = html.matches(&format!("<title>{label}</title>")).count();
        // the reference has no divergence to be drawn
        let expected = if label == "f16" { 2 } else { 4 };
        assert_eq!(drawn, expected, "{label}");
    }
    assert!(html.contains(&format!("{} eval", made["command"].as_str().unwrap().split(' ').next().unwrap())));
    // nothing is left beside
    let mut names: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["report.html", "report.json"]);
}

/// Two caches in memory at a time give what all together give.
#[test]
fn in_pairs() {
    let file = some_text(700);
    let run = |more: &[&str]| {
        let json = Temporary::new("json");
        let args = ["-f", file.text(), "--cache", "f16,static:2,static:4", "--ctx", "512", "--json", json.text()];
        good(&[&args[..], more].concat());
        let mut report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
        report["texts"][0]["caches"].as_array_mut().unwrap().iter_mut().for_each(|c| c["seconds"] = Value::Null);
        // a longer text is cut
        assert_eq!((&report["texts"][0]["tokens"], &report["texts"][0]["bytes"]), (&512.into(), &700.into()));
        report["texts"].clone()
    };
    assert_eq!(run(&[]), run(&["--pairs"]));
}

#[test]
fn answers_are_counted() {
    // 26 bytes of assignments, then enough text, then questions
    let filler = &heldout()[..600];
    let body = format!("@KQZM=4821\n@WXYZ=17\n{filler}\n?KQZM=4821\n?WXYZ=17\n");
    let at = |what: &str| body.find(what).unwrap();
    let question = |answer: &str, start: usize, key: usize| serde_json::json!({ "answer_start": start, "answer": answer, "key_at": key, "kind": "recall" });
    let questions = [question("4821", at("?KQZM=") + 6, at("KQZM")), question("17", at("?WXYZ=") + 6, at("WXYZ"))];
    let line = serde_json::json!({ "text": body, "questions": questions }).to_string();
    let file = Temporary::with("jsonl", format!("{line}\n{line}\n").as_bytes());
    let json = Temporary::new("json");
    good(&["--questions", file.text(), "--documents", "2", "--cache", "f16,static:4", "--json", json.text()]);
    let report: Value = serde_json::from_slice(&std::fs::read(&json.0).unwrap()).unwrap();
    assert_eq!(report["texts"][0]["passages"], 2);
    for cache in caches(&report) {
        let answers = &cache["all"]["answers"]["recall"];
        assert_eq!((&answers["all"], &answers["right"]), (&4.into(), &4.into()), "{}", cache["label"]);
        assert_eq!((&answers["far_all"], &answers["lost"]), (&0.into(), &0.into()));
    }
}

#[test]
fn presets_answer_from_the_data() {
    let file = some_text(1500);
    let sensitivity = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/sensitivity.json");
    let one = format!("one={}", sensitivity.display());
    let two = format!("two={}", sensitivity.display());
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("progressive", &[], &["first shrink after", "bit for bit", "progressive, "]),
        (
            "allocation",
            &["--sensitivity", &one, "--bits", "9"],
            &["rank correlation with depth over 6 layers", "rule 'layer'"],
        ),
        ("cumulative", &[], &["static:2, attention: slope", "static:2, output: slope"]),
        (
            "interpolation",
            &["--sensitivity", &one, "--sensitivity", &two, "--bits", "9"],
            &["None is shown to be better than one"],
        ),
        ("transfer", &["--sensitivity", &one, "--sensitivity", &two, "--bits", "9"], &["no sensitivities are called"]),
    ];
    for (name, more, words) in cases {
        let folder = Folder::new(name);
        let args = ["-f", file.text(), "--step", "64", "--preset", name, "-o", folder.text()];
        let out = good(&[&args[..], more].concat());
        let html = folder.read("report.html");
        needs_nothing_else(&html);
        well_formed(&html);
        let report: Value = serde_json::from_str(&folder.read("report.json")).unwrap();
        let finding = &report["finding"];
        assert_eq!(finding["preset"], name);
        let answer = finding["answer"].as_array().unwrap().iter().map(|a| a.as_str().unwrap());
        let answer = answer.collect::<Vec<_>>().join("\n");
        for word in words {
            assert!(answer.contains(word), "{name}: '{word}' is not in: {answer}");
        }
        assert!(out.contains(&answer));
        match name {
            // the whole text and its intervals, for three widths
            "progressive" => assert_eq!(finding["comparisons"].as_array().unwrap().len(), 3 * 3),
            "allocation" => {
                assert_eq!(finding["correlations"].as_array().unwrap().len(), 6);
                assert!(html.contains("Sensitivity by layer: one"));
            }
            "cumulative" => {
                let attention = finding["attention"].as_array().unwrap();
                let of = |cache: &str| attention.iter().filter(|a| a["cache"] == cache).collect::<Vec<_>>();
                assert!(of("uniform:16").iter().all(|a| number(&a["tv"]) == 0.0));
                assert_eq!(of("static:2").len(), 6);
                let tv = |cache: &str| of(cache).iter().map(|a| number(&a["tv"])).sum::<f64>() / 6.0;
                assert!(tv("static:2") > tv("static:4") && tv("static:4") > tv("static:8"), "{attention:?}");
                assert!(html.contains("Does the attention&#39;s") || html.contains("Does the attention's"));
            }
            _ => {}
        }
    }
}

/// As `pmkvq plan` does.
#[test]
fn sensitivities_of_another_kind_of_cache_are_remarked_on() {
    let file = some_text(600);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("model");
    let (sensitivity, transforms) = (folder.join("sensitivity.json"), folder.join("transforms.json"));
    let labelled = format!("mine={}", sensitivity.display());
    let args = ["-f", file.text(), "--cache", "f16", "--sensitivity", &labelled, "--bits", "16"];
    let said = |more: &[&str]| text(&eval(&[&args[..], more].concat()).stderr);
    assert!(said(&[]).contains("mine: the sensitivities were measured with"), "{}", said(&[]));
    let same = said(&["--transforms", transforms.to_str().unwrap()]);
    assert!(!same.contains("were measured with"), "{same}");
}

/// Fails with one line that holds `words`, before anything is written.
fn fails(args: &[&str], words: &[&str]) {
    let output = eval(args);
    let said = text(&output.stderr);
    assert!(!output.status.success() && output.status.code().is_some(), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?}: '{word}' is not in: {said}");
    }
    assert!(!said.contains("panicked") && output.stdout.is_empty(), "{args:?}: {said}");
}

#[test]
fn bad_input() {
    let (long, short, empty) = (some_text(600), some_text(200), Temporary::with("txt", b""));
    let binary = Temporary::with("txt", b"\xff\xfe\x00");
    let ok = long.text();
    let folder = Folder::new("bad");
    let plan = plan(1024, &["--uniform", "4"]);
    let broken = std::fs::read_to_string(&plan.0).unwrap().replacen("\"k\":4", "\"k\":5", 1);
    let broken = Temporary::with("json", broken.as_bytes());
    let other = std::fs::read_to_string(&plan.0).unwrap().replacen("\"n_head_kv\":1", "\"n_head_kv\":2", 1);
    let other = Temporary::with("json", other.as_bytes());
    fails(&["-f", short.text()], &["200 tokens, too short: at least 272"]);
    fails(&["-f", empty.text()], &["0 tokens, too short"]);
    fails(&["-f", binary.text()], &["not text (UTF-8)"]);
    fails(&["-f", "/nowhere/text.txt"], &["/nowhere/text.txt: No such file"]);
    fails(&["-f", ok, "--ctx", "100"], &["--ctx 100: too short"]);
    fails(&["-f", ok, "--chunk", "512"], &["600 tokens, too short: at least 1024", "two chunks"]);
    fails(&["-f", ok, "--cache", "q3"], &["--cache q3: neither a plan file nor one of f16"]);
    fails(&["-f", ok, "--cache", "static:5"], &["'5' is not a width"]);
    fails(&["-f", ok, "--cache", "static:4@colour=1"], &["'@colour' is not known"]);
    fails(&["-f", ok, "--cache", "static:4@window=5"], &["@window: '5' is not a number from 128"]);
    fails(&["-f", ok, "--cache", "static:4@rule=x"], &["'x' is not a rule"]);
    fails(&["-f", ok, "--cache", "static:4@bits=0"], &["@bits: '0'"]);
    fails(&["-f", ok, "--cache", broken.text()], &["layers[0].k: 5 is not a width"]);
    fails(&["-f", ok, "--cache", other.text()], &["n_head_kv"]);
    fails(&["-f", ok, "--preset", "allocation"], &["needs at least 1 --sensitivity"]);
    fails(&["-f", ok, "--preset", "what"], &["invalid value 'what' for '--preset <PRESET>'"]);
    fails(&["-f", ok, "--sensitivity", "/nowhere/s.json"], &["/nowhere/s.json: No such file"]);
    fails(&["-f", ok, "--bits", "-1"], &["--bits"]);
    fails(&["-f", ok, "-o", ok], &["--output", "File exists"]);
    fails(&["--cache", "f16"], &["--file <FILE>"]);
    let sensitivity = concat!(env!("CARGO_MANIFEST_DIR"), "/model/sensitivity.json");
    fails(&["-f", ok, "--sensitivity", sensitivity, "--bits", "0.5"], &["below the least possible", "--bits"]);
    fails(
        &["-f", ok, "--sensitivity", sensitivity, "--sensitivity", sensitivity],
        &["two files are called 'sensitivity'"],
    );
    let question = |start: i64, answer: &str, key: i64| {
        let line = serde_json::json!({
            "text": &heldout()[..600],
            "questions": [{ "answer_start": start, "answer": answer, "key_at": key, "kind": "recall" }],
        });
        Temporary::with("jsonl", line.to_string().as_bytes())
    };
    let there = &heldout()[500..503].to_string();
    let cases = [
        (question(601, "a", 0), "questions[0]: answer_start: 601 lies beyond the 600 bytes"),
        (question(500, "~~~", 0), "questions[0]: answer_start: '~~~' does not stand in the text at byte 500"),
        (question(500, there, 500), "questions[0]: key_at: 500 is not before the answer"),
        (question(500, "", 0), "questions[0]: answer: is empty"),
        (question(-1, "a", 0), "line 1: invalid value"),
    ];
    for (file, words) in &cases {
        fails(&["--questions", file.text()], &[words, "line 1"]);
    }
    let fine = question(500, there, 10);
    fails(&["--questions", fine.text(), "--documents", "3"], &["has 1 document(s), --documents asks for 3"]);
    fails(&["-f", short.text(), "-o", folder.text()], &["too short"]);
    assert!(!folder.0.join("report.json").exists() && !folder.0.join("report.html").exists());
}
