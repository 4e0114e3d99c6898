//! From a plan to what the policy is told.

use super::{Initial, Plan};
use crate::bytes::{Layout, LayoutParams};
use crate::geometry::Width;
use crate::policy::{self, monotone_loss, Config, PoolConfig, SideConfig};

impl Plan {
    /// Predicted loss of each side (`2 * layer + side`) at 16, 8, 4, 2 bits; never falls as widths do.
    ///
    /// Widths that were not measured are filled in from the next narrower (else the next wider) one in proportion to the
    /// step between two codes, 1 / (2^b - 1), to which a first-order loss is proportional; 16 bits cost nothing unless
    /// measured. Without sensitivities all sides are alike.
    pub fn losses(&self) -> Vec<[f64; 4]> {
        let Some(s) = &self.sensitivities else {
            return vec![fill([None, None, None, Some(1.0)]); 2 * self.layers.len()];
        };
        let known = |values: &[f64]| {
            let mut loss = [None; 4];
            for (w, v) in s.widths.iter().zip(values) {
                loss[w.index()] = Some(*v);
            }
            fill(loss)
        };
        s.layers.iter().flat_map(|l| [known(&l.k), known(&l.v)]).collect()
    }

    /// The policy's configuration for a cache of this plan, laid out as `layout` with so many pages in each pool.
    pub fn policy_config(&self, layout: &Layout, pool_pages: &[u32], params: &LayoutParams) -> Config {
        let losses = self.losses();
        let quotas = layout.quotas(pool_pages);
        Config {
            n_ctx: params.n_ctx,
            n_blocks: layout.n_blocks,
            n_seq_max: params.n_seq_max,
            sink: self.sink,
            window: self.window,
            initial: match self.initial {
                Initial::B16 => policy::Initial::Bits(Width::B16),
                Initial::Final => policy::Initial::Final,
            },
            rule: self.rule,
            sides: layout
                .sides
                .iter()
                .enumerate()
                .map(|(i, side)| SideConfig {
                    pool: side.pool,
                    final_width: side.final_width,
                    shrinkable: side.group != 0,
                    loss: losses[i],
                    quota: quotas[i],
                })
                .collect(),
            pools: layout
                .pools
                .iter()
                .zip(pool_pages)
                .map(|(pool, &n_pages)| PoolConfig { n_pages, bytes_per_page: pool.page_row_bytes })
                .collect(),
        }
    }
}

fn fill(known: [Option<f64>; 4]) -> [f64; 4] {
    let step = |w: Width| 1.0 / (2f64.powi(w.bits() as i32) - 1.0);
    let mut loss = [0.0; 4];
    for w in Width::ALL {
        let i = w.index();
        let narrower = (i + 1..4).find_map(|j| known[j].map(|l| (j, l)));
        let wider = (0..i).rev().find_map(|j| known[j].map(|l| (j, l)));
        loss[i] = match (known[i], narrower.or(wider)) {
            (Some(l), _) => l,
            (None, _) if w == Width::B16 => 0.0,
            (None, Some((j, l))) => l * step(w) / step(Width::ALL[j]),
            (None, None) => 0.0,
        };
    }
    monotone_loss(loss)
}
