//! The reference implementation's own files: every number is the one that Python reads.
//!
//! `golden/sensitivity.json` holds what Python's `pickle` makes of `golden/sensitivity.pt`, written with `json.dump`
//! (which prints floats exactly).

use std::path::Path;

use pmkvq::geometry::Width;
use pmkvq::sensitivity::{budgets_from_pt, scales_from_pt, SensitivityFile};

use super::samples;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

fn sensitivities() -> SensitivityFile {
    SensitivityFile::from_bytes(&golden("sensitivity.pt"), "sensitivity.pt").unwrap()
}

#[test]
fn some_numbers_by_eye() {
    let s = sensitivities().values;
    assert_eq!(s.widths, Width::ALL);
    assert_eq!(s.layers.len(), 32);
    assert_eq!(s.layers[0].k, [0.0, 0.022656338870155873, 0.07047741093718152, 0.18907068177824227]);
    assert_eq!(s.layers[1].v, [0.0, 0.004520241036341826, 0.10228241541906113, 0.2433059227238432]);
}

#[test]
fn every_number_is_python_s() {
    let file = sensitivities();
    assert!(file.by_position && file.model.is_none());
    let s = &file.values;
    assert_eq!((s.source.as_str(), s.method.as_str()), ("sensitivity.pt", "gradient"));
    let text = String::from_utf8(golden("sensitivity.json")).unwrap();
    let json = pmkvq::plan::json::parse(&text).unwrap();
    let root = pmkvq::plan::json::Field::root(&json).any_object().unwrap();
    for side in ["k", "v"] {
        let widths = root.need(&format!("{side}_sensitivity")).unwrap().any_object().unwrap();
        for width in Width::ALL {
            let expected = widths.need(&width.to_string()).unwrap().amounts(32, "").unwrap();
            for (layer, expected) in s.layers.iter().zip(expected) {
                let values = if side == "k" { &layer.k } else { &layer.v };
                assert_eq!(s.at(values, width), Some(expected), "layer {} {side} {width}", layer.il);
            }
        }
    }
}

#[test]
fn layers_are_given_to_models() {
    let file = sensitivities();
    let found = file.for_model(&samples::shape(32, 8, 128)).unwrap();
    assert_eq!(found, file.values);
    for n in [4, 31, 33] {
        let e = file.for_model(&samples::shape(n, 8, 128)).unwrap_err().to_string();
        let expected = format!("the number of layers is 32 in the file and {n} in the model");
        assert!(e.contains("another model") && e.contains(&expected), "{e}");
    }
    // as many progressive layers as the file has, numbered otherwise
    let mut shape = samples::shape(32, 8, 128);
    shape.layers.iter_mut().for_each(|l| l.il = 2 * l.il + 1);
    let found = file.for_model(&shape).unwrap();
    assert_eq!((found.layers[3].il, &found.layers[3].k), (7, &file.values.layers[3].k));
    // only every fourth layer is progressive; the file has all
    let mut shape = samples::shape(8, 8, 128);
    shape.layers.iter_mut().for_each(|l| l.il = 4 * l.il + 3);
    let found = file.for_model(&shape).unwrap();
    assert_eq!((found.layers.len(), found.layers[2].il, &found.layers[2].v), (8, 11, &file.values.layers[11].v));
    shape.layers[7].il = 32;
    let e = file.for_model(&shape).unwrap_err().to_string();
    assert!(e.contains("one of 32 layers without a layer 32"), "{e}");
}

#[test]
fn budgets() {
    let [a, b, c] = [16.0, 32.0, 64.0];
    let expected =
        [c, c, b, b, b, c, c, b, b, c, b, b, b, c, c, c, b, b, c, b, c, c, b, b, c, c, b, b, c, c, c, c, c, c, c, a];
    assert_eq!(budgets_from_pt(&golden("kv_budgets.pt")).unwrap(), expected);
    budgets_from_pt(&golden("sensitivity.pt")).unwrap_err();
}

/// First, second and last number of each layer's scales.
const SCALES: [[f64; 3]; 4] = [
    [0.8555088043212891, 0.987286388874054, 0.5085625052452087],
    [0.6577585339546204, 1.007070779800415, 1.4001140594482422],
    [0.8662903308868408, 1.4612417221069336, 1.4817070960998535],
    [1.27032470703125, 0.6431967616081238, 0.6647725701332092],
];

#[test]
fn key_scales() {
    let scales = scales_from_pt(&golden("rep_scales.pt")).unwrap();
    assert_eq!(scales.len(), 4);
    assert!(scales.iter().all(|t| t.shape == [1, 8, 1, 64] && t.data.len() == 512));
    for (expected, t) in SCALES.iter().zip(&scales) {
        assert_eq!([t.data[0], t.data[1], t.data[511]].map(f64::from), *expected);
    }
    scales_from_pt(&golden("sensitivity.pt")).unwrap_err();
    SensitivityFile::from_bytes(&golden("rep_scales.pt"), "").unwrap_err();
}
