//! Strict reading of JSON: every complaint names the field (`layers[3].k`) and what was expected there.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::size::shorten;
use crate::geometry::Width;

/// A JSON value that keeps the order of fields and refuses a name that occurs twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Json, D::Error> {
        d.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Json, E> {
        Ok(Json::Bool(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Json, E> {
        Ok(Json::Number(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Json, E> {
        Ok(Json::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Json, E> {
        let number = serde_json::Number::from_f64(v).ok_or_else(|| E::custom("a number that is not finite"))?;
        Ok(Json::Number(number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Json, E> {
        Ok(Json::Text(v.to_string()))
    }

    fn visit_string<E>(self, v: String) -> Result<Json, E> {
        Ok(Json::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut names = std::collections::HashSet::new();
        let mut fields: Vec<(String, Json)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                return Err(serde::de::Error::custom(format!("the field '{}' occurs twice", shorten(&name))));
            }
            fields.push((name, value));
        }
        Ok(Json::Object(fields))
    }
}

/// What is wrong with a field. `path` is the field's place, as in `layers[3].k`; `found` what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// Not JSON at all, cut off in the middle, nested too deeply, or a field that occurs twice.
    NotJson { message: String },
    /// `NaN` or an infinity where a number should be.
    NotFinite { path: String },
    Missing { path: String },
    Unknown { path: String, expected: String },
    Type { path: String, found: String, expected: &'static str },
    NotAWidth { path: String, found: String },
    /// Widths that don't fall from one to the next.
    Order { path: String },
    Negative { path: String, found: String },
    Range { path: String, found: String, expected: String },
    Count { path: String, found: usize, expected: String },
    /// A name or number that is none of the allowed ones.
    Choice { path: String, found: String, expected: String },
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { message } => write!(f, "not valid JSON: {message}"),
            Self::NotFinite { path } => write!(f, "{path}: NaN and infinities are not allowed; expected a finite number"),
            Self::Missing { path } => write!(f, "{path} is missing"),
            Self::Unknown { path, expected } => {
                write!(f, "{path} is not a field that this version knows; expected one of: {expected}")
            }
            Self::Type { path, found, expected } => write!(f, "{path}: {found} is not {expected}"),
            Self::NotAWidth { path, found } => write!(f, "{path}: {found} is not a width: expected 16, 8, 4 or 2"),
            Self::Order { path } => write!(f, "{path}: widths must fall from one to the next, as in [16, 8, 4, 2]"),
            Self::Negative { path, found } => write!(f, "{path}: {found} is negative; expected at least 0"),
            Self::Range { path, found, expected } => write!(f, "{path}: {found} is out of range: expected {expected}"),
            Self::Count { path, found, expected } => write!(f, "{path} has {found} entries: expected {expected}"),
            Self::Choice { path, found, expected } => write!(f, "{path}: {found} is not known: expected {expected}"),
        }
    }
}

impl std::error::Error for FieldError {}

type Result<T, E = FieldError> = std::result::Result<T, E>;

/// Reads a text as one JSON value.
///
/// # Errors
/// [`FieldError::NotJson`] with line and column; [`FieldError::NotFinite`] where the text has `NaN` or `Infinity`.
pub fn parse(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|e| {
        let place = format!("line {}, column {}", e.line(), e.column());
        if at_non_finite(text, e.line(), e.column()) || e.to_string().starts_with("number out of range") {
            return FieldError::NotFinite { path: place };
        }
        FieldError::NotJson { message: e.to_string() }
    })
}

/// Whether the JSON error at a line and column (from 1) stands at a word that means NaN or infinity.
fn at_non_finite(text: &str, line: usize, column: usize) -> bool {
    let Some(line) = text.lines().nth(line.saturating_sub(1)) else { return false };
    let word = |c: u8| c.is_ascii_alphabetic() || c == b'-' || c == b'+';
    let bytes = line.as_bytes();
    let at = column.saturating_sub(1).min(bytes.len());
    let start = bytes[..at].iter().rposition(|c| !word(*c)).map_or(0, |i| i + 1);
    let end = at + bytes[at..].iter().position(|c| !word(*c)).unwrap_or(bytes.len() - at);
    let found = String::from_utf8_lossy(&bytes[start..end]).to_lowercase();
    matches!(found.trim_start_matches(['-', '+']), "nan" | "inf" | "infinity")
}

/// A value and its place in the file.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    pub path: String,
    pub value: &'a Json,
}

impl<'a> Field<'a> {
    pub fn root(value: &'a Json) -> Field<'a> {
        Field { path: String::new(), value }
    }

    fn path(&self) -> String {
        if self.path.is_empty() {
            "the file".to_string()
        } else {
            self.path.clone()
        }
    }

    /// What stands here, for a message.
    pub fn found(&self) -> String {
        match self.value {
            Json::Null => "null".to_string(),
            Json::Bool(b) => b.to_string(),
            Json::Number(n) => n.to_string(),
            Json::Text(s) => format!("'{}'", shorten(s)),
            Json::List(_) => "a list".to_string(),
            Json::Object(_) => "an object".to_string(),
        }
    }

    pub fn wrong_type(&self, expected: &'static str) -> FieldError {
        FieldError::Type { path: self.path(), found: self.found(), expected }
    }

    pub fn out_of_range(&self, expected: impl Into<String>) -> FieldError {
        FieldError::Range { path: self.path(), found: self.found(), expected: expected.into() }
    }

    pub fn not_a_choice(&self, expected: impl Into<String>) -> FieldError {
        FieldError::Choice { path: self.path(), found: self.found(), expected: expected.into() }
    }

    /// The object's fields; any but `known` is refused.
    pub fn object(&self, known: &[&str]) -> Result<Object<'a>> {
        let object = self.any_object()?;
        for (name, _) in object.fields {
            if !known.contains(&name.as_str()) {
                return Err(FieldError::Unknown { path: object.child(&shorten(name)), expected: known.join(", ") });
            }
        }
        Ok(object)
    }

    /// The object's fields, whatever they are called.
    pub fn any_object(&self) -> Result<Object<'a>> {
        match self.value {
            Json::Object(fields) => Ok(Object { path: self.path.clone(), fields }),
            _ => Err(self.wrong_type("an object")),
        }
    }

    pub fn list(&self) -> Result<Vec<Field<'a>>> {
        let Json::List(items) = self.value else { return Err(self.wrong_type("a list")) };
        let items = items.iter().enumerate();
        Ok(items.map(|(i, value)| Field { path: format!("{}[{i}]", self.path), value }).collect())
    }

    pub fn text(&self) -> Result<&'a str> {
        match self.value {
            Json::Text(s) => Ok(s),
            _ => Err(self.wrong_type("a text")),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn integer(&self, least: u64, most: u64) -> Result<u64> {
        let Json::Number(n) = self.value else { return Err(self.wrong_type("a whole number")) };
        match n.as_u64() {
            Some(v) if (least..=most).contains(&v) => Ok(v),
            Some(_) => Err(self.out_of_range(format!("{least} to {most}"))),
            None if n.as_f64().is_some_and(|v| v < 0.0) => {
                Err(FieldError::Negative { path: self.path(), found: self.found() })
            }
            None if n.as_f64().is_some_and(|v| v > most as f64) => Err(self.out_of_range(format!("{least} to {most}"))),
            None => Err(self.wrong_type("a whole number")),
        }
    }

    pub fn integer32(&self, least: u32, most: u32) -> Result<u32> {
        Ok(self.integer(least.into(), most.into())? as u32)
    }

    /// A finite number of at least 0.
    pub fn amount(&self) -> Result<f64> {
        let v = match self.value {
            Json::Number(n) => n.as_f64().ok_or_else(|| self.wrong_type("a number"))?,
            Json::Text(s) if is_non_finite(s) => return Err(FieldError::NotFinite { path: self.path() }),
            _ => return Err(self.wrong_type("a number")),
        };
        if !v.is_finite() {
            return Err(FieldError::NotFinite { path: self.path() });
        }
        if v < 0.0 {
            return Err(FieldError::Negative { path: self.path(), found: self.found() });
        }
        reasonable(v, &self.path())
    }

    pub fn width(&self) -> Result<Width> {
        let bits = match self.value {
            Json::Number(n) => n.as_u64().and_then(|n| u32::try_from(n).ok()),
            _ => return Err(self.wrong_type("a width (16, 8, 4 or 2)")),
        };
        bits.and_then(Width::from_bits)
            .ok_or_else(|| FieldError::NotAWidth { path: self.path(), found: self.found() })
    }

    /// Widths, widest first, at least one.
    pub fn widths(&self) -> Result<Vec<Width>> {
        let widths = self.list()?.iter().map(Field::width).collect::<Result<Vec<_>>>()?;
        if widths.is_empty() {
            return Err(FieldError::Count { path: self.path(), found: 0, expected: "at least one width".to_string() });
        }
        if widths.windows(2).any(|w| w[1] >= w[0]) {
            return Err(FieldError::Order { path: self.path() });
        }
        Ok(widths)
    }

    /// A list of exactly `n` amounts.
    pub fn amounts(&self, n: usize, what: &str) -> Result<Vec<f64>> {
        let items = self.list()?;
        if items.len() != n {
            let expected = format!("{n}, {what}");
            return Err(FieldError::Count { path: self.path(), found: items.len(), expected });
        }
        items.iter().map(Field::amount).collect()
    }
}

/// Refuses numbers so large that sums of them could overflow.
pub(crate) fn reasonable(v: f64, path: &str) -> Result<f64> {
    const MOST: f64 = 1e100;
    if v > MOST {
        let expected = "at most 1e100".to_string();
        return Err(FieldError::Range { path: path.to_string(), found: format!("{v:e}"), expected });
    }
    Ok(v)
}

fn is_non_finite(text: &str) -> bool {
    matches!(text.trim_start_matches(['-', '+']).to_lowercase().as_str(), "nan" | "inf" | "infinity")
}

/// The fields of an object.
pub struct Object<'a> {
    path: String,
    pub fields: &'a [(String, Json)],
}

impl<'a> Object<'a> {
    fn child(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        let (_, value) = self.fields.iter().find(|(n, _)| n == name)?;
        Some(Field { path: self.child(name), value })
    }

    pub fn need(&self, name: &str) -> Result<Field<'a>> {
        self.get(name).ok_or_else(|| FieldError::Missing { path: self.child(name) })
    }
}
