//! `pmkvq eval`

use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::candidate::{parse_bits, parse_labelled, Candidate, Labelled};
use super::model::{ModelArgs, Shape};
use super::output::print;
use super::plan::{other_cache, ranges, transforms, Wanted};
use crate::bytes::human;
use crate::eval::pool::{self, Done, Together};
use crate::eval::{values_per_token, Lane, Steps, Text};
use crate::ffi::Model;
use crate::plan::{write_beside, Ranges};
use crate::report::figures::Figures;
use crate::report::presets::{Preset, Wish};
use crate::report::{html, samples, Made, Measured, MeasuredText, ModelIdentity, NamedSensitivities, Report, VERSION};
use crate::sensitivity::SensitivityFile;

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The model, a GGUF file
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// A text; several are reported one by one
    #[arg(short, long, value_name = "FILE", required_unless_present = "questions")]
    pub file: Vec<PathBuf>,
    /// Documents with questions, one JSON object per line (model/README.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "chunk"])]
    pub questions: Option<PathBuf>,
    /// Documents of the file that are scored, each in a context of its own
    #[arg(long, value_name = "N", default_value_t = 1, requires = "questions", value_parser = clap::value_parser!(u32).range(1..))]
    pub documents: u32,
    /// Caches: f16 (without flash attention, whose sums are in f16 in small batches), f16-fa (with it), f32, q8_0, q4_0,
    /// static:W, uniform:W (W = 16, 8, 4, 2; @window=N, @sink=N, @group=N, @rule=R, @transforms=T, @range=R, @bits=B may
    /// follow), or a plan file.
    /// Divergence is from the first. With --preset they come on top of its own
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "f16,q8_0,q4_0,static:4,static:2",
        default_value_if("preset", clap::builder::ArgPredicate::IsPresent, None)
    )]
    pub cache: Vec<String>,
    /// A question, with the caches that answer it
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Sensitivities that plans are made from, for each of --bits; may be given several times
    #[arg(long, value_name = "[LABEL=]FILE", value_parser = parse_labelled)]
    pub sensitivity: Vec<(String, PathBuf)>,
    /// Budgets of these plans: bits per value of a full context, everything counted
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "4.5,3.3", allow_negative_numbers = true, value_parser = parse_bits)]
    pub bits: Vec<f64>,
    /// Transforms of the plans that are made here: a file, 'hadamard' or 'none'
    #[arg(long, value_name = "FILE|NAME", default_value = "none")]
    pub transforms: String,
    /// Range rule of the plans that are made here: fit or shift; K's and V's: shift,fit
    #[arg(long, value_name = "RULE", default_value = "fit", value_parser = ranges)]
    pub range: Ranges,
    /// Tokens of the context; a longer text is cut (default: what the text needs, at most the model's own context)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub ctx: Option<u32>,
    /// As llama-perplexity does it: the text in chunks of N tokens, the second half of each scored
    #[arg(long, value_name = "N", conflicts_with = "ctx", value_parser = clap::value_parser!(u32).range(4..))]
    pub chunk: Option<u32>,
    /// Most chunks that are scored
    #[arg(long, value_name = "N", requires = "chunk", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// Tokens decoded at once: small, so that the cache is read as in decoding
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub step: u32,
    /// Threads
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub threads: u32,
    /// No more than two caches in memory together; the first is decoded again for each
    #[arg(long)]
    pub pairs: bool,
    /// Folder for report.html and report.json
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Where the JSON report goes, without a folder
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A block and a window of 128 each: what a text must have before anything can be read from a narrow block.
const AT_16_BITS: usize = 256;

pub fn run(args: &Args) -> Result<(), String> {
    let shape = ModelArgs { model: Some(args.model.clone()), shape: None }.read()?;
    let per_token = values_per_token(&shape.shape);
    if per_token == 0 {
        return Err(format!("{}: has no layer with a KV cache that could be compared", args.model.display()));
    }
    let files = sensitivities(args, &shape)?;
    let wishes = wishes(args, &files)?;
    let base = Wanted { ranges: args.range, transforms: transforms(&args.transforms, &shape)?, ..Wanted::new(0) };
    for file in &files {
        if let Some(note) = other_cache(&file.file.values.method, &base) {
            sayln!("pmkvq: {}: {note}", file.label);
        }
    }
    if let Some(folder) = &args.output {
        // said before hours of work, not after
        std::fs::create_dir_all(folder).map_err(|e| format!("--output {}: {e}", folder.display()))?;
    }
    let model = Model::load(&args.model)?;
    let texts = texts(args, &model, shape.shape.n_ctx_train)?;
    let identity = ModelIdentity::of(&args.model, &shape.shape)?;
    let mut measured = Vec::new();
    // every plan of every text is made before the first is measured
    for text in texts {
        let n_ctx = args.ctx.unwrap_or((text.longest() as u32).next_multiple_of(256));
        let candidates = wishes
            .iter()
            .map(|w| Candidate::wish(w, &shape, &Wanted { n_ctx, ..base.clone() }, &files))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("{} ({n_ctx} tokens): {e}", text.name))?;
        measured.push((text, n_ctx, candidates));
    }
    let mut done = Vec::new();
    for (text, n_ctx, candidates) in measured {
        done.push(measure(args, &model, text, n_ctx, candidates, per_token)?);
    }
    let named: Vec<NamedSensitivities> =
        files.iter().map(|f| NamedSensitivities { label: f.label.clone(), values: f.file.values.clone() }).collect();
    let layers: Vec<u32> = shape.shape.layers.iter().map(|l| l.il).collect();
    let report = Report {
        pmkvq_report: VERSION,
        made: Made::now(),
        model: identity,
        step: args.step as usize,
        threads: args.threads,
        finding: args.preset.map(|p| p.conclude(&done, &named, &args.bits, &layers)),
        texts: done.iter().map(|t| t.report(per_token)).collect(),
        sensitivities: named,
    };
    show(&report)?;
    write(args, &report)
}

fn sensitivities(args: &Args, shape: &Shape) -> Result<Vec<Labelled>, String> {
    let mut files: Vec<Labelled> = Vec::new();
    for (label, path) in &args.sensitivity {
        let mut file = SensitivityFile::load(path).map_err(|e| format!("{}: {e}", path.display()))?;
        // said here, where the file has a name
        file.values = file.for_model(&shape.shape).map_err(|e| format!("{}: {e}", path.display()))?;
        file.by_position = false;
        if files.iter().any(|f| f.label == *label) {
            return Err(format!("--sensitivity: two files are called '{label}': name them as LABEL=FILE"));
        }
        files.push(Labelled { label: label.clone(), file });
    }
    Ok(files)
}

/// The caches that are asked for, each once.
fn wishes(args: &Args, files: &[Labelled]) -> Result<Vec<Wish>, String> {
    let labels: Vec<String> = files.iter().map(|f| f.label.clone()).collect();
    let mut wishes = Vec::new();
    match args.preset {
        Some(preset) => {
            let least = preset.least_sensitivities();
            if files.len() < least {
                let (name, have) = (preset.name(), files.len());
                return Err(format!("--preset {name} needs at least {least} --sensitivity file(s), there are {have}"));
            }
            wishes.extend(preset.caches(&labels, &args.bits));
            wishes.extend(args.cache.iter().cloned().map(Wish::Named));
        }
        None => {
            wishes.extend(args.cache.iter().cloned().map(Wish::Named));
            for label in &labels {
                let planned = |bits: &f64| Wish::Planned {
                    sensitivity: label.clone(),
                    bits: *bits,
                    tied: false,
                    layer_rule: false,
                };
                wishes.extend(args.bits.iter().map(planned));
            }
        }
    }
    let mut once: Vec<Wish> = Vec::new();
    for wish in wishes {
        if !once.contains(&wish) {
            once.push(wish);
        }
    }
    Ok(once)
}

fn texts(args: &Args, model: &Model, n_ctx_train: u32) -> Result<Vec<Text>, String> {
    let least = AT_16_BITS + args.step as usize;
    if let Some(n) = args.ctx.filter(|n| (*n as usize) < least) {
        return Err(format!("--ctx {n}: too short, at least {least} tokens are needed"));
    }
    // beyond the context that it was trained for a model is lost, whatever its cache does
    let most = args.ctx.or(Some(n_ctx_train).filter(|n| *n as usize >= least));
    if let Some(path) = &args.questions {
        return Ok(vec![Text::documents(model, path, args.documents as usize, most, least)?]);
    }
    let of_file = |path: &PathBuf| match args.chunk {
        Some(n) => Text::chunks(model, path, n as usize, args.chunks.map_or(usize::MAX, |n| n as usize)),
        None => Text::plain(model, path, most, least),
    };
    args.file.iter().map(of_file).collect()
}

fn measure(
    args: &Args,
    model: &Model,
    text: Text,
    n_ctx: u32,
    candidates: Vec<Candidate>,
    per_token: u64,
) -> Result<MeasuredText, String> {
    let lanes: Vec<Lane> = candidates.iter().map(|c| Lane { label: c.label.clone(), cache: c.cache.clone() }).collect();
    let reference = args.preset.and_then(Preset::attention_reference);
    let attention = reference.and_then(|name| lanes.iter().position(|l| l.label == name));
    let positions = args.preset.map_or(Vec::new(), |p| p.attention_positions(text.longest()));
    let steps = Steps {
        n_ctx,
        step: args.step as usize,
        threads: args.threads,
        samples: samples(text.longest()),
        values_per_token: per_token,
        attention: attention.map(|lane| (lane, positions)),
    };
    let together = if args.pairs { Together::Pairs } else { Together::All };
    let mut progress = Progress::new(&text.name);
    let passes = pool::run(model, &lanes, &text, &steps, together, &mut |done| progress.show(done));
    progress.wipe();
    let passes = passes.map_err(|e| format!("{}: {e}", text.name))?;
    let caches = candidates
        .iter()
        .zip(lanes)
        .zip(passes)
        .map(|((c, lane), passes)| Measured { lane, what: c.what.clone(), passes })
        .collect();
    Ok(MeasuredText { text, n_ctx, caches })
}

/// How far it is, for people who wait.
struct Progress {
    name: String,
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    fn new(name: &str) -> Progress {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        Progress { name: name.to_string(), terminal, last: None }
    }

    fn show(&mut self, done: Done) {
        if !self.terminal || self.last.is_some_and(|t| t.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.last = Some(Instant::now());
        let left = done.seconds_left.map_or(String::new(), |s| format!(", {} left", duration(s)));
        say!("\r{}: {:>3.0}%{left:<20}", self.name, 100.0 * done.share);
    }

    fn wipe(&self) {
        if self.terminal {
            say!("\r{:width$}\r", "", width = self.name.len() + 28);
        }
    }
}

fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..=99 => format!("{s} s"),
        100..=5999 => format!("{} min", s.div_ceil(60)),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// Tables for a terminal.
fn show(report: &Report) -> Result<(), String> {
    for text in &report.texts {
        for cache in &text.caches {
            let kinds: Vec<&String> = cache.all.answers.keys().collect();
            let mut out = format!("\n{}", cache.label);
            if report.texts.len() > 1 {
                out += &format!(" on {}", text.name);
            }
            out += &format!(
                ": {:.2} bits per value, all counted\n{:>14} {:>9} {:>10} {:>10} {:>9}",
                cache.bits_all, "positions", "ppl", "KL", "KL p99", "same top"
            );
            kinds.iter().for_each(|k| out += &format!(" {k:>10}"));
            out += &format!(" {:>11}\n", "held");
            let mut row = |name: String, f: &Figures| {
                out += &format!(
                    "{name:>14} {:>9.4} {:>10.6} {:>10.6} {:>8.2}%",
                    f.perplexity,
                    f.kl.mean,
                    f.kl.p99,
                    100.0 * f.same_top.mean
                );
                for k in &kinds {
                    let a = f.answers.get(*k).copied().unwrap_or_default();
                    out += &format!(" {:>10}", format!("{}/{}", a.right, a.all));
                }
                out += &format!(" {:>11}\n", f.held.as_ref().map_or("-".to_string(), |h| human(h.bytes_held)));
            };
            cache.intervals.iter().for_each(|f| row(format!("{}-{}", f.from, f.to), f));
            row("last eighth".to_string(), &cache.last_eighth);
            row("all".to_string(), &cache.all);
            print(&out)?;
        }
    }
    if let Some(finding) = &report.finding {
        print(&format!("\n{}\n\n{}\n", finding.question, finding.answer.join("\n")))?;
    }
    Ok(())
}

fn write(args: &Args, report: &Report) -> Result<(), String> {
    let json = serde_json::to_string(report).map_err(|e| e.to_string())? + "\n";
    let save =
        |path: &Path, text: &str| write_beside(path, text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()));
    if let Some(path) = &args.json {
        save(path, &json)?;
    }
    if let Some(folder) = &args.output {
        save(&folder.join("report.json"), &json)?;
        save(&folder.join("report.html"), &html(report))?;
        sayln!("pmkvq: {}", folder.join("report.html").display());
    }
    Ok(())
}
