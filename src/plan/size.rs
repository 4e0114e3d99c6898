//! Sizes as people write them: `2GiB`, `800M`, `1.5G`, plain bytes.

use std::fmt;

/// More than this is taken for a mistake: 1 PiB.
pub const LARGEST: u64 = 1 << 50;

/// Why a size was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SizeError {
    Empty,
    NotASize(String),
    Unit { text: String, unit: String },
    Negative(String),
    Zero(String),
    Absurd(String),
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WAY_OUT: &str = "write bytes, or a number and K, M, G, T (KiB, MiB, GiB, TiB) or KB, MB, GB, TB";
        match self {
            Self::Empty => write!(f, "a size is missing; {WAY_OUT}"),
            Self::NotASize(text) => write!(f, "'{text}' is not a size; {WAY_OUT}"),
            Self::Unit { text, unit } => write!(f, "'{text}': '{unit}' is not a unit; {WAY_OUT}"),
            Self::Negative(text) => write!(f, "'{text}' is negative; a size must be above zero"),
            Self::Zero(text) => write!(f, "'{text}' is no bytes at all; a size must be above zero"),
            Self::Absurd(text) => write!(f, "'{text}' is more than 1 PiB, which no machine has; check the unit"),
        }
    }
}

impl std::error::Error for SizeError {}

/// Reads a size in bytes. `K`, `M`, `G`, `T` and `KiB`, ... count in powers of 1,024, `KB`, ... in powers of 1,000, in
/// either case of letters; a fraction of a byte is dropped.
///
/// # Errors
/// One [`SizeError`] per kind of mistake.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let whole = text.trim();
    if whole.is_empty() {
        return Err(SizeError::Empty);
    }
    let name = || shorten(whole);
    if whole.starts_with('-') {
        return Err(SizeError::Negative(name()));
    }
    let end = whole.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(whole.len());
    let (number, unit) = whole.split_at(end);
    let (int, fraction) = number.split_once('.').unwrap_or((number, ""));
    if int.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(SizeError::NotASize(name()));
    }
    let unit = unit.trim();
    let factor = unit_bytes(unit).ok_or_else(|| SizeError::Unit { text: name(), unit: shorten(unit) })?;
    let int = int.trim_start_matches('0');
    if int.len() > 18 {
        return Err(SizeError::Absurd(name()));
    }
    let int: u128 = if int.is_empty() { 0 } else { int.parse().map_err(|_| SizeError::NotASize(name()))? };
    // digits beyond the eighteenth are less than a byte of any unit
    let fraction: String = fraction.chars().take(18).collect();
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction: u128 =
        if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| SizeError::NotASize(name()))? };
    let bytes = int * u128::from(factor) + fraction * u128::from(factor) / scale;
    match bytes {
        0 => Err(SizeError::Zero(name())),
        b if b > u128::from(LARGEST) => Err(SizeError::Absurd(name())),
        b => Ok(b as u64),
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    })
}

/// A text that goes into a message or on a terminal: cut to a length that a line can hold, control characters escaped.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    let mut short = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == MOST {
            return short + "...";
        }
        if c.is_control() {
            short.extend(c.escape_default());
        } else {
            short.push(c);
        }
    }
    short
}

/// `1536` as `1.50 KiB`.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.995 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}
