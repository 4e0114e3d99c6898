//! `pmkvq eval`

use clap::Args as ClapArgs;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};

use super::model::{ModelArgs, Shape};
use super::output::print;
use super::plan::{make, Source, Wanted};
use super::progress::Progress;
use crate::bytes::human;
use crate::eval::{score, Document, Interval, Question, Settings};
use crate::ffi::{Cache, Model, PlainType};
use crate::geometry::Width;
use crate::plan::{write_beside, Initial};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The model, a GGUF file
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// The text, or with --questions a file of documents
    #[arg(short, long, value_name = "FILE", required_unless_present = "questions")]
    pub file: Option<PathBuf>,
    /// Documents with questions, one JSON object per line (model/README.md). The text is the first one's
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub questions: Option<PathBuf>,
    /// Caches: f16 (without flash attention, whose sums are in f16 in small batches), f16-fa (with it), q8_0, q4_0,
    /// static:W, uniform:W (W = 16, 8, 4, 2), or a plan file. Divergence is from the first
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "f16,q8_0,q4_0,static:4,static:2")]
    pub cache: Vec<String>,
    /// Tokens of the context (default: what the text needs)
    #[arg(short, long, value_name = "N")]
    pub ctx: Option<u32>,
    /// Tokens decoded at once: small, so that the cache is read as in decoding
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub step: u32,
    /// Threads
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub threads: u32,
    /// Where a JSON report goes besides the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A cache to score with; a plan made on the fly lives in a file that is removed afterwards.
pub struct Candidate {
    pub cache: Cache,
    temporary: bool,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let (true, Cache::Plan(path)) = (self.temporary, &self.cache) {
            // it may be gone already; there is nobody to tell
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Candidate {
    /// # Errors
    /// A name that is none of the caches, or a plan that can't be made.
    pub fn parse(name: &str, model: &Path, n_ctx: u32) -> Result<Candidate, String> {
        let plain = |t| Ok(Candidate { cache: Cache::Plain(t), temporary: false });
        match name {
            "f16" => return plain(PlainType::F16Exact),
            "f16-fa" => return plain(PlainType::F16),
            "q8_0" => return plain(PlainType::Q8_0),
            "q4_0" => return plain(PlainType::Q4_0),
            _ => {}
        }
        let made = [("static:", Initial::Final), ("uniform:", Initial::B16)];
        if let Some((bits, initial)) = made.iter().find_map(|(p, i)| name.strip_prefix(p).map(|b| (b, *i))) {
            let width = bits.parse().ok().and_then(Width::from_bits);
            let width =
                width.ok_or_else(|| format!("--cache {name}: '{bits}' is not a width: expected 16, 8, 4 or 2"))?;
            let args = ModelArgs { model: Some(model.to_path_buf()), shape: None };
            return Candidate::made(name, &args.read()?, n_ctx, width, initial);
        }
        if Path::new(name).is_file() {
            return Ok(Candidate { cache: Cache::Plan(PathBuf::from(name)), temporary: false });
        }
        Err(format!("--cache {name}: neither a plan file nor one of f16, f16-fa, q8_0, q4_0, static:W, uniform:W"))
    }

    fn made(name: &str, shape: &Shape, n_ctx: u32, width: Width, initial: Initial) -> Result<Candidate, String> {
        let wanted = Wanted { initial, ..Wanted::new(n_ctx) };
        let plan = make(shape, &wanted, Source::Uniform(width, None))?;
        let file = format!("pmkvq-{}-{}.json", std::process::id(), name.replace(':', "-"));
        let path = std::env::temp_dir().join(file);
        write_beside(&path, plan.to_json().as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Candidate { cache: Cache::Plan(path), temporary: true })
    }
}

/// Bytes that a cache holds at the end of an interval: in use, and allocated for the whole context.
pub fn bytes_held(cache: &Cache, interval: &Interval, f16_per_token: u64, n_ctx: u32) -> (u64, u64) {
    match (cache, &interval.held) {
        (Cache::Plan(_), Some(held)) => {
            let at = |name: &str| held["bytes"][name].as_u64().unwrap_or(0);
            (at("held"), at("total"))
        }
        (Cache::Plain(t), _) => {
            let per_token = f16_per_token as f64 / 2.0 * t.bytes_per_value();
            let all = (per_token * f64::from(n_ctx)) as u64;
            // llama.cpp allocates all of it at start
            (all, all)
        }
        _ => (0, 0),
    }
}

/// Mean bits of the stored values of each layer, "K/V", by what `describe` says.
pub fn widths(held: &Value) -> String {
    let mean = |side: &Value| {
        let (mut tokens, mut bits) = (0u64, 0u64);
        for w in Width::ALL {
            let n = side["tokens"][w.to_string()].as_u64().unwrap_or(0);
            tokens += n;
            bits += n * w.bits() as u64;
        }
        bits as f64 / tokens.max(1) as f64
    };
    let layers = held["layers"].as_array().map(Vec::as_slice).unwrap_or(&[]);
    layers.iter().map(|l| format!("{:.0}/{:.0}", mean(&l["k"]), mean(&l["v"]))).collect::<Vec<_>>().join(" ")
}

/// Lengths at which figures are taken: doubling from 1,024, and the end.
pub fn lengths(n: usize) -> Vec<usize> {
    let mut all: Vec<usize> = std::iter::successors(Some(1024), |l| Some(l * 2)).take_while(|l| *l < n).collect();
    if all.last().is_some_and(|l| l * 3 / 2 < n && *l >= 8192) {
        all.push(all[all.len() - 1] * 3 / 2);
    }
    all.push(n);
    all
}

pub fn run(args: &Args) -> Result<(), String> {
    let (text, questions): (String, Vec<Question>) = match (&args.questions, &args.file) {
        (Some(path), _) => {
            let document = Document::load(path)?.swap_remove(0);
            (document.text, document.questions)
        }
        (None, Some(path)) => {
            let bytes = crate::plan::read_limited(path, 1 << 28).map_err(|e| format!("{}: {e}", path.display()))?;
            (String::from_utf8(bytes).map_err(|_| format!("{}: not text (UTF-8)", path.display()))?, Vec::new())
        }
        (None, None) => return Err("name a text with --file, or documents with --questions".to_string()),
    };
    let model = Model::load(&args.model)?;
    let mut tokens = model.tokenize(&text)?;
    if tokens.len() < 2 {
        return Err("the text is too short: at least two tokens are needed".to_string());
    }
    if !questions.is_empty() && tokens.len() != text.len() {
        return Err("--questions: offsets are in bytes, so the model must have one token per byte".to_string());
    }
    let n_ctx = args.ctx.unwrap_or((tokens.len() as u32).next_multiple_of(256));
    tokens.truncate(n_ctx as usize);
    let inside = |q: &&Question| q.answer_start + q.answer.len() <= tokens.len();
    let questions: Vec<Question> = questions.iter().filter(inside).cloned().collect();
    let settings = Settings { n_ctx, step: args.step as usize, threads: args.threads, lengths: lengths(tokens.len()) };
    let shape = ModelArgs { model: Some(args.model.clone()), shape: None }.read()?.shape;
    let f16_per_token: u64 =
        shape.layers.iter().map(|l| 2 * u64::from(l.n_head_kv) * u64::from(l.head_dim_k + l.head_dim_v)).sum();
    let mut report = Vec::new();
    let mut reference: Option<Vec<f32>> = None;
    for name in &args.cache {
        let candidate = Candidate::parse(name, &args.model, n_ctx)?;
        print(&format!(
            "\n{name}\n{:>8} {:>9} {:>10} {:>9} {:>9} {:>9} {:>11} {:>8}\n",
            "tokens", "ppl", "KL", "same top", "recall", "reasoning", "held", "seconds"
        ))?;
        let compared = reference.is_some();
        let mut watch = Progress::new(name, tokens.len(), |i: &Interval| {
            let (held, _) = bytes_held(&candidate.cache, i, f16_per_token, n_ctx);
            let same = 100.0 * i.same_top as f64 / i.tokens.max(1) as f64;
            let (kl, same) = match compared {
                true => (format!("{:.6}", i.mean_kl()), format!("{same:.2}%")),
                false => ("-".to_string(), "-".to_string()),
            };
            print(&format!(
                "{:>8} {:>9.4} {kl:>10} {same:>9} {:>9} {:>9} {:>11} {:>8.1}\n",
                i.end,
                i.perplexity(),
                i.of_kind("recall"),
                i.of_kind("reasoning"),
                human(held),
                i.seconds
            ))?;
            report.push(json!({
                "cache": name, "end": i.end, "tokens": i.tokens, "perplexity": i.perplexity(), "kl": i.mean_kl(),
                "same_top": i.same_top, "answers": i.answers, "bytes_held": held,
                "bytes_f16": f16_per_token * u64::from(n_ctx), "state": i.held,
            }));
            Ok(())
        });
        let run = score(&model, &candidate.cache, &tokens, &questions, &settings, reference.as_deref(), &mut watch)
            .map_err(|e| format!("{name}: {e}"))?;
        if reference.is_none() {
            reference = Some(run.log_probs);
        }
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&json!({ "n_ctx": n_ctx, "step": args.step, "intervals": report }));
        let text = text.map_err(|e| e.to_string())?;
        write_beside(path, text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
