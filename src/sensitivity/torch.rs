//! Files that `torch.save` wrote: the reference implementation's sensitivities, budgets and key scales.

use std::fmt;

use super::pickle::{Node, Pickle, PickleError, Ref};
use super::zip::{Archive, ZipError};
use super::{LayerSensitivity, Sensitivities, SensitivityFile};
use crate::geometry::Width;
use crate::plan::{FieldError, MAX_LAYERS};

/// Most numbers in one tensor, and in all tensors of one file.
const MAX_NUMBERS: u64 = 1 << 24;

/// A dense tensor, last dimension fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// Why a torch file was refused.
#[derive(Clone, Debug, PartialEq)]
pub enum TorchError {
    Zip(ZipError),
    Pickle(PickleError),
    /// Written before torch 1.6, as a bare pickle.
    Legacy,
    /// No `data.pkl`, or a storage is missing or too short.
    Missing {
        name: String,
    },
    BigEndian,
    /// A value is not what the format has there.
    Content {
        path: String,
        expected: &'static str,
    },
    Field(FieldError),
}

impl From<ZipError> for TorchError {
    fn from(e: ZipError) -> Self {
        Self::Zip(e)
    }
}

impl From<PickleError> for TorchError {
    fn from(e: PickleError) -> Self {
        Self::Pickle(e)
    }
}

impl From<FieldError> for TorchError {
    fn from(e: FieldError) -> Self {
        Self::Field(e)
    }
}

impl fmt::Display for TorchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zip(e) => e.fmt(f),
            Self::Pickle(e) => e.fmt(f),
            Self::Legacy => {
                f.write_str("an old torch file (a bare pickle); load it and save it again with a current torch")
            }
            Self::Missing { name } => write!(f, "the torch file has no {name}, or not enough of it"),
            Self::BigEndian => {
                f.write_str("the torch file was written on a big-endian machine; save it on a little-endian one")
            }
            Self::Content { path, expected } => write!(f, "{path}: expected {expected}"),
            Self::Field(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for TorchError {}

type Result<T, E = TorchError> = std::result::Result<T, E>;

/// Whether a file starts as torch's files do: as a zip, or as a bare pickle.
pub fn looks_like_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK") || bytes.first() == Some(&0x80)
}

struct Torch<'a> {
    archive: Archive<'a>,
    prefix: String,
    pickle: Pickle,
}

impl<'a> Torch<'a> {
    fn read(bytes: &'a [u8]) -> Result<Torch<'a>> {
        if !bytes.starts_with(b"PK") && looks_like_torch(bytes) {
            return Err(TorchError::Legacy);
        }
        let archive = Archive::read(bytes)?;
        let missing = || TorchError::Missing { name: "data.pkl".to_string() };
        let name = archive.names().find(|n| n.ends_with("/data.pkl")).ok_or_else(missing)?;
        let prefix = name[..name.len() - "data.pkl".len()].to_string();
        if archive.get(&format!("{prefix}byteorder")).is_some_and(|order| order != b"little") {
            return Err(TorchError::BigEndian);
        }
        let pickle = Pickle::read(archive.get(name).ok_or_else(missing)?)?;
        Ok(Torch { archive, prefix, pickle })
    }

    fn list(&self, at: Ref, path: &str) -> Result<&[Ref]> {
        match self.pickle.node(at) {
            Node::List(items) | Node::Tuple(items) => Ok(items),
            _ => Err(TorchError::Content { path: path.to_string(), expected: "a list" }),
        }
    }

    /// Every number of a tensor in order, and its shape.
    fn tensor(&self, at: Ref, path: &str) -> Result<(Vec<usize>, Vec<f64>)> {
        let content = |expected| TorchError::Content { path: path.to_string(), expected };
        let Node::Tensor { storage, offset, shape, stride } = self.pickle.node(at) else {
            return Err(content("a tensor"));
        };
        let Node::Storage { key, number, n } = self.pickle.node(*storage) else {
            return Err(content("a tensor with a storage"));
        };
        let name = format!("{}data/{key}", self.prefix);
        let short = || TorchError::Missing { name: name.clone() };
        let bytes = self.archive.get(&name).ok_or_else(short)?;
        let width = number.bytes() as u64;
        if n.checked_mul(width).is_none_or(|n| n > bytes.len() as u64) {
            return Err(short());
        }
        if shape.len() != stride.len() {
            return Err(content("as many strides as dimensions"));
        }
        // a tensor that repeats its numbers (stride 0) may be as large as it likes in a small file
        let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).filter(|count| count <= n);
        let count = count.ok_or_else(|| content("a tensor no larger than its storage"))?;
        if count > MAX_NUMBERS {
            return Err(content("a tensor of reasonable size"));
        }
        let mut index = vec![0u64; shape.len()];
        let mut data = Vec::new();
        for _ in 0..count {
            let place = index
                .iter()
                .zip(stride)
                .try_fold(*offset, |p, (i, s)| i.checked_mul(*s).and_then(|d| p.checked_add(d)))
                .filter(|p| p < n)
                .ok_or_else(|| content("a tensor that lies in its storage"))?;
            let start = (place * width) as usize;
            data.push(number.read(&bytes[start..start + number.bytes()]).ok_or_else(short)?);
            for (i, d) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < *d {
                    break;
                }
                *i = 0;
            }
        }
        Ok((shape.iter().map(|d| *d as usize).collect(), data))
    }

    /// A finite number of at least 0: a float, an int, or a tensor that holds one number.
    fn amount(&self, at: Ref, path: &str) -> Result<f64> {
        let v = match self.pickle.node(at) {
            Node::Float(v) => *v,
            Node::Int(v) => *v as f64,
            Node::Tensor { .. } => match self.tensor(at, path)?.1[..] {
                [v] => v,
                _ => return Err(TorchError::Content { path: path.to_string(), expected: "one number" }),
            },
            _ => return Err(TorchError::Content { path: path.to_string(), expected: "a number" }),
        };
        Ok(checked(v, path)?)
    }

    /// A list of numbers, or a tensor of them.
    fn amounts(&self, at: Ref, path: &str) -> Result<Vec<f64>> {
        let too_many = |found| {
            let expected = format!("at most {MAX_LAYERS}");
            TorchError::from(FieldError::Count { path: path.to_string(), found, expected })
        };
        if let Node::Tensor { .. } = self.pickle.node(at) {
            let (_, data) = self.tensor(at, path)?;
            if data.len() > MAX_LAYERS {
                return Err(too_many(data.len()));
            }
            let checked = data.iter().enumerate().map(|(i, v)| checked(*v, &format!("{path}[{i}]")));
            return Ok(checked.collect::<Result<_, _>>()?);
        }
        let items = self.list(at, path)?;
        if items.len() > MAX_LAYERS {
            return Err(too_many(items.len()));
        }
        items.iter().enumerate().map(|(i, item)| self.amount(*item, &format!("{path}[{i}]"))).collect()
    }

    /// Values by width, widest first, of the entry `name` of the top dict.
    fn by_width(&self, name: &str) -> Result<Vec<(Width, Vec<f64>)>> {
        let content = |path: &str, expected| TorchError::Content { path: path.to_string(), expected };
        let Node::Dict(top) = self.pickle.node(self.pickle.root) else {
            return Err(content("the file", "a dict with k_sensitivity and v_sensitivity"));
        };
        let is_name = |at: Ref| matches!(self.pickle.node(at), Node::Text(text) if text == name);
        let (_, side) = top
            .iter()
            .rev()
            .find(|(key, _)| is_name(*key))
            .ok_or_else(|| FieldError::Missing { path: name.to_string() })?;
        let Node::Dict(widths) = self.pickle.node(*side) else {
            return Err(content(name, "a dict from width to a list with one number per layer"));
        };
        let mut found: Vec<(Width, Vec<f64>)> = Vec::new();
        for (key, values) in widths {
            let bits = match self.pickle.node(*key) {
                Node::Int(bits) => *bits,
                Node::Text(bits) => bits.parse().unwrap_or(-1),
                _ => -1,
            };
            let path = format!("{name}[{bits}]");
            // calibration measures 1 bit too; no cache stores it
            if bits == 1 {
                continue;
            }
            let width = u32::try_from(bits).ok().and_then(Width::from_bits);
            let width = width.ok_or(FieldError::NotAWidth { path: path.clone(), found: bits.to_string() })?;
            if found.iter().any(|(w, _)| *w == width) {
                return Err(content(&path, "each width once"));
            }
            found.push((width, self.amounts(*values, &path)?));
        }
        if found.is_empty() {
            return Err(content(name, "at least one width of 16, 8, 4, 2"));
        }
        found.sort_by_key(|(width, _)| std::cmp::Reverse(*width));
        Ok(found)
    }
}

fn checked(v: f64, path: &str) -> Result<f64, FieldError> {
    if !v.is_finite() {
        return Err(FieldError::NotFinite { path: path.to_string() });
    }
    if v < 0.0 {
        return Err(FieldError::Negative { path: path.to_string(), found: v.to_string() });
    }
    crate::plan::json::reasonable(v, path)
}

/// The reference's `sensitivity.pt`: `{k_sensitivity, v_sensitivity}` -> width -> a number per layer.
///
/// # Errors
/// One [`TorchError`] that names the entry.
pub fn sensitivities_from_pt(bytes: &[u8], source: &str) -> Result<SensitivityFile> {
    let torch = Torch::read(bytes)?;
    let (k, v) = (torch.by_width("k_sensitivity")?, torch.by_width("v_sensitivity")?);
    let widths: Vec<Width> = k.iter().map(|(w, _)| *w).collect();
    if v.iter().map(|(w, _)| *w).ne(widths.iter().copied()) {
        let path = "v_sensitivity".to_string();
        return Err(TorchError::Content { path, expected: "the widths of k_sensitivity" });
    }
    let n = k[0].1.len();
    for (name, side) in [("k_sensitivity", &k), ("v_sensitivity", &v)] {
        if let Some((w, values)) = side.iter().find(|(_, values)| values.len() != n || n == 0) {
            let expected = format!("{} as k_sensitivity[{}]", n.max(1), widths[0]);
            return Err(FieldError::Count { path: format!("{name}[{w}]"), found: values.len(), expected }.into());
        }
    }
    let of = |side: &[(Width, Vec<f64>)], i: usize| side.iter().map(|(_, values)| values[i]).collect();
    let layers = (0..n).map(|i| LayerSensitivity { il: i as u32, k: of(&k, i), v: of(&v, i) }).collect();
    Ok(SensitivityFile {
        model: None,
        by_position: true,
        values: Sensitivities { source: source.to_string(), method: "gradient".to_string(), widths, layers },
    })
}

/// The reference's `kv_budgets.pt`: MiB per layer.
///
/// # Errors
/// One [`TorchError`] that names the entry.
pub fn budgets_from_pt(bytes: &[u8]) -> Result<Vec<f64>> {
    let torch = Torch::read(bytes)?;
    torch.amounts(torch.pickle.root, "budgets")
}

/// The reference's `rep_scales.pt`: per layer a tensor `[1, n_kv_heads, 1, head_dim / 2]`.
///
/// # Errors
/// One [`TorchError`] that names the entry.
pub fn scales_from_pt(bytes: &[u8]) -> Result<Vec<Tensor>> {
    let torch = Torch::read(bytes)?;
    let items = torch.list(torch.pickle.root, "scales")?;
    if items.len() > MAX_LAYERS {
        let expected = format!("at most {MAX_LAYERS}");
        return Err(FieldError::Count { path: "scales".to_string(), found: items.len(), expected }.into());
    }
    let mut in_all = 0;
    let tensor = |(i, at): (usize, &Ref)| {
        let path = format!("scales[{i}]");
        let (shape, data) = torch.tensor(*at, &path)?;
        // a file may name one storage many times
        in_all += data.len() as u64;
        if in_all > MAX_NUMBERS {
            return Err(TorchError::Content { path, expected: "fewer numbers in all" });
        }
        if let Some(j) = data.iter().position(|v| !v.is_finite()) {
            return Err(FieldError::NotFinite { path: format!("{path}[{j}]") }.into());
        }
        Ok(Tensor { shape, data: data.into_iter().map(|v| v as f32).collect() })
    };
    items.iter().enumerate().map(tensor).collect()
}
