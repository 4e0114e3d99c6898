//! Exact search over the choices that the bounds leave open.
//!
//! Items are taken one after the other. Of all ways to choose for the items so far only those are kept that no other beats
//! in both bytes and cost, and of these only those that can still end below the best solution known. Sides of a model are
//! much alike, so their bytes add up to few different sums, and lists stay short even where costs follow bytes so closely
//! that a branch and bound over the linear relaxation would not come to an end.

use super::solve::Choice;

/// Most list entries that are remembered, all items together (8 bytes each). Beyond it the search stops being exact.
const MOST_NODES: usize = 1 << 24;

/// What was chosen for an item, and what for those before it.
#[derive(Clone, Copy)]
struct Node {
    before: u32,
    choice: u32,
}

/// A way to choose for the items so far.
#[derive(Clone, Copy)]
struct State {
    bytes: u64,
    cost: f64,
    node: u32,
}

/// What is searched.
pub struct Search<'a> {
    pub items: &'a [Vec<Choice>],
    /// Indices of the open choices of each item.
    pub open: &'a [Vec<usize>],
    pub budget: u64,
    /// The price per byte that the bound was found at.
    pub price: f64,
    /// How much more than the least of cost + price * bytes a solution may have, all items together.
    pub slack: f64,
}

/// What was found.
pub struct Found {
    pub choice: Vec<usize>,
    /// Whether nothing was left out that could be better.
    pub exact: bool,
}

impl Search<'_> {
    /// The least cost within the budget; `None` if no solution is within `slack`.
    pub fn run(&self) -> Option<Found> {
        let n = self.items.len();
        let of = |i: usize| self.open[i].iter().map(move |&j| self.items[i][j]);
        let mut bytes_after = vec![0u64; n + 1];
        for i in (0..n).rev() {
            bytes_after[i] = bytes_after[i + 1].saturating_add(of(i).map(|c| c.bytes).min()?);
        }
        let most = (MOST_NODES / n.max(1)).max(1);
        let mut exact = true;
        let mut nodes: Vec<Node> = Vec::new();
        let mut states = vec![State { bytes: 0, cost: 0.0, node: u32::MAX }];
        // of the items so far
        let mut least = 0.0;
        for i in 0..n {
            least += of(i).map(|c| c.cost + self.price * c.bytes as f64).fold(f64::INFINITY, f64::min);
            let over = |s: &State| s.cost + self.price * s.bytes as f64 - least;
            let room = self.budget.checked_sub(bytes_after[i + 1])?;
            states = merge(&states, &self.open[i], &self.items[i], room, |s| over(s) <= self.slack, &mut nodes);
            if states.len() > most {
                exact = false;
                thin(&mut states, most, over);
            }
        }
        // costs fall along the list
        let mut at = states.last()?.node;
        let mut choice = vec![0; n];
        for i in (0..n).rev() {
            let node = nodes.get(at as usize)?;
            choice[i] = node.choice as usize;
            at = node.before;
        }
        Some(Found { choice, exact })
    }
}

/// Every state with every open choice of one more item, by bytes; what costs no less than a smaller one is dropped.
fn merge(
    states: &[State],
    open: &[usize],
    item: &[Choice],
    room: u64,
    keep: impl Fn(&State) -> bool,
    nodes: &mut Vec<Node>,
) -> Vec<State> {
    let mut next: Vec<State> = Vec::with_capacity(states.len());
    // how far each choice has come in `states`
    let mut heads = vec![0usize; open.len()];
    loop {
        let mut first: Option<(u64, f64, usize)> = None;
        for (c, &j) in open.iter().enumerate() {
            let Some(s) = states.get(heads[c]) else { continue };
            let (bytes, cost) = (s.bytes.saturating_add(item[j].bytes), s.cost + item[j].cost);
            if first.is_none_or(|f| (bytes, cost) < (f.0, f.1)) {
                first = Some((bytes, cost, c));
            }
        }
        let Some((bytes, cost, c)) = first else { return next };
        if bytes > room {
            return next;
        }
        let before = states[heads[c]].node;
        heads[c] += 1;
        if next.last().is_some_and(|last| last.cost <= cost) {
            continue;
        }
        let state = State { bytes, cost, node: nodes.len() as u32 };
        if keep(&state) {
            nodes.push(Node { before, choice: open[c] as u32 });
            next.push(state);
        }
    }
}

/// Keeps the `most` states that promise most.
fn thin(states: &mut Vec<State>, most: usize, over: impl Fn(&State) -> f64) {
    let mut by_promise: Vec<f64> = states.iter().map(&over).collect();
    let (_, &mut limit, _) = by_promise.select_nth_unstable_by(most - 1, f64::total_cmp);
    let mut left = most;
    states.retain(|s| {
        let keep = left > 0 && over(s) <= limit;
        left -= usize::from(keep);
        keep
    });
}
