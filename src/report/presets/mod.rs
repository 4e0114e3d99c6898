//! Questions that a run of several caches answers: which caches each takes, and the answer in words computed from the data.

mod allocation;
mod cumulative;
mod progressive;
mod sources;

use super::finding::Finding;
use super::{MeasuredText, NamedSensitivities};

/// A question with a set of caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// Is it worth starting at 16 bits? Progressive against static caches of the same final width and bytes
    Progressive,
    /// Is a planned allocation worth it? Planned against uniform widths at equal bytes; rule block against rule layer
    Allocation,
    /// Does error accumulate? Divergence of output and attention over position
    Cumulative,
    /// Sensitivities measured with stretched positions: plans of each on short and long text
    Interpolation,
    /// A plan made on one kind of text, used on another
    Transfer,
}

/// A cache that a preset takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// A name as in `--cache`.
    Named(String),
    /// The widest uniform final width that `bits` per value, all counted, hold.
    Uniform { bits: f64 },
    /// Planned from sensitivities for `bits` per value, all counted.
    Planned { sensitivity: String, bits: f64, tied: bool, layer_rule: bool },
}

impl Wish {
    /// What the cache is called in tables and plots.
    pub fn label(&self) -> String {
        match self {
            Wish::Named(name) => name.clone(),
            Wish::Uniform { bits } => format!("uniform@{bits}"),
            Wish::Planned { sensitivity, bits, tied, layer_rule } => {
                let ending = match (tied, layer_rule) {
                    (true, _) => " tied",
                    (_, true) => " rule layer",
                    _ => "",
                };
                format!("{sensitivity}@{bits}{ending}")
            }
        }
    }
}

impl Preset {
    pub fn name(self) -> &'static str {
        match self {
            Preset::Progressive => "progressive",
            Preset::Allocation => "allocation",
            Preset::Cumulative => "cumulative",
            Preset::Interpolation => "interpolation",
            Preset::Transfer => "transfer",
        }
    }

    /// Sensitivity files that the preset can't do without.
    pub fn least_sensitivities(self) -> usize {
        match self {
            Preset::Progressive | Preset::Cumulative => 0,
            Preset::Allocation => 1,
            Preset::Interpolation | Preset::Transfer => 2,
        }
    }

    /// The caches; the first is what the others are compared with.
    pub fn caches(self, sensitivities: &[String], bits: &[f64]) -> Vec<Wish> {
        match self {
            Preset::Progressive => progressive::caches(),
            Preset::Allocation => allocation::caches(sensitivities, bits),
            Preset::Cumulative => cumulative::caches(sensitivities, bits),
            Preset::Interpolation | Preset::Transfer => sources::caches(sensitivities, bits),
        }
    }

    /// The cache whose attention the others' is compared with.
    pub fn attention_reference(self) -> Option<&'static str> {
        (self == Preset::Cumulative).then_some(cumulative::SIXTEEN)
    }

    /// Positions whose attention is compared, in a passage of `n` tokens.
    pub fn attention_positions(self, n: usize) -> Vec<usize> {
        match self {
            Preset::Cumulative => cumulative::positions(n),
            _ => Vec::new(),
        }
    }

    /// The answer. `layers` are the model's layers with a progressive cache.
    pub fn conclude(
        self,
        texts: &[MeasuredText],
        sensitivities: &[NamedSensitivities],
        bits: &[f64],
        layers: &[u32],
    ) -> Finding {
        let mut finding = match self {
            Preset::Progressive => progressive::conclude(texts),
            Preset::Allocation => allocation::conclude(texts, sensitivities, bits),
            Preset::Cumulative => cumulative::conclude(texts, layers),
            Preset::Interpolation => sources::interpolation(texts, sensitivities, bits),
            Preset::Transfer => sources::transfer(texts, sensitivities, bits),
        };
        finding.preset = self.name().to_string();
        finding
    }
}

fn named(name: &str) -> Wish {
    Wish::Named(name.to_string())
}
