//! What a cache holds at a length: bytes by part, bits per value both ways, widths by layer.

use serde::Serialize;
use serde_json::Value;

use crate::ffi::PlainType;
use crate::geometry::Width;
use crate::shape::ModelShape;

/// One layer with a cache of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldLayer {
    /// Index of the layer in the model.
    pub il: u32,
    /// Tokens at 16, 8, 4, 2 bits.
    pub k: [u64; 4],
    pub v: [u64; 4],
}

/// A cache at one length.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Tokens of the sequence.
    pub tokens: usize,
    /// Bytes that are allocated for the whole context: pages, tables, parameters, scratch.
    pub bytes_total: u64,
    /// Of these, what is in use: pages that hold something, and all tables, parameters and scratch.
    pub bytes_held: u64,
    /// Bytes of the attention's partial results (in `bytes_total`).
    pub bytes_scratch: u64,
    /// Bytes of tables and parameters (in `bytes_total`).
    pub bytes_tables: u64,
    /// Values outside sink and window, and the bits that their codes and parameters take.
    pub history_values: u64,
    pub history_bits: u64,
    /// Values of sink, window and open block, and the bits that they take.
    pub recent_values: u64,
    pub recent_bits: u64,
    /// Blocks of a side that were narrowed or started narrow, so far.
    pub shrinks: u64,
    /// Empty for llama.cpp's own caches.
    pub layers: Vec<HeldLayer>,
}

/// Values of K and V of one token, all layers.
pub fn values_per_token(shape: &ModelShape) -> u64 {
    shape.layers.iter().map(|l| u64::from(l.n_head_kv) * u64::from(l.head_dim_k + l.head_dim_v)).sum()
}

/// Blocks that were narrowed or started narrow, by what `describe` says.
pub fn shrinks(described: &Value) -> u64 {
    described["shrinks"].as_object().map_or(0, |steps| steps.values().filter_map(Value::as_u64).sum())
}

impl Held {
    /// Of a progressive cache, by what `describe` says.
    pub fn of_plan(tokens: usize, described: &Value) -> Held {
        let number = |v: &Value| v.as_u64().unwrap_or(0);
        let bytes = |name: &str| number(&described["bytes"][name]);
        let by_width = |side: &Value| Width::ALL.map(|w| number(&side["tokens"][w.to_string()]));
        let layers = described["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        Held {
            tokens,
            bytes_total: bytes("total"),
            bytes_held: bytes("held"),
            bytes_scratch: bytes("scratch"),
            bytes_tables: bytes("tables_and_parameters"),
            history_values: number(&described["history"]["values"]),
            history_bits: number(&described["history"]["bits"]),
            recent_values: number(&described["recent"]["values"]),
            recent_bits: number(&described["recent"]["bits"]),
            shrinks: shrinks(described),
            layers: layers
                .iter()
                .map(|l| HeldLayer { il: number(&l["il"]) as u32, k: by_width(&l["k"]), v: by_width(&l["v"]) })
                .collect(),
        }
    }

    /// Of one of llama.cpp's own caches: all of it is there from the start, and nothing is kept apart.
    pub fn of_plain(tokens: usize, of: PlainType, per_token: u64, n_ctx: u32) -> Held {
        let bytes = (per_token as f64 * f64::from(n_ctx) * of.bytes_per_value()).round() as u64;
        let values = per_token * tokens as u64;
        Held {
            tokens,
            bytes_total: bytes,
            bytes_held: bytes,
            bytes_scratch: 0,
            bytes_tables: 0,
            history_values: values,
            history_bits: (values as f64 * of.bytes_per_value() * 8.0).round() as u64,
            recent_values: 0,
            recent_bits: 0,
            shrinks: 0,
            layers: Vec::new(),
        }
    }

    /// Bits per value of a full context, all that is allocated counted.
    pub fn bits_all(&self, per_token: u64, n_ctx: u32) -> f64 {
        self.bytes_total as f64 * 8.0 / (per_token as f64 * f64::from(n_ctx)).max(1.0)
    }

    /// Bits per value of history, codes and parameters; none while all is sink and window.
    pub fn bits_history(&self) -> Option<f64> {
        (self.history_values > 0).then(|| self.history_bits as f64 / self.history_values as f64)
    }
}

/// Mean bits of the stored values of a side, parameters not counted; none of nothing.
pub fn mean_bits(tokens: &[u64; 4]) -> Option<f64> {
    let n: u64 = tokens.iter().sum();
    let bits: u64 = Width::ALL.iter().zip(tokens).map(|(w, n)| w.bits() as u64 * n).sum();
    (n > 0).then(|| bits as f64 / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_by_hand() {
        // 100 tokens of 10 values at q4_0: 18 bytes for 32 values
        let held = Held::of_plain(64, PlainType::Q4_0, 10, 100);
        assert_eq!(held.bytes_total, 563);
        assert_eq!(held.bits_history(), Some(4.5));
        assert!((held.bits_all(10, 100) - 4.504).abs() < 1e-9);
        assert_eq!(Held::of_plain(0, PlainType::Q4_0, 10, 100).bits_history(), None);
        assert_eq!(mean_bits(&[1, 0, 2, 1]), Some((16.0 + 8.0 + 2.0) / 4.0));
        assert_eq!(mean_bits(&[0; 4]), None);
        let described = serde_json::json!({
            "bytes": { "total": 1000, "held": 600, "scratch": 50, "tables_and_parameters": 150 },
            "history": { "values": 128, "bits": 288 },
            "recent": { "values": 64, "bits": 1024 },
            "shrinks": { "16-8": 3, "8-4": 2, "4-2": 0, "started_narrow": 1 },
            "layers": [ { "il": 4, "k": { "tokens": { "16": 1, "8": 0, "4": 2, "2": 3 } }, "v": { "tokens": { "16": 6 } } } ]
        });
        let held = Held::of_plan(6, &described);
        assert_eq!((held.bytes_total, held.bytes_held, held.bytes_scratch, held.bytes_tables), (1000, 600, 50, 150));
        assert_eq!((held.shrinks, held.bits_history()), (6, Some(2.25)));
        assert_eq!((held.recent_values, held.recent_bits), (64, 1024));
        assert_eq!(held.layers, [HeldLayer { il: 4, k: [1, 0, 2, 3], v: [6, 0, 0, 0] }]);
    }
}
