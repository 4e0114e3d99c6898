//! Sensitivity files: our JSON, and the choice between it and the reference's format.

use std::path::Path;

use super::{torch, LayerSensitivity, Sensitivities, SensitivityError, SensitivityFile, MAX_FILE, VERSION};
use crate::geometry::Width;
use crate::plan::json::{self, Field, FieldError, Json};
use crate::plan::{read_limited, PlanError, MAX_LAYERS};
use crate::shape::ModelShape;

/// Columns of the value lists: a measured width, or `None` for one that this build has no use for (1 bit).
type Columns = Vec<Option<Width>>;

impl SensitivityFile {
    /// Reads a file in either format.
    ///
    /// # Errors
    /// One [`SensitivityError`] that names the defect; the caller adds the file's name.
    pub fn load(path: &Path) -> Result<SensitivityFile, SensitivityError> {
        let bytes = read_limited(path, MAX_FILE).map_err(SensitivityError::File)?;
        let source = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        SensitivityFile::from_bytes(&bytes, &source)
    }

    /// Reads the content of a file in either format; `source` is what a torch file's values are said to come from.
    ///
    /// # Errors
    /// As for [`SensitivityFile::load`].
    pub fn from_bytes(bytes: &[u8], source: &str) -> Result<SensitivityFile, SensitivityError> {
        if torch::looks_like_torch(bytes) {
            return Ok(torch::sensitivities_from_pt(bytes, source)?);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| SensitivityError::File(PlanError::NotUtf8))?;
        SensitivityFile::parse(text)
    }

    /// Reads our JSON.
    ///
    /// # Errors
    /// As for [`SensitivityFile::load`].
    pub fn parse(text: &str) -> Result<SensitivityFile, SensitivityError> {
        let json = json::parse(text)?;
        let root = Field::root(&json);
        let version = root.any_object()?.get("pmkvq_sensitivity").ok_or(SensitivityError::NotSensitivities)?;
        if !matches!(version.value, Json::Number(n) if n.as_u64() == Some(VERSION.into())) {
            return Err(SensitivityError::Version { found: version.found() });
        }
        // what else a profile measured is for people and for reports
        let root = root.object(&[
            "pmkvq_sensitivity",
            "model",
            "source",
            "method",
            "widths",
            "layers",
            "rise_of_loss",
            "kl_divergence",
            "standard_error",
        ])?;
        let model = root.get("model").map(|f| crate::plan::json_shape(&f)).transpose()?;
        let columns = columns(&root.need("widths")?)?;
        let list = root.need("layers")?;
        let items = list.list()?;
        if items.is_empty() || items.len() > MAX_LAYERS {
            let expected = format!("1 to {MAX_LAYERS}");
            return Err(FieldError::Count { path: list.path, found: items.len(), expected }.into());
        }
        let mut layers: Vec<LayerSensitivity> = Vec::with_capacity(items.len());
        for item in &items {
            let layer = item.object(&["il", "k", "v"])?;
            let field = layer.need("il")?;
            let il = field.integer32(0, u32::MAX - 1)?;
            let least = layers.last().map_or(0, |l| l.il + 1);
            if il < least {
                return Err(SensitivityError::Order { path: field.path, found: il, least });
            }
            let (k, v) = (values(&layer.need("k")?, &columns)?, values(&layer.need("v")?, &columns)?);
            layers.push(LayerSensitivity { il, k, v });
        }
        let values = Sensitivities {
            source: root.need("source")?.text()?.to_string(),
            method: root.need("method")?.text()?.to_string(),
            widths: columns.into_iter().flatten().collect(),
            layers,
        };
        Ok(SensitivityFile { model, by_position: false, values })
    }

    /// The file as JSON, ending in a newline.
    pub fn to_json(&self) -> String {
        let text = |v: serde_json::Result<String>| v.unwrap_or_else(|_| "null".to_string());
        let mut fields = vec![format!("\"pmkvq_sensitivity\": {VERSION}")];
        if let Some(model) = &self.model {
            fields.push(format!("\"model\": {}", text(serde_json::to_string(model))));
        }
        let s = &self.values;
        fields.push(format!("\"source\": {}", text(serde_json::to_string(&s.source))));
        fields.push(format!("\"method\": {}", text(serde_json::to_string(&s.method))));
        fields.push(format!("\"widths\": {}", text(serde_json::to_string(&s.widths))));
        let layers: Vec<String> = s.layers.iter().map(|l| format!("    {}", text(serde_json::to_string(l)))).collect();
        fields.push(format!("\"layers\": [\n{}\n  ]", layers.join(",\n")));
        format!("{{\n  {}\n}}\n", fields.join(",\n  "))
    }
}

/// The `sensitivities` of a plan: as the file, without version and model, one entry per layer of the plan's model.
pub(crate) fn from_plan(field: &Field, model: &ModelShape) -> Result<Sensitivities, PlanError> {
    let object = field.object(&["source", "method", "widths", "layers"])?;
    let widths = object.need("widths")?.widths()?;
    let columns: Columns = widths.iter().copied().map(Some).collect();
    let layers = crate::plan::json_per_layer(&object.need("layers")?, model, &["il", "k", "v"])?
        .iter()
        .zip(&model.layers)
        .map(|(o, layer)| {
            let (k, v) = (values(&o.need("k")?, &columns)?, values(&o.need("v")?, &columns)?);
            Ok(LayerSensitivity { il: layer.il, k, v })
        })
        .collect::<Result<_, PlanError>>()?;
    Ok(Sensitivities {
        source: object.need("source")?.text()?.to_string(),
        method: object.need("method")?.text()?.to_string(),
        widths,
        layers,
    })
}

/// Widths of a file; 1 bit, which calibration measures too, is passed over.
fn columns(field: &Field) -> Result<Columns, FieldError> {
    let items = field.list()?;
    let mut bits = Vec::with_capacity(items.len());
    let mut columns = Vec::with_capacity(items.len());
    for item in &items {
        let one = matches!(item.value, Json::Number(n) if n.as_u64() == Some(1));
        let width = if one { None } else { Some(item.width()?) };
        bits.push(width.map_or(1, Width::bits));
        columns.push(width);
    }
    if bits.windows(2).any(|w| w[1] >= w[0]) {
        return Err(FieldError::Order { path: field.path.clone() });
    }
    if columns.iter().flatten().next().is_none() {
        let expected = "at least one width of 16, 8, 4, 2".to_string();
        return Err(FieldError::Count { path: field.path.clone(), found: items.len(), expected });
    }
    Ok(columns)
}

fn values(field: &Field, columns: &Columns) -> Result<Vec<f64>, FieldError> {
    let all = field.amounts(columns.len(), "one per entry of widths")?;
    Ok(columns.iter().zip(all).filter(|(c, _)| c.is_some()).map(|(_, v)| v).collect())
}
