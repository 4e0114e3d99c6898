//! Models, sensitivities and plans that the tests start from.

use pmkvq::bytes::{Layout, LayoutParams};
use pmkvq::geometry::Width;
use pmkvq::kernels::RangeRule;
use pmkvq::plan::{Initial, Kv, LayerTransforms, Plan, Ranges, Rule};
use pmkvq::planner::{solve_widths, uniform, Solved};
use pmkvq::sensitivity::{LayerSensitivity, Sensitivities};
use pmkvq::shape::{LayerShape, ModelShape};
use pmkvq::transform::{Transform, Transforms};

use super::rng::Rng;

/// A model of `n` equal layers.
pub fn shape(n: u32, n_head_kv: u32, head_dim: u32) -> ModelShape {
    let layer = |il| LayerShape { il, n_head_kv, head_dim_k: head_dim, head_dim_v: head_dim };
    ModelShape {
        arch: "llama".to_string(),
        name: "a test".to_string(),
        n_ctx_train: 32768,
        layers: (0..n).map(layer).collect(),
    }
}

/// A model of up to `most` layers, some skipped, of head dimensions with and without a group.
pub fn random_shape(rng: &mut Rng, most: usize) -> ModelShape {
    const DIMS: [u32; 9] = [64, 80, 96, 112, 128, 192, 256, 576, 72];
    let alike = rng.chance(50);
    let (heads, dim) = (rng.range(1, 8) as u32, rng.pick(&DIMS));
    let mut shape = shape(rng.range(1, most) as u32, heads, dim);
    let mut il = 0;
    for layer in &mut shape.layers {
        il += rng.range(0, 2) as u32;
        layer.il = il;
        il += 1;
        if !alike {
            (layer.n_head_kv, layer.head_dim_k) = (rng.range(1, 8) as u32, rng.pick(&DIMS));
            layer.head_dim_v = if rng.chance(50) { layer.head_dim_k } else { rng.pick(&DIMS) };
        }
    }
    shape
}

pub fn random_params(rng: &mut Rng) -> LayoutParams {
    LayoutParams {
        n_ctx: rng.range(1, 20_000) as u32,
        n_seq_max: rng.range(1, 5) as u32,
        sink: rng.range(0, 200) as u32,
        window: rng.range(128, 600) as u32,
        group: 16 * rng.range(1, 8) as u32,
        scratch_bytes: rng.below(1 << 20) as u64,
        transform_bytes: 0,
    }
}

pub fn params(n_ctx: u32) -> LayoutParams {
    LayoutParams { n_ctx, n_seq_max: 1, sink: 1, window: 128, group: 128, scratch_bytes: 4096, transform_bytes: 0 }
}

/// Sensitivities at all four widths; most rise as widths fall, some don't.
pub fn random_sensitivities(rng: &mut Rng, shape: &ModelShape) -> Sensitivities {
    let mut values = || {
        let scale = 10f64.powi(rng.range(0, 6) as i32 - 3);
        let mut v: Vec<f64> = (0..3).map(|_| scale * rng.below(1 << 30) as f64 / f64::from(1 << 30)).collect();
        if rng.chance(80) {
            v.sort_by(f64::total_cmp);
        }
        [vec![0.0], v].concat()
    };
    Sensitivities {
        source: "random \"numbers\"\n".to_string(),
        method: "none".to_string(),
        widths: Width::ALL.to_vec(),
        layers: shape.layers.iter().map(|l| LayerSensitivity { il: l.il, k: values(), v: values() }).collect(),
    }
}

/// Bytes that a planner counts for `widths` (side `2 * layer + side`).
pub fn planned(shape: &ModelShape, widths: &[Width], params: &LayoutParams) -> u64 {
    let layout = Layout::new(shape, widths, params);
    layout.sides.iter().map(|s| s.planned_bytes(layout.pools[s.pool].page_row_bytes)).sum::<u64>()
        + params.scratch_bytes
}

pub fn plan(
    shape: &ModelShape,
    params: &LayoutParams,
    budget: u64,
    solved: Solved,
    sensitivities: Option<Sensitivities>,
) -> Plan {
    Plan {
        model: shape.clone(),
        n_ctx: params.n_ctx,
        n_seq_max: params.n_seq_max,
        budget_bytes: budget,
        scratch_bytes: params.scratch_bytes,
        initial: Initial::B16,
        sink: params.sink,
        window: params.window,
        group: params.group,
        rule: Rule::Block,
        ranges: Ranges::default(),
        layers: solved.layers,
        transforms: None,
        sensitivities,
        solver: solved.solver,
        override_budget: None,
    }
}

/// Two layers of one head of 128, 4 bits everywhere, no sensitivities.
pub fn small() -> Plan {
    let (shape, params) = (shape(2, 1, 128), params(4096));
    let solved = uniform(&shape, Width::B4);
    let budget = Layout::new(&shape, &[Width::B4; 4], &params).comfortable_budget();
    plan(&shape, &params, budget, solved, None)
}

/// Three layers, solved, with every optional field.
pub fn rich() -> Plan {
    let (shape, mut params) = (shape(3, 2, 128), params(8192));
    let mut rng = Rng::new(2);
    let mut rows = || Some((0..2 * 128).map(|_| rng.below(1000) as f32 / 700.0 + 0.001).collect::<Vec<f32>>());
    let scaled = Transform { center: rows(), scales: rows(), matrix: None, hadamard: true };
    let mixed = (0..2 * 128 * 128).map(|i| 0.1 + 3.0 * f32::from(i / 128 % 128 == i % 128)).collect();
    let mixed = Transform { matrix: Some(mixed), ..Transform::default() };
    let transforms = vec![
        LayerTransforms { il: 0, k: Transform::default(), v: Transform::hadamard() },
        LayerTransforms { il: 1, k: scaled, v: Transform::default() },
        LayerTransforms { il: 2, k: mixed.clone(), v: mixed },
    ];
    params.transform_bytes = Transforms::new(&shape, &transforms).bytes;
    let s = random_sensitivities(&mut Rng::new(1), &shape);
    let budget = planned(&shape, &[Width::B4; 6], &params);
    let solved = solve_widths(&shape, &s, &params, budget, Kv::Apart, &Width::ALL).unwrap();
    let mut plan = plan(&shape, &params, budget, solved, Some(s));
    plan.transforms = Some(transforms);
    plan.ranges = Ranges { k: RangeRule::Shift, v: RangeRule::Fit };
    plan
}
