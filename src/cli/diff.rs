//! `pmkvq diff`: two plans side by side.

use clap::Args as ClapArgs;
use serde_json::{json, Map, Value};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::output::{print, write};
use crate::bytes::{human, Layout};
use crate::geometry::{Side, Width};
use crate::plan::size::shorten;
use crate::plan::{compare_models, Plan};
use crate::planner;

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// A plan
    pub a: PathBuf,
    /// Another
    pub b: PathBuf,
    /// Where the comparison goes as JSON besides
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Most characters of a value in the table.
const CELL: usize = 34;

/// A field that is not the same in both.
struct Field {
    name: String,
    a: Value,
    b: Value,
}

/// A plan with what is shown of it.
struct Read {
    name: String,
    plan: Plan,
    json: Value,
    layout: Layout,
}

impl Read {
    fn new(path: &Path) -> Result<Read, String> {
        let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let plan = Plan::load(path).map_err(|e| named(&e))?;
        let json = serde_json::from_str(&plan.to_json()).map_err(|e| named(&e))?;
        Ok(Read { name: path.display().to_string(), layout: plan.layout(), plan, json })
    }

    /// Widths as they are stored: a side without a group stays at 16 bits.
    fn widths(&self) -> Vec<Width> {
        self.layout.sides.iter().map(|s| s.final_width).collect()
    }

    fn bits(&self, bytes: u64) -> f64 {
        bytes as f64 * 8.0 / self.layout.n_values.max(1) as f64
    }

    /// Summed sensitivity of these widths by the plan's own numbers.
    fn objective(&self, widths: &[Width]) -> Option<f64> {
        let values = self.plan.sensitivities.as_ref()?;
        planner::objective(&self.plan.model, values, &self.plan.params(), widths)
    }

    fn bytes(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("budget", self.plan.budget_bytes),
            ("least possible at these widths", self.layout.least_budget()),
            ("with sink and window at 16 bits", self.layout.comfortable_budget()),
            ("nothing ever shrinks", self.layout.full_budget()),
            ("16 bits in llama.cpp", self.layout.f16_bytes),
        ]
    }
}

/// Prints the comparison and says whether the plans are the same.
///
/// # Errors
/// A file that is no plan, output that can't be written.
pub fn run(args: &Args) -> Result<bool, String> {
    let (a, b) = (Read::new(&args.a)?, Read::new(&args.b)?);
    let same = a.plan == b.plan;
    // widths and bytes of different models have nothing to do with each other
    let models = compare_models(&a.plan.model, &b.plan.model);
    let mut fields = Vec::new();
    differences("", &a.json, &b.json, &mut fields);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&to_json(&a, &b, same, models.is_none(), &fields));
        write(path, &(text.map_err(|e| e.to_string())? + "\n"))?;
    }
    let mut out = String::new();
    // writing to a String does not fail
    let _ = match (same, models) {
        (true, _) => writeln!(out, "{} and {} are the same plan", a.name, b.name),
        (false, models) => table(&a, &b, &fields, models.as_deref(), &mut out),
    };
    print(&out)?;
    Ok(same)
}

/// Fields with different values, those of objects one by one.
fn differences(path: &str, a: &Value, b: &Value, out: &mut Vec<Field>) {
    let (Value::Object(x), Value::Object(y)) = (a, b) else {
        if a != b {
            out.push(Field { name: path.to_string(), a: a.clone(), b: b.clone() });
        }
        return;
    };
    let names = x.keys().chain(y.keys().filter(|name| !x.contains_key(*name)));
    for name in names {
        let (a, b) = (x.get(name).unwrap_or(&Value::Null), y.get(name).unwrap_or(&Value::Null));
        // the widths have a table of their own
        if path.is_empty() && name == "layers" {
            continue;
        }
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        differences(&path, a, b, out);
    }
}

/// A value in the width of a cell; of a list per layer only how long it is, the layers that differ are named beside it.
fn cell(name: &str, value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_string(),
        Value::Number(n) if name.ends_with("_bytes") => match n.as_u64() {
            Some(bytes) => format!("{} ({bytes})", human(bytes)),
            None => n.to_string(),
        },
        Value::String(text) => shorten(text),
        Value::Object(_) => "there".to_string(),
        Value::Array(items) if items.iter().any(Value::is_object) => format!("{} entries", items.len()),
        Value::Array(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The layers in which two lists with one entry per layer differ.
fn layers_that_differ(a: &Value, b: &Value) -> Option<String> {
    let (a, b) = (a.as_array()?, b.as_array()?);
    let il = |v: &Value| v.get("il").and_then(Value::as_u64);
    if a.len() != b.len() || a.iter().chain(b).any(|v| il(v).is_none()) {
        return None;
    }
    let differ: Vec<String> =
        a.iter().zip(b).filter(|(a, b)| a != b).filter_map(|(a, _)| il(a)).map(|il| il.to_string()).collect();
    const LISTED: usize = 8;
    Some(match differ.len() {
        0 => return None,
        n if n == a.len() => "all layers differ".to_string(),
        n if n > LISTED => format!("layers {}, ... differ", differ[..LISTED].join(", ")),
        _ => format!("layer(s) {} differ", differ.join(", ")),
    })
}

fn table(a: &Read, b: &Read, fields: &[Field], models: Option<&str>, out: &mut String) -> std::fmt::Result {
    writeln!(out, "a  {}\nb  {}", a.name, b.name)?;
    if let Some(difference) = models {
        writeln!(out, "\nplans for different models: {difference}")?;
    }
    if !fields.is_empty() {
        writeln!(out, "\n{:<24} {:<38} b", "field", "a")?;
        for f in fields {
            let (x, y) = (cell(&f.name, &f.a), cell(&f.name, &f.b));
            match layers_that_differ(&f.a, &f.b) {
                Some(layers) => writeln!(out, "{:<24} {layers}", f.name)?,
                None if x == y => writeln!(out, "{:<24} {x:<38} {y} (they differ further on)", f.name)?,
                None => writeln!(out, "{:<24} {x:<38} {y}", f.name)?,
            }
        }
    }
    writeln!(out, "\n{:<32} {:>12} {:>12} {:>8}", "bytes", "a", "b", "b / a")?;
    for ((name, x), (_, y)) in a.bytes().into_iter().zip(b.bytes()) {
        writeln!(out, "{name:<32} {:>12} {:>12} {:>8.3}", human(x), human(y), y as f64 / x.max(1) as f64)?;
    }
    let bits = [
        ("bits per value, all counted", a.bits(a.plan.budget_bytes), b.bits(b.plan.budget_bytes)),
        ("bits per value of history", a.layout.history_bits(), b.layout.history_bits()),
        ("mean final width of K", a.layout.mean_width(Side::K), b.layout.mean_width(Side::K)),
        ("mean final width of V", a.layout.mean_width(Side::V), b.layout.mean_width(Side::V)),
    ];
    for (name, x, y) in bits {
        writeln!(out, "{name:<32} {x:>12.2} {y:>12.2} {:>8.3}", y / x)?;
    }
    if models.is_some() {
        return Ok(());
    }
    let (x, y) = (a.widths(), b.widths());
    let rows = [("a", a), ("b", b)].map(|(name, plan)| (name, plan, plan.objective(&x), plan.objective(&y)));
    if rows.iter().any(|(_, plan, _, _)| plan.plan.sensitivities.is_some()) {
        writeln!(out, "\n{:<32} {:>12} {:>12} {:>8}", "summed sensitivity of the widths", "a", "b", "b / a")?;
        for (name, plan, x, y) in &rows {
            if plan.plan.sensitivities.is_none() {
                continue;
            }
            let number = |v: &Option<f64>| v.map_or("not measured".to_string(), |v| format!("{v:.4e}"));
            let ratio = match (x, y) {
                (Some(x), Some(y)) if *x > 0.0 => format!("{:>8.3}", y / x),
                _ => format!("{:>8}", "-"),
            };
            writeln!(out, "{:<32} {:>12} {:>12} {ratio}", format!("by those of {name}"), number(x), number(y))?;
        }
    }
    if x == y {
        let n = a.plan.layers.len();
        return writeln!(out, "\nfinal widths: the same in all {n} layers");
    }
    writeln!(out, "\nfinal widths\n\n{:>5}  {:>4} {:>4}  {:>4} {:>4}", "layer", "K a", "K b", "V a", "V b")?;
    for (i, layer) in a.plan.layers.iter().enumerate() {
        let [ka, va, kb, vb] = [x[2 * i], x[2 * i + 1], y[2 * i], y[2 * i + 1]].map(Width::bits);
        let mark = if (ka, va) == (kb, vb) { "" } else { "  *" };
        writeln!(out, "{:>5}  {ka:>4} {kb:>4}  {va:>4} {vb:>4}{mark}", layer.il)?;
    }
    Ok(())
}

fn to_json(a: &Read, b: &Read, same: bool, same_model: bool, fields: &[Field]) -> Value {
    let of = |r: &Read| {
        json!({
            "file": r.name,
            "budget_bytes": r.plan.budget_bytes,
            "least_bytes": r.layout.least_budget(),
            "comfortable_bytes": r.layout.comfortable_budget(),
            "full_bytes": r.layout.full_budget(),
            "f16_bytes": r.layout.f16_bytes,
            "bits_per_value": r.bits(r.plan.budget_bytes),
            "history_bits": r.layout.history_bits(),
            "k_bits": r.layout.mean_width(Side::K),
            "v_bits": r.layout.mean_width(Side::V),
        })
    };
    let differing: Map<String, Value> =
        fields.iter().map(|f| (f.name.clone(), json!({ "a": f.a, "b": f.b }))).collect();
    let mut all = json!({
        "pmkvq_diff": 1, "same": same, "same_model": same_model, "a": of(a), "b": of(b), "fields": differing,
    });
    if same_model {
        let (x, y) = (a.widths(), b.widths());
        all["layers"] = (0..a.plan.layers.len())
            .map(|i| {
                json!({
                    "il": a.plan.layers[i].il,
                    "k": { "a": x[2 * i], "b": y[2 * i] },
                    "v": { "a": x[2 * i + 1], "b": y[2 * i + 1] },
                })
            })
            .collect();
        let by = |r: &Read| json!({ "a": r.objective(&x), "b": r.objective(&y) });
        all["loss"] = json!({ "by_a": by(a), "by_b": by(b) });
    }
    all
}
