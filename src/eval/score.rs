//! One pass over a text.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::row::{log_softmax, top};
use super::Question;
use crate::ffi::{Cache, Context, ContextSizes, Model};

/// How a text is fed.
#[derive(Clone, Debug)]
pub struct Settings {
    pub n_ctx: u32,
    /// Tokens that are decoded at once.
    pub step: usize,
    pub threads: u32,
    /// Ends of the intervals, tokens, rising.
    pub lengths: Vec<usize>,
}

/// What was measured between two lengths.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    pub end: usize,
    pub tokens: usize,
    /// Sum of negative log likelihoods, nats.
    pub nll: f64,
    /// Sum of KL divergences from the reference's distributions, nats; 0 without a reference.
    pub kl: f64,
    /// Tokens whose most likely successor is the reference's.
    pub same_top: usize,
    /// Answers and right ones, by the question's kind.
    pub answers: BTreeMap<String, Answers>,
    /// What the cache held at the end: `llama_pmkvq_describe`, for a progressive one.
    pub held: Option<serde_json::Value>,
    pub seconds: f64,
}

/// Questions that an interval answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    pub right: usize,
    pub all: usize,
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all {
            0 => f.pad("-"),
            _ => f.pad(&format!("{}/{}", self.right, self.all)),
        }
    }
}

impl Interval {
    /// Of one kind of question.
    pub fn of_kind(&self, kind: &str) -> Answers {
        self.answers.get(kind).copied().unwrap_or_default()
    }

    pub fn perplexity(&self) -> f64 {
        (self.nll / self.tokens.max(1) as f64).exp()
    }

    pub fn mean_kl(&self) -> f64 {
        self.kl / self.tokens.max(1) as f64
    }
}

/// A pass, and the log probabilities that further passes can be compared with.
pub struct Run {
    pub intervals: Vec<Interval>,
    /// `[token][vocabulary]`, of the predictions of tokens 1 .. n.
    pub log_probs: Vec<f32>,
}

/// Whoever watches a pass.
pub trait Watch {
    /// So many tokens are done.
    fn progress(&mut self, done: usize);
    /// An interval is done.
    ///
    /// # Errors
    /// End the pass.
    fn interval(&mut self, interval: &Interval) -> Result<(), String>;
}

/// Scores `tokens` with one cache. `questions` have offsets in tokens. `reference` is another run's `log_probs`.
///
/// # Errors
/// A context that can't be created, a text that does not fit, a decode that fails.
pub fn score(
    model: &Model,
    cache: &Cache,
    tokens: &[i32],
    questions: &[Question],
    settings: &Settings,
    reference: Option<&[f32]>,
    watch: &mut dyn Watch,
) -> Result<Run, String> {
    if tokens.len() > settings.n_ctx as usize {
        return Err(format!("the text has {} tokens, the context {}", tokens.len(), settings.n_ctx));
    }
    let n_vocab = model.n_vocab();
    let n_batch = settings.step as u32;
    let sizes =
        ContextSizes { n_ctx: settings.n_ctx, n_batch, n_ubatch: n_batch, n_seq_max: 1, threads: settings.threads };
    let mut ctx = Context::new(model, cache, &sizes)?;
    let mut log_probs = Vec::with_capacity(tokens.len() * n_vocab);
    let mut intervals = Vec::new();
    let mut now = Interval::default();
    let mut lengths = settings.lengths.iter().copied().filter(|l| *l > 0).peekable();
    // whether the answer that is being read is right so far
    let mut right = vec![true; questions.len()];
    let answers: Vec<(usize, usize, usize)> =
        questions.iter().enumerate().map(|(i, q)| (q.answer_start, q.answer_start + q.answer.len(), i)).collect();
    let mut open = answers.iter().peekable();
    let started = Instant::now();
    let mut done = 0;
    while done < tokens.len() {
        let end = lengths.peek().map_or(tokens.len(), |&l| l.min(tokens.len()));
        let n = settings.step.min(end.max(done + 1) - done);
        ctx.decode(&tokens[done..done + n], done as i32, 0).map_err(|e| format!("at token {done}: {e}"))?;
        for i in 0..n {
            let Some(&next) = tokens.get(done + i + 1) else { break };
            let at = log_probs.len();
            log_softmax(ctx.logits(i), &mut log_probs);
            let row = &log_probs[at..];
            let best = top(row);
            now.tokens += 1;
            now.nll -= f64::from(row[next as usize]);
            if let Some(base) = reference.and_then(|r| r.get(at..at + n_vocab)) {
                now.kl += base.iter().zip(row).map(|(p, q)| f64::from(p.exp()) * f64::from(p - q)).sum::<f64>();
                now.same_top += usize::from(top(base) == best);
            }
            let token = done + i + 1;
            while let Some(&&(start, stop, q)) = open.peek() {
                if token < start {
                    break;
                }
                right[q] &= token >= stop || best == next as usize;
                if token + 1 >= stop {
                    let of_kind = now.answers.entry(questions[q].kind.clone()).or_default();
                    of_kind.all += 1;
                    of_kind.right += usize::from(right[q]);
                    open.next();
                } else {
                    break;
                }
            }
        }
        done += n;
        watch.progress(done);
        if lengths.peek() == Some(&done) || done == tokens.len() {
            lengths.next();
            now.end = done;
            now.held = ctx.describe();
            now.seconds = started.elapsed().as_secs_f64();
            watch.interval(&now)?;
            intervals.push(std::mem::take(&mut now));
        }
    }
    Ok(Run { intervals, log_probs })
}
