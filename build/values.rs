//! Values that other programs write one a line: CMakeCache.txt, and what scripts/cuda_toolkit.py prints.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// `key=value` lines or `KEY:TYPE=value` lines.
pub struct Values(HashMap<String, String>);

impl Values {
    pub fn parse(text: &str) -> Values {
        let pair = |line: &str| {
            let (key, value) = line.split_once('=')?;
            let key = key.split(':').next().unwrap_or(key);
            Some((key.trim().to_string(), value.trim().to_string()))
        };
        Values(text.lines().filter_map(pair).collect())
    }

    /// A CMakeCache.txt.
    pub fn of_build(build: &Path) -> Result<Values, String> {
        let path = build.join("CMakeCache.txt");
        Ok(Values::parse(&fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?))
    }

    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    pub fn on(&self, key: &str) -> bool {
        matches!(self.get(key).to_ascii_uppercase().as_str(), "ON" | "1" | "TRUE" | "YES" | "Y")
    }
}
