//! What a cache holds, as JSON: for `llama_pmkvq_describe`, the demo and reports.

use serde_json::{json, Map, Value};

use super::cache::Cache;
use crate::geometry::{Side, Width};
use crate::policy::CellView;

fn by_width<T: Copy + Into<Value>>(counts: &[T; 4]) -> Value {
    let mut map = Map::new();
    for w in Width::ALL {
        map.insert(w.to_string(), counts[w.index()].into());
    }
    Value::Object(map)
}

/// Values of some tokens, and the bits that their codes and parameters take.
fn stored(cache: &Cache, tokens: &[[u32; 4]]) -> Value {
    let sides = cache.plan.model.layers.iter().flat_map(|l| Side::BOTH.map(|side| (l, side)));
    let (mut values, mut bits) = (0, 0);
    for (((layer, side), layout), tokens) in sides.zip(&cache.layout.sides).zip(tokens) {
        let row = u64::from(layer.n_head_kv) * layer.head_dim(side) as u64;
        // (min, max) in 16 bits each
        let parameters = u64::from(layer.n_head_kv) * 32 * layout.n_groups as u64;
        for w in Width::ALL {
            let n = u64::from(tokens[w.index()]);
            values += n * row;
            bits += n * (row * w.bits() as u64 + if w == Width::B16 { 0 } else { parameters });
        }
    }
    json!({ "values": values, "bits": bits })
}

/// ```json
/// { "n_ctx": 16384, "devices": ["CPU"], "rule": "block", "tokens": 5000,
///   "bytes": { "total", "pages", "tables_and_parameters", "scratch", "transforms", "pages_held", "held", "f16" },
///   "history": { "values": 1234, "bits": 5678 }, "recent": { "values": 1234, "bits": 5678 },
///   "shrinks": { "16-8", "8-4", "4-2", "started_narrow" },
///   "layers": [ { "il": 0, "device": 0, "k": { "final": 4, "blocks": {"16": 1, ...}, "tokens": {"16": 128, ...}, "history": {"16": 0, ...}, "bytes": 1234 }, "v": ... } ] }
/// ```
/// `total` is what is allocated (pages, tables, parameters, scratch, transforms), `held` what is in use of it; `f16` what a
/// plain 16-bit cache of the same context allocates. `history` is what lies outside sinks, windows and open blocks, `recent`
/// what lies in them: values, and the bits of their codes and of the parameters of their groups. Bytes and tokens of a block
/// whose tokens are gone count until it is used again.
pub fn describe_json(cache: &Cache, cells: CellView) -> Value {
    let stats = cache.policy.stats();
    let tokens = cache.policy.tokens_by_width(cells);
    let history = cache.policy.history_by_width(cells);
    let recent: Vec<[u32; 4]> = tokens
        .iter()
        .zip(&history)
        .map(|(all, past)| std::array::from_fn(|w| all[w].saturating_sub(past[w])))
        .collect();
    let fixed = cache.meta_bytes() + cache.scratch_bytes + cache.transform_bytes();
    let layers: Vec<Value> = cache
        .plan
        .layers
        .iter()
        .enumerate()
        .map(|(i, layer)| {
            let side = |side: Side| {
                let at = 2 * i + side.index();
                json!({
                    "final": match side { Side::K => layer.k.bits(), Side::V => layer.v.bits() },
                    "blocks": by_width(&stats.sides[at].blocks),
                    "tokens": by_width(&tokens[at]),
                    "history": by_width(&history[at]),
                    "bytes": stats.sides[at].bytes,
                })
            };
            json!({ "il": layer.il, "device": cache.device(2 * i), "k": side(Side::K), "v": side(Side::V) })
        })
        .collect();
    json!({
        "n_ctx": cache.policy.config().n_ctx,
        "devices": cache.devices,
        "rule": cache.plan.rule,
        "tokens": cells.pos.iter().filter(|p| **p >= 0).count(),
        "bytes": {
            "total": stats.bytes_total + fixed,
            "pages": stats.bytes_total,
            "tables_and_parameters": cache.meta_bytes(),
            "scratch": cache.scratch_bytes,
            "transforms": cache.transform_bytes(),
            "pages_held": stats.bytes_held,
            "held": stats.bytes_held + fixed,
            "f16": cache.layout.f16_bytes,
        },
        "history": stored(cache, &history),
        "recent": stored(cache, &recent),
        "shrinks": {
            "16-8": stats.shrinks[0],
            "8-4": stats.shrinks[1],
            "4-2": stats.shrinks[2],
            "started_narrow": stats.started_narrow,
        },
        "layers": layers,
    })
}
