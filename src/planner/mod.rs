//! The planner: final widths that cost least summed sensitivity within a byte budget (PM-KVQ section 4.2).
//!
//! ```text
//! minimise    sum_i s_i(w_i)
//! subject to  sum_i bytes_i(w_i) + fixed <= budget,   w_i one of the allowed widths
//! ```
//!
//! `i` runs over K and V of every layer, or over layers where the two are tied as in the paper. The programme itself is in
//! [`solve`]; this file says what it is about.

mod budgets;
mod exact;
mod frontier;
mod solve;
mod widths;

pub use budgets::{widths_from_budgets, LayerBudgetError};
pub use frontier::frontier;
pub use solve::{solve, Choice, Solution, SolveError};
pub use widths::{objective, solve_widths, uniform, PlannerError, Solved};
