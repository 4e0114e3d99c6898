//! Our JSON of sensitivities: what is read, what is refused and how that is said.

use pmkvq::geometry::Width;
use pmkvq::sensitivity::{SensitivityError, SensitivityFile};

use super::files::Folder;
use super::samples;

const FILE: &str = r#"{
  "pmkvq_sensitivity": 1,
  "model": {
    "arch": "llama", "name": "a test", "n_ctx_train": 4096,
    "layers": [
      {"il": 0, "n_head_kv": 2, "head_dim_k": 128, "head_dim_v": 128},
      {"il": 1, "n_head_kv": 2, "head_dim_k": 128, "head_dim_v": 128}
    ]
  },
  "source": "by hand",
  "method": "gradient",
  "widths": [16, 8, 4, 2, 1],
  "layers": [
    {"il": 0, "k": [0, 0.5, 1.5, 4, 9], "v": [0, 0.25, 0.75, 2, 5]},
    {"il": 1, "k": [1e-8, 0.5, 1.25, 3, 8], "v": [0, 0.125, 0.5, 1, 4]}
  ]
}"#;

fn message(text: &str) -> String {
    match SensitivityFile::parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

fn expect(cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        assert_eq!(FILE.matches(from).count(), 1, "{from}");
        let found = message(&FILE.replace(from, to));
        assert!(found.starts_with(expected), "{from} -> {to}:\n{found}\n{expected}");
    }
}

#[test]
fn one_bit_is_passed_over() {
    let s = SensitivityFile::parse(FILE).unwrap().values;
    assert_eq!(s.widths, Width::ALL);
    assert_eq!(s.layers[1].k, [1e-8, 0.5, 1.25, 3.0]);
    assert_eq!(s.at(&s.layers[1].v, Width::B4), Some(0.5));
    let few = FILE.replace("[16, 8, 4, 2, 1]", "[8, 1]").replace(", 1.5, 4, 9", "").replace(", 0.75, 2, 5", "");
    let few = few.replace(", 1.25, 3, 8", "").replace(", 0.5, 1, 4", "");
    let s = SensitivityFile::parse(&few).unwrap().values;
    assert_eq!((s.widths.as_slice(), s.layers[0].v.as_slice()), (&[Width::B8][..], &[0.0][..]));
    assert_eq!(s.at(&s.layers[0].v, Width::B4), None);
}

#[test]
fn each_defect_has_its_message() {
    expect(&[
        ("\"pmkvq_sensitivity\": 1,", "", "not a sensitivity file: the field 'pmkvq_sensitivity' is missing"),
        (
            "_sensitivity\": 1",
            "_sensitivity\": 2",
            "pmkvq_sensitivity: version 2 is not known to this build: expected 1",
        ),
        ("\"source\": \"by hand\",", "", "source is missing"),
        ("\"method\": \"gradient\"", "\"method\": 1", "method: 1 is not a text"),
        ("\"source\"", "\"text\": 1, \"source\"", "text is not a field that this version knows"),
        ("\"source\"", "\"source\": \"\", \"source\"", "source occurs twice"),
        ("[16, 8, 4, 2, 1]", "[16, 4, 8, 2, 1]", "widths: widths must fall from one to the next"),
        ("[16, 8, 4, 2, 1]", "[1, 16, 8, 4, 2]", "widths: widths must fall from one to the next"),
        ("[16, 8, 4, 2, 1]", "[16, 8, 4, 3, 1]", "widths[3]: 3 is not a width"),
        ("[16, 8, 4, 2, 1]", "[1]", "widths has 1 entries: expected at least one width of 16, 8, 4, 2"),
        ("[16, 8, 4, 2, 1]", "[]", "widths has 0 entries: expected at least one width"),
        ("[0, 0.5, 1.5, 4, 9]", "[0, 0.5, 1.5, 4]", "layers[0].k has 4 entries: expected 5, one per entry of widths"),
        ("[0, 0.5, 1.5, 4, 9]", "[0, 0.5, NaN, 4, 9]", "layers[0].k[2]: NaN and infinities are not allowed"),
        ("[0, 0.5, 1.5, 4, 9]", "[0, 0.5, \"nan\", 4, 9]", "layers[0].k[2]: NaN and infinities are not allowed"),
        ("[0, 0.5, 1.5, 4, 9]", "[0, 0.5, 1.5, 4, 1e999]", "layers[0].k[4]: NaN and infinities are not allowed"),
        ("[0, 0.5, 1.5, 4, 9]", "[-0.5, 0.5, 1.5, 4, 9]", "layers[0].k[0]: -0.5 is negative; expected at least 0"),
        (
            "[0, 0.5, 1.5, 4, 9]",
            "[0, 0.5, 1.5, 4e300, 9]",
            "layers[0].k[3]: 4e300 is out of range: expected at most 1e100",
        ),
        (
            "{\"il\": 1, \"k\"",
            "{\"il\": 0, \"k\"",
            "layers[1].il: layer 0 is out of order: expected at least 1, each layer once",
        ),
        ("\"n_ctx_train\": 4096,", "", "model.n_ctx_train is missing"),
    ]);
    assert_eq!(message(""), "not valid JSON: the file is empty");
    for n in 1..FILE.len() {
        assert!(message(&FILE[..n]).starts_with("not valid JSON"));
    }
}

#[test]
fn files_that_are_neither_format() {
    let read = |bytes: &[u8]| SensitivityFile::from_bytes(bytes, "x").unwrap_err().to_string();
    assert_eq!(read(b"\xff\xfe"), "the file is not text (UTF-8)");
    assert!(read(b"PK").contains("the file is cut off or not a zip"));
    assert!(read(b"GGUF").starts_with("not valid JSON"));
    let plan = samples::rich().to_json();
    assert!(read(plan.as_bytes()).starts_with("not a sensitivity file"));
    let folder = Folder::new("sensitivity");
    assert!(SensitivityFile::load(&folder.0).unwrap_err().to_string().contains("is a folder"));
    let file = SensitivityFile::load(&folder.file("s.json", FILE.as_bytes())).unwrap();
    assert_eq!(file, SensitivityFile::parse(FILE).unwrap());
}

#[test]
fn another_model_is_refused() {
    let file = SensitivityFile::parse(FILE).unwrap();
    let mut shape = samples::shape(2, 2, 128);
    assert_eq!(file.for_model(&shape).unwrap(), file.values);
    shape.name = "fine-tuned".to_string();
    shape.n_ctx_train = 1;
    assert_eq!(file.for_model(&shape).unwrap(), file.values);
    let refused =
        |file: &SensitivityFile, shape: &pmkvq::shape::ModelShape| file.for_model(shape).unwrap_err().to_string();
    let start = "the sensitivities are of another model: ";
    let counts =
        "the number of layers with a progressive cache is 2 in the file and 3 in the model; measure them on this model";
    assert_eq!(refused(&file, &samples::shape(3, 2, 128)), format!("{start}{counts}"));
    let heads = "model.layers[0].n_head_kv is 2 in the file and 4 in the model; measure them on this model";
    assert_eq!(refused(&file, &samples::shape(2, 4, 128)), format!("{start}{heads}"));
    shape.arch = "qwen3".to_string();
    let arch = "the architecture is 'llama' in the file and 'qwen3' in the model; measure them on this model";
    assert_eq!(refused(&file, &shape), format!("{start}{arch}"));
    // a file that does not name its model is known by its layers
    let nameless = SensitivityFile { model: None, ..file };
    assert_eq!(nameless.for_model(&shape).unwrap(), nameless.values);
    let counts = "the number of layers is 2 in the file and 3 in the model; measure them on this model";
    assert_eq!(refused(&nameless, &samples::shape(3, 2, 128)), format!("{start}{counts}"));
    shape.layers[1].il = 5;
    assert!(refused(&nameless, &shape).contains("one of 2 layers without a layer 5 in the file"));
}

#[test]
fn zeros_alone_are_no_measurement() {
    let mut file = SensitivityFile::parse(FILE).unwrap();
    file.values.layers.iter_mut().flat_map(|l| l.k.iter_mut().chain(&mut l.v)).for_each(|v| *v = 0.0);
    let e = file.for_model(&samples::shape(2, 2, 128)).unwrap_err();
    assert_eq!(e, SensitivityError::AllZero);
    assert!(e.to_string().contains("--uniform"), "{e}");
    // a single number is
    file.values.layers[1].v[3] = 0.5;
    file.for_model(&samples::shape(2, 2, 128)).unwrap();
}
