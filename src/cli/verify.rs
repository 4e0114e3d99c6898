//! `pmkvq plan --verify`: what a plan loses on a text, against what its sensitivities foretell and a uniform plan.
//!
//! Sensitivities are measured one side at a time and added up, which holds to first order only; and a plan chosen by them
//! favours whatever they are wrong about. All caches read the text in lock step, in steps so small that the cache is read as
//! in decoding, and each distribution is compared with that of a 16-bit cache. Only one step's distributions are in memory.

use serde_json::{json, Value};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::model::Shape;
use super::output::write;
use super::plan::Args;
use crate::bytes::{human, Layout};
use crate::eval::log_softmax;
use crate::ffi::{Cache, Context, ContextSizes, Model};
use crate::geometry::{Width, BLOCK};
use crate::plan::{read_limited, write_beside, Initial, Plan};
use crate::planner;

/// Tokens decoded at once.
const STEP: usize = 16;
/// Tokens whose mean is one sample: neighbours are alike, means of so many nearly independent.
const SAMPLE: usize = 64;
/// So many standard errors are noise.
const NOISE: f64 = 2.0;
const MAX_TEXT: u64 = 1 << 28;

/// A cache under measurement, against the 16-bit one.
struct Measured {
    name: String,
    /// KL divergence and rise of loss in nats, token by token.
    kl: Vec<f64>,
    loss: Vec<f64>,
    bytes: u64,
}

impl Measured {
    fn mean_kl(&self) -> f64 {
        mean(&self.kl)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name, "kl": self.mean_kl(), "kl_error": standard_error(&self.kl), "loss_rise": mean(&self.loss),
            "loss_rise_error": standard_error(&self.loss), "budget_bytes": self.bytes,
        })
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of the mean, from the spread of the samples' means.
fn standard_error(values: &[f64]) -> f64 {
    let samples: Vec<f64> = values.chunks_exact(SAMPLE).map(mean).collect();
    let (n, centre) = (samples.len() as f64, mean(&samples));
    if samples.len() < 2 {
        return f64::INFINITY;
    }
    (samples.iter().map(|s| (s - centre).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// What the sum of a plan's sensitivities foretells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foretold {
    Kl,
    Loss,
    /// Numbers that only compare with each other.
    Nothing,
}

/// By the words that describe the method.
fn foretold(method: &str) -> Foretold {
    let method = method.to_lowercase();
    let has = |word: &str| method.split(|c: char| !c.is_ascii_alphanumeric()).any(|w| w == word);
    match () {
        () if has("gradient") || has("gradients") || has("taylor") => Foretold::Nothing,
        () if has("kl") || has("divergence") => Foretold::Kl,
        () if has("loss") || has("nll") => Foretold::Loss,
        () => Foretold::Nothing,
    }
}

/// The same model with other widths, for a text of so many tokens, at its final widths from the start.
fn at_final_widths(plan: &Plan, finals: &[Width], n_ctx: u32) -> Plan {
    let layers = plan.layers.iter().zip(finals.chunks(2));
    let layers = layers.map(|(l, w)| crate::plan::LayerPlan { k: w[0], v: w[1], ..*l }).collect();
    let mut plan = Plan { n_ctx, n_seq_max: 1, initial: Initial::Final, layers, ..plan.clone() };
    plan.budget_bytes = plan.layout().comfortable_budget();
    plan
}

/// The widest uniform plan that needs no more memory than the plan.
fn uniform_below(plan: &Plan) -> Option<Width> {
    let params = plan.params();
    let needs = |w: Width| Layout::new(&plan.model, &vec![w; 2 * plan.layers.len()], &params).comfortable_budget();
    Width::ALL.into_iter().find(|w| needs(*w) <= plan.budget_bytes)
}

/// Files of plans that go when they are dropped.
struct Files(Vec<PathBuf>);

impl Files {
    fn add(&mut self, plan: &Plan) -> Result<Cache, String> {
        let path = std::env::temp_dir().join(format!("pmkvq-verify-{}-{}.json", std::process::id(), self.0.len()));
        write_beside(&path, plan.to_json().as_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
        self.0.push(path.clone());
        Ok(Cache::Plan(path))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in &self.0 {
            // it may be gone already; there is nobody to tell
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Measures a plan on a text and reports on stderr.
///
/// # Errors
/// A text that is too short, and a plan that measures worse than the uniform one by more than noise.
pub fn run(args: &Args, text: &Path, shape: &Shape, plan: &Plan) -> Result<(), String> {
    let Some(model_path) = &args.model.model else { return Err("--verify needs --model".to_string()) };
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", text.display());
    let bytes = read_limited(text, MAX_TEXT).map_err(|e| named(&e))?;
    let content = String::from_utf8(bytes).map_err(|_| named(&"not text (UTF-8)"))?;
    let model = Model::load(model_path)?;
    let mut tokens = model.tokenize(&content).map_err(|e| named(&e))?;
    // something must lie outside sink and window, for more than one sample
    let least = (plan.sink + plan.window) as usize + 2 * BLOCK;
    let most = (args.verify_tokens as usize).min(plan.n_ctx as usize);
    if most < least {
        return Err(format!(
            "--verify: at least {least} tokens are needed, so that some lie outside sink and window; --verify-tokens and \
             --ctx allow {most}"
        ));
    }
    if tokens.len() < least {
        let found = tokens.len();
        return Err(named(&format!(
            "{found} tokens are too few to verify a plan: at least {least} are needed, so that some lie outside sink and window"
        )));
    }
    tokens.truncate(most);
    let n_ctx = (tokens.len() as u32).next_multiple_of(256);
    let sides = 2 * plan.layers.len();
    let mut plans = vec![
        ("16 bits".to_string(), at_final_widths(plan, &vec![Width::B16; sides], n_ctx)),
        ("plan, at its final widths".to_string(), at_final_widths(plan, &plan.finals(), n_ctx)),
        ("plan, as it runs".to_string(), plan.clone()),
    ];
    let uniform = uniform_below(plan);
    if let Some(width) = uniform {
        let finals = vec![width; sides];
        let layers = planner::uniform(&shape.shape, width).layers;
        plans.push((format!("uniform {width}, at its final width"), at_final_widths(plan, &finals, n_ctx)));
        plans.push((format!("uniform {width}, as it runs"), Plan { layers, ..plan.clone() }));
    }
    let measured = measure(&model, &plans, &tokens, args.threads)?;
    let (fixed, predicted) = (&measured[0], prediction(plan));
    let verdict = uniform.map(|width| (width, Verdict::new(fixed, &measured[2])));
    report(text, &tokens, plan, &measured, predicted, verdict.as_ref());
    if let Some(path) = &args.json {
        let json = json!({
            "pmkvq_verify": 1, "text": text.display().to_string(), "tokens": tokens.len(), "step": STEP,
            "predicted": predicted.map(|(kind, value)| match kind {
                Foretold::Kl => json!({ "kl": value }),
                _ => json!({ "loss_rise": value }),
            }),
            "caches": measured.iter().map(Measured::json).collect::<Vec<_>>(),
            "uniform": verdict.as_ref().map(|(width, v)| json!({
                "width": width, "kl_above": v.above, "kl_above_error": v.error, "worse": v.worse(),
            })),
        });
        let text = serde_json::to_string_pretty(&json).map_err(|e| e.to_string())?;
        write(path, &(text + "\n"))?;
    }
    match verdict {
        Some((width, v)) if v.worse() => Err(format!(
            "the plan measures worse than uniform {width} bits, which needs no more memory: mean KL divergence {:.6} against \
             {:.6}, {:.6} above it with a standard error of {:.6}. Its sensitivities add up badly or are of another kind of \
             text: measure them on text like {}, or take --uniform {width}. No plan was written",
            fixed.mean_kl(),
            measured[2].mean_kl(),
            v.above,
            v.error,
            text.display()
        )),
        _ => Ok(()),
    }
}

/// Kind and value of what the plan's sensitivities foretell.
fn prediction(plan: &Plan) -> Option<(Foretold, f64)> {
    let kind = foretold(&plan.sensitivities.as_ref()?.method);
    (kind != Foretold::Nothing).then_some((kind, plan.solver.objective?))
}

/// How far the plan's mean KL divergence is above the uniform plan's.
struct Verdict {
    above: f64,
    error: f64,
}

impl Verdict {
    fn new(plan: &Measured, uniform: &Measured) -> Verdict {
        let differences: Vec<f64> = plan.kl.iter().zip(&uniform.kl).map(|(p, u)| p - u).collect();
        Verdict { above: mean(&differences), error: standard_error(&differences) }
    }

    fn worse(&self) -> bool {
        self.above > NOISE * self.error
    }
}

/// Reads the text with all caches in lock step; the first is what the others are compared with.
fn measure(model: &Model, plans: &[(String, Plan)], tokens: &[i32], threads: u32) -> Result<Vec<Measured>, String> {
    let mut files = Files(Vec::new());
    let mut contexts = Vec::with_capacity(plans.len());
    for (name, plan) in plans {
        let cache = files.add(plan)?;
        let sizes = ContextSizes {
            n_ctx: plan.n_ctx,
            n_batch: STEP as u32,
            n_ubatch: STEP as u32,
            n_seq_max: plan.n_seq_max,
            threads,
        };
        contexts.push(Context::new(model, &cache, &sizes).map_err(|e| format!("{name}: {e}"))?);
    }
    let mut measured: Vec<Measured> = plans[1..]
        .iter()
        .map(|(name, plan)| Measured {
            name: name.clone(),
            kl: Vec::with_capacity(tokens.len()),
            loss: Vec::with_capacity(tokens.len()),
            bytes: plan.budget_bytes,
        })
        .collect();
    let (mut base, mut row) = (Vec::new(), Vec::new());
    let waits = std::io::stderr().is_terminal();
    for (i, step) in tokens.chunks(STEP).enumerate() {
        let at = i * STEP;
        if waits {
            say!("\rverify: {:>3}%", 100 * at / tokens.len());
        }
        for (context, (name, _)) in contexts.iter_mut().zip(plans) {
            context.decode(step, at as i32, 0).map_err(|e| format!("{name}: at token {at}: {e}"))?;
        }
        for j in 0..step.len() {
            let Some(&next) = tokens.get(at + j + 1) else { break };
            let next = next as usize;
            base.clear();
            log_softmax(contexts[0].logits(j), &mut base);
            for (context, m) in contexts[1..].iter().zip(&mut measured) {
                row.clear();
                log_softmax(context.logits(j), &mut row);
                m.kl.push(base.iter().zip(&row).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q)).sum());
                m.loss.push(f64::from(base[next]) - f64::from(row[next]));
            }
        }
    }
    if waits {
        say!("\r{:14}\r", "");
    }
    Ok(measured)
}

fn report(
    text: &Path,
    tokens: &[i32],
    plan: &Plan,
    measured: &[Measured],
    predicted: Option<(Foretold, f64)>,
    verdict: Option<&(Width, Verdict)>,
) {
    sayln!("verify: {}, {} tokens in steps of {STEP}, against 16 bits; nats per token", text.display(), tokens.len());
    sayln!("{:<32} {:>12} {:>10} {:>12} {:>10} {:>11}", "", "KL", "error", "loss rise", "error", "budget");
    for m in measured {
        sayln!(
            "{:<32} {:>12.6} {:>10.6} {:>12.6} {:>10.6} {:>11}",
            m.name,
            m.mean_kl(),
            standard_error(&m.kl),
            mean(&m.loss),
            standard_error(&m.loss),
            human(m.bytes)
        );
    }
    let fixed = &measured[0];
    match predicted {
        Some((kind, sum)) => {
            let found = if kind == Foretold::Kl { fixed.mean_kl() } else { mean(&fixed.loss) };
            let what = if kind == Foretold::Kl { "KL" } else { "loss rise" };
            let times = if sum > 0.0 { format!("{:.2} times that", found / sum) } else { "not that".to_string() };
            sayln!("predicted: {what} {sum:.6}, the sum of the sensitivities; measured at the final widths: {found:.6}, {times}");
        }
        None => {
            sayln!("predicted: nothing, the plan's numbers are no divergence or loss but compare only with each other")
        }
    }
    match verdict {
        Some((width, v)) => sayln!(
            "against uniform {width}: KL {:+.6} at the final widths, standard error {:.6}: {}",
            v.above,
            v.error,
            match v {
                v if v.worse() => "worse",
                v if v.above < -NOISE * v.error => "better",
                _ => "no difference beyond noise",
            }
        ),
        None => sayln!("no uniform plan needs as little memory, so there is none to compare with"),
    }
    if tokens.len() < plan.n_ctx as usize {
        sayln!(
            "the plan is for {} tokens and the text ends before, so a running cache has shrunk less than it will",
            plan.n_ctx
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_methods_foretell() {
        for (method, expected) in [
            ("KL divergence in nats per byte, one side of one layer at a time", Foretold::Kl),
            ("native kl", Foretold::Kl),
            ("rise of loss", Foretold::Loss),
            ("gradient", Foretold::Nothing),
            ("mean |(Q(x) - x) * dL/dx|: first-order Taylor of the loss", Foretold::Nothing),
            ("by hand", Foretold::Nothing),
            ("weekly", Foretold::Nothing),
        ] {
            assert_eq!(foretold(method), expected, "{method}");
        }
    }

    #[test]
    fn noise_is_not_worse_and_a_difference_is() {
        let measured = |kl: Vec<f64>| Measured { name: String::new(), loss: Vec::new(), bytes: 0, kl };
        let noisy = |shift: f64| (0..640).map(|i| shift + f64::from(i * 7919 % 101) / 101.0).collect::<Vec<_>>();
        let worse = |a: &[f64], b: &[f64]| Verdict::new(&measured(a.to_vec()), &measured(b.to_vec())).worse();
        assert!(!worse(&noisy(0.0), &noisy(0.0)));
        assert!(worse(&noisy(0.01), &noisy(0.0)) && !worse(&noisy(0.0), &noisy(0.01)));
        // a difference that one sample alone makes
        let mut spike = noisy(0.0);
        spike[100] += 50.0;
        assert!(!worse(&spike, &noisy(0.0)));
        // too little to tell
        assert!(!worse(&[1.0; 100], &[0.0; 100]));
    }
}
