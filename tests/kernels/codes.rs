//! Codes against the reference implementation's outputs.

use pmkvq::geometry::Width;
use pmkvq::kernels::codes::{code8, narrow8, range, shift};
use serde_json::Value;

fn json(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn shifts_are_the_golden_ones() {
    let tables = json("shrink_tables.json");
    for (name, bits, n) in [("8->4", 4, 256), ("4->2", 2, 16)] {
        let golden = numbers(&tables[name]["codes"]);
        assert_eq!(golden.len(), n);
        for (c, &g) in golden.iter().enumerate() {
            assert_eq!(shift(c as u32, bits) as f64, g, "{name} of {c}");
        }
    }
    let golden = std::fs::read(format!("{}/tests/golden/shrink_16_to_8.u8", env!("CARGO_MANIFEST_DIR"))).unwrap();
    assert_eq!(golden.len(), 65536);
    for (c, &g) in golden.iter().enumerate() {
        assert_eq!(shift(c as u32, 8), g as u32, "16->8 of {c}");
    }
}

#[test]
fn shift_rounds_the_quotient() {
    for b in [2, 4, 8] {
        for c in 0..1u32 << (2 * b) {
            let exact = c as f64 / ((1u32 << b) + 1) as f64;
            assert_eq!(shift(c, b) as f64, exact.round());
        }
    }
}

/// At 8 bits the golden codes are ours to the last one. At 4 and 2 bits ours go by way of 8 bits, the golden ones directly:
/// they may differ by one where the value lies within half an 8-bit step of the border between two codes, and nowhere else.
#[test]
fn quantizer_is_the_golden_one() {
    let rows = json("quantizer_group128.json");
    let (mut borders, mut values) = (0, 0);
    for (i, row) in rows.as_array().unwrap().iter().enumerate() {
        let x: Vec<f32> = numbers(&row["x"]).iter().map(|&x| x as f32).collect();
        let (min, max) = range(&x);
        let codes: Vec<u8> = x.iter().map(|&x| code8(x, min, max)).collect();
        if max > min {
            assert_eq!((max - min) / 255.0, row["scale8"].as_f64().unwrap() as f32, "scale of row {i}");
        }
        let golden: Vec<u8> = numbers(&row["codes8"]).iter().map(|&c| c as u8).collect();
        assert_eq!(codes, golden, "row {i}");
        for (width, key) in [(Width::B4, "codes4"), (Width::B2, "codes2")] {
            let step = ((1u32 << width.bits()) - 1) as f64;
            for (j, &g) in numbers(&row[key]).iter().enumerate() {
                values += 1;
                let ours = narrow8(codes[j], width) as f64;
                if ours != g {
                    borders += 1;
                    let exact = (x[j] as f64 - min as f64) / (max as f64 - min as f64) * step;
                    let from_border = (exact - exact.floor() - 0.5).abs();
                    assert_eq!((ours - g).abs(), 1.0, "row {i}, value {j}");
                    assert!(from_border <= 0.5 * step / 255.0 + 1e-4, "row {i}, value {j}: {exact} became {ours}");
                }
            }
        }
    }
    println!("{borders} of {values} codes differ from direct quantization");
}

#[test]
fn codes_of_odd_values() {
    assert_eq!(range(&[f32::NAN, f32::NAN]), (0.0, 0.0));
    assert_eq!(range(&[f32::NAN, -0.0]), (0.0, 0.0));
    assert!(range(&[-0.0]).0.is_sign_positive());
    assert_eq!(range(&[f32::INFINITY, f32::NEG_INFINITY]), (-65504.0, 65504.0));
    assert_eq!(code8(f32::NAN, -1.0, 1.0), 0);
    assert_eq!(code8(7.0, 7.0, 7.0), 0);
    assert_eq!(code8(1.0, -1.0, 1.0), 255);
    assert_eq!(code8(f32::INFINITY, -65504.0, 65504.0), 255);
}
