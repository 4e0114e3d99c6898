//! From sums to a sensitivity file.

use serde::Serialize;
use serde_json::json;

use super::{Settings, Sums, Target};
use crate::geometry::{Side, Width};
use crate::sensitivity::{LayerSensitivity, Sensitivities, SensitivityFile};
use crate::shape::ModelShape;

/// What a sensitivity is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Mean KL divergence from 16 bits, nats per token.
    #[default]
    Kl,
    /// Rise of the mean loss over 16 bits, nats per token.
    Loss,
}

/// Means of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    pub kl: f64,
    pub loss: f64,
    /// Standard errors over the stretches.
    pub kl_error: f64,
    pub loss_error: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Profile {
    shape: ModelShape,
    widths: Vec<Width>,
    targets: Vec<Target>,
    sums: Vec<Vec<Sums>>,
}

impl Profile {
    pub(super) fn new(shape: &ModelShape, settings: &Settings, targets: &[Target]) -> Profile {
        let sums = vec![Vec::new(); targets.len()];
        Profile { shape: shape.clone(), widths: settings.widths.clone(), targets: targets.to_vec(), sums }
    }

    pub(super) fn add(&mut self, target: usize, sums: &[Sums]) {
        self.sums[target].extend_from_slice(sums);
    }

    /// # Errors
    /// A sum that is not a number, with its layer: weights or activations that overflow.
    pub(super) fn check(&self) -> Result<(), String> {
        for (t, sums) in self.targets.iter().zip(&self.sums) {
            if sums.iter().any(|s| !s.kl.is_finite() || !s.nll.is_finite()) {
                let il = self.shape.layers[t.layer].il;
                let (side, width) = (t.side, t.width);
                return Err(format!(
                    "layer {il}, {side} at {width} bits: the model's output is not a number; if it is at 16 bits too \
                     (llama-perplexity shows it), its weights are damaged"
                ));
            }
        }
        Ok(())
    }

    /// The means of every target.
    pub fn means(&self) -> Vec<(Target, Mean)> {
        let mean = |sums: &Vec<Sums>| {
            let n: f64 = sums.iter().map(|s| s.n).sum::<f64>().max(1.0);
            let of = |f: fn(&Sums) -> f64| {
                let mean = sums.iter().map(f).sum::<f64>() / n;
                let count = sums.len() as f64;
                let each = |s: &Sums| (f(s) / s.n.max(1.0) - mean).powi(2);
                let error = (sums.iter().map(each).sum::<f64>() / (count * (count - 1.0)).max(1.0)).sqrt();
                (mean, error)
            };
            let ((kl, kl_error), (loss, loss_error)) = (of(|s| s.kl), of(|s| s.nll));
            Mean { kl, loss, kl_error, loss_error }
        };
        self.targets.iter().copied().zip(self.sums.iter().map(mean)).collect()
    }

    fn table(&self, value: impl Fn(&Mean) -> f64) -> Vec<LayerSensitivity> {
        let means = self.means();
        // 16 bits cost nothing, as do sides that stay there
        let at = |layer, side, width| {
            let found = means.iter().find(|(t, _)| *t == Target { layer, side, width });
            found.map_or(0.0, |(_, m)| value(m))
        };
        let side = |layer, side| {
            std::iter::once(0.0).chain(self.widths.iter().map(|&w| at(layer, side, w))).collect::<Vec<f64>>()
        };
        let layer = |(i, l): (usize, &crate::shape::LayerShape)| LayerSensitivity {
            il: l.il,
            k: side(i, Side::K),
            v: side(i, Side::V),
        };
        self.shape.layers.iter().enumerate().map(layer).collect()
    }

    /// The sensitivity file as JSON. Besides what plans are made from it holds the other measure and the standard errors.
    ///
    /// # Errors
    /// A loss that did not rise: an explanation, and the way out.
    pub fn to_json(&self, measure: Measure, source: &str, settings: &str) -> Result<String, String> {
        if let (Measure::Loss, Some((t, m))) = (measure, self.means().iter().find(|(_, m)| m.loss < 0.0)) {
            return Err(format!(
                "layer {}, {} at {} bits: the loss fell by {:.2e} (standard error {:.1e}) instead of rising. It can by \
                 chance, but a plan can't be paid for saving bits: take more text (--stretches), or the KL divergence \
                 (--measure kl), which is never negative",
                self.shape.layers[t.layer].il, t.side, t.width, -m.loss, m.loss_error
            ));
        }
        let kl = |m: &Mean| m.kl.max(0.0); // a sum of rounded terms can end a little below zero
        let method = match measure {
            Measure::Kl => "kl: mean KL divergence from 16 bits in nats per token, one side of one layer at a time",
            Measure::Loss => {
                "loss: rise of the mean loss over 16 bits in nats per token, one side of one layer at a time"
            }
        };
        let layers = match measure {
            Measure::Kl => self.table(kl),
            Measure::Loss => self.table(|m| m.loss),
        };
        let values = Sensitivities {
            source: source.to_string(),
            method: format!("{method}; {settings}"),
            widths: std::iter::once(Width::B16).chain(self.widths.iter().copied()).collect(),
            layers,
        };
        let file = SensitivityFile { model: Some(self.shape.clone()), by_position: false, values };
        let (name, other, errors) = match measure {
            Measure::Kl => ("rise_of_loss", self.table(|m| m.loss), self.table(|m| m.kl_error)),
            Measure::Loss => ("kl_divergence", self.table(kl), self.table(|m| m.loss_error)),
        };
        let json = file.to_json();
        let more = [section(name, &other), section("standard_error", &errors)].join(",\n");
        Ok(json.trim_end().trim_end_matches('}').trim_end().to_string() + ",\n" + &more + "\n}\n")
    }
}

fn section<T: Serialize>(name: &str, rows: &[T]) -> String {
    let rows: Vec<String> = rows.iter().map(|r| format!("    {}", json!(r))).collect();
    format!("  \"{name}\": [\n{}\n  ]", rows.join(",\n"))
}
