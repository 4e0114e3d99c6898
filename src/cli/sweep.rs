//! `pmkvq plan --sweep`: several budgets solved at once, as table, JSON, picture and plans.

use serde_json::{json, Value};
use std::fmt::Write as _;

use super::model::Shape;
use super::output::{print, write};
use super::picture::{self, Mark};
use super::plan::{assemble, warn_ungrouped, Args, Wanted};
use crate::bytes::{human, parse_size, Layout, LayoutParams};
use crate::geometry::{Side, Width};
use crate::plan::size::{shorten, LARGEST};
use crate::plan::Kv;
use crate::planner::{self, Solved};
use crate::sensitivity::SensitivityFile;

/// Budgets where no number is given.
const DEFAULT: usize = 12;
const MOST: usize = 1000;
/// More bits per value than any cache takes.
const MOST_BITS: f64 = 64.0;
/// Most layers whose widths fit in a row of the table.
const SHOWN_LAYERS: usize = 48;

/// A budget as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Bytes(u64),
    /// Bits per value of a full context, everything counted.
    Bits(f64),
}

/// The budgets of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub enum Budgets {
    /// So many from the least possible to what is never exceeded.
    Auto(usize),
    List(Vec<Amount>),
    Range(Amount, Amount, usize),
}

impl Budgets {
    /// Reads `auto`, `auto:N`, `A,B,...`, `FROM..TO`, `FROM..TO:N`.
    ///
    /// # Errors
    /// A message that says what was expected.
    pub fn parse(text: &str) -> Result<Budgets, String> {
        let (what, n) = match text.split_once(':') {
            Some((what, n)) => (what, Some(n)),
            None => (text, None),
        };
        let count = |n: Option<&str>| match n {
            None => Ok(DEFAULT),
            Some(n) => n
                .trim()
                .parse()
                .ok()
                .filter(|n| (2..=MOST).contains(n))
                .ok_or_else(|| format!("'{}' is not a number of budgets: expected 2 to {MOST}", shorten(n))),
        };
        if what.trim() == "auto" {
            return Ok(Budgets::Auto(count(n)?));
        }
        if let Some((from, to)) = what.split_once("..") {
            return Ok(Budgets::Range(amount(from)?, amount(to)?, count(n)?));
        }
        if n.is_some() {
            return Err("only auto and FROM..TO take a number of budgets".to_string());
        }
        let list = what.split(',').map(amount).collect::<Result<Vec<_>, _>>()?;
        if list.len() > MOST {
            return Err(format!("{} budgets: at most {MOST} are solved at once", list.len()));
        }
        Ok(Budgets::List(list))
    }

    /// Bytes, for a cache of so many values whose budgets make sense from `least` to `full`.
    fn bytes(&self, n_values: u64, least: u64, full: u64) -> Result<Vec<u64>, String> {
        let bytes = |amount: &Amount| match amount {
            Amount::Bytes(n) => *n,
            Amount::Bits(bits) => (bits * n_values as f64 / 8.0).round() as u64,
        };
        let between = |from: u64, to: u64, n: usize| -> Vec<u64> {
            let ratio = to as f64 / from as f64;
            let inner = (1..n - 1).map(|i| (from as f64 * ratio.powf(i as f64 / (n - 1) as f64)).round() as u64);
            [from].into_iter().chain(inner).chain([to]).collect()
        };
        let all = match self {
            Budgets::Auto(n) => between(least.max(1), full.max(least), *n),
            Budgets::List(list) => list.iter().map(bytes).collect(),
            Budgets::Range(from, to, n) => {
                let (from, to) = (bytes(from).max(1), bytes(to));
                if from > to {
                    return Err(format!(
                        "--sweep: {} .. {}: the first must be the smaller one",
                        human(from),
                        human(to)
                    ));
                }
                between(from, to, *n)
            }
        };
        match all.iter().find(|b| **b > LARGEST) {
            Some(b) => Err(format!("--sweep: {} is more than any machine has", human(*b))),
            None => Ok(all),
        }
    }
}

fn amount(text: &str) -> Result<Amount, String> {
    let text = text.trim();
    let Some(bits) = text.strip_suffix('b').filter(|n| n.ends_with(|c: char| c.is_ascii_digit() || c == '.')) else {
        return parse_size(text).map(Amount::Bytes).map_err(|e| format!("{e}; or bits per value, as in 2.5b"));
    };
    match bits.parse::<f64>() {
        Ok(bits) if bits > 0.0 && bits <= MOST_BITS => Ok(Amount::Bits(bits)),
        _ => Err(format!(
            "'{}' is not a number of bits per value: expected up to {MOST_BITS}, as in 2.5b",
            shorten(text)
        )),
    }
}

/// A budget and what it buys.
struct Point {
    budget: u64,
    layout: Layout,
    solved: Solved,
}

impl Point {
    fn new(model: &Shape, params: &LayoutParams, budget: u64, solved: Solved) -> Point {
        let finals: Vec<Width> = solved.layers.iter().flat_map(|l| [l.k, l.v]).collect();
        Point { budget, layout: Layout::new(&model.shape, &finals, params), solved }
    }

    fn loss(&self) -> f64 {
        self.solved.objective()
    }

    fn bits(&self) -> f64 {
        self.budget as f64 * 8.0 / self.layout.n_values.max(1) as f64
    }

    /// The width of all sides that can be narrowed, if it is one.
    fn uniform(&self) -> Option<Width> {
        let mut widths = self.layout.sides.iter().filter(|s| s.group != 0).map(|s| s.final_width);
        let first = widths.next()?;
        widths.all(|w| w == first).then_some(first)
    }

    /// Final widths, a letter per layer: `8842 / 4422`.
    fn widths(&self) -> String {
        let letters = |side: Side| -> String {
            let sides = self.layout.sides.iter().skip(side.index()).step_by(2);
            sides.map(|s| ['#', '8', '4', '2'][s.final_width.index()]).collect()
        };
        format!("{} / {}", letters(Side::K), letters(Side::V))
    }

    fn json(&self) -> Value {
        json!({
            "budget_bytes": self.budget,
            "bits_per_value": self.bits(),
            "history_bits": self.layout.history_bits(),
            "k_bits": self.layout.mean_width(Side::K),
            "v_bits": self.layout.mean_width(Side::V),
            "loss": self.solved.solver.objective,
            "status": self.solved.solver.status,
            "gap": self.solved.solver.gap,
            "uniform": self.uniform(),
            "layers": self.solved.layers,
        })
    }
}

/// A uniform plan, and the plan that is solved for its bytes.
struct Uniform {
    width: Width,
    point: Point,
    planned: Point,
}

/// The uniform plans of the widths that were measured, for comparison.
fn uniforms(
    args: &Args,
    model: &Shape,
    params: &LayoutParams,
    values: &crate::sensitivity::Sensitivities,
) -> Result<Vec<Uniform>, String> {
    let mut found = Vec::new();
    for width in Width::ALL {
        let mut solved = planner::uniform(&model.shape, width);
        let finals = vec![width; 2 * model.shape.layers.len()];
        solved.solver.objective = planner::objective(&model.shape, values, params, &finals);
        if solved.solver.objective.is_none() {
            // not measured
            continue;
        }
        let budget = Layout::new(&model.shape, &finals, params).comfortable_budget();
        let Ok(planned) = planner::solve_widths(&model.shape, values, params, budget, args.kv, &args.widths) else {
            // below the least possible of the widths that may be chosen
            continue;
        };
        let [point, planned] = [solved, planned].map(|solved| Point::new(model, params, budget, solved));
        found.push(Uniform { width, point, planned });
    }
    Ok(found)
}

pub fn run(
    args: &Args,
    budgets: &Budgets,
    model: &Shape,
    wanted: &Wanted,
    file: &SensitivityFile,
) -> Result<(), String> {
    let values = file.for_model(&model.shape).map_err(|e| e.to_string())?;
    let params = wanted.params(model);
    let (widest, narrowest) = match (args.widths.iter().max(), args.widths.iter().min()) {
        (Some(widest), Some(narrowest)) => (*widest, *narrowest),
        _ => return Err("--widths: name at least one of 16, 8, 4, 2".to_string()),
    };
    let all = |w: Width| Layout::new(&model.shape, &vec![w; 2 * model.shape.layers.len()], &params);
    let (least, full) = (all(narrowest), all(widest));
    let budgets = budgets.bytes(full.n_values, least.least_budget(), full.comfortable_budget())?;
    let found = planner::frontier(&model.shape, &values, &params, &budgets, args.kv, &args.widths);
    let points: Vec<Point> = found
        .map_err(|e| e.to_string())?
        .into_iter()
        .map(|(budget, solved)| Point::new(model, &params, budget, solved))
        .collect();
    let uniforms = uniforms(args, model, &params, &values)?;
    let kv = match args.kv {
        Kv::Apart => "apart",
        Kv::Tied => "tied",
    };
    if let Some(path) = &args.json {
        let json = json!({
            "pmkvq_sweep": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "model": { "arch": model.shape.arch, "name": model.shape.name },
            "n_ctx": params.n_ctx, "n_seq_max": params.n_seq_max, "sink": params.sink, "window": params.window,
            "group": params.group, "scratch_bytes": params.scratch_bytes,
            "n_values": full.n_values, "f16_bytes": full.f16_bytes,
            "kv": kv, "widths": args.widths,
            "sensitivities": { "source": values.source, "method": values.method },
            "points": points.iter().map(Point::json).collect::<Vec<_>>(),
            "uniform": uniforms.iter().map(|u| {
                let mut json = u.point.json();
                json["planned_loss"] = json!(u.planned.loss());
                json
            }).collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&json).map_err(|e| e.to_string())?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &args.svg {
        write(path, &draw(model, &params, &full, &values.method, &points, &uniforms))?;
    }
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for p in &points {
            let plan = assemble(&model.shape, wanted, &params, p.solved.clone(), p.budget, Some(values.clone()));
            write(&folder.join(format!("plan-{}.json", p.budget)), &plan.to_json())?;
        }
    }
    if let Some(p) = points.first() {
        warn_ungrouped(&assemble(&model.shape, wanted, &params, p.solved.clone(), p.budget, None));
    }
    let mut out = String::new();
    // writing to a String does not fail
    let _ = table(model, &params, &full, &values, kv, &points, &uniforms, &mut out);
    print(&out)
}

fn table(
    model: &Shape,
    params: &LayoutParams,
    full: &Layout,
    values: &crate::sensitivity::Sensitivities,
    kv: &str,
    points: &[Point],
    uniforms: &[Uniform],
    out: &mut String,
) -> std::fmt::Result {
    let (name, arch) = (shorten(&model.shape.name), shorten(&model.shape.arch));
    writeln!(out, "model    {name} ({arch}), {} layers with a KV cache, K and V {kv}", model.shape.layers.len())?;
    writeln!(
        out,
        "context  {} tokens, {} sequence(s), {} values; 16 bits would take {}",
        params.n_ctx,
        params.n_seq_max,
        full.n_values,
        human(full.f16_bytes)
    )?;
    writeln!(out, "loss     sum of the sensitivities: {}", shorten(&values.method))?;
    writeln!(
        out,
        "bits     per value: all bytes of the budget; history, codes and parameters outside sink and window"
    )?;
    let shown = model.shape.layers.len() <= SHOWN_LAYERS;
    let widths = if shown { "     K / V by layer, '#' is 16" } else { "" };
    writeln!(
        out,
        "\n{:>12} {:>6} {:>8} {:>6} {:>6} {:>10}  solver{widths}",
        "budget", "bits", "history", "K", "V", "loss"
    )?;
    for p in points {
        row(p, out)?;
        write!(out, "  {:<9}", p.solved.solver.status.name())?;
        if let Some(gap) = p.solved.solver.gap.filter(|gap| *gap > 0.0) {
            write!(out, " (gap {gap:.1e})")?;
        }
        if shown {
            write!(out, "  {}", p.widths())?;
        }
        match p.uniform() {
            Some(w) => writeln!(out, "  uniform {w}")?,
            None => writeln!(out)?,
        }
    }
    if !uniforms.is_empty() {
        writeln!(out, "\nuniform plans with the bytes that they need, and the loss that is planned for as many")?;
        writeln!(
            out,
            "\n{:>12} {:>6} {:>8} {:>6} {:>6} {:>10} {:>10}",
            "budget", "bits", "history", "K", "V", "loss", "planned"
        )?;
        for u in uniforms {
            row(&u.point, out)?;
            writeln!(out, " {:>10}  uniform {}", number(u.planned.loss()), u.width)?;
        }
    }
    Ok(())
}

fn row(p: &Point, out: &mut String) -> std::fmt::Result {
    let (k, v) = (p.layout.mean_width(Side::K), p.layout.mean_width(Side::V));
    let (bits, history, loss) = (p.bits(), p.layout.history_bits(), number(p.loss()));
    write!(out, "{:>12} {bits:>6.2} {history:>8.2} {k:>6.2} {v:>6.2} {loss:>10}", human(p.budget))
}

/// A loss in few letters.
fn number(v: f64) -> String {
    match v {
        0.0 => "0".to_string(),
        v if (0.01..10_000.0).contains(&v) => format!("{v:.4}"),
        v => format!("{v:.3e}"),
    }
}

fn draw(
    model: &Shape,
    params: &LayoutParams,
    full: &Layout,
    method: &str,
    points: &[Point],
    uniforms: &[Uniform],
) -> String {
    let name = match model.shape.name.as_str() {
        "" => &model.shape.arch,
        name => name,
    };
    let mark = |p: &Point, label: String| Mark {
        bytes: p.budget as f64,
        loss: p.loss(),
        label,
        title: format!(
            "{}, {:.2} bits per value, loss {}, K / V {}",
            human(p.budget),
            p.bits(),
            number(p.loss()),
            p.widths()
        ),
    };
    // those for the uniform plans' bytes as well, so that the two can be compared where they lie
    let mut planned: Vec<Mark> =
        points.iter().chain(uniforms.iter().map(|u| &u.planned)).map(|p| mark(p, String::new())).collect();
    planned.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(b.loss.total_cmp(&a.loss)));
    picture::Frontier {
        title: format!("{}: expected loss over memory, {} tokens", shorten(name), params.n_ctx),
        loss: format!("summed sensitivity: {}", shorten(method)),
        n_values: full.n_values as f64,
        planned,
        uniform: uniforms.iter().map(|u| mark(&u.point, format!("{} bits", u.width))).collect(),
    }
    .svg()
}
