//! Transforms in a plan, and in a file of their own.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::{json, Value};

use super::data::inverses;
use super::{LayerTransforms, Transform};
use crate::geometry::Side;
use crate::plan::json::{Field, FieldError};
use crate::plan::{json_per_layer, PlanError};
use crate::shape::{LayerShape, ModelShape};

/// `transforms` of a plan: one entry per layer of its model.
pub(crate) fn from_plan(field: &Field, model: &ModelShape) -> Result<Vec<LayerTransforms>, PlanError> {
    let items = json_per_layer(field, model, &["il", "k", "v"])?;
    let layer = |(o, layer): (&crate::plan::json::Object, &LayerShape)| {
        Ok(LayerTransforms {
            il: layer.il,
            k: transform(&o.need("k")?, layer, Side::K)?,
            v: transform(&o.need("v")?, layer, Side::V)?,
        })
    };
    items.iter().zip(&model.layers).map(layer).collect()
}

/// One side's transform: `"none"`, `"hadamard"`, or an object.
pub(super) fn transform(field: &Field, layer: &LayerShape, side: Side) -> Result<Transform, FieldError> {
    const NAMES: &str = "'none', 'hadamard', or an object with center, scales or matrix, hadamard";
    if let Ok(name) = field.text() {
        return match name {
            "none" => Ok(Transform::default()),
            "hadamard" => Ok(Transform::hadamard()),
            _ => Err(field.not_a_choice(NAMES)),
        };
    }
    let object = field.object(&["center", "scales", "matrix", "hadamard"])?;
    let (heads, d) = (layer.n_head_kv as usize, layer.head_dim(side));
    let rows = |name| object.get(name).map(|f| rows(&f, heads, d)).transpose();
    let t = Transform {
        center: rows("center")?,
        scales: rows("scales")?,
        matrix: object.get("matrix").map(|f| matrix(&f, heads, d)).transpose()?,
        hadamard: match object.get("hadamard") {
            Some(f) => f.boolean()?,
            None => false,
        },
    };
    if let (Some(scales), Some(f)) = (&t.scales, object.get("scales")) {
        if let Some(i) = scales.iter().position(|s| !(*s >= 1e-6 && *s <= 1e6)) {
            let path = format!("{}[{}][{}]", f.path, i / d, i % d);
            let expected = "1e-6 to 1e6, as K or V is divided by it".to_string();
            return Err(FieldError::Range { path, found: scales[i].to_string(), expected });
        }
        if let Some(m) = object.get("matrix") {
            return Err(m.not_a_choice("either scales or a matrix; multiply the scales into the matrix"));
        }
    }
    if let (Some(_), Some(f)) = (&t.matrix, object.get("matrix")) {
        if inverses(&t, d).is_none() {
            return Err(f.not_a_choice("matrices that can be inverted"));
        }
    }
    Ok(t)
}

/// `[n_head_kv][head_dim]` numbers.
fn rows(field: &Field, heads: usize, d: usize) -> Result<Vec<f32>, FieldError> {
    let list = field.list()?;
    if list.len() != heads {
        let expected = format!("{heads}, one per KV head");
        return Err(FieldError::Count { path: field.path.clone(), found: list.len(), expected });
    }
    let mut all = Vec::with_capacity(heads * d);
    for row in &list {
        let values = row.list()?;
        if values.len() != d {
            let expected = format!("{d}, one per value of the head dimension");
            return Err(FieldError::Count { path: row.path.clone(), found: values.len(), expected });
        }
        for v in &values {
            all.push(v.float32()?);
        }
    }
    Ok(all)
}

/// Base64 of little-endian f32, `[n_head_kv][head_dim][head_dim]`.
fn matrix(field: &Field, heads: usize, d: usize) -> Result<Vec<f32>, FieldError> {
    let bytes = STANDARD.decode(field.text()?).map_err(|e| FieldError::Type {
        path: field.path.clone(),
        found: format!("a text that is not base64 ({e})"),
        expected: "base64 of little-endian f32",
    })?;
    if bytes.len() != 4 * heads * d * d {
        let expected = format!("{}: 4 bytes for each of {heads} x {d} x {d} values", 4 * heads * d * d);
        return Err(FieldError::Count { path: field.path.clone(), found: bytes.len(), expected });
    }
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    if values.iter().any(|v| !(-1e6..=1e6).contains(v)) {
        return Err(FieldError::NotFinite { path: field.path.clone() });
    }
    Ok(values)
}

fn to_json(t: &Transform, d: usize) -> Value {
    if t.is_none() {
        return json!("none");
    }
    if *t == Transform::hadamard() {
        return json!("hadamard");
    }
    let mut out = serde_json::Map::new();
    // f32 as the shortest decimal that gives it back: f64 would print digits that nobody measured
    let number = |x: &f32| x.to_string().parse::<f64>().map_or(Value::Null, Value::from);
    let rows =
        |v: &[f32]| Value::from(v.chunks(d).map(|r| r.iter().map(number).collect()).collect::<Vec<Vec<Value>>>());
    if let Some(center) = &t.center {
        out.insert("center".into(), rows(center));
    }
    if let Some(scales) = &t.scales {
        out.insert("scales".into(), rows(scales));
    }
    if let Some(matrix) = &t.matrix {
        let bytes: Vec<u8> = matrix.iter().flat_map(|x| x.to_le_bytes()).collect();
        out.insert("matrix".into(), STANDARD.encode(bytes).into());
    }
    if t.hadamard {
        out.insert("hadamard".into(), true.into());
    }
    Value::Object(out)
}

/// One JSON object per layer.
pub(crate) fn layers_json(layers: &[LayerTransforms], shape: &ModelShape) -> Vec<Value> {
    let one = |(t, l): (&LayerTransforms, &LayerShape)| json!({ "il": t.il, "k": to_json(&t.k, l.head_dim(Side::K)), "v": to_json(&t.v, l.head_dim(Side::V)) });
    layers.iter().zip(&shape.layers).map(one).collect()
}
