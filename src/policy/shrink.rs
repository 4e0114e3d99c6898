//! Which blocks give pages, in which order.

use super::plan::Plan;
use super::stage::PolicyError;
use super::survey::{Class, Survey};
use crate::geometry::Width;

impl Plan<'_> {
    /// Narrows blocks of the sides of a pool until the ubatch fits in it: first blocks that no window reaches, by price;
    /// then, block by block and oldest first, those in a window, open ones and at the very last the sinks.
    pub fn relieve(&mut self, pool: usize) -> Result<(), PolicyError> {
        let survey = self.survey();
        self.by_price(pool, &survey);
        for class in [Class::Past, Class::Window, Class::Open, Class::Sink] {
            if self.short(pool) {
                for b in self.blocks(&survey, class) {
                    self.squeeze(pool, b);
                }
            }
        }
        self.keep(survey);
        if self.short(pool) {
            let (needed, have) = (self.demand[pool] as u64, self.policy.pools[pool].n_pages);
            return Err(PolicyError::NoRoom { pool, needed, have });
        }
        Ok(())
    }

    /// The cheapest step that any block can still take, over and over.
    fn by_price(&mut self, pool: usize, survey: &Survey) {
        let order = self.blocks(survey, Class::Past);
        let policy = self.policy;
        let fixed = self.out_of_reach(survey);
        for rank in policy.prices.ranks() {
            // Most ranks have no block left to narrow: knowing that without looking at every block is what keeps a
            // shrink in mid-decode short.
            let steps: Vec<_> = rank
                .iter()
                .filter(|step| policy.config.sides[step.side as usize].pool == pool)
                .filter(|step| {
                    let (side, from) = (step.side as usize, step.from.index());
                    self.widths[side][from] > fixed[side][from]
                })
                .collect();
            if steps.is_empty() {
                continue;
            }
            for &b in &order {
                for step in &steps {
                    if !self.short(pool) {
                        return;
                    }
                    self.take_step(step.side as usize, b, step.from, step.to);
                }
            }
        }
    }

    /// Blocks at each width, per side, that hold tokens and may not be narrowed yet: sinks, windows and open blocks.
    fn out_of_reach(&self, survey: &Survey) -> Vec<[u32; 4]> {
        let mut fixed = vec![[0; 4]; self.widths.len()];
        for (b, class) in survey.class.iter().enumerate() {
            if matches!(class, Class::Empty | Class::Past) {
                continue;
            }
            for (side, of_side) in fixed.iter_mut().enumerate() {
                if let Some(w) = self.width(side, b) {
                    of_side[w.index()] += 1;
                }
            }
        }
        fixed
    }

    /// Narrows a block as far as is needed and allowed, cheapest steps first. Steps that free nothing because the block
    /// has few pages anyway are left out; the longer steps that they are part of come last.
    fn squeeze(&mut self, pool: usize, b: usize) {
        if !self.short(pool) {
            return;
        }
        let policy = self.policy;
        let sides = || (0..policy.config.sides.len()).filter(|&s| policy.config.sides[s].pool == pool);
        if sides().all(|s| self.width(s, b).is_none_or(|w| w == policy.config.sides[s].floor())) {
            return;
        }
        for step in policy.prices.ranks().iter().flatten() {
            if !self.short(pool) {
                return;
            }
            if policy.config.sides[step.side as usize].pool == pool {
                self.take_step(step.side as usize, b, step.from, step.to);
            }
        }
        for side in sides() {
            for to in Width::ALL.into_iter().filter(|w| *w >= policy.config.sides[side].floor()) {
                if !self.short(pool) {
                    return;
                }
                if self.width(side, b).is_some_and(|w| to < w) && self.gain(side, b, to) > 0 {
                    self.set_width(side, b, to);
                }
            }
        }
    }

    fn take_step(&mut self, side: usize, b: usize, from: Width, to: Width) {
        if self.width(side, b) == Some(from) && self.gain(side, b, to) > 0 {
            self.set_width(side, b, to);
        }
    }

    /// The paper's rule: a side over its quota shrinks as a whole. Blocks that came out of the window since the last time
    /// are wider than the rest; they catch up before the whole side goes a step down, so that it shrinks no earlier than its
    /// budget demands. What is in the window does not shrink for a quota; the pool is what bounds memory.
    pub fn keep_quotas(&mut self) {
        let policy = self.policy;
        for side in 0..policy.config.sides.len() {
            let quota = i64::from(policy.config.sides[side].quota);
            // A side that takes no pages is left alone, even if others pushed it over its quota before.
            if self.pages[side] <= quota || self.pages[side] <= i64::from(policy.pages[side]) {
                continue;
            }
            let survey = self.survey();
            let order = self.blocks(&survey, Class::Past);
            self.keep(survey);
            let floor = policy.config.sides[side].floor();
            while self.pages[side] > quota {
                let widest = order.iter().filter_map(|&b| self.width(side, b)).filter(|w| *w > floor).max();
                let Some((from, to)) = widest.and_then(|w| Some((w, w.narrower()?))) else {
                    break;
                };
                for &b in &order {
                    if self.width(side, b) == Some(from) {
                        self.set_width(side, b, to);
                    }
                }
            }
        }
    }

    /// Blocks of a class: those that only this ubatch fills first, since starting narrow costs nothing; then those of
    /// idle sequences; then oldest first. In a window the latest tokens count most: there only age decides.
    fn blocks(&self, survey: &Survey, class: Class) -> Vec<usize> {
        let mut blocks: Vec<usize> = (0..survey.class.len()).filter(|&b| survey.class[b] == class).collect();
        if class == Class::Past {
            blocks.sort_by_key(|&b| (!self.is_fresh(b), !survey.idle[b], survey.newest[b]));
        } else {
            blocks.sort_by_key(|&b| (!survey.idle[b], survey.newest[b]));
        }
        blocks
    }
}
