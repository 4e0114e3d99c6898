//! How widths fall as a context grows: the policy run on one sequence without a model, for `pmkvq show`.

use std::fmt;

use super::cells::{CellView, SeqSet};
use super::config::{Config, ConfigError};
use super::stage::PolicyError;
use super::state::Policy;
use super::stats::Stats;
use crate::geometry::{Width, BLOCK};

/// The cache at one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Tokens of the sequence.
    pub n_tokens: u32,
    /// Tokens at 16, 8, 4, 2 bits by side (`2 * layer + side`).
    pub tokens: Vec<[u32; 4]>,
    pub stats: Stats,
}

impl Sample {
    /// Mean bits of a stored value of a side, parameters of the groups not counted.
    pub fn mean_bits(&self, side: usize) -> f64 {
        let bits: u64 = Width::ALL.iter().map(|w| u64::from(self.tokens[side][w.index()]) * w.bits() as u64).sum();
        bits as f64 / f64::from(self.n_tokens.max(1))
    }
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FallError {
    Config(ConfigError),
    /// A length over `n_ctx`.
    TooLong {
        length: u32,
        n_ctx: u32,
    },
    /// Lengths that don't rise, or a ubatch of no tokens.
    BadSteps,
    Policy(PolicyError),
}

impl fmt::Display for FallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(e) => e.fmt(f),
            Self::TooLong { length, n_ctx } => write!(f, "length {length} does not fit in a context of {n_ctx} tokens"),
            Self::BadSteps => f.write_str("lengths must rise, and a ubatch must have a token"),
            Self::Policy(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for FallError {}

/// Fills a cache with one sequence in ubatches of up to `n_ubatch` tokens (1 shows decoding, 128 is close to it and
/// quicker) and takes a sample at each of the rising `lengths`.
///
/// # Errors
/// A config that [`Policy::new`] refuses, lengths that fall or exceed `n_ctx`, a ubatch of zero.
pub fn simulate(config: Config, lengths: &[u32], n_ubatch: u32) -> Result<Vec<Sample>, FallError> {
    let n_ctx = config.n_ctx;
    let mut policy = Policy::new(config).map_err(FallError::Config)?;
    if n_ubatch == 0 || lengths.windows(2).any(|w| w[1] < w[0]) {
        return Err(FallError::BadSteps);
    }
    if let Some(&length) = lengths.iter().find(|l| **l > n_ctx) {
        return Err(FallError::TooLong { length, n_ctx });
    }
    let n_cells = policy.config().n_blocks as usize * BLOCK;
    let (mut pos, mut seq) = (vec![-1i32; n_cells], vec![[0u64; 4] as SeqSet; n_cells]);
    let mut held = 0;
    let mut samples = Vec::with_capacity(lengths.len());
    for &length in lengths {
        while held < length {
            let next = length.min(held + n_ubatch);
            let tokens: Vec<(i32, u32)> = (held..next).map(|p| (p as i32, 0)).collect();
            let cells = policy
                .place(CellView { pos: &pos, seq: &seq }, &tokens)
                .ok_or(FallError::TooLong { length: next, n_ctx })?;
            for (&cell, token) in cells.iter().zip(&tokens) {
                pos[cell as usize] = token.0;
                seq[cell as usize][0] = 1;
            }
            policy.plan_ubatch(CellView { pos: &pos, seq: &seq }, &cells).map_err(FallError::Policy)?;
            policy.commit();
            held = next;
        }
        let tokens = policy.tokens_by_width(CellView { pos: &pos, seq: &seq });
        samples.push(Sample { n_tokens: held, tokens, stats: policy.stats() });
    }
    Ok(samples)
}
