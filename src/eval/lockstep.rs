//! One passage with several caches side by side.
//!
//! All contexts decode the same step, one after the other, before any goes on to the next. So the reference's distributions
//! are needed for one step only: at a vocabulary of 150,000 and a context of 32,768 tokens all of them would take 20 GB. The
//! price is that the caches are alive together; [`super::pool`] can run them in pairs instead.

use std::time::Instant;

use super::attention::{by_position, compare, AttentionSample, ByPosition, Positions};
use super::held::{shrinks, Held};
use super::row::{measure, Reference};
use super::text::Passage;
use crate::capi::probe::Probe;
use crate::ffi::{Cache, Context, ContextSizes, Model};

/// A cache with a name.
#[derive(Clone, Debug)]
pub struct Lane {
    pub label: String,
    pub cache: Cache,
}

/// How passages are fed, and what is looked at on the way.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Tokens of the contexts.
    pub n_ctx: u32,
    /// Tokens decoded at once.
    pub step: usize,
    pub threads: u32,
    /// Lengths at which it is noted what the caches hold, tokens, rising.
    pub samples: Vec<usize>,
    /// Values of K and V of one token.
    pub values_per_token: u64,
    /// Positions whose attention is compared, rising, and the lane to compare with.
    pub attention: Option<(usize, Vec<usize>)>,
}

/// What one cache made of one passage. Lists are indexed by prediction: entry 0 is the first that is scored.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Position of the first scored prediction.
    pub first: usize,
    /// KL divergence from the first lane's distribution, nats.
    pub kl: Vec<f32>,
    /// Negative log likelihood of the token that follows, nats.
    pub nll: Vec<f32>,
    pub same_top: Vec<bool>,
    /// The most likely token is the one that follows.
    pub hit: Vec<bool>,
    pub held: Vec<Held>,
    /// Tokens that were predicted before any block was narrower than 16 bits; none if none ever was.
    pub first_shrink: Option<usize>,
    pub attention: Vec<AttentionSample>,
    /// Time spent decoding.
    pub seconds: f64,
}

struct Running<'m> {
    lane: &'m Lane,
    ctx: Context<'m>,
    positions: Positions,
    pass: Pass,
}

/// Scores a passage with all lanes; divergences are from the first. `progress` is told how many tokens of the passage took
/// how many seconds, after each step.
///
/// # Errors
/// A context that can't be created, a decode that fails, a logit that is no number; the lane is named.
pub fn lockstep(
    model: &Model,
    lanes: &[Lane],
    passage: &Passage,
    steps: &Steps,
    progress: &mut dyn FnMut(usize, usize, f64),
) -> Result<Vec<Pass>, String> {
    let n = passage.tokens.len();
    if n > steps.n_ctx as usize {
        return Err(format!("the text has {n} tokens, the context {}", steps.n_ctx));
    }
    let n_batch = steps.step as u32;
    let sizes = ContextSizes { n_ctx: steps.n_ctx, n_batch, n_ubatch: n_batch, n_seq_max: 1, threads: steps.threads };
    let start = |lane| {
        let lane: &Lane = lane;
        let ctx = Context::new(model, &lane.cache, &sizes).map_err(|e| format!("{}: {e}", lane.label))?;
        let pass = Pass { first: passage.scored_from, ..Pass::default() };
        Ok::<_, String>(Running { lane, ctx, positions: Positions::default(), pass })
    };
    let mut running = lanes.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let mut done = 0;
    while done < n {
        let end = (done + steps.step).min(n);
        let begun = Instant::now();
        let probe_at = steps.attention.as_ref().and_then(|(lane, at)| {
            // the last of the step's positions that is asked for
            at.iter().rev().find(|p| (done..end).contains(*p)).map(|p| (*lane, *p))
        });
        let mut references: Vec<Option<Reference>> = Vec::new();
        let mut weights: Vec<ByPosition> = Vec::new();
        for r in &mut running {
            let begun = Instant::now();
            let seen = r.decode(&passage.tokens[done..end], done, probe_at.map(|p| p.1), steps.attention.is_some())?;
            r.pass.seconds += begun.elapsed().as_secs_f64();
            weights.extend(seen);
            r.score(passage, done..end, &mut references)?;
            r.look(done, end, n, steps);
        }
        if let Some((reference, position)) = probe_at {
            for (r, of_lane) in running.iter_mut().zip(&weights) {
                if let Some(reference) = weights.get(reference) {
                    r.pass.attention.extend(compare(reference, of_lane, position));
                }
            }
        }
        progress(done, end - done, begun.elapsed().as_secs_f64());
        done = end;
    }
    Ok(running.into_iter().map(|r| r.pass).collect())
}

impl Running<'_> {
    fn at(&self, position: usize, what: impl std::fmt::Display) -> String {
        format!("{}: at token {position}: {what}", self.lane.label)
    }

    /// Decodes a step; with a position, the weights of its query.
    fn decode(
        &mut self,
        tokens: &[i32],
        done: usize,
        position: Option<usize>,
        watched: bool,
    ) -> Result<Option<ByPosition>, String> {
        if !watched {
            self.ctx.decode(tokens, done as i32, 0).map_err(|e| self.at(done, e))?;
            return Ok(None);
        }
        let probe = Probe { tokens: position.map(|p| p - done).into_iter().collect() };
        let (decoded, seen) = probe.watch(|| self.ctx.decode(tokens, done as i32, 0));
        decoded.map_err(|e| self.at(done, e))?;
        let seen = seen.map_err(|e| self.at(done, format!("the attention's weights: {e}")))?;
        self.positions.put(done, &seen.cells);
        Ok(position.map(|p| by_position(&seen, &self.positions, p)))
    }

    /// Measures the predictions of a step. The first lane fills `references`, the others are compared with them.
    fn score(
        &mut self,
        passage: &Passage,
        step: std::ops::Range<usize>,
        references: &mut Vec<Option<Reference>>,
    ) -> Result<(), String> {
        let is_first = references.is_empty();
        for (i, position) in step.enumerate() {
            let next = passage.tokens.get(position + 1).filter(|_| position >= passage.scored_from);
            let Some(&next) = next else {
                if is_first {
                    references.push(None);
                }
                continue;
            };
            let logits = self.ctx.logits(i);
            if is_first {
                references.push(Some(Reference::new(logits)));
            }
            let reference = references.get(i).and_then(Option::as_ref).filter(|_| !is_first);
            let Some(m) = measure(logits, next, reference) else {
                return Err(self.at(position, "the logits are not numbers"));
            };
            self.pass.kl.push(m.kl as f32);
            self.pass.nll.push(m.nll as f32);
            self.pass.same_top.push(m.same_top);
            self.pass.hit.push(m.hit);
        }
        Ok(())
    }

    /// Notes what is held, where a sample is due, and when something was first narrowed.
    fn look(&mut self, done: usize, end: usize, n: usize, steps: &Steps) {
        let due = end == n || steps.samples.iter().any(|s| (done + 1..=end).contains(s));
        match &self.lane.cache {
            Cache::Plain(of) => {
                if due {
                    self.pass.held.push(Held::of_plain(end, *of, steps.values_per_token, steps.n_ctx));
                }
            }
            Cache::Plan(_) => {
                if !due && self.pass.first_shrink.is_some() {
                    return;
                }
                let Some(described) = self.ctx.describe() else { return };
                if self.pass.first_shrink.is_none() && shrinks(&described) > 0 {
                    // blocks are narrowed before the step is computed
                    self.pass.first_shrink = Some(done);
                }
                if due {
                    self.pass.held.push(Held::of_plan(end, &described));
                }
            }
        }
    }
}
