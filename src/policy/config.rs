//! What the policy is told once, at start, and the checks on it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::geometry::{Width, BLOCK};

/// Sequences that llama.cpp's cells can tell apart (`LLAMA_MAX_SEQ`).
pub const MAX_SEQ: u32 = 256;

/// Which block shrinks next when pages are short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// The block that costs least predicted loss per byte freed.
    #[default]
    Block,
    /// The paper's rule: a budget per layer and side; a side that exceeds it shrinks as a whole.
    Layer,
}

/// How wide a block may stay once it may be narrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// At most this width (and never below the side's final one). 16 bits: progressive.
    Bits(Width),
    /// The side's final width: a static plan.
    Final,
}

/// One side (K or V) of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct SideConfig {
    /// Index in [`Config::pools`].
    pub pool: usize,
    /// No block of the side gets narrower than this.
    pub final_width: Width,
    /// Whether the side has a group size at all; one that has not stays at 16 bits whatever its final width says.
    pub shrinkable: bool,
    /// Predicted loss of the whole side at 16, 8, 4, 2 bits (order of [`Width::ALL`]); must not fall as widths do.
    pub loss: [f64; 4],
    /// Pages of this side under [`Rule::Layer`]; not read under [`Rule::Block`].
    pub quota: u32,
}

impl SideConfig {
    /// The narrowest width that blocks of this side can have.
    pub fn floor(&self) -> Width {
        if self.shrinkable {
            self.final_width
        } else {
            Width::B16
        }
    }
}

/// One pool of pages: one per device and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    pub n_pages: u32,
    /// Bytes of a page, all KV heads together.
    pub bytes_per_page: u64,
}

/// Everything the policy knows of plan, model and budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Most tokens held at a time.
    pub n_ctx: u32,
    /// Blocks of the cell array: `n_blocks * 128` cells, at least `n_ctx`.
    pub n_blocks: u32,
    /// Sequences that may be alive together, 1 to 256.
    pub n_seq_max: u32,
    /// Positions below this go to the sink blocks.
    pub sink: u32,
    /// The latest tokens of a sequence that stay at 16 bits while anything else can give pages.
    pub window: u32,
    pub initial: Initial,
    pub rule: Rule,
    /// Side `2 * layer + side`.
    pub sides: Vec<SideConfig>,
    pub pools: Vec<PoolConfig>,
}

impl Config {
    /// Blocks at the front of the cell array that are kept for first tokens.
    pub fn sink_blocks(&self) -> u32 {
        let cells = u64::from(self.sink) * u64::from(self.n_seq_max);
        u32::try_from(cells.div_ceil(BLOCK as u64)).unwrap_or(u32::MAX)
    }

    /// Pages per pool without which a full context does not fit at final widths.
    pub fn least_pages(&self) -> Vec<u64> {
        let mut least = vec![0u64; self.pools.len()];
        for side in &self.sides {
            if let Some(n) = least.get_mut(side.pool) {
                *n += u64::from(self.n_blocks) * side.floor().pages() as u64;
            }
        }
        least
    }

    /// Refuses what the policy can't keep its guarantees with.
    ///
    /// # Errors
    /// One [`ConfigError`] naming the first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let nonzero = [
            ("n_ctx", u64::from(self.n_ctx)),
            ("n_blocks", u64::from(self.n_blocks)),
            ("n_seq_max", u64::from(self.n_seq_max)),
            ("sides", self.sides.len() as u64),
            ("pools", self.pools.len() as u64),
        ];
        for (what, n) in nonzero {
            if n == 0 {
                return Err(ConfigError::Zero(what));
            }
        }
        if self.n_seq_max > MAX_SEQ {
            return Err(ConfigError::TooManySequences(self.n_seq_max));
        }
        let cells = u64::from(self.n_blocks) * BLOCK as u64;
        if cells > i32::MAX as u64 {
            return Err(ConfigError::TooLarge { what: "n_blocks", n: u64::from(self.n_blocks) });
        }
        if u64::from(self.n_ctx) > cells {
            return Err(ConfigError::FewBlocks { n_ctx: self.n_ctx, n_blocks: self.n_blocks });
        }
        if self.sink_blocks() >= self.n_blocks {
            return Err(ConfigError::OnlySinks { sink_blocks: self.sink_blocks(), n_blocks: self.n_blocks });
        }
        for (i, side) in self.sides.iter().enumerate() {
            self.check_side(i, side)?;
        }
        for (pool, (have, least)) in self.pools.iter().zip(self.least_pages()).enumerate() {
            if have.bytes_per_page == 0 {
                return Err(ConfigError::ZeroPage { pool });
            }
            if i64::from(have.n_pages) > i64::from(i32::MAX) {
                return Err(ConfigError::TooLarge { what: "n_pages", n: u64::from(have.n_pages) });
            }
            if u64::from(have.n_pages) < least {
                return Err(ConfigError::SmallPool { pool, have: have.n_pages, least });
            }
        }
        Ok(())
    }

    fn check_side(&self, side: usize, config: &SideConfig) -> Result<(), ConfigError> {
        if config.pool >= self.pools.len() {
            return Err(ConfigError::NoSuchPool { side, pool: config.pool });
        }
        if let Some(w) = Width::ALL.into_iter().find(|w| {
            let loss = config.loss[w.index()];
            !loss.is_finite() || loss < 0.0
        }) {
            return Err(ConfigError::BadLoss { side, width: w });
        }
        if let Some(w) = Width::ALL.into_iter().skip(1).find(|w| config.loss[w.index()] < config.loss[w.index() - 1]) {
            return Err(ConfigError::FallingLoss { side, width: w });
        }
        if self.rule == Rule::Layer && config.quota == 0 {
            return Err(ConfigError::ZeroQuota { side });
        }
        Ok(())
    }
}

/// Makes measured losses fit for a [`SideConfig`]: noise can put a narrower width below a wider one, in which case it
/// gets the wider one's loss.
pub fn monotone_loss(mut loss: [f64; 4]) -> [f64; 4] {
    for i in 1..loss.len() {
        if loss[i] < loss[i - 1] {
            loss[i] = loss[i - 1];
        }
    }
    loss
}

/// Why a [`Config`] was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    Zero(&'static str),
    ZeroPage { pool: usize },
    ZeroQuota { side: usize },
    TooManySequences(u32),
    TooLarge { what: &'static str, n: u64 },
    FewBlocks { n_ctx: u32, n_blocks: u32 },
    OnlySinks { sink_blocks: u32, n_blocks: u32 },
    NoSuchPool { side: usize, pool: usize },
    BadLoss { side: usize, width: Width },
    FallingLoss { side: usize, width: Width },
    SmallPool { pool: usize, have: u32, least: u64 },
}

/// "layer entry 3, V": sides are numbered `2 * layer + side`.
fn side_name(side: usize) -> String {
    format!("layer entry {}, {}", side / 2, if side.is_multiple_of(2) { "K" } else { "V" })
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero(what) => write!(f, "policy: {what} is zero; it must be at least 1"),
            Self::ZeroPage { pool } => write!(f, "policy: a page of pool {pool} has zero bytes"),
            Self::ZeroQuota { side } => {
                write!(f, "policy: {} has no pages of its own, which the rule `layer` needs", side_name(*side))
            }
            Self::TooManySequences(n) => {
                write!(f, "policy: n_seq_max is {n}; llama.cpp has at most {MAX_SEQ} sequences")
            }
            Self::TooLarge { what, n } => write!(f, "policy: {what} is {n}, more than 31 bits can number"),
            Self::FewBlocks { n_ctx, n_blocks } => write!(
                f,
                "policy: {n_blocks} blocks of {BLOCK} cells can't hold n_ctx = {n_ctx} tokens; at least {} are needed",
                u64::from(*n_ctx).div_ceil(BLOCK as u64)
            ),
            Self::OnlySinks { sink_blocks, n_blocks } => write!(
                f,
                "policy: the sinks alone take {sink_blocks} of {n_blocks} blocks; lower `sink` or the number of sequences"
            ),
            Self::NoSuchPool { side, pool } => {
                write!(f, "policy: {} names pool {pool}, which does not exist", side_name(*side))
            }
            Self::BadLoss { side, width } => write!(
                f,
                "policy: the loss of {} at {width} bits is not a number of at least 0",
                side_name(*side)
            ),
            Self::FallingLoss { side, width } => write!(
                f,
                "policy: the loss of {} falls from the next wider width to {width} bits; losses must not fall as widths do",
                side_name(*side)
            ),
            Self::SmallPool { pool, have, least } => write!(
                f,
                "policy: pool {pool} has {have} pages, but a full context takes {least} at final widths; \
                 raise the budget, lower the context or solve for narrower widths"
            ),
        }
    }
}

impl std::error::Error for ConfigError {}
