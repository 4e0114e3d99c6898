//! Strict reading of JSON: every complaint names the field (`layers[3].k`) and what was expected there.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

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

/// Where in the text the reader is, for messages and for numbers.
struct Place<'t> {
    /// The field being read; stays where it was when reading failed.
    path: RefCell<String>,
    /// Set when a field that occurs twice stopped the reader.
    twice: Cell<bool>,
    numbers: RefCell<Numbers<'t>>,
}

impl Place<'_> {
    /// Appends to the path, and returns its length before.
    fn enter(&self, child: &str) -> usize {
        let mut path = self.path.borrow_mut();
        let before = path.len();
        path.push_str(child);
        before
    }

    fn leave(&self, before: usize) {
        self.path.borrow_mut().truncate(before);
    }
}

/// The numbers of a JSON text as they are written, in order. serde_json's own reading of one in ten fractions is off by
/// the last bit, so that a plan would not come back as it was written; Rust's is exact.
struct Numbers<'t>(&'t str);

impl<'t> Iterator for Numbers<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let bytes = self.0.as_bytes();
        let mut at = 0;
        while !matches!(bytes.get(at)?, b'-' | b'0'..=b'9') {
            if bytes[at] == b'"' {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            at += 1;
        }
        let part = |c: &u8| matches!(c, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
        let n = bytes[at..].iter().take_while(|c| part(c)).count();
        let (number, rest) = (&self.0[at..at + n], &self.0[at + n..]);
        self.0 = rest;
        Some(number)
    }
}

/// Reads one value; numbers are visited in the order of the text, each once.
#[derive(Clone, Copy)]
struct Reader<'p, 't>(&'p Place<'t>);

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Json, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
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
        self.0.numbers.borrow_mut().next();
        Ok(Json::Number(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Json, E> {
        self.0.numbers.borrow_mut().next();
        Ok(Json::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Json, E> {
        let exact = self.0.numbers.borrow_mut().next().and_then(|n| n.parse().ok()).unwrap_or(v);
        let number = serde_json::Number::from_f64(exact).ok_or_else(|| E::custom(OUT_OF_RANGE))?;
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
        loop {
            let before = self.0.enter(&format!("[{}]", list.len()));
            let Some(item) = seq.next_element_seed(self)? else {
                self.0.leave(before);
                return Ok(Json::List(list));
            };
            self.0.leave(before);
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut names = std::collections::HashSet::new();
        let mut fields: Vec<(String, Json)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let dot = if self.0.path.borrow().is_empty() { "" } else { "." };
            let before = self.0.enter(&format!("{dot}{}", shorten(&name)));
            if !names.insert(name.clone()) {
                self.0.twice.set(true);
                return Err(serde::de::Error::custom("a field occurs twice"));
            }
            fields.push((name, map.next_value_seed(self)?));
            self.0.leave(before);
        }
        Ok(Json::Object(fields))
    }
}

/// What is wrong with a field. `path` is the field's place, as in `layers[3].k`; `found` what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// Not JSON at all, cut off in the middle, or nested too deeply. `path` is as far as the reader came.
    NotJson {
        path: String,
        message: String,
    },
    /// A field that occurs twice in its object.
    Twice {
        path: String,
    },
    /// `NaN` or an infinity where a number should be.
    NotFinite {
        path: String,
    },
    Missing {
        path: String,
    },
    Unknown {
        path: String,
        expected: String,
    },
    Type {
        path: String,
        found: String,
        expected: &'static str,
    },
    NotAWidth {
        path: String,
        found: String,
    },
    /// Widths that don't fall from one to the next.
    Order {
        path: String,
    },
    Negative {
        path: String,
        found: String,
    },
    Range {
        path: String,
        found: String,
        expected: String,
    },
    Count {
        path: String,
        found: usize,
        expected: String,
    },
    /// A name or number that is none of the allowed ones.
    Choice {
        path: String,
        found: String,
        expected: String,
    },
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { path, message } if path.is_empty() => write!(f, "not valid JSON: {message}"),
            Self::NotJson { path, message } => write!(f, "not valid JSON at {path}: {message}"),
            Self::Twice { path } => write!(f, "{path} occurs twice; leave one of the two"),
            Self::NotFinite { path } => {
                write!(f, "{path}: NaN and infinities are not allowed; expected a finite number")
            }
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

/// What serde_json says of a number that is too large for a float.
const OUT_OF_RANGE: &str = "number out of range";

/// Reads a text as one JSON value.
///
/// # Errors
/// [`FieldError::NotJson`] with field, line and column; [`FieldError::NotFinite`] where the text has `NaN`, `Infinity` or
/// a number too large for a float; [`FieldError::Twice`].
pub fn parse(text: &str) -> Result<Json> {
    if text.trim().is_empty() {
        return Err(FieldError::NotJson { path: String::new(), message: "the file is empty".to_string() });
    }
    let place =
        Place { path: RefCell::new(String::new()), twice: Cell::new(false), numbers: RefCell::new(Numbers(text)) };
    let mut d = serde_json::Deserializer::from_str(text);
    let value = Reader(&place).deserialize(&mut d).and_then(|value| d.end().map(|()| value));
    value.map_err(|e| {
        // a message holds a line; what is nested deeper is not a field of ours
        let path = shorten(&place.path.take());
        let message = e.to_string();
        if place.twice.get() {
            FieldError::Twice { path }
        } else if at_non_finite(text, e.line(), e.column()) || message.starts_with(OUT_OF_RANGE) {
            let top = || format!("line {}, column {}", e.line(), e.column());
            FieldError::NotFinite { path: if path.is_empty() { top() } else { path } }
        } else {
            FieldError::NotJson { path, message }
        }
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

    /// A finite number of at least 0, small enough that sums of them are finite too.
    pub fn amount(&self) -> Result<f64> {
        reasonable(self.at_least_zero()?, &self.path())
    }

    /// A finite number of at least 0.
    pub fn at_least_zero(&self) -> Result<f64> {
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
        Ok(v)
    }

    pub fn boolean(&self) -> Result<bool> {
        match self.value {
            Json::Bool(b) => Ok(*b),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// A number that an f32 can hold.
    pub fn float32(&self) -> Result<f32> {
        let v = match self.value {
            Json::Number(n) => n.as_f64().ok_or_else(|| self.wrong_type("a number"))?,
            Json::Text(s) if is_non_finite(s) => return Err(FieldError::NotFinite { path: self.path() }),
            _ => return Err(self.wrong_type("a number")),
        };
        let v = v as f32;
        if v.is_finite() {
            Ok(v)
        } else {
            Err(FieldError::NotFinite { path: self.path() })
        }
    }

    pub fn width(&self) -> Result<Width> {
        let bits = match self.value {
            Json::Number(n) => n.as_u64().and_then(|n| u32::try_from(n).ok()),
            _ => return Err(self.wrong_type("a width (16, 8, 4 or 2)")),
        };
        bits.and_then(Width::from_bits).ok_or_else(|| FieldError::NotAWidth { path: self.path(), found: self.found() })
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
