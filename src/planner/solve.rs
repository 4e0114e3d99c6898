//! The multiple-choice knapsack behind the planner.
//!
//! Solved in two steps. Lagrangian relaxation of the budget gives a lower bound, and a first solution by rounding; a choice whose
//! own bound lies above that solution can't be part of a better one and is struck out. What remains, usually a few items,
//! is searched exactly ([`super::exact`]). The result is optimal, and proven to be, unless the solution says otherwise.

use std::fmt;

use super::exact::Search;

/// One way to store an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// At least 0 and finite.
    pub cost: f64,
    pub bytes: u64,
}

/// For every item the index of its choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    pub choice: Vec<usize>,
    pub objective: f64,
    pub bytes: u64,
    /// No solution costs less than this.
    pub bound: f64,
    pub optimal: bool,
}

impl Solution {
    /// (objective - bound) / objective; 0 if optimal.
    pub fn gap(&self) -> f64 {
        if self.optimal || self.objective <= 0.0 {
            0.0
        } else {
            ((self.objective - self.bound) / self.objective).max(0.0)
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum SolveError {
    /// The cheapest choices take more than the budget.
    Budget { least: u64 },
    /// An item without choices, or a cost that is negative or not a number.
    Input { item: usize },
}

impl fmt::Display for SolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget { least } => write!(f, "the least possible takes {least} bytes"),
            Self::Input { item } => {
                write!(f, "item {item} has no choice, or a cost that is not a number of at least 0")
            }
        }
    }
}

impl std::error::Error for SolveError {}

/// Which choice an item takes at a price per byte: least cost + price * bytes, fewer bytes among equals.
fn at_price(item: &[Choice], price: f64) -> usize {
    let value = |c: &Choice| c.cost + price * c.bytes as f64;
    (0..item.len())
        .min_by(|&a, &b| value(&item[a]).total_cmp(&value(&item[b])).then(item[a].bytes.cmp(&item[b].bytes)))
        .unwrap_or(0)
}

struct Problem<'a> {
    items: &'a [Vec<Choice>],
    budget: u64,
}

impl Problem<'_> {
    fn bytes(&self, choice: &[usize]) -> u64 {
        self.items.iter().zip(choice).map(|(item, &c)| item[c].bytes).fold(0, u64::saturating_add)
    }

    fn cost(&self, choice: &[usize]) -> f64 {
        self.items.iter().zip(choice).map(|(item, &c)| item[c].cost).sum()
    }

    fn at(&self, price: f64) -> Vec<usize> {
        self.items.iter().map(|item| at_price(item, price)).collect()
    }

    fn bound(&self, price: f64) -> f64 {
        let sum: f64 = self
            .items
            .iter()
            .map(|item| item.iter().map(|c| c.cost + price * c.bytes as f64).fold(f64::INFINITY, f64::min))
            .sum();
        sum - price * self.budget as f64
    }

    /// The lowest price at which the budget holds (within rounding): the best Lagrangian bound is there.
    fn price(&self) -> f64 {
        // from the scale of the costs on, however small they are
        let most = self.items.iter().flatten().map(|c| c.cost).fold(f64::MIN_POSITIVE, f64::max);
        let (mut low, mut high) = (0.0, most / (self.budget as f64).max(1.0));
        while self.bytes(&self.at(high)) > self.budget {
            low = high;
            high *= 4.0;
        }
        for _ in 0..200 {
            let mid = 0.5 * (low + high);
            if self.bytes(&self.at(mid)) > self.budget {
                low = mid;
            } else {
                high = mid;
            }
        }
        high
    }

    /// Spends what is left of the budget on the single change that saves most, until none fits.
    fn improve(&self, mut choice: Vec<usize>) -> Vec<usize> {
        let mut used = self.bytes(&choice);
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for (i, item) in self.items.iter().enumerate() {
                let now = item[choice[i]];
                for (j, c) in item.iter().enumerate() {
                    let saved = now.cost - c.cost;
                    let fits = (used - now.bytes).saturating_add(c.bytes) <= self.budget;
                    if fits && saved > 0.0 && best.is_none_or(|(s, _, _)| saved > s) {
                        best = Some((saved, i, j));
                    }
                }
            }
            let Some((_, i, j)) = best else { return choice };
            used = used - self.items[i][choice[i]].bytes + self.items[i][j].bytes;
            choice[i] = j;
        }
    }

    /// Choices that may be part of a solution that costs at most `slack` more than the bound.
    fn open_choices(&self, price: f64, slack: f64) -> Vec<Vec<usize>> {
        self.items
            .iter()
            .map(|item| {
                let value = |c: &Choice| c.cost + price * c.bytes as f64;
                let least = item.iter().map(value).fold(f64::INFINITY, f64::min);
                (0..item.len()).filter(|&j| value(&item[j]) - least <= slack).collect()
            })
            .collect()
    }
}

/// Picks one choice per item, of least summed cost, whose bytes add up to at most `budget`.
///
/// # Errors
/// [`SolveError::Budget`] with the least bytes possible; [`SolveError::Input`] for an unusable item.
pub fn solve(items: &[Vec<Choice>], budget: u64) -> Result<Solution, SolveError> {
    let usable = |item: &Vec<Choice>| !item.is_empty() && item.iter().all(|c| c.cost.is_finite() && c.cost >= 0.0);
    if let Some(item) = items.iter().position(|item| !usable(item)) {
        return Err(SolveError::Input { item });
    }
    let least = items.iter().map(|item| item.iter().map(|c| c.bytes).min().unwrap_or(0)).fold(0, u64::saturating_add);
    if least > budget {
        return Err(SolveError::Budget { least });
    }
    let problem = Problem { items, budget };
    let cheapest = problem.at(0.0);
    if problem.bytes(&cheapest) <= budget {
        return Ok(finish(&problem, cheapest, true, None));
    }
    let price = problem.price();
    let mut best = problem.improve(problem.at(price));
    let bound = problem.bound(price);
    let cost = problem.cost(&best);
    // rounding of the sums must not strike out the best
    let slack = (cost - bound).max(0.0) + 1e-9 * (cost.abs() + bound.abs());
    let open = problem.open_choices(price, slack);
    let found = Search { items, open: &open, budget, price, slack }.run();
    let optimal = found.as_ref().is_none_or(|found| found.exact);
    if let Some(found) = found.filter(|found| problem.cost(&found.choice) <= cost) {
        best = found.choice;
    }
    Ok(finish(&problem, best, optimal, Some(bound)))
}

fn finish(problem: &Problem, choice: Vec<usize>, optimal: bool, bound: Option<f64>) -> Solution {
    let objective = problem.cost(&choice);
    Solution { objective, bytes: problem.bytes(&choice), bound: bound.unwrap_or(objective), optimal, choice }
}
