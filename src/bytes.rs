//! Byte accounting: what a cache of a given model, context and widths takes, part by part, to the byte.
//!
//! ```text
//! total = pages + tables + parameters + scratch + transforms
//! pages        one pool per distinct (device, n_head_kv, head_dim); a page of a pool takes n_head_kv * 32 * head_dim bytes
//! tables       one per side (K or V of a layer), always
//! parameters   (min, max) of the groups, per side, unless the side stays at 16 bits; never shrinks
//! scratch      partial results of the attention nodes; on a GPU also lists of block operations and of what is seen
//! transforms   their vectors and matrices
//! ```
//!
//! Three page counts matter for a side whose final width is `f`. *Least*: `n_blocks * f / 2`, with which a full context
//! always fits. *Comfortable*: what a full context takes with sink and window still at 16 bits; planners count this one.
//! *Full*: everything at 16 bits; more is never used.

use std::fmt;

use crate::geometry::{self, group_size, page_bytes, Side, Width, BLOCK, SUBTILE};
use crate::shape::ModelShape;

pub use crate::plan::size::{human, parse_size, SizeError};

/// Blocks of the cell array for `n_ctx` tokens in up to `n_seq_max` sequences: the tokens, the sink blocks, and one
/// partly filled block per sequence.
pub fn n_blocks(n_ctx: u32, n_seq_max: u32, sink: u32) -> u32 {
    let cells = u64::from(sink) * u64::from(n_seq_max);
    let blocks = u64::from(n_ctx).div_ceil(BLOCK as u64) + cells.div_ceil(BLOCK as u64).max(1) + u64::from(n_seq_max);
    u32::try_from(blocks).unwrap_or(u32::MAX)
}

/// Bytes of the attention nodes' partial results, f32 `[n_chunk][n_tokens][n_head][head_dim_v + 2]`, for ubatches of up
/// to `n_ubatch` tokens over `n_kv` cells. Few tokens (up to 8) are split into chunks of 1,024 cells, at most 16.
pub fn scratch_bytes(n_head: u32, head_dim_v: u32, n_kv: u64, n_ubatch: u32) -> u64 {
    let row = 4 * (u64::from(head_dim_v) + 2) * u64::from(n_head);
    let few = u64::from(n_ubatch.min(8)) * n_kv.div_ceil(1024).clamp(1, 16);
    row.saturating_mul(few.max(u64::from(n_ubatch)))
}

/// What a layout depends on besides model and widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutParams {
    /// Tokens that fit, all sequences together.
    pub n_ctx: u32,
    /// Sequences that may be alive together.
    pub n_seq_max: u32,
    /// First tokens of each sequence that stay at 16 bits.
    pub sink: u32,
    /// Latest tokens of each sequence that stay at 16 bits.
    pub window: u32,
    /// Most values along the head dimension that share a (min, max) pair.
    pub group: u32,
    /// Bytes of the attention's partial results, and of lists on devices.
    pub scratch_bytes: u64,
    /// Bytes of the transforms' vectors and matrices.
    pub transform_bytes: u64,
}

impl LayoutParams {
    pub fn n_blocks(&self) -> u32 {
        n_blocks(self.n_ctx, self.n_seq_max, self.sink)
    }

    /// Blocks that hold the open block and the 16-bit window of every sequence.
    fn window_blocks(&self) -> u64 {
        u64::from(self.n_seq_max) * (1 + u64::from(self.window).div_ceil(BLOCK as u64))
    }

    /// 16-bit pages (of 16 tokens) that hold the sinks.
    fn sink_pages(&self) -> u64 {
        (u64::from(self.sink) * u64::from(self.n_seq_max)).div_ceil(SUBTILE as u64)
    }
}

/// One pool of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// The device whose memory it lies in.
    pub device: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    /// Bytes of a page, all KV heads together.
    pub page_row_bytes: u64,
}

/// One side (K or V) of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SideLayout {
    /// Index in [`Layout::pools`].
    pub pool: usize,
    /// Values that share a (min, max) pair; 0 where no group divides the head dimension: the side stays at 16 bits.
    pub group: usize,
    /// Groups in a row of one head; 0 where there is no group.
    pub n_groups: usize,
    /// The width that the side ends at; 16 where there is no group, whatever the plan says.
    pub final_width: Width,
    pub table_bytes: u64,
    pub params_bytes: u64,
    pub least_pages: u64,
    pub comfortable_pages: u64,
    pub full_pages: u64,
}

impl SideLayout {
    /// A side of `n_head_kv` heads of `head_dim` values that ends at `width`.
    pub fn new(params: &LayoutParams, pool: usize, n_head_kv: u32, head_dim: u32, width: Width) -> SideLayout {
        let n_blocks = u64::from(params.n_blocks());
        let group = group_size(head_dim as usize, params.group as usize).unwrap_or(0);
        let n_groups = (head_dim as usize).checked_div(group).unwrap_or(0);
        let final_width = if group == 0 { Width::B16 } else { width };
        let pages = final_width.pages() as u64;
        let full_pages = n_blocks * Width::B16.pages() as u64;
        let least_pages = n_blocks * pages;
        let at_16 = params.window_blocks().min(n_blocks) * (Width::B16.pages() as u64 - pages);
        let sinks = if final_width == Width::B16 { 0 } else { params.sink_pages() };
        let params_bytes = match final_width {
            Width::B16 => 0,
            _ => (geometry::params_bytes(1, 1, n_groups) as u64)
                .saturating_mul(n_blocks)
                .saturating_mul(u64::from(n_head_kv)),
        };
        SideLayout {
            pool,
            group,
            n_groups,
            final_width,
            table_bytes: geometry::table_bytes(n_blocks as usize) as u64,
            params_bytes,
            least_pages,
            comfortable_pages: (least_pages + at_16 + sinks).min(full_pages),
            full_pages,
        }
    }

    /// What a planner counts for the side: comfortable pages, table and parameters.
    pub fn planned_bytes(&self, page_row_bytes: u64) -> u64 {
        self.comfortable_pages
            .saturating_mul(page_row_bytes)
            .saturating_add(self.table_bytes)
            .saturating_add(self.params_bytes)
    }
}

/// Bytes of a page of all heads.
pub fn page_row_bytes(n_head_kv: u32, head_dim: u32) -> u64 {
    u64::from(n_head_kv).saturating_mul(page_bytes(head_dim as usize) as u64)
}

/// What a cache consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub n_ctx: u32,
    pub n_seq_max: u32,
    pub n_blocks: u32,
    pub pools: Vec<PoolShape>,
    /// Side `2 * layer + side`.
    pub sides: Vec<SideLayout>,
    pub table_bytes: u64,
    pub params_bytes: u64,
    pub scratch_bytes: u64,
    pub transform_bytes: u64,
    /// Everything but pages: tables, parameters, scratch, transforms.
    pub fixed_bytes: u64,
    /// What llama.cpp's own 16-bit cache of the same context takes.
    pub f16_bytes: u64,
    /// Values (of K and V) of a full context.
    pub n_values: u64,
}

impl Layout {
    /// The layout of `shape` on one device when side `i` ends at `widths[i]` (16 where `widths` is too short).
    pub fn new(shape: &ModelShape, widths: &[Width], params: &LayoutParams) -> Layout {
        Layout::on_devices(shape, widths, params, &[])
    }

    /// As [`Layout::new`], with layer `i` on device `devices[i]` (0 where `devices` is too short). Devices have pools of
    /// their own; the budget stays one, so that all figures but the number of pages in a pool are those of one device.
    pub fn on_devices(shape: &ModelShape, widths: &[Width], params: &LayoutParams, devices: &[u32]) -> Layout {
        let mut pools: Vec<PoolShape> = Vec::new();
        let mut sides = Vec::with_capacity(2 * shape.layers.len());
        let mut n_values = 0u64;
        for (i, layer) in shape.layers.iter().enumerate() {
            let device = devices.get(i).copied().unwrap_or(0);
            for side in Side::BOTH {
                let (n_head_kv, head_dim) = (layer.n_head_kv, layer.head_dim(side) as u32);
                let known =
                    pools.iter().position(|p| (p.device, p.n_head_kv, p.head_dim) == (device, n_head_kv, head_dim));
                let pool = known.unwrap_or_else(|| {
                    let page_row_bytes = page_row_bytes(n_head_kv, head_dim);
                    pools.push(PoolShape { device, n_head_kv, head_dim, page_row_bytes });
                    pools.len() - 1
                });
                let width = widths.get(sides.len()).copied().unwrap_or(Width::B16);
                sides.push(SideLayout::new(params, pool, n_head_kv, head_dim, width));
                let row = u64::from(n_head_kv).saturating_mul(u64::from(head_dim));
                n_values = n_values.saturating_add(row.saturating_mul(u64::from(params.n_ctx)));
            }
        }
        let sum = |f: fn(&SideLayout) -> u64| sides.iter().map(f).fold(0u64, u64::saturating_add);
        let (table_bytes, params_bytes) = (sum(|s| s.table_bytes), sum(|s| s.params_bytes));
        Layout {
            n_ctx: params.n_ctx,
            n_seq_max: params.n_seq_max,
            n_blocks: params.n_blocks(),
            pools,
            table_bytes,
            params_bytes,
            scratch_bytes: params.scratch_bytes,
            transform_bytes: params.transform_bytes,
            fixed_bytes: [table_bytes, params_bytes, params.scratch_bytes, params.transform_bytes]
                .into_iter()
                .fold(0, u64::saturating_add),
            f16_bytes: n_values.saturating_mul(2),
            n_values,
            sides,
        }
    }

    /// Bits per value of what lies outside sink and window in a full context: codes at the final widths, and parameters.
    pub fn history_bits(&self) -> f64 {
        self.mean_over_values(
            |_| true,
            |side| match (side.final_width, side.group) {
                (Width::B16, _) | (_, 0) => 16.0,
                // (min, max) in 16 bits each
                (width, group) => width.bits() as f64 + 32.0 / group as f64,
            },
        )
    }

    /// Mean final width of K or of V, each side counting by its values.
    pub fn mean_width(&self, side: Side) -> f64 {
        self.mean_over_values(|i| i % 2 == side.index(), |side| side.final_width.bits() as f64)
    }

    fn mean_over_values(&self, which: impl Fn(usize) -> bool, of: impl Fn(&SideLayout) -> f64) -> f64 {
        let (mut sum, mut values) = (0.0, 0.0);
        for (_, side) in self.sides.iter().enumerate().filter(|(i, _)| which(*i)) {
            let pool = &self.pools[side.pool];
            let row = f64::from(pool.n_head_kv) * f64::from(pool.head_dim);
            sum += row * of(side);
            values += row;
        }
        if values > 0.0 {
            sum / values
        } else {
            0.0
        }
    }

    fn pages_by_pool(&self, pages: fn(&SideLayout) -> u64) -> Vec<u64> {
        let mut sum = vec![0u64; self.pools.len()];
        for side in &self.sides {
            sum[side.pool] = sum[side.pool].saturating_add(pages(side));
        }
        sum
    }

    fn bytes_of_pages(&self, pages: &[u64]) -> u64 {
        pages
            .iter()
            .zip(&self.pools)
            .map(|(n, pool)| n.saturating_mul(pool.page_row_bytes))
            .fold(0, u64::saturating_add)
    }

    fn budget_of(&self, pages: fn(&SideLayout) -> u64) -> u64 {
        self.bytes_of_pages(&self.pages_by_pool(pages)).saturating_add(self.fixed_bytes)
    }

    /// Bytes of a side when a full context is at its final width: pages, table, parameters.
    pub fn least_bytes(&self, side: usize) -> u64 {
        let side = &self.sides[side];
        side.least_pages
            .saturating_mul(self.pools[side.pool].page_row_bytes)
            .saturating_add(side.table_bytes)
            .saturating_add(side.params_bytes)
    }

    /// Bytes without which a full context does not fit at the final widths.
    pub fn least_budget(&self) -> u64 {
        self.budget_of(|s| s.least_pages)
    }

    /// Bytes with which a full context fits and keeps sink and window at 16 bits.
    pub fn comfortable_budget(&self) -> u64 {
        self.budget_of(|s| s.comfortable_pages)
    }

    /// Bytes with which nothing ever shrinks; more is not used.
    pub fn full_budget(&self) -> u64 {
        self.budget_of(|s| s.full_pages)
    }

    /// Whether a budget holds a full context.
    ///
    /// # Errors
    /// [`BudgetError`] with the least possible budget.
    pub fn check(&self, budget: u64) -> Result<(), BudgetError> {
        let least = self.least_budget();
        if budget < least {
            return Err(BudgetError { budget, least, n_ctx: self.n_ctx, n_seq_max: self.n_seq_max });
        }
        Ok(())
    }

    /// Divides a budget among the pools. Each pool gets its least; what is left raises all of them towards comfortable,
    /// then towards full, in proportion to what each lacks; nothing is left unused that a page could be made of.
    ///
    /// # Errors
    /// [`BudgetError`] with the least possible budget.
    pub fn pool_pages(&self, budget: u64) -> Result<Vec<u32>, BudgetError> {
        self.check(budget)?;
        let mut pages = self.pages_by_pool(|s| s.least_pages);
        let mut left = budget - self.least_budget();
        for goal in [self.pages_by_pool(|s| s.comfortable_pages), self.pages_by_pool(|s| s.full_pages)] {
            left -= raise(&mut pages, &goal, &self.pools, left);
        }
        // more than 31 bits can number is more than the policy can use
        Ok(pages.into_iter().map(|n| n.min(i32::MAX as u64) as u32).collect())
    }

    /// Pages of each side under the rule `layer`: its least and its part of the pool's surplus, in proportion to what
    /// it lacks to be at 16 bits throughout.
    pub fn quotas(&self, pool_pages: &[u32]) -> Vec<u32> {
        let least = self.pages_by_pool(|s| s.least_pages);
        let full = self.pages_by_pool(|s| s.full_pages);
        self.sides
            .iter()
            .map(|s| {
                let surplus = u64::from(pool_pages[s.pool]).saturating_sub(least[s.pool]);
                let lacks = full[s.pool] - least[s.pool];
                let part = share(surplus, s.full_pages - s.least_pages, lacks);
                (s.least_pages + part).min(i32::MAX as u64) as u32
            })
            .collect()
    }

    /// The parts of a cache with so many pages per pool; they add up to its total.
    pub fn breakdown(&self, pool_pages: &[u32]) -> Breakdown {
        let pages = pool_pages
            .iter()
            .zip(&self.pools)
            .map(|(&n, pool)| u64::from(n).saturating_mul(pool.page_row_bytes))
            .fold(0, u64::saturating_add);
        Breakdown {
            pages,
            tables: self.table_bytes,
            params: self.params_bytes,
            scratch: self.scratch_bytes,
            transforms: self.transform_bytes,
        }
    }
}

/// `amount * part / whole` without overflow; 0 where `whole` is 0.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    match whole {
        0 => 0,
        _ => (u128::from(amount) * u128::from(part) / u128::from(whole)).min(u128::from(u64::MAX)) as u64,
    }
}

/// Raises `pages` towards `goal` with `bytes`, and returns how many bytes that took.
fn raise(pages: &mut [u64], goal: &[u64], pools: &[PoolShape], bytes: u64) -> u64 {
    let lack = |pages: &[u64]| -> u64 {
        let lacks = pages.iter().zip(goal).zip(pools);
        lacks
            .map(|((n, goal), pool)| goal.saturating_sub(*n).saturating_mul(pool.page_row_bytes))
            .fold(0, u64::saturating_add)
    };
    let whole = lack(pages);
    let mut spent = 0;
    if whole > 0 {
        let before = pages.to_vec();
        for (i, n) in pages.iter_mut().enumerate() {
            let lacks = goal[i].saturating_sub(before[i]);
            let more = share(bytes.min(whole), lacks, whole).min(lacks);
            *n += more;
            spent += more * pools[i].page_row_bytes;
        }
    }
    // what rounding left over, pool by pool
    for (i, n) in pages.iter_mut().enumerate() {
        let row = pools[i].page_row_bytes.max(1);
        let more = ((bytes - spent) / row).min(goal[i].saturating_sub(*n));
        *n += more;
        spent += more * row;
    }
    spent
}

/// Bytes of a cache by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakdown {
    pub pages: u64,
    pub tables: u64,
    pub params: u64,
    pub scratch: u64,
    pub transforms: u64,
}

impl Breakdown {
    pub fn total(&self) -> u64 {
        [self.pages, self.tables, self.params, self.scratch, self.transforms].into_iter().fold(0, u64::saturating_add)
    }
}

/// A budget below the least possible, both in bytes. Programs choose tokens and sequences beside what is asked of them: the
/// context of `llama-perplexity` is four times its `-c` unless `-b` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetError {
    pub budget: u64,
    pub least: u64,
    pub n_ctx: u32,
    pub n_seq_max: u32,
}

impl fmt::Display for BudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a budget of {} ({} bytes) is below the least possible for this model, {} tokens, {} sequence(s) and these \
             widths, {} ({} bytes); raise the budget, shorten the context or allow narrower widths",
            human(self.budget),
            self.budget,
            self.n_ctx,
            self.n_seq_max,
            human(self.least),
            self.least
        )
    }
}

impl std::error::Error for BudgetError {}
