//! Transforms in a file of their own: from `pmkvq profile --transforms`, from the exporter, or the reference's key scales.

use std::path::Path;

use serde_json::to_string;

use super::json::{layers_json, transform};
use super::{none, LayerTransforms, Transform};
use crate::geometry::Side;
use crate::plan::json::{self, Field, FieldError, Json};
use crate::plan::{first_difference, json_shape, read_limited, MAX_FILE};
use crate::sensitivity::{looks_like_torch, scales_from_pt};
use crate::shape::ModelShape;

/// Version of the format.
pub const VERSION: u32 = 1;

/// How a model lays out the pairs that RoPE rotates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeOrder {
    /// Dimensions 2i and 2i + 1: what llama.cpp makes of Llama models.
    Interleaved,
    /// Dimensions i and i + d/2.
    HalfSplit,
}

impl RopeOrder {
    /// Dimensions of pair `p` of a head.
    pub const fn pair(self, p: usize, head_dim: usize) -> (usize, usize) {
        match self {
            RopeOrder::Interleaved => (2 * p, 2 * p + 1),
            RopeOrder::HalfSplit => (p, p + head_dim / 2),
        }
    }
}

/// A transforms file that was matched with a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TransformsFile {
    /// Where they come from; for people.
    pub source: String,
    pub method: String,
    /// One entry per layer of the model.
    pub layers: Vec<LayerTransforms>,
}

impl TransformsFile {
    /// Reads a file for a model: our JSON, or the reference implementation's `rep_scales.pt` (key scales of each rotary
    /// pair, half-split), for which `order` says where the model has the pairs.
    ///
    /// # Errors
    /// One message that names the defect; the caller adds the file's name.
    pub fn load(path: &Path, shape: &ModelShape, order: Option<RopeOrder>) -> Result<TransformsFile, String> {
        let bytes = read_limited(path, MAX_FILE).map_err(|e| e.to_string())?;
        if looks_like_torch(&bytes) {
            let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            return from_reference(&bytes, &name, shape, order);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| "the file is not text (UTF-8)".to_string())?;
        TransformsFile::parse(text, shape)
    }

    /// Reads our JSON for a model.
    ///
    /// # Errors
    /// As for [`TransformsFile::load`].
    pub fn parse(text: &str, shape: &ModelShape) -> Result<TransformsFile, String> {
        let json = json::parse(text).map_err(|e| e.to_string())?;
        let root = Field::root(&json);
        let version = root.any_object().map_err(|e| e.to_string())?.get("pmkvq_transforms").ok_or(
            "not a transforms file: the field 'pmkvq_transforms' is missing; they are made with 'pmkvq profile --transforms'",
        )?;
        if !matches!(version.value, Json::Number(n) if n.as_u64() == Some(VERSION.into())) {
            return Err(format!(
                "pmkvq_transforms: version {} is not known to this build: expected 1",
                version.found()
            ));
        }
        read(&root, shape)
    }

    /// The file as JSON, ending in a newline.
    pub fn to_json(&self, shape: &ModelShape) -> String {
        // texts and finite numbers: there is nothing that JSON can't hold
        let text = |v: serde_json::Result<String>| v.unwrap_or_else(|_| "null".to_string());
        let layers: Vec<String> =
            layers_json(&self.layers, shape).iter().map(|l| format!("    {}", text(to_string(l)))).collect();
        format!(
            "{{\n  \"pmkvq_transforms\": {VERSION},\n  \"model\": {},\n  \"source\": {},\n  \"method\": {},\n  \"layers\": [\n{}\n  ]\n}}\n",
            text(to_string(shape)),
            text(to_string(&self.source)),
            text(to_string(&self.method)),
            layers.join(",\n")
        )
    }
}

fn read(root: &Field, shape: &ModelShape) -> Result<TransformsFile, String> {
    let bad = |e: FieldError| e.to_string();
    let root = root.object(&["pmkvq_transforms", "model", "source", "method", "layers"]).map_err(bad)?;
    if let Some(field) = root.get("model") {
        let theirs = json_shape(&field).map_err(bad)?;
        if let Some(d) = first_difference(&theirs, shape) {
            return Err(format!(
                "the transforms are of another model: {} is {} in the file and {} in the model; measure them on this model",
                d.what, d.ours, d.theirs
            ));
        }
    }
    let list = root.need("layers").map_err(bad)?;
    let mut layers = none(shape);
    let mut seen = vec![false; layers.len()];
    for item in list.list().map_err(bad)? {
        let layer = item.object(&["il", "k", "v"]).map_err(bad)?;
        let field = layer.need("il").map_err(bad)?;
        let il = field.integer32(0, u32::MAX - 1).map_err(bad)?;
        // a checkpoint's layers are all there; those without a progressive cache have no use for transforms
        let Some(at) = shape.layers.iter().position(|l| l.il == il) else { continue };
        if std::mem::replace(&mut seen[at], true) {
            return Err(format!("{}: layer {il} is there twice", field.path));
        }
        for side in Side::BOTH {
            let name = if side == Side::K { "k" } else { "v" };
            *layers[at].side_mut(side) =
                transform(&layer.need(name).map_err(bad)?, &shape.layers[at], side).map_err(bad)?;
        }
    }
    if let Some(missing) = seen.iter().position(|s| !s) {
        return Err(format!("layers: layer {} of the model is missing", shape.layers[missing].il));
    }
    let text = |name| root.need(name).and_then(|f| f.text().map(str::to_string)).map_err(bad);
    Ok(TransformsFile { source: text("source")?, method: text("method")?, layers })
}

/// `rep_scales.pt`: for each layer `[1, n_kv_heads, 1, head_dim / 2]`, one factor for each rotary pair.
fn from_reference(
    bytes: &[u8],
    name: &str,
    shape: &ModelShape,
    order: Option<RopeOrder>,
) -> Result<TransformsFile, String> {
    let scales = scales_from_pt(bytes).map_err(|e| e.to_string())?;
    let order = order.ok_or(
        "key scales of rotary pairs need to know how the model lays out its pairs: give the model itself (--model)",
    )?;
    let all = shape.layers.len() == scales.len();
    let mut layers = none(shape);
    for (i, (out, layer)) in layers.iter_mut().zip(&shape.layers).enumerate() {
        let at = if all { i } else { layer.il as usize };
        let tensor = scales.get(at).ok_or_else(|| {
            format!("the key scales are of a model with {} layers, this one has a layer {}", scales.len(), layer.il)
        })?;
        let (heads, d) = (layer.n_head_kv as usize, layer.head_dim(Side::K));
        if tensor.shape != [1, heads, 1, d / 2] {
            return Err(format!(
                "key scales of layer {}: {:?} values where this model has [1, {heads}, 1, {}]",
                layer.il,
                tensor.shape,
                d / 2
            ));
        }
        let mut rows = vec![0.0f32; heads * d];
        for h in 0..heads {
            for p in 0..d / 2 {
                let s = tensor.data[h * (d / 2) + p];
                if !(1e-6..=1e6).contains(&s) {
                    return Err(format!(
                        "key scales of layer {}, head {h}, pair {p}: {s} is not from 1e-6 to 1e6",
                        layer.il
                    ));
                }
                let (a, b) = order.pair(p, d);
                rows[h * d + a] = s;
                rows[h * d + b] = s;
            }
        }
        out.k = Transform { scales: Some(rows), ..Transform::default() };
    }
    Ok(TransformsFile { source: name.to_string(), method: "SmoothAttention, the reference's".to_string(), layers })
}
