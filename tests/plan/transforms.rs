//! Transforms files: ours, and the reference's key scales.

use std::path::Path;

use pmkvq::sensitivity::scales_from_pt;
use pmkvq::shape::ModelShape;
use pmkvq::transform::{RopeOrder, Transform, TransformsFile};

use super::samples;
use super::temporary::Temporary;

fn rep_scales() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rep_scales.pt")
}

/// A model that the golden key scales fit.
fn golden_shape() -> ModelShape {
    let tensors = scales_from_pt(&std::fs::read(rep_scales()).unwrap()).unwrap();
    let (heads, half) = (tensors[0].shape[1], tensors[0].shape[3]);
    samples::shape(tensors.len() as u32, heads as u32, 2 * half as u32)
}

#[test]
fn the_references_key_scales_go_to_their_pairs() {
    let shape = golden_shape();
    let tensors = scales_from_pt(&std::fs::read(rep_scales()).unwrap()).unwrap();
    for order in [RopeOrder::Interleaved, RopeOrder::HalfSplit] {
        let file = TransformsFile::load(&rep_scales(), &shape, Some(order)).unwrap();
        for ((layer, tensor), shape) in file.layers.iter().zip(&tensors).zip(&shape.layers) {
            let (d, scales) = (shape.head_dim_k as usize, layer.k.scales.as_ref().unwrap());
            for (h, pairs) in tensor.data.chunks(d / 2).enumerate() {
                for (p, s) in pairs.iter().enumerate() {
                    let (a, b) = match order {
                        RopeOrder::Interleaved => (2 * p, 2 * p + 1),
                        RopeOrder::HalfSplit => (p, p + d / 2),
                    };
                    assert_eq!((scales[h * d + a], scales[h * d + b]), (*s, *s), "{order:?}, head {h}, pair {p}");
                }
            }
            assert!(layer.v.is_none() && !layer.k.hadamard);
        }
    }
}

#[test]
fn key_scales_that_dont_fit() {
    let shape = golden_shape();
    let refused = |shape: &ModelShape, order| TransformsFile::load(&rep_scales(), shape, order).unwrap_err();
    assert!(refused(&shape, None).contains("give the model itself (--model)"));
    let mut other = shape.clone();
    other.layers[1].n_head_kv += 1;
    let message = refused(&other, Some(RopeOrder::HalfSplit));
    assert!(message.starts_with("key scales of layer 1: ") && message.contains("where this model has"), "{message}");
    let mut longer = shape.clone();
    let mut layer = longer.layers[0].clone();
    layer.il = longer.layers.len() as u32 + 3;
    longer.layers.push(layer);
    let message = refused(&longer, Some(RopeOrder::HalfSplit));
    assert!(message.starts_with("the key scales are of a model with "), "{message}");
}

#[test]
fn what_is_written_is_read_again() {
    let plan = samples::rich();
    let file = TransformsFile {
        source: "a \"text\"".to_string(),
        method: "none".to_string(),
        layers: plan.transforms.clone().unwrap(),
    };
    let text = file.to_json(&plan.model);
    assert_eq!(TransformsFile::parse(&text, &plan.model).unwrap(), file);
    let on_disk = Temporary::new("json");
    std::fs::write(&on_disk.0, &text).unwrap();
    assert_eq!(TransformsFile::load(&on_disk.0, &plan.model, None).unwrap(), file);
}

/// A checkpoint has all layers, a model of ours only those with a progressive cache.
#[test]
fn layers_without_a_progressive_cache_are_passed_over() {
    let mut shape = samples::shape(2, 1, 128);
    shape.layers[1].il = 3;
    let layer = |il: u32, k: &str| format!("{{\"il\": {il}, \"k\": \"{k}\", \"v\": \"none\"}}");
    let layers = [layer(0, "none"), layer(1, "hadamard"), layer(2, "none"), layer(3, "hadamard")].join(",");
    let text = format!("{{\"pmkvq_transforms\": 1, \"source\": \"\", \"method\": \"\", \"layers\": [{layers}]}}");
    let file = TransformsFile::parse(&text, &shape).unwrap();
    assert_eq!([&file.layers[0].k, &file.layers[1].k], [&Transform::default(), &Transform::hadamard()]);
}

#[test]
fn defects() {
    let shape = samples::shape(2, 1, 128);
    let other = samples::shape(2, 2, 128);
    let model = serde_json::to_string(&other).unwrap();
    let whole = "{\"il\": 0, \"k\": \"none\", \"v\": \"none\"}, {\"il\": 1, \"k\": \"none\", \"v\": \"none\"}";
    let twice = format!("{whole}, {{\"il\": 1, \"k\": \"none\", \"v\": \"none\"}}");
    let with = |layers: &str| {
        format!("{{\"pmkvq_transforms\": 1, \"source\": \"\", \"method\": \"\", \"layers\": [{layers}]}}")
    };
    let cases = [
        ("".to_string(), "not valid JSON"),
        ("{}".to_string(), "not a transforms file: the field 'pmkvq_transforms' is missing"),
        ("{\"pmkvq_transforms\": 2}".to_string(), "pmkvq_transforms: version 2 is not known"),
        (with("{\"il\": 0, \"k\": \"none\", \"v\": \"none\"}"), "layers: layer 1 of the model is missing"),
        (with(&twice), "layers[2].il: layer 1 is there twice"),
        (with(&whole.replace("\"v\"", "\"w\"")), "layers[0].w is not a field"),
        (
            with(whole).replace("\"layers\"", &format!("\"model\": {model}, \"layers\"")),
            "the transforms are of another model",
        ),
        (with(whole).replace("\"source\": \"\", ", ""), "source is missing"),
    ];
    for (text, expected) in cases {
        let found = TransformsFile::parse(&text, &shape).unwrap_err();
        assert!(found.starts_with(expected), "{text}\n{found}\n{expected}");
    }
}
