//! The shipped model, plans made by the tool as a user makes them, and distances between distributions.

use pmkvq::eval::log_softmax;
use pmkvq::ffi::{Cache, Context, ContextSizes, Model, PlainType};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

pub use super::rng::Rng;
pub use super::temporary::Temporary;

/// Runs `test` with `n` seeds, or with the one in `PMKVQ_SEED`.
pub fn seeds(first: u64, n: u64, mut test: impl FnMut(u64, &mut Rng)) {
    for seed in super::rng::seeds(first, n) {
        println!("seed {seed}");
        test(seed, &mut Rng::new(seed));
    }
}

pub fn model_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("model/pmkvq-tiny.gguf")
}

/// The shipped model. Every pool that is made from here on holds 0xFF bytes at first.
pub fn shipped() -> Model {
    poison();
    Model::load(&model_path()).unwrap()
}

/// Fills pools with 0xFF bytes before they are used. And sets what ggml would set in the environment when it is first used:
/// it does so without Rust's lock, and a program that is started at that moment by another test finds a list of variables
/// that is gone ("Bad address"). Whoever starts programs calls this first.
pub fn poison() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::env::set_var("PMKVQ_POISON", "1");
        if std::env::var_os("KMP_BLOCKTIME").is_none() {
            std::env::set_var("KMP_BLOCKTIME", "200");
        }
    });
}

/// Tokens of the held-out text, from byte `from` on.
pub fn text(model: &Model, from: usize, n: usize) -> Vec<i32> {
    let all = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("model/heldout.txt")).unwrap();
    model.tokenize(&all[from..from + n]).unwrap()
}

/// A plan by `pmkvq plan`, for a model and a context.
pub fn plan(model: &Path, n_ctx: u32, args: &[&str]) -> Temporary {
    poison();
    Temporary::plan(model, n_ctx, args)
}

/// What a cache takes on a device beyond what plans count (`PMKVQ_FORCE_DEVICE_PATH=1`): partial results where batches are
/// small, and lists.
pub fn on_device() -> u64 {
    if std::env::var_os("PMKVQ_FORCE_DEVICE_PATH").is_some() {
        200_000
    } else {
        0
    }
}

/// The least budget of a uniform plan: what `pmkvq plan` names when it refuses a smaller one.
pub fn least_budget(model: &Path, n_ctx: u32, args: &[&str]) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_pmkvq"))
        .args(["plan", "--ctx", &n_ctx.to_string(), "--budget", "1", "--model"])
        .arg(model)
        .args(args)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    let after = message.split("widths, ").nth(1).unwrap_or_else(|| panic!("no least budget in: {message}"));
    let bytes = after.split('(').nth(1).and_then(|s| s.split(' ').next()).unwrap();
    bytes.parse::<u64>().unwrap() + on_device()
}

pub fn context<'m>(model: &'m Model, cache: &Cache, sizes: &ContextSizes) -> Context<'m> {
    Context::new(model, cache, sizes).unwrap()
}

pub fn sizes(n_ctx: u32, n_seq_max: u32, n_ubatch: u32) -> ContextSizes {
    ContextSizes { n_ctx, n_batch: 512, n_ubatch, n_seq_max, threads: 1 }
}

pub fn oracle<'m>(model: &'m Model, sizes: &ContextSizes) -> Context<'m> {
    context(model, &Cache::Plain(PlainType::F32), sizes)
}

/// Log probabilities of the last batch, `[token][vocabulary]`.
pub fn log_probs(ctx: &Context, n: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for i in 0..n {
        log_softmax(ctx.logits(i), &mut out);
    }
    assert!(out.iter().all(|x| !x.is_nan()), "a logit is NaN");
    out
}

/// KL divergence of each row of `q` from that of `p`, nats; both are log probabilities of `n_vocab` values.
pub fn divergences(p: &[f32], q: &[f32], n_vocab: usize) -> Vec<f64> {
    assert_eq!(p.len(), q.len());
    // log probabilities in f32 are off by up to 2e-7, all of a row alike: - p + q, which sum to nothing but that, take it away
    let term = |(p, q): (&f32, &f32)| {
        let (p, q) = (f64::from(*p), f64::from(*q));
        p.exp() * (p - q) - p.exp() + q.exp()
    };
    let row = |(p, q): (&[f32], &[f32])| p.iter().zip(q).map(term).sum::<f64>();
    p.chunks_exact(n_vocab).zip(q.chunks_exact(n_vocab)).map(row).collect()
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

pub fn top(row: &[f32]) -> usize {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}

/// Shrinks and narrow starts that a context reports.
pub fn shrinks(ctx: &Context) -> [u64; 4] {
    let held = ctx.describe().unwrap();
    ["16-8", "8-4", "4-2", "started_narrow"].map(|name| held["shrinks"][name].as_u64().unwrap())
}

/// Tokens of all layers and sides by width, 16, 8, 4, 2 bits.
pub fn tokens_by_width(ctx: &Context) -> [u64; 4] {
    let held = ctx.describe().unwrap();
    let mut sum = [0; 4];
    for layer in held["layers"].as_array().unwrap() {
        for side in ["k", "v"] {
            for (sum, w) in sum.iter_mut().zip(["16", "8", "4", "2"]) {
                *sum += layer[side]["tokens"][w].as_u64().unwrap();
            }
        }
    }
    sum
}
