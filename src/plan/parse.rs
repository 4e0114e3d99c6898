//! From text to [`Plan`].

use std::path::Path;

use super::json::{self, Field, FieldError, Json, Object};
use super::{
    parse_rule, read_limited, Initial, Kv, LayerPlan, Plan, PlanError, Ranges, Solver, Status, MAX_CTX, MAX_FILE,
    MAX_LAYERS, MAX_SINK, MAX_WINDOW, VERSION,
};
use crate::geometry::{MAX_GROUP, SUBTILE};
use crate::kernels::RangeRule;
use crate::policy::Rule;
use crate::sensitivity;
use crate::shape::{LayerShape, ModelShape};

const FIELDS: [&str; 15] = [
    "pmkvq_plan",
    "model",
    "n_ctx",
    "n_seq_max",
    "budget_bytes",
    "scratch_bytes",
    "initial",
    "sink",
    "window",
    "group",
    "rule",
    "ranges",
    "layers",
    "transforms",
    "sensitivities",
];
const SOLVER: &str = "solver";

/// Sequences that llama.cpp's cells can tell apart.
const MAX_SEQ: u32 = 256;
/// Largest head dimension and number of KV heads; far above any model, far below any overflow.
const MAX_HEAD_DIM: u32 = 4096;
const MAX_HEADS: u32 = 1024;

impl Plan {
    /// Reads a plan file.
    ///
    /// # Errors
    /// One [`PlanError`] that names the defect; the caller adds the file's name.
    pub fn load(path: &Path) -> Result<Plan, PlanError> {
        let bytes = read_limited(path, MAX_FILE)?;
        Plan::parse(std::str::from_utf8(&bytes).map_err(|_| PlanError::NotUtf8)?)
    }

    /// Reads a plan from text, and checks that it is consistent in itself.
    ///
    /// # Errors
    /// One [`PlanError`] that names the first defect.
    pub fn parse(text: &str) -> Result<Plan, PlanError> {
        let json = json::parse(text)?;
        let root = Field::root(&json);
        // the version first: another version may have other fields
        let version = root.any_object()?.get("pmkvq_plan").ok_or(PlanError::NotAPlan)?;
        if !matches!(version.value, Json::Number(n) if n.as_u64() == Some(VERSION.into())) {
            return Err(PlanError::Version { found: version.found() });
        }
        let known: Vec<&str> = FIELDS.into_iter().chain([SOLVER]).collect();
        let root = root.object(&known)?;
        let model = shape(&root.need("model")?)?;
        let plan = Plan {
            n_ctx: root.need("n_ctx")?.integer32(1, MAX_CTX)?,
            n_seq_max: root.need("n_seq_max")?.integer32(1, MAX_SEQ)?,
            budget_bytes: root.need("budget_bytes")?.integer(1, super::size::LARGEST)?,
            scratch_bytes: match root.get("scratch_bytes") {
                Some(field) => field.integer(0, super::size::LARGEST)?,
                None => 0,
            },
            initial: initial(&root.need("initial")?)?,
            sink: root.need("sink")?.integer32(0, MAX_SINK)?,
            window: root.need("window")?.integer32(128, MAX_WINDOW)?,
            group: group(&root.need("group")?)?,
            rule: rule(&root.need("rule")?)?,
            layers: layers(&root.need("layers")?, &model)?,
            ranges: match root.get("ranges") {
                Some(field) => ranges(&field)?,
                None => Ranges::default(),
            },
            transforms: root.get("transforms").map(|f| crate::transform::from_plan(&f, &model)).transpose()?,
            sensitivities: match root.get("sensitivities") {
                Some(field) => Some(sensitivity::from_plan(&field, &model)?),
                None => None,
            },
            solver: solver(&root.need(SOLVER)?)?,
            override_budget: None,
            model,
        };
        plan.check_budget()?;
        Ok(plan)
    }
}

/// A [`ModelShape`] from JSON: `{arch, name, n_ctx_train, layers: [{il, n_head_kv, head_dim_k, head_dim_v}]}`.
///
/// # Errors
/// A [`FieldError`] that names the field.
pub fn shape(field: &Field) -> Result<ModelShape, FieldError> {
    let model = field.object(&["arch", "name", "n_ctx_train", "layers"])?;
    let layers = model.need("layers")?;
    let items = layers.list()?;
    if items.is_empty() || items.len() > MAX_LAYERS {
        let expected = format!("1 to {MAX_LAYERS}");
        return Err(FieldError::Count { path: layers.path, found: items.len(), expected });
    }
    let mut shapes: Vec<LayerShape> = Vec::with_capacity(items.len());
    for item in &items {
        let layer = item.object(&["il", "n_head_kv", "head_dim_k", "head_dim_v"])?;
        let il = layer.need("il")?;
        let least = shapes.last().map_or(0, |l| l.il + 1);
        shapes.push(LayerShape {
            il: il.integer32(least, MAX_CTX)?,
            n_head_kv: layer.need("n_head_kv")?.integer32(1, MAX_HEADS)?,
            head_dim_k: layer.need("head_dim_k")?.integer32(1, MAX_HEAD_DIM)?,
            head_dim_v: layer.need("head_dim_v")?.integer32(1, MAX_HEAD_DIM)?,
        });
    }
    Ok(ModelShape {
        arch: model.need("arch")?.text()?.to_string(),
        name: model.get("name").map_or(Ok(""), |f| f.text())?.to_string(),
        n_ctx_train: model.need("n_ctx_train")?.integer32(0, u32::MAX)?,
        layers: shapes,
    })
}

/// A [`ModelShape`] from the text of a shape file.
///
/// # Errors
/// A [`FieldError`] that names the field.
pub fn shape_from_json(text: &str) -> Result<ModelShape, FieldError> {
    shape(&Field::root(&json::parse(text)?))
}

fn initial(field: &Field) -> Result<Initial, FieldError> {
    match field.value {
        Json::Number(n) if n.as_u64() == Some(16) => Ok(Initial::B16),
        Json::Text(s) if s == "final" => Ok(Initial::Final),
        _ => Err(field.not_a_choice("16 (progressive) or 'final' (static)")),
    }
}

fn group(field: &Field) -> Result<u32, FieldError> {
    let group = field.integer32(SUBTILE as u32, MAX_GROUP as u32)?;
    if group % 16 != 0 {
        return Err(field.out_of_range(format!("a multiple of 16 from 16 to {MAX_GROUP}")));
    }
    Ok(group)
}

fn rule(field: &Field) -> Result<Rule, FieldError> {
    parse_rule(field.text()?).map_err(|_| field.not_a_choice("'block' or 'layer'"))
}

/// The items of a list with one entry per layer of the model, and the entries' fields.
pub(crate) fn per_layer<'a>(
    field: &Field<'a>,
    model: &ModelShape,
    fields: &[&str],
) -> Result<Vec<Object<'a>>, PlanError> {
    let items = field.list()?;
    if items.len() != model.layers.len() {
        let expected = format!("{}, one per entry of model.layers", model.layers.len());
        return Err(FieldError::Count { path: field.path.clone(), found: items.len(), expected }.into());
    }
    let mut objects = Vec::with_capacity(items.len());
    for (item, layer) in items.iter().zip(&model.layers) {
        let object = item.object(fields)?;
        let il = object.need("il")?;
        let found = il.integer32(0, u32::MAX)?;
        if found != layer.il {
            return Err(PlanError::LayerOrder { path: il.path, found, expected: layer.il });
        }
        objects.push(object);
    }
    Ok(objects)
}

fn layers(field: &Field, model: &ModelShape) -> Result<Vec<LayerPlan>, PlanError> {
    per_layer(field, model, &["il", "k", "v"])?
        .iter()
        .zip(&model.layers)
        .map(|(o, layer)| Ok(LayerPlan { il: layer.il, k: o.need("k")?.width()?, v: o.need("v")?.width()? }))
        .collect()
}

fn ranges(field: &Field) -> Result<Ranges, FieldError> {
    let object = field.object(&["k", "v"])?;
    let rule = |name| {
        let field = object.need(name)?;
        RangeRule::from_name(field.text()?).ok_or_else(|| field.not_a_choice("'shift' or 'fit'"))
    };
    Ok(Ranges { k: rule("k")?, v: rule("v")? })
}

fn solver(field: &Field) -> Result<Solver, FieldError> {
    let solver = field.object(&["kv", "widths", "objective", "status", "gap"])?;
    let (kv, status) = (solver.need("kv")?, solver.need("status")?);
    Ok(Solver {
        kv: match kv.text()? {
            "apart" => Kv::Apart,
            "tied" => Kv::Tied,
            _ => return Err(kv.not_a_choice("'apart' or 'tied'")),
        },
        widths: solver.need("widths")?.widths()?,
        // a sum of amounts
        objective: solver.get("objective").map(|f| f.at_least_zero()).transpose()?,
        status: match status.text()? {
            "optimal" => Status::Optimal,
            "limit" => Status::Limit,
            "narrowest" => Status::Narrowest,
            "uniform" => Status::Uniform,
            "given" => Status::Given,
            _ => return Err(status.not_a_choice("'optimal', 'limit', 'narrowest', 'uniform' or 'given'")),
        },
        gap: solver.get("gap").map(|f| f.amount()).transpose()?,
    })
}
