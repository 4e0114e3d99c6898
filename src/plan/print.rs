//! From [`Plan`] to text that people can read and compare: one line per layer.

use serde::Serialize;

use super::{Plan, Ranges, VERSION};
use crate::transform::layers_json;

fn text<T: Serialize + ?Sized>(value: &T) -> String {
    // numbers were checked to be finite and keys are texts, so there is nothing that JSON can't hold
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_string())
}

/// `[` a line per item `]`
fn lines<T: Serialize>(items: &[T], indent: &str) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("{indent}  {}", text(item))).collect();
    format!("[\n{}\n{indent}]", items.join(",\n"))
}

impl Plan {
    /// The plan as JSON, ending in a newline. [`Plan::parse`] gives the same plan back.
    pub fn to_json(&self) -> String {
        let model = format!(
            "{{\n    \"arch\": {},\n    \"name\": {},\n    \"n_ctx_train\": {},\n    \"layers\": {}\n  }}",
            text(&self.model.arch),
            text(&self.model.name),
            self.model.n_ctx_train,
            lines(&self.model.layers, "    ")
        );
        let mut fields = vec![
            ("pmkvq_plan", VERSION.to_string()),
            ("model", model),
            ("n_ctx", self.n_ctx.to_string()),
            ("n_seq_max", self.n_seq_max.to_string()),
            ("budget_bytes", self.budget_bytes.to_string()),
            ("scratch_bytes", self.scratch_bytes.to_string()),
            ("initial", text(&self.initial)),
            ("sink", self.sink.to_string()),
            ("window", self.window.to_string()),
            ("group", self.group.to_string()),
            ("rule", text(&self.rule)),
        ];
        if self.ranges != Ranges::default() {
            let (k, v) = (self.ranges.k.name(), self.ranges.v.name());
            fields.push(("ranges", format!("{{\"k\":\"{k}\",\"v\":\"{v}\"}}")));
        }
        fields.push(("layers", lines(&self.layers, "  ")));
        if let Some(transforms) = &self.transforms {
            fields.push(("transforms", lines(&layers_json(transforms, &self.model), "  ")));
        }
        if let Some(s) = &self.sensitivities {
            let json = format!(
                "{{\n    \"source\": {},\n    \"method\": {},\n    \"widths\": {},\n    \"layers\": {}\n  }}",
                text(&s.source),
                text(&s.method),
                text(&s.widths),
                lines(&s.layers, "    ")
            );
            fields.push(("sensitivities", json));
        }
        fields.push(("solver", text(&self.solver)));
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("  \"{name}\": {value}")).collect();
        format!("{{\n{}\n}}\n", fields.join(",\n"))
    }
}
