//! The multiple-choice knapsack behind the planner.
//!
//! Solved in two steps. Lagrangian relaxation of the budget gives a lower bound, and a first solution by rounding; a choice whose
//! own bound lies above that solution can't be part of a better one and is struck out. What remains, usually a few items,
//! goes to `good_lp` as an integer programme. The result is optimal, and proven to be, unless the solver says otherwise.

use good_lp::{constraint, microlp, variable, variables, Expression, Solution as _, SolverModel};
use std::fmt;

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
                    let fits = used - now.bytes + c.bytes <= self.budget;
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

    /// Choices that may be part of a solution cheaper than `cost`.
    fn open_choices(&self, price: f64, cost: f64) -> Vec<Vec<usize>> {
        let bound = self.bound(price);
        let slack = 1e-9 * (cost.abs() + bound.abs());
        self.items
            .iter()
            .map(|item| {
                let value = |c: &Choice| c.cost + price * c.bytes as f64;
                let least = item.iter().map(value).fold(f64::INFINITY, f64::min);
                (0..item.len()).filter(|&j| bound + value(&item[j]) - least <= cost + slack).collect()
            })
            .collect()
    }

    /// The remaining programme, by `good_lp`. `None` if the solver gave up or its answer does not hold.
    ///
    /// The solver's tolerances are absolute, so costs are counted from the cheapest open choice of an item, the largest
    /// of them as 1, and bytes from the smallest, in whole units.
    fn integer(&self, open: &[Vec<usize>]) -> Option<Vec<usize>> {
        let of = |i: usize| open[i].iter().map(move |&j| self.items[i][j]);
        let least_cost = |i: usize| of(i).map(|c| c.cost).fold(f64::INFINITY, f64::min);
        let least_bytes = |i: usize| of(i).map(|c| c.bytes).min().unwrap_or(0);
        let n = self.items.len();
        let room = self.budget.checked_sub((0..n).map(least_bytes).fold(0, u64::saturating_add))?;
        let scale = (0..n).flat_map(|i| of(i).map(move |c| c.cost - least_cost(i))).fold(0.0, f64::max);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let unit = (0..n).flat_map(|i| of(i).map(move |c| c.bytes - least_bytes(i))).fold(0, gcd).max(1);
        let mut vars = variables!();
        let picks: Vec<Vec<_>> =
            open.iter().map(|js| js.iter().map(|_| vars.add(variable().binary())).collect()).collect();
        let mut cost = Expression::from(0.0);
        let mut bytes = Expression::from(0.0);
        for (i, xs) in picks.iter().enumerate() {
            for (c, &x) in of(i).zip(xs) {
                cost += ((c.cost - least_cost(i)) / scale) * x;
                bytes += ((c.bytes - least_bytes(i)) / unit) as f64 * x;
            }
        }
        let mut model = vars.minimise(cost).using(microlp);
        model = model.with(constraint!(bytes <= (room / unit) as f64));
        for xs in &picks {
            let one: Expression = xs.iter().copied().sum();
            model = model.with(constraint!(one == 1.0));
        }
        let found = model.solve().ok()?;
        let choice: Vec<usize> = open
            .iter()
            .zip(&picks)
            .map(|(js, xs)| {
                let best = (0..xs.len()).max_by(|&a, &b| found.value(xs[a]).total_cmp(&found.value(xs[b])));
                best.map(|b| js[b])
            })
            .collect::<Option<_>>()?;
        (self.bytes(&choice) <= self.budget).then_some(choice)
    }
}

/// The greatest common divisor; 0 and `a` give `a`.
fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
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
    let open = problem.open_choices(price, problem.cost(&best));
    let found = problem.integer(&open);
    let optimal = found.is_some();
    if let Some(found) = found {
        if problem.cost(&found) <= problem.cost(&best) {
            best = found;
        }
    }
    Ok(finish(&problem, best, optimal, Some(bound)))
}

fn finish(problem: &Problem, choice: Vec<usize>, optimal: bool, bound: Option<f64>) -> Solution {
    let objective = problem.cost(&choice);
    Solution { objective, bytes: problem.bytes(&choice), bound: bound.unwrap_or(objective), optimal, choice }
}
