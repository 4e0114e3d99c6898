//! `pmkvq demo`: a plan for the shipped model, and what it is worth against other caches.

use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::candidate::Candidate;
use super::model::{ModelArgs, Shape};
use super::output::print;
use super::plan::{make, transforms, Source, Wanted};
use super::progress::Progress;
use crate::bytes::human;
use crate::eval::{mean_bits, score, values_per_token, Document, Held, Interval, Settings};
use crate::ffi::{Cache, Model};
use crate::geometry::Width;
use crate::plan::{write_beside, Kv};
use crate::report::lengths;
use crate::sensitivity::SensitivityFile;

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder with the shipped model and its texts
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/model"))]
    pub model_dir: PathBuf,
    /// Threads
    #[arg(short, long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub threads: u32,
    /// Tokens decoded at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub step: u32,
    /// Score q4_0 to the end as well (a minute more)
    #[arg(long)]
    pub full: bool,
}

const N_CTX: u32 = 16384;

/// Where the pass with llama.cpp's q4_0 stops, tokens.
const QUANTIZED_UNTIL: usize = 12288;

pub fn run(args: &Args) -> Result<(), String> {
    let path = args.model_dir.join("pmkvq-tiny.gguf");
    let args_model = ModelArgs { model: Some(path.clone()), shape: None };
    let shape = args_model.read()?;
    let f16_per_token = 2 * values_per_token(&shape.shape);
    // 3 of 16 bits, everything counted
    let budget = f16_per_token * u64::from(N_CTX) * 3 / 16;
    let file = args.model_dir.join("sensitivity.json");
    let sensitivities = SensitivityFile::load(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let source = Source::Solve { file: &sensitivities, budget, kv: Kv::Apart, widths: &Width::ALL };
    // steps are small, so the attention's scratch is too: plan for the real one
    let measured = args.model_dir.join("transforms.json").display().to_string();
    let wanted = Wanted { transforms: transforms(&measured, &shape)?, ..Wanted::new(N_CTX) };
    let plan = make(&shape, &wanted, source)?;
    let plan_path = std::env::temp_dir().join(format!("pmkvq-demo-{}.json", std::process::id()));
    write_beside(&plan_path, plan.to_json().as_bytes()).map_err(|e| format!("{}: {e}", plan_path.display()))?;
    let result = compare(args, &path, &shape, &plan_path, budget);
    // it may be gone already; there is nobody to tell
    let _ = std::fs::remove_file(&plan_path);
    result
}

/// What a cache held at the end of an interval.
fn held(cache: &Cache, interval: &Interval, values_per_token: u64) -> Held {
    match (cache, &interval.held) {
        (Cache::Plain(of), _) => Held::of_plain(interval.end, *of, values_per_token, N_CTX),
        (Cache::Plan(_), described) => {
            Held::of_plan(interval.end, described.as_ref().unwrap_or(&serde_json::Value::Null))
        }
    }
}

/// Mean bits of the stored values of each layer, "K/V".
fn widths(held: &Held) -> String {
    let bits = |tokens| mean_bits(tokens).unwrap_or(0.0);
    held.layers.iter().map(|l| format!("{:.0}/{:.0}", bits(&l.k), bits(&l.v))).collect::<Vec<_>>().join(" ")
}

fn compare(args: &Args, path: &Path, shape: &Shape, plan: &Path, budget: u64) -> Result<(), String> {
    let f16_per_token = 2 * values_per_token(&shape.shape);
    let document = Document::load(&args.model_dir.join("demo.questions.json"))?.swap_remove(0);
    let model = Model::load(path)?;
    let tokens = model.tokenize(&document.text)?;
    let f16 = human(f16_per_token * u64::from(N_CTX));
    print(&format!("model   {} ({} tokens of text, context {N_CTX})\n", path.display(), tokens.len()))?;
    print(&format!("budget  {} = 3 bits per value, all counted; 16 bits take {f16}\n\n", human(budget)))?;
    print(&format!(
        "scored in steps of {} tokens; perplexity and answers are of the interval that ends at the length\n\n",
        args.step
    ))?;
    let settings =
        Settings { n_ctx: N_CTX, step: args.step as usize, threads: args.threads, lengths: lengths(tokens.len()) };
    let plan_name = plan.display().to_string();
    // llama.cpp's quantized attention is the slowest by far: it comes last, and stops before the end unless asked to go on
    let names = ["f16", "static:2@range=shift", "static:4@range=shift", plan_name.as_str(), "q4_0"];
    print(&format!(
        "{:>9} {:>7} {:>8} {:>7} {:>9} {:>9} {:>10} {:>10}  bits of K/V by layer\n",
        "cache", "length", "ppl", "recall", "reasoning", "KL", "bytes", "f16 bytes"
    ))?;
    let mut reference: Option<Vec<f32>> = None;
    for name in names {
        let label = if name == plan_name { "plan" } else { name.trim_end_matches("@range=shift") };
        let candidate = Candidate::parse(name, shape, &Wanted::new(N_CTX))?;
        let mut watch = Progress::new(label, tokens.len(), |i: &Interval| {
            let held = held(&candidate.cache, i, f16_per_token / 2);
            print(&format!(
                "{label:>9} {:>7} {:>8.3} {:>7} {:>9} {:>9.5} {:>10} {:>10}  {}\n",
                i.end,
                i.perplexity(),
                i.of_kind("recall"),
                i.of_kind("reasoning"),
                i.mean_kl(),
                human(held.bytes_held),
                human(f16_per_token * i.end as u64),
                widths(&held)
            ))
        });
        let (questions, reference_now) = (&document.questions, reference.as_deref());
        let tokens = match (name, args.full) {
            ("q4_0", false) => &tokens[..tokens.len().min(QUANTIZED_UNTIL)],
            _ => &tokens[..],
        };
        let run = score(&model, &candidate.cache, tokens, questions, &settings, reference_now, &mut watch)
            .map_err(|e| format!("{label}: {e}"))?;
        print("\n")?;
        if reference.is_none() {
            reference = Some(run.log_probs);
        }
    }
    print("bytes: held by the cache with its tables, parameters and scratch; llama.cpp's own caches hold all of theirs from the start\n\n")?;
    generate(path, plan)
}

/// One generation by the patched `llama-completion` beside this program.
fn generate(model: &Path, plan: &Path) -> Result<(), String> {
    let program = std::env::current_exe()
        .map_err(|e| e.to_string())?
        .with_file_name(format!("llama-completion{}", std::env::consts::EXE_SUFFIX));
    let prompt = "@WXYZ=4711\nAnd God said, Let there be light: and there was light.\n@HJKL=92\n?WXYZ=";
    print(&format!("$ llama-completion -m {} --pmkvq-plan plan.json -p '...?WXYZ=' -n 5 --temp 0\n", model.display()))?;
    let output = Command::new(&program)
        .arg("-m")
        .arg(model)
        .arg("--pmkvq-plan")
        .arg(plan)
        .args(["-p", prompt, "-n", "5", "--temp", "0", "-no-cnv", "--no-warmup", "--no-display-prompt", "--simple-io"])
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        return Err(format!("{} failed: {}", program.display(), tail.join(" | ")));
    }
    print(&format!("{prompt}{}\n", String::from_utf8_lossy(&output.stdout).trim_end()))
}
