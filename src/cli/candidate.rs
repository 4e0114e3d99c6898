//! Caches by name: llama.cpp's own, plans made on the fly, plan files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::model::Shape;
use super::plan::{make, ranges, transforms, Source, Wanted};
use crate::bytes::human;
use crate::eval::values_per_token;
use crate::ffi::{Cache, PlainType};
use crate::geometry::Width;
use crate::plan::{parse_rule, rule_name, write_beside, Initial, Kv, Plan, Rule, MAX_SINK, MAX_WINDOW};
use crate::report::presets::Wish;
use crate::sensitivity::SensitivityFile;

/// Names that `--cache` takes.
pub const NAMES: &str = "f16, f16-fa, f32, q8_0, q4_0, static:W, uniform:W";

/// A cache to score with; a plan made on the fly lives in a file that is removed afterwards.
#[derive(Debug)]
pub struct Candidate {
    pub label: String,
    /// What it is, in words.
    pub what: String,
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

/// Sensitivities with a name, as `--sensitivity` gives them.
pub struct Labelled {
    pub label: String,
    pub file: SensitivityFile,
}

impl Candidate {
    /// A cache by its name; plans are made as `base` says unless the name says otherwise.
    ///
    /// # Errors
    /// A name that is none of the caches, or a plan that can't be made.
    pub fn parse(name: &str, shape: &Shape, base: &Wanted) -> Result<Candidate, String> {
        let plain = |cache, what: &str| {
            let (label, what) = (name.to_string(), what.to_string());
            Ok(Candidate { label, what, cache: Cache::Plain(cache), temporary: false })
        };
        match name {
            "f16" => return plain(PlainType::F16Exact, "llama.cpp's 16-bit cache, sums in f32 (no flash attention)"),
            "f16-fa" => {
                return plain(
                    PlainType::F16,
                    "llama.cpp's 16-bit cache with flash attention, which sums values in f16 in small batches",
                )
            }
            "f32" => return plain(PlainType::F32, "llama.cpp's 32-bit cache, no flash attention"),
            "q8_0" => return plain(PlainType::Q8_0, "llama.cpp's 8-bit cache, 8.5 bits per value"),
            "q4_0" => return plain(PlainType::Q4_0, "llama.cpp's 4-bit cache, 4.5 bits per value"),
            _ => {}
        }
        let made = [("static:", Initial::Final), ("uniform:", Initial::B16)];
        if let Some((rest, initial)) = made.iter().find_map(|(p, i)| name.strip_prefix(p).map(|b| (b, *i))) {
            let named = |what: String| format!("--cache {name}: {what}");
            let mut parts = rest.split('@');
            let bits = parts.next().unwrap_or_default();
            let width = bits.parse().ok().and_then(Width::from_bits);
            let width = width.ok_or_else(|| named(format!("'{bits}' is not a width: expected 16, 8, 4 or 2")))?;
            let mut wanted = Wanted { initial, ..base.clone() };
            let mut budget = None;
            for part in parts {
                option(part, &mut wanted, &mut budget, shape).map_err(named)?;
            }
            let plan = make(shape, &wanted, Source::Uniform(width, budget)).map_err(named)?;
            return Candidate::made(name, &plan);
        }
        let path = PathBuf::from(name);
        if path.exists() {
            let plan = Plan::load(&path).map_err(|e| format!("{name}: {e}"))?;
            plan.check_model(&shape.shape).map_err(|e| format!("{name}: {e}"))?;
            let label = path.file_stem().map_or(name.to_string(), |s| s.to_string_lossy().into_owned());
            let what = format!("{name}: {}", words(&plan));
            return Ok(Candidate { label, what, cache: Cache::Plan(path), temporary: false });
        }
        Err(format!("--cache {name}: neither a plan file nor one of {NAMES}"))
    }

    /// A cache that a preset takes.
    ///
    /// # Errors
    /// As for [`Candidate::parse`]; a budget that nothing fits in.
    pub fn wish(wish: &Wish, shape: &Shape, base: &Wanted, files: &[Labelled]) -> Result<Candidate, String> {
        let n_ctx = base.n_ctx;
        let label = wish.label();
        let named = |what: String| format!("{label}: {what}; --bits sets the budgets");
        match wish {
            Wish::Named(name) => Candidate::parse(name, shape, base),
            Wish::Uniform { bits } => {
                let budget = bytes_of(*bits, shape, n_ctx);
                let at = |w| make(shape, base, Source::Uniform(w, Some(budget)));
                let fits = |w: &Width| at(*w).is_ok_and(|p| p.layout().comfortable_budget() <= budget);
                // the widest that keeps its window at 16 bits in a full context; if none does, the widest that fits at all
                let comfortable = Width::ALL.into_iter().find(fits);
                let width = comfortable.or_else(|| Width::ALL.into_iter().find(|w| at(*w).is_ok()));
                let plan = at(width.unwrap_or(Width::B2)).map_err(named)?;
                Candidate::made(&label, &plan)
            }
            Wish::Planned { sensitivity, bits, tied, layer_rule } => {
                let file = files.iter().find(|f| f.label == *sensitivity);
                let file = file.ok_or_else(|| named(format!("there are no sensitivities called {sensitivity}")))?;
                let rule = if *layer_rule { Rule::Layer } else { Rule::Block };
                let kv = if *tied { Kv::Tied } else { Kv::Apart };
                let measured = &file.file.values.widths;
                // 16 bits cost nothing, measured or not
                let widths: Vec<Width> =
                    Width::ALL.into_iter().filter(|w| *w == Width::B16 || measured.contains(w)).collect();
                let budget = bytes_of(*bits, shape, n_ctx);
                let source = Source::Solve { file: &file.file, budget, kv, widths: &widths };
                let plan = make(shape, &Wanted { rule, ..base.clone() }, source).map_err(named)?;
                Candidate::made(&label, &plan)
            }
        }
    }

    fn made(label: &str, plan: &Plan) -> Result<Candidate, String> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let file = format!("pmkvq-{}-{}.json", std::process::id(), MADE.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(file);
        write_beside(&path, plan.to_json().as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Candidate { label: label.to_string(), what: words(plan), cache: Cache::Plan(path), temporary: true })
    }
}

/// What a plan is, in a line.
fn words(plan: &Plan) -> String {
    let start = match plan.initial {
        Initial::B16 => "progressive from 16 bits",
        Initial::Final => "static",
    };
    let widths: Vec<String> = plan.layers.iter().map(|l| format!("{}/{}", l.k, l.v)).collect();
    let same = widths.iter().all(|w| *w == widths[0]);
    let transforms = match plan.transforms.as_ref().and_then(|t| t.first()) {
        Some(t) => format!(", K {}, V {}", t.k.summary(), t.v.summary()),
        None => String::new(),
    };
    let widths = if same { widths.first().cloned().unwrap_or_default() } else { widths.join(" ") };
    format!(
        "{start}, final widths K/V {widths}, budget {}, rule {}, sink {}, window {}, groups of {}, range {}/{}{transforms}",
        human(plan.budget_bytes),
        rule_name(plan.rule),
        plan.sink,
        plan.window,
        plan.group,
        plan.ranges.k.name(),
        plan.ranges.v.name()
    )
}

/// A budget of so many bits per value of a full context, all counted, in bytes.
fn bytes_of(bits: f64, shape: &Shape, n_ctx: u32) -> u64 {
    (bits / 8.0 * values_per_token(&shape.shape) as f64 * f64::from(n_ctx)) as u64
}

/// One `key=value` behind an `@`.
fn option(text: &str, wanted: &mut Wanted, budget: &mut Option<u64>, shape: &Shape) -> Result<(), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let number = |least: u32, most: u32| {
        let n = value.parse().ok().filter(|n| (least..=most).contains(n));
        n.ok_or_else(|| format!("@{key}: '{value}' is not a number from {least} to {most}"))
    };
    match key {
        "window" => wanted.window = number(128, MAX_WINDOW)?,
        "sink" => wanted.sink = number(0, MAX_SINK)?,
        "group" => {
            let group = number(16, 128)?;
            if group % 16 != 0 {
                return Err(format!("@group: '{value}' is not a multiple of 16"));
            }
            wanted.group = group;
        }
        "transforms" => wanted.transforms = transforms(value, shape).map_err(|e| format!("@transforms: {e}"))?,
        "range" => wanted.ranges = ranges(value).map_err(|e| format!("@range: {e}"))?,
        "rule" => wanted.rule = parse_rule(value).map_err(|e| format!("@rule: {e}"))?,
        "bits" => *budget = Some(bytes_of(parse_bits(value).map_err(|e| format!("@bits: {e}"))?, shape, wanted.n_ctx)),
        _ => {
            return Err(format!(
                "'@{key}' is not known: expected @window, @sink, @group, @rule, @transforms, @range or @bits"
            ))
        }
    }
    Ok(())
}

/// Bits per value, all counted.
///
/// # Errors
/// What is no number above 0 and up to 64.
pub fn parse_bits(text: &str) -> Result<f64, String> {
    let bits = text.trim().parse::<f64>().ok().filter(|b| *b > 0.0 && *b <= 64.0);
    bits.ok_or_else(|| format!("'{text}' is not a number of bits per value above 0 and up to 64"))
}

/// `label=FILE`, or a file whose name without its ending is the label.
///
/// # Errors
/// An empty label or file.
pub fn parse_labelled(text: &str) -> Result<(String, PathBuf), String> {
    // a label may have a '=' in it ("s=4"), and so may the name of a file that is there
    let (label, file) = match text.rsplit_once('=').filter(|_| !Path::new(text).is_file()) {
        Some((label, file)) => (label.to_string(), file),
        None => (Path::new(text).file_stem().map_or(String::new(), |s| s.to_string_lossy().into_owned()), text),
    };
    if label.is_empty() || file.is_empty() {
        return Err(format!("'{text}' is not LABEL=FILE or FILE"));
    }
    Ok((label, PathBuf::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_budgets() {
        let labelled = |text| parse_labelled(text).map(|(label, path)| (label, path.display().to_string()));
        let pair = |a: &str, b: &str| Ok((a.to_string(), b.to_string()));
        assert_eq!(labelled("a/b/c.json"), pair("c", "a/b/c.json"));
        assert_eq!(labelled("s=4=a/c.json"), pair("s=4", "a/c.json"));
        assert!(labelled("=c.json").is_err() && labelled("s=").is_err() && labelled("").is_err());
        assert_eq!(parse_bits(" 3.3"), Ok(3.3));
        assert!(["0", "-1", "NaN", "inf", "65", "x", ""].iter().all(|b| parse_bits(b).is_err()));
    }
}
