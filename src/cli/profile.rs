//! `pmkvq profile`

use clap::Args as ClapArgs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::model::{ModelArgs, Shape};
use super::output::print;
use super::plan::{group, ranges, stored_as, transforms, width, Wanted};
use crate::ffi::Model;
use crate::geometry::Width;
use crate::plan::{read_limited, write_beside, Ranges, MAX_SINK, MAX_WINDOW};
use crate::profile::{self, KeyScales, Leftover, Measure, Profile, Settings, TransformWanted, Waiting};
use crate::sensitivity::SensitivityFile;
use crate::transform::{LayerTransforms, TransformsFile};

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// The model, a GGUF file
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Calibration text
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Where the sensitivities go
    #[arg(short, long, value_name = "FILE", required_unless_present = "make_transforms")]
    pub output: Option<PathBuf>,
    /// Make transforms for K and V from the text, and write them here. With --output too they are used for the measurement
    #[arg(long, value_name = "FILE")]
    pub make_transforms: Option<PathBuf>,
    /// Transforms under which sensitivities are measured: a file, 'hadamard' or 'none'
    #[arg(long, value_name = "FILE|NAME", default_value = "none", conflicts_with = "make_transforms")]
    pub transforms: String,
    #[command(flatten)]
    pub parts: Parts,
    #[command(flatten)]
    pub text: Text,
    /// What a sensitivity is: kl (mean KL divergence from 16 bits) or loss (rise of the loss)
    #[arg(long, value_enum, default_value_t = Measure::Kl)]
    pub measure: Measure,
    /// Widths to measure, besides 16
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "8,4,2", value_parser = width)]
    pub widths: Vec<Width>,
    /// Throw away what an interrupted run left, instead of going on with it
    #[arg(long)]
    pub restart: bool,
}

/// What transforms consist of.
#[derive(ClapArgs, Clone, Debug)]
pub struct Parts {
    /// Sides whose mean is subtracted before they are stored
    #[arg(long, value_name = "SIDES", default_value = "k,v", value_parser = sides, requires = "make_transforms")]
    pub center: Sides,
    /// Scales of K: balance (against the queries), smooth (SmoothAttention, the paper's), none
    #[arg(long, value_enum, value_name = "KIND", num_args = 0..=1, default_value = "balance", default_missing_value = "smooth", requires = "make_transforms")]
    pub key_scales: KeyScales,
    /// Sides that are rotated by a Hadamard matrix before they are stored
    #[arg(long, value_name = "SIDES", default_value = "k,v", value_parser = sides, requires = "make_transforms")]
    pub hadamard: Sides,
    /// The width that smooth scales are searched for
    #[arg(long, value_name = "WIDTH", default_value = "4", value_parser = width, requires = "make_transforms")]
    pub smooth_width: Width,
}

impl Default for Parts {
    fn default() -> Parts {
        let both = Sides { k: true, v: true };
        Parts { center: both, key_scales: KeyScales::Balance, hadamard: both, smooth_width: Width::B4 }
    }
}

/// Which text is run, and how.
#[derive(ClapArgs, Clone, Debug)]
pub struct Text {
    /// Stretches of the text, spread evenly over it
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub stretches: u32,
    /// Tokens of a stretch
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub length: u32,
    /// Stretches that run side by side
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub parallel: u32,
    /// Tokens of each stretch that are decoded at once: small, so that the cache is read as in decoding
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub step: u32,
    /// Positions step by this, so that a short text spans a long context (the paper's positional interpolation)
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub rope_stretch: u32,
    /// What the step to 2 bits does with a group's range: fit or shift; K's and V's: shift,fit
    #[arg(long, value_name = "RULE", default_value = "fit", value_parser = ranges)]
    pub range: Ranges,
    /// First tokens of each stretch that stay at 16 bits
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=MAX_SINK as i64))]
    pub sink: u32,
    /// Latest tokens of each stretch that stay at 16 bits
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(128..=MAX_WINDOW as i64))]
    pub window: u32,
    /// Most values along the head dimension that share a (min, max) pair
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = group)]
    pub group: u32,
    /// Threads
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub threads: u32,
}

/// K, V, both or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    pub k: bool,
    pub v: bool,
}

fn sides(text: &str) -> Result<Sides, String> {
    match text {
        "none" => Ok(Sides { k: false, v: false }),
        "k" => Ok(Sides { k: true, v: false }),
        "v" => Ok(Sides { k: false, v: true }),
        "k,v" | "v,k" => Ok(Sides { k: true, v: true }),
        _ => Err("expected k, v, k,v or none".to_string()),
    }
}

impl Text {
    /// # Errors
    /// Widths that are none to measure, stretches that don't go into whole batches.
    pub fn settings(&self, widths: &[Width], transforms: Option<Vec<LayerTransforms>>) -> Result<Settings, String> {
        let parallel = self.parallel.min(self.stretches);
        if !self.stretches.is_multiple_of(parallel) {
            return Err(format!(
                "--stretches {} is not a multiple of --parallel {parallel}: some passes would be half empty",
                self.stretches
            ));
        }
        let mut widths: Vec<Width> = widths.iter().copied().filter(|w| *w != Width::B16).collect();
        widths.sort_by(|a, b| b.cmp(a));
        widths.dedup();
        if widths.is_empty() {
            return Err("--widths: 16 bits cost nothing; name at least one narrower width".to_string());
        }
        Ok(Settings {
            parallel: parallel as usize,
            length: self.length as usize,
            stretches: self.stretches as usize,
            step: self.step as usize,
            rope_stretch: self.rope_stretch,
            widths,
            sink: self.sink,
            window: self.window,
            group: self.group,
            ranges: self.range,
            transforms,
            threads: self.threads,
        })
    }
}

/// Says on stderr how far a profile is.
pub struct Say {
    terminal: bool,
    last: Instant,
    started: Instant,
}

impl Say {
    pub fn new() -> Say {
        let now = Instant::now();
        Say { terminal: std::io::stderr().is_terminal(), last: now, started: now }
    }
}

fn time(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

impl Waiting for Say {
    fn passes(&mut self, done: usize, all: usize, left: Duration) {
        // a line that is overwritten for people, a line a minute for logs
        if self.terminal {
            say!("\rpass {done} of {all}, {} left    ", time(left));
            if done == all {
                sayln!();
            }
        } else if self.last.elapsed() > Duration::from_secs(60) || done == all {
            self.last = Instant::now();
            sayln!("pass {done} of {all}, {} since the start, {} left", time(self.started.elapsed()), time(left));
        }
    }
}

/// A text's tokens.
///
/// # Errors
/// Names the file.
pub fn read_tokens(model: &Model, path: &Path) -> Result<Vec<i32>, String> {
    let at = |e: String| format!("{}: {e}", path.display());
    let bytes = read_limited(path, 1 << 30).map_err(|e| at(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| at("not text (UTF-8)".to_string()))?;
    model.tokenize(&text).map_err(at)
}

/// Makes transforms as `parts` say.
///
/// # Errors
/// As [`profile::collect`].
pub fn make_transforms(
    model: &Model,
    shape: &Shape,
    tokens: &[i32],
    settings: &Settings,
    parts: &Parts,
) -> Result<Vec<LayerTransforms>, String> {
    let wanted = TransformWanted {
        center_k: parts.center.k,
        center_v: parts.center.v,
        scales: parts.key_scales,
        hadamard_k: parts.hadamard.k,
        hadamard_v: parts.hadamard.v,
        width: parts.smooth_width,
        order: shape.rope_order,
    };
    profile::collect(model, &shape.shape, tokens, settings, &wanted)
}

fn describe(s: &Settings) -> String {
    let mut text = format!("{} stretches of {} tokens", s.stretches, s.length);
    if s.rope_stretch > 1 {
        text += &format!(", positions stepped by {}", s.rope_stretch);
    }
    text + ", " + &stored_as(s.ranges, s.transforms.as_deref())
}

pub fn run(args: &Args) -> Result<(), String> {
    let shape = ModelArgs { model: Some(args.model.clone()), shape: None }.read()?;
    let given = transforms(&args.transforms, &shape)?;
    let mut settings = args.text.settings(&args.widths, given)?;
    let model = Model::load(&args.model)?;
    let tokens = read_tokens(&model, &args.file)?;
    settings.split(&tokens).map_err(|e| format!("{}: {e}", args.file.display()))?;
    let source = args.file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    if let Some(path) = &args.make_transforms {
        let layers = make_transforms(&model, &shape, &tokens, &settings, &args.parts)?;
        let method = format!("native: {} stretches of {} tokens", settings.stretches, settings.length);
        let file = TransformsFile { source: source.clone(), method, layers };
        let text = file.to_json(&shape.shape);
        write_beside(path, text.as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        sayln!("transforms: {}", path.display());
        settings.transforms = Some(file.layers);
    }
    let Some(output) = &args.output else { return Ok(()) };
    let identity = profile::identity(&args.model, &shape.shape, &tokens, &settings);
    let mut leftover = Leftover::open(output, &identity, args.restart)?;
    if !leftover.is_empty() {
        sayln!("going on with {} passes of an interrupted run", leftover.len());
    }
    let result = profile::profile(&model, &shape.shape, &tokens, &settings, &mut leftover, &mut Say::new())?;
    let json = result.to_json(args.measure, &source, &describe(&settings))?;
    write_beside(output, json.as_bytes()).map_err(|e| format!("{}: {e}", output.display()))?;
    leftover.remove();
    table(&shape, &result)
}

/// Tokens of a stretch that `pmkvq plan --calibrate` takes.
const CALIBRATE_LENGTH: usize = 2048;

/// Transforms and sensitivities for `pmkvq plan --calibrate`, of about `n_tokens` tokens of a text. Given transforms are kept.
/// What an interrupted run has done lies beside `output`, or in the folder for temporary files.
///
/// # Errors
/// As [`profile::collect`] and [`profile::profile`].
pub fn calibrate(
    path: &Path,
    shape: &Shape,
    text: &Path,
    n_tokens: usize,
    threads: u32,
    wanted: &mut Wanted,
    widths: &[Width],
    output: Option<&Path>,
) -> Result<SensitivityFile, String> {
    let model = Model::load(path)?;
    let tokens = read_tokens(&model, text)?;
    let n = n_tokens.min(tokens.len());
    let length = CALIBRATE_LENGTH.min(n);
    let mut settings = Settings {
        parallel: 1,
        length,
        stretches: (n / length.max(1)).max(1),
        step: 32,
        rope_stretch: 1,
        widths: widths.iter().copied().filter(|w| *w != Width::B16).collect(),
        sink: wanted.sink,
        window: wanted.window,
        group: wanted.group,
        ranges: wanted.ranges,
        transforms: None,
        threads,
    };
    settings.parallel = (1..=4).rev().find(|p| settings.stretches.is_multiple_of(*p)).unwrap_or(1);
    settings.split(&tokens).map_err(|e| format!("{}: {e}", text.display()))?;
    if wanted.transforms.is_none() {
        let parts = Parts::default();
        wanted.transforms = Some(make_transforms(&model, shape, &tokens, &settings, &parts)?);
    }
    settings.transforms.clone_from(&wanted.transforms);
    let identity = profile::identity(path, &shape.shape, &tokens, &settings);
    // without an output each run has a name of its own, so that none is in another's way
    let own = || std::env::temp_dir().join(format!("pmkvq-calibration-{}", profile::digest(&identity)));
    let beside = output.map_or_else(own, Path::to_path_buf);
    let mut leftover = Leftover::open(&beside, &identity, false)?;
    let result = profile::profile(&model, &shape.shape, &tokens, &settings, &mut leftover, &mut Say::new())?;
    let source = text.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let json = result.to_json(Measure::Kl, &source, &describe(&settings))?;
    let file = SensitivityFile::parse(&json).map_err(|e| e.to_string())?;
    leftover.remove();
    Ok(file)
}

fn table(shape: &Shape, result: &Profile) -> Result<(), String> {
    let mut text =
        format!("{:>5} {:>4} {:>5} {:>11} {:>10} {:>12} {:>10}\n", "layer", "side", "bits", "KL", "+-", "loss", "+-");
    for (t, m) in result.means() {
        let il = shape.shape.layers[t.layer].il;
        text += &format!(
            "{il:>5} {:>4} {:>5} {:>11.3e} {:>10.1e} {:>12.3e} {:>10.1e}\n",
            t.side.to_string(),
            t.width.to_string(),
            m.kl,
            m.kl_error,
            m.loss,
            m.loss_error
        );
    }
    print(&text)
}
