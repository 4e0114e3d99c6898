//! From sensitivities and a byte budget to the final widths of a plan.

use std::fmt;

use super::solve::{solve, Choice, SolveError};
use crate::bytes::{BudgetError, Layout, LayoutParams};
use crate::geometry::{Side, Width};
use crate::plan::{Kv, LayerPlan, Solver, Status};
use crate::sensitivity::Sensitivities;
use crate::shape::ModelShape;

#[derive(Clone, Debug, PartialEq)]
pub enum PlannerError {
    /// The budget is below the least possible.
    Budget(BudgetError),
    /// A width that was asked for was not measured.
    NotMeasured { width: Width },
    /// No width to choose from.
    NoWidths,
    /// The sensitivities are for other layers than the model has.
    Layers { expected: usize, found: usize },
    /// A sensitivity that is no number of at least 0.
    Value { il: u32 },
}

impl fmt::Display for PlannerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(e) => e.fmt(f),
            Self::NotMeasured { width } => {
                write!(
                    f,
                    "the sensitivities have no values for {width} bits: leave {width} out of --widths, or measure it"
                )
            }
            Self::NoWidths => f.write_str("--widths: name at least one of 16, 8, 4, 2"),
            Self::Layers { expected, found } => {
                write!(f, "the sensitivities are for {found} layers, the model has {expected} with a KV cache")
            }
            Self::Value { il } => write!(f, "the sensitivities of layer {il} are not all numbers of at least 0"),
        }
    }
}

impl std::error::Error for PlannerError {}

/// Widths for every layer, and how they were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solved {
    pub layers: Vec<LayerPlan>,
    pub solver: Solver,
}

impl Solved {
    /// Summed sensitivity; 0 where nothing was summed up.
    pub fn objective(&self) -> f64 {
        self.solver.objective.unwrap_or(0.0)
    }
}

/// One width for all sides.
pub fn uniform(shape: &ModelShape, width: Width) -> Solved {
    let layers = shape.layers.iter().map(|l| LayerPlan { il: l.il, k: width, v: width }).collect();
    let solver = Solver { kv: Kv::Tied, widths: vec![width], objective: None, status: Status::Uniform, gap: None };
    Solved { layers, solver }
}

/// Summed sensitivity of a model's sides at `widths` (side `2 * layer + side`), as the planner counts it; `None` if one of
/// them was not measured or the layers are not the model's.
pub fn objective(
    shape: &ModelShape,
    sensitivities: &Sensitivities,
    params: &LayoutParams,
    widths: &[Width],
) -> Option<f64> {
    let layers = &sensitivities.layers;
    if layers.len() != shape.layers.len() || widths.len() != 2 * layers.len() {
        return None;
    }
    let layout = Layout::new(shape, widths, params);
    let values = layers.iter().flat_map(|l| [&l.k, &l.v]);
    values.zip(&layout.sides).map(|(values, side)| sensitivities.cost(values, side.final_width)).sum()
}

/// Widths of least summed sensitivity within `budget` bytes, everything counted.
///
/// Counts the comfortable pages of each side (sink and window at 16 bits). A budget that only just holds the narrowest
/// widths without a full window is met with those.
///
/// # Errors
/// [`PlannerError`]
pub fn solve_widths(
    shape: &ModelShape,
    sensitivities: &Sensitivities,
    params: &LayoutParams,
    budget: u64,
    kv: Kv,
    widths: &[Width],
) -> Result<Solved, PlannerError> {
    let mut widths = widths.to_vec();
    widths.sort_by(|a, b| b.cmp(a));
    widths.dedup();
    let Some(&narrowest) = widths.last() else { return Err(PlannerError::NoWidths) };
    if sensitivities.layers.len() != shape.layers.len() {
        return Err(PlannerError::Layers { expected: shape.layers.len(), found: sensitivities.layers.len() });
    }
    // bytes of each side at each width
    let layouts: Vec<Layout> =
        widths.iter().map(|&w| Layout::new(shape, &vec![w; 2 * shape.layers.len()], params)).collect();
    let bytes = |side: usize, w: usize| {
        let layout = &layouts[w];
        let side = &layout.sides[side];
        side.planned_bytes(layout.pools[side.pool].page_row_bytes)
    };
    // a side whose values no group divides stays at 16 bits, whatever is chosen, and costs what 16 bits cost
    let stored = |side: usize, w: Width| if layouts[0].sides[side].group == 0 { Width::B16 } else { w };
    let mut items = Vec::new();
    for (i, layer) in sensitivities.layers.iter().enumerate() {
        let mut sides = Vec::new();
        for (side, values) in Side::BOTH.into_iter().zip([&layer.k, &layer.v]) {
            let side = 2 * i + side.index();
            let mut choices = Vec::new();
            for (j, &w) in widths.iter().enumerate() {
                let w = stored(side, w);
                let cost = sensitivities.cost(values, w).ok_or(PlannerError::NotMeasured { width: w })?;
                choices.push(Choice { cost, bytes: bytes(side, j) });
            }
            sides.push(choices);
        }
        match kv {
            Kv::Apart => items.append(&mut sides),
            Kv::Tied => items.push(
                (0..widths.len())
                    .map(|j| Choice {
                        cost: sides[0][j].cost + sides[1][j].cost,
                        bytes: sides[0][j].bytes + sides[1][j].bytes,
                    })
                    .collect(),
            ),
        }
    }
    let pick = |choice: &[usize], objective, status, gap| {
        let width = |i: usize, side: usize| {
            let chosen = match kv {
                Kv::Apart => widths[choice[2 * i + side]],
                Kv::Tied => widths[choice[i]],
            };
            stored(2 * i + side, chosen)
        };
        let layers = shape
            .layers
            .iter()
            .enumerate()
            .map(|(i, l)| LayerPlan { il: l.il, k: width(i, 0), v: width(i, 1) })
            .collect();
        Solved {
            layers,
            solver: Solver { kv, widths: widths.clone(), objective: Some(objective), status, gap: Some(gap) },
        }
    };
    match solve(&items, budget.saturating_sub(params.scratch_bytes)) {
        Ok(s) => {
            let status = if s.optimal { Status::Optimal } else { Status::Limit };
            Ok(pick(&s.choice, s.objective, status, s.gap()))
        }
        Err(SolveError::Input { item }) => {
            let at = if kv == Kv::Apart { item / 2 } else { item };
            Err(PlannerError::Value { il: sensitivities.layers[at].il })
        }
        Err(SolveError::Budget { .. }) => {
            let layout = Layout::new(shape, &vec![narrowest; 2 * shape.layers.len()], params);
            layout.check(budget).map_err(PlannerError::Budget)?;
            let last = vec![widths.len() - 1; items.len()];
            let objective = items.iter().map(|item| item[widths.len() - 1].cost).sum();
            Ok(pick(&last, objective, Status::Narrowest, 0.0))
        }
    }
}
