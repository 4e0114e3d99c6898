//! `pmkvq profile` on the shipped model: what it writes, what an interruption leaves, and mistakes.

use super::common::*;
use super::models::{gemma3n, llama, mimo2, Heads};
use pmkvq::ffi::{BatchToken, Cache, Context, ContextOptions, Model, PlainType};
use pmkvq::geometry::Width;
use pmkvq::plan::Plan;
use pmkvq::profile::{collect, profile, KeyScales, Leftover, Settings, TransformWanted, Waiting};
use pmkvq::sensitivity::SensitivityFile;
use pmkvq::transform::{RopeOrder, TransformsFile};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn calibration() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/calibration.txt")
}

/// A run over two stretches of 640 tokens.
fn command(output: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pmkvq"));
    command.args(["profile", "--stretches", "2", "--length", "640", "-t", "1", "-m"]);
    command.arg(model_path()).arg("-f").arg(calibration()).arg("-o").arg(output).args(args);
    command
}

fn good(output: &Path, args: &[&str]) -> Output {
    let ran = command(output, args).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran
}

fn message(ran: &Output) -> String {
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stdout.is_empty());
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

fn values(path: &Path) -> SensitivityFile {
    SensitivityFile::load(path).unwrap()
}

#[test]
fn narrower_costs_more_and_runs_agree() {
    let (a, b, c) = (Temporary::new("json"), Temporary::new("json"), Temporary::new("json"));
    let ran = good(&a.0, &["--widths", "4,2"]);
    let table = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert_eq!(table.lines().count(), 1 + 6 * 2 * 2, "{table}");
    good(&b.0, &["--widths", "4,2"]);
    assert_eq!(std::fs::read(&a.0).unwrap(), std::fs::read(&b.0).unwrap(), "the same inputs, another result");
    let file = values(&a.0);
    let shape = pmkvq::ffi::describe_model(&model_path()).unwrap().shape;
    assert_eq!(file.model.as_ref(), Some(&shape));
    let s = file.for_model(&shape).unwrap();
    assert_eq!(s.widths, [Width::B16, Width::B4, Width::B2]);
    for l in &s.layers {
        for v in [&l.k, &l.v] {
            assert!(v[0] == 0.0 && v[1] > 0.0 && v[2] > 3.0 * v[1], "layer {}: {v:?}", l.il);
        }
    }
    // one stretch after the other is the same text with the same cache. Not under PMKVQ_FORCE_DEVICE_PATH, where sums have other
    // parts then (docs/profile.md has what that does): it fails there
    good(&c.0, &["--widths", "4,2", "--parallel", "1"]);
    for (x, y) in s.layers.iter().zip(&values(&c.0).values.layers) {
        for (x, y) in x.k.iter().chain(&x.v).zip(y.k.iter().chain(&y.v)) {
            assert!((x - y).abs() <= 0.02 * x + 1e-7, "side by side {x}, alone {y}");
        }
    }
    // every key of the file is used: a plan can be made from it
    let plan =
        plan(&model_path(), 4096, &["--sensitivity", a.0.to_str().unwrap(), "--budget", "4M", "--widths", "16,4,2"]);
    assert!(Plan::load(&plan.0).unwrap().sensitivities.is_some());
    // measured for one kind of cache, planned for another: a remark
    let remark = |args: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_pmkvq"))
            .args(["plan", "--ctx", "4096", "--budget", "4M", "--widths", "16,4,2", "-m"])
            .arg(model_path())
            .arg("--sensitivity")
            .arg(&a.0)
            .args(args)
            .output()
            .unwrap();
        assert!(ran.status.success());
        String::from_utf8_lossy(&ran.stderr)
            .contains("the sensitivities were measured with range fit/fit, and the plan has ")
    };
    assert!(!remark(&[]) && remark(&["--range", "shift"]) && remark(&["--transforms", "hadamard"]));
}

#[test]
fn an_interrupted_run_goes_on() {
    let (whole, cut) = (Temporary::new("json"), Temporary::new("json"));
    let partial = Leftover::path_for(&cut.0);
    good(&whole.0, &["--widths", "2"]);
    let mut child = command(&cut.0, &["--widths", "2"]).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(300);
    let lines = || std::fs::read_to_string(&partial).map_or(0, |t| t.lines().count());
    while lines() < 4 {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "no passes were kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    // two at once would cut off each other's lines
    for args in [&["--widths", "2"][..], &["--widths", "2", "--restart"]] {
        let said = message(&command(&cut.0, args).output().unwrap());
        assert!(said.contains("another run is writing it"), "{said}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!cut.0.exists(), "half a result");
    // cut off in the middle of a line
    let text = std::fs::read(&partial).unwrap();
    std::fs::write(&partial, &text[..text.len() - 7]).unwrap();
    // other arguments are not mixed with what is there
    let said = message(&command(&cut.0, &["--widths", "4"]).output().unwrap());
    assert!(said.contains("left by a run with other arguments") && said.contains("--restart"), "{said}");
    let ran = good(&cut.0, &["--widths", "2"]);
    assert!(String::from_utf8_lossy(&ran.stderr).contains("going on with"));
    assert_eq!(std::fs::read(&whole.0).unwrap(), std::fs::read(&cut.0).unwrap());
    assert!(!partial.exists());
    // what no profile wrote stays, until it is thrown away
    std::fs::write(&partial, "precious\n").unwrap();
    let said = message(&command(&cut.0, &["--widths", "2"]).output().unwrap());
    assert!(said.contains("not what a profile leaves behind"), "{said}");
    assert_eq!(std::fs::read_to_string(&partial).unwrap(), "precious\n");
    good(&cut.0, &["--widths", "2", "--restart"]);
}

#[test]
fn transforms_make_narrow_caches_better() {
    let (t, plain, with) = (Temporary::new("json"), Temporary::new("json"), Temporary::new("json"));
    good(&plain.0, &["--widths", "2", "--range", "shift"]);
    good(&with.0, &["--widths", "2", "--make-transforms", t.0.to_str().unwrap()]);
    let sum = |p: &Path| values(p).values.layers.iter().map(|l| l.k[1] + l.v[1]).sum::<f64>();
    let (before, after) = (sum(&plain.0), sum(&with.0));
    println!("summed KL divergence at 2 bits: {before:.4} without, {after:.4} with transforms and a fitted range");
    assert!(after < 0.5 * before);
    let shape = pmkvq::ffi::describe_model(&model_path()).unwrap();
    assert_eq!(shape.rope_order, Some(RopeOrder::Interleaved));
    let file = TransformsFile::load(&t.0, &shape.shape, None).unwrap();
    assert!(file.layers.iter().all(|l| l.k.center.is_some() && l.k.scales.is_some() && l.k.hadamard && l.v.hadamard));
    // the paper's: both dimensions of a rotary pair have one factor
    let smooth = Command::new(env!("CARGO_BIN_EXE_pmkvq"))
        .args(["profile", "--stretches", "2", "--length", "640", "-t", "1", "--key-scales", "--center", "none"])
        .args(["--hadamard", "none", "-m"])
        .arg(model_path())
        .arg("-f")
        .arg(calibration())
        .arg("--make-transforms")
        .arg(&t.0)
        .output()
        .unwrap();
    assert!(smooth.status.success(), "{}", String::from_utf8_lossy(&smooth.stderr));
    let file = TransformsFile::load(&t.0, &shape.shape, None).unwrap();
    let scales: Vec<&Vec<f32>> = file.layers.iter().filter_map(|l| l.k.scales.as_ref()).collect();
    assert!(!scales.is_empty() && scales.iter().all(|s| s.chunks(2).all(|p| p[0] == p[1])));
}

#[test]
fn one_command_from_model_and_text_to_a_plan() {
    let args =
        ["--calibrate", calibration().to_str().unwrap(), "--calibrate-tokens", "1280", "-t", "1", "--budget", "2M"]
            .map(String::from);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let file = plan(&model_path(), 2048, &args);
    let plan = Plan::load(&file.0).unwrap();
    assert_eq!(plan.sensitivities.as_ref().unwrap().widths, Width::ALL);
    assert!(plan.transforms.is_some() && plan.budget_bytes == 2 << 20);
}

#[test]
fn mistakes() {
    let out = Temporary::new("json");
    std::fs::write(&out.0, "what was there").unwrap();
    let empty = Temporary::new("txt");
    std::fs::write(&empty.0, "too short").unwrap();
    let latin = Temporary::new("txt");
    std::fs::write(&latin.0, b"caf\xe9").unwrap();
    let other = Temporary::new("json");
    std::fs::write(&other.0, "{\"pmkvq_transforms\": 1, \"source\": \"\", \"method\": \"\", \"layers\": []}").unwrap();
    let cases: [(&[&str], &str); 8] = [
        (&["-f", empty.0.to_str().unwrap()], "the text has 9 tokens; 2 stretches of 640 need 1280: give a longer text"),
        (&["-f", latin.0.to_str().unwrap()], "not text (UTF-8)"),
        (&["-f", "no/such/file"], "no/such/file: "),
        (&["--length", "300"], "stretches of 300 tokens lie almost whole in the 16-bit window: take at least 384"),
        (&["--length", "16000000", "--rope-stretch", "1024"], "go beyond the largest position, 2147483647"),
        (&["--widths", "16"], "name at least one narrower width"),
        (&["--stretches", "3", "--parallel", "2"], "--stretches 3 is not a multiple of --parallel 2"),
        (&["--transforms", other.0.to_str().unwrap()], "layer 0 of the model is missing"),
    ];
    for (args, expected) in cases {
        // what is given twice is a usage error of the tool, so these replace the defaults
        let mut command = Command::new(env!("CARGO_BIN_EXE_pmkvq"));
        command.args(["profile", "-t", "1", "-m"]).arg(model_path()).arg("-o").arg(&out.0);
        let defaults = [("--stretches", "2"), ("--length", "640")];
        for (name, value) in defaults.iter().filter(|(name, _)| !args.contains(name)) {
            command.args([name, value]);
        }
        if !args.contains(&"-f") {
            command.arg("-f").arg(calibration());
        }
        let said = message(&command.args(args).output().unwrap());
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    assert_eq!(std::fs::read_to_string(&out.0).unwrap(), "what was there");
    // parts of transforms that nobody makes
    let ran = command(&out.0, &["--key-scales"]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(2) && said.contains("--make-transforms <FILE>"), "{said}");
}

struct Quiet;

impl Waiting for Quiet {
    fn passes(&mut self, _: usize, _: usize, _: Duration) {}
}

/// Grouped and multi-head attention, layers that read another layer's cache, K and V of different dimensions with sinks.
#[test]
fn other_architectures() {
    let heads = Heads { n_head: 4, n_head_kv: 2, head_dim: 96 };
    for (name, file) in [("llama", llama(heads)), ("mimo2", mimo2(heads, 64)), ("gemma3n", gemma3n())] {
        let model = Model::load(&file.0).unwrap();
        let found = pmkvq::ffi::describe_model(&file.0).unwrap();
        let mut rng = Rng::new(7);
        let tokens: Vec<i32> = (0..800).map(|_| rng.below(model.n_vocab()) as i32).collect();
        // centers don't go with sinks
        let center = name != "mimo2";
        let mut settings = Settings {
            parallel: 2,
            length: 400,
            stretches: 2,
            step: 32,
            rope_stretch: 1,
            widths: vec![Width::B2],
            sink: 1,
            window: 128,
            group: 128,
            ranges: Default::default(),
            transforms: None,
            threads: 1,
        };
        let wanted = TransformWanted {
            center_k: center,
            center_v: center,
            scales: KeyScales::Balance,
            hadamard_k: true,
            hadamard_v: true,
            width: Width::B4,
            order: found.rope_order,
        };
        settings.transforms = Some(collect(&model, &found.shape, &tokens, &settings, &wanted).unwrap());
        let output = Temporary::new("json");
        let identity = pmkvq::profile::identity(&file.0, &found.shape, &tokens, &settings);
        let mut leftover = Leftover::open(&output.0, &identity, false).unwrap();
        let result = profile(&model, &found.shape, &tokens, &settings, &mut leftover, &mut Quiet).unwrap();
        leftover.remove();
        let means = result.means();
        assert_eq!(means.len(), 2 * found.shape.layers.len(), "{name}");
        assert!(means.iter().all(|(_, m)| m.kl.is_finite() && m.kl > 0.0), "{name}: {means:?}");
    }
}

#[test]
fn quantized_weights() {
    let (model, out) = (Temporary::new("gguf"), Temporary::new("json"));
    let made = Command::new(env!("CARGO_BIN_EXE_llama-quantize"))
        .arg(model_path())
        .arg(&model.0)
        .arg("Q8_0")
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let ran = Command::new(env!("CARGO_BIN_EXE_pmkvq"))
        .args(["profile", "--stretches", "1", "--length", "512", "-t", "1", "--widths", "2", "-m"])
        .arg(&model.0)
        .arg("-f")
        .arg(calibration())
        .arg("-o")
        .arg(&out.0)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(values(&out.0).values.layers.iter().all(|l| l.k[1] > 0.0 && l.v[1] > 0.0));
}

/// Positions that jump forward are allowed if asked for, and mean what they say.
#[test]
fn positions_can_be_stretched() {
    let model = shipped();
    let tokens = text(&model, 0, 96);
    let batch = |step: i32| -> Vec<BatchToken> {
        tokens.iter().zip(0..).map(|(&token, i)| BatchToken { token, pos: step * i, seq: 0 }).collect()
    };
    let stretched = |step| {
        let options = ContextOptions { position_gaps: true, observer: None };
        let mut ctx = Context::with(&model, &Cache::Plain(PlainType::F32), &sizes(1024, 1, 512), options).unwrap();
        ctx.decode_batch(&batch(step)).unwrap();
        (log_probs(&ctx, tokens.len()), ctx.pos_max(0))
    };
    let mut plain = oracle(&model, &sizes(1024, 1, 512));
    assert!(plain.decode_batch(&batch(4)).is_err(), "gaps are an error unless asked for");
    plain.clear();
    plain.decode_batch(&batch(1)).unwrap();
    let (once, last) = stretched(1);
    assert_eq!((last, &once), (95, &log_probs(&plain, tokens.len())));
    let (four, last) = stretched(4);
    assert_eq!(last, 4 * 95);
    let kl = mean(&divergences(&once, &four, model.n_vocab()));
    assert!(kl > 1e-3, "stretched positions change nothing: {kl}");
}
