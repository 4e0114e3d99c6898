//! What it costs to narrow a block: predicted loss per byte freed, along the lower convex hull of each side.
//!
//! A cheap step may lie behind a dear one (16 -> 8 costs much, 8 -> 4 next to nothing). Taking from every width the step
//! with the least slope, however long, walks along the lower convex hull of (bytes freed, loss), so that the price of a
//! block's next step never falls and one sorted list serves as the order.

use super::config::{Config, SideConfig};
use crate::geometry::Width;

/// One step of one side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub side: u32,
    pub from: Width,
    pub to: Width,
    /// Predicted loss per byte.
    pub price: f64,
}

/// The steps of all sides, cheapest first. Steps of one rank cost the same and start at the same width; between them
/// the blocks' age decides.
pub struct Prices {
    ranks: Vec<Vec<Step>>,
}

impl Prices {
    pub fn new(config: &Config) -> Prices {
        let mut steps: Vec<Step> = Vec::new();
        for (i, side) in config.sides.iter().enumerate() {
            let bytes = config.pools[side.pool].bytes_per_page;
            steps.extend(Width::ALL.into_iter().filter_map(|w| next_step(i as u32, side, w, bytes)));
        }
        // Of equal prices the widest blocks go first: no block falls by two steps while another could fall by one.
        steps.sort_by(|a, b| a.price.total_cmp(&b.price).then(b.from.cmp(&a.from)).then(a.side.cmp(&b.side)));
        let mut ranks: Vec<Vec<Step>> = Vec::new();
        for step in steps {
            match ranks.last_mut() {
                Some(rank) if rank[0].price == step.price && rank[0].from == step.from => rank.push(step),
                _ => ranks.push(vec![step]),
            }
        }
        Prices { ranks }
    }

    /// Cheapest first.
    pub fn ranks(&self) -> &[Vec<Step>] {
        &self.ranks
    }
}

/// The step of least slope from `from`; of equal slopes the shortest. `None` at the side's final width.
fn next_step(side: u32, config: &SideConfig, from: Width, bytes_per_page: u64) -> Option<Step> {
    Width::ALL
        .into_iter()
        .filter(|to| *to < from && *to >= config.floor())
        .map(|to| {
            let freed = (from.pages() - to.pages()) as f64 * bytes_per_page as f64;
            let price = (config.loss[to.index()] - config.loss[from.index()]) / freed;
            Step { side, from, to, price }
        })
        .reduce(|best, step| if step.price < best.price { step } else { best })
}

#[cfg(test)]
mod tests {
    use super::super::config::{Initial, PoolConfig, Rule};
    use super::*;

    fn config(sides: Vec<SideConfig>) -> Config {
        Config {
            n_ctx: 128,
            n_blocks: 2,
            n_seq_max: 1,
            sink: 1,
            window: 0,
            initial: Initial::Bits(Width::B16),
            rule: Rule::Block,
            sides,
            pools: vec![PoolConfig { n_pages: 1000, bytes_per_page: 100 }],
        }
    }

    fn side(final_width: Width, loss: [f64; 4]) -> SideConfig {
        SideConfig { pool: 0, final_width, shrinkable: true, loss, quota: 0 }
    }

    fn flat(prices: &Prices) -> Vec<(u32, u32, u32)> {
        prices.ranks().iter().flatten().map(|s| (s.side, s.from.into(), s.to.into())).collect()
    }

    #[test]
    fn a_cheap_step_behind_a_dear_one_is_found() {
        // 16 -> 8 alone costs 8 for 4 pages, but 16 -> 4 costs 8.1 for 6: the hull skips 8 bits.
        let prices = Prices::new(&config(vec![side(Width::B2, [0.0, 8.0, 8.1, 20.0])]));
        let of_16 = prices.ranks().iter().flatten().find(|s| s.from == Width::B16).unwrap();
        assert_eq!(of_16.to, Width::B4);
        // A block that is at 8 bits already has a step of its own, and it is the cheapest of all.
        assert_eq!(flat(&prices)[0], (0, 8, 4));
    }

    #[test]
    fn prices_rise_along_a_block() {
        let prices = Prices::new(&config(vec![
            side(Width::B2, [0.0, 1.0, 4.0, 16.0]),
            side(Width::B2, [0.0, 5.0, 5.5, 6.0]),
            side(Width::B4, [0.0, 0.0, 0.0, 0.0]),
        ]));
        for s in 0..3u32 {
            let mut last = f64::MIN;
            let mut at = Width::B16;
            while let Some(step) = prices.ranks().iter().flatten().find(|x| x.side == s && x.from == at) {
                assert!(step.price >= last);
                last = step.price;
                at = step.to;
            }
            assert_eq!(at, if s == 2 { Width::B4 } else { Width::B2 });
        }
    }

    #[test]
    fn equal_prices_share_a_rank_widest_first() {
        let prices = Prices::new(&config(vec![side(Width::B2, [0.0; 4]), side(Width::B2, [0.0; 4])]));
        assert_eq!(prices.ranks().len(), 3);
        assert!(prices.ranks().iter().all(|r| r.len() == 2));
        assert_eq!(prices.ranks()[0][0].from, Width::B16);
        assert_eq!(prices.ranks()[0][0].to, Width::B8);
    }

    #[test]
    fn what_cannot_shrink_has_no_steps() {
        let mut fixed = side(Width::B2, [0.0; 4]);
        fixed.shrinkable = false;
        assert!(flat(&Prices::new(&config(vec![fixed, side(Width::B16, [0.0; 4])]))).is_empty());
    }
}
