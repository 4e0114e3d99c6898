//! Final widths from the reference implementation's budgets: MiB per layer.
//!
//! The reference's allocation gives layer `i` the budget
//!
//! ```text
//! MiB_i = bits_i * (values of a token's K and V) * max_len / 8 / 2^20
//! ```
//!
//! codes only, K and V at one width. Read backwards at the context that it was made for, it says which width a full context
//! of the layer ends at: the widest that fits.

use std::fmt;

use super::Solved;
use crate::geometry::{group_size, Width};
use crate::plan::{Kv, LayerPlan, Solver, Status};
use crate::sensitivity::positions;
use crate::shape::ModelShape;

/// A layer's budget lies this close to the width that it was made for.
const ROUNDING: f64 = 1e-6;

/// Why budgets were refused.
#[derive(Clone, Debug, PartialEq)]
pub enum LayerBudgetError {
    Count {
        found: usize,
        layers: usize,
    },
    /// Not even the narrowest width fits.
    Small {
        il: u32,
        mib: f64,
        bits: f64,
        narrowest: Width,
        n_ctx: u32,
        /// The longest context that fits; 0 if none.
        longest: u64,
    },
    NoWidths,
}

impl fmt::Display for LayerBudgetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { found, layers } => write!(
                f,
                "budgets of another model: the file has {found}, one per layer, and the model {layers} layers with a \
                 progressive cache"
            ),
            Self::Small { il, mib, bits, narrowest, n_ctx, longest } => {
                write!(
                    f,
                    "the budget of layer {il}, {mib} MiB, holds {bits:.2} bits per value of {n_ctx} tokens, and the \
                     narrowest width is {narrowest}; "
                )?;
                match longest {
                    0 => f.write_str("it holds no context at all, make the budgets again"),
                    longest => write!(f, "name the context that the budgets were made for (--ctx), at most {longest}"),
                }
            }
            Self::NoWidths => f.write_str("--widths: name at least one of 16, 8, 4, 2"),
        }
    }
}

impl std::error::Error for LayerBudgetError {}

/// The widths that budgets stand for at a context of `n_ctx` tokens, the same for K and V of a layer, and whether every
/// budget is that of a width to the byte. One that is not hints at another context or model than it was made for.
///
/// # Errors
/// A wrong count, a budget that holds less than the narrowest of `widths`.
pub fn widths_from_budgets(
    shape: &ModelShape,
    n_ctx: u32,
    group: u32,
    mib: &[f64],
    widths: &[Width],
) -> Result<(Solved, bool), LayerBudgetError> {
    let mut widths = widths.to_vec();
    widths.sort_by(|a, b| b.cmp(a));
    widths.dedup();
    let narrowest = *widths.last().ok_or(LayerBudgetError::NoWidths)?;
    let count = || LayerBudgetError::Count { found: mib.len(), layers: shape.layers.len() };
    let places = positions(mib.len(), shape).ok_or_else(count)?;
    let mut exact = true;
    let mut layers = Vec::with_capacity(places.len());
    for (place, layer) in places.into_iter().zip(&shape.layers) {
        let row = f64::from(layer.n_head_kv) * (f64::from(layer.head_dim_k) + f64::from(layer.head_dim_v));
        let budget_bits = mib[place] * f64::from(1 << 20) * 8.0;
        let bits = budget_bits / (row * f64::from(n_ctx));
        let holds = |w: Width| w.bits() as f64 <= bits * (1.0 + ROUNDING);
        let Some(&width) = widths.iter().find(|w| holds(**w)) else {
            return Err(LayerBudgetError::Small {
                il: layer.il,
                mib: mib[place],
                bits,
                narrowest,
                n_ctx,
                longest: (budget_bits / (row * narrowest.bits() as f64)) as u64,
            });
        };
        exact &= (bits - width.bits() as f64).abs() <= ROUNDING * bits;
        let stored = |head_dim: u32| match group_size(head_dim as usize, group as usize) {
            Some(_) => width,
            None => Width::B16,
        };
        layers.push(LayerPlan { il: layer.il, k: stored(layer.head_dim_k), v: stored(layer.head_dim_v) });
    }
    let solver = Solver { kv: Kv::Tied, widths, objective: None, status: Status::Given, gap: None };
    Ok((Solved { layers, solver }, exact))
}
