//! A module of PTX: its kernels and what they share.

use crate::text::{variable, word_end, Variable};
use std::collections::HashMap;

pub struct Module {
    pub target: u32,
    pub files: HashMap<u32, String>,
    pub shared: Vec<Variable>,
    /// From the parameters' bracket on.
    pub entries: HashMap<String, &'static str>,
}

impl Module {
    pub fn new(text: &'static str) -> Result<Module, String> {
        let mut m = Module { target: 0, files: HashMap::new(), shared: Vec::new(), entries: HashMap::new() };
        let mut depth = 0usize;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let s = line.trim();
            if depth == 0 {
                let s = ["visible ", "weak "].iter().fold(s.strip_prefix('.').unwrap_or(""), |s, p| {
                    s.strip_prefix(p).map_or(s, |s| s.trim_start().trim_start_matches('.'))
                });
                if let Some(rest) = s.strip_prefix("entry ") {
                    let name = &rest[..word_end(rest)];
                    let begin = rest.as_ptr() as usize - text.as_ptr() as usize + name.len();
                    m.entries.insert(name.to_string(), &text[begin..]);
                } else if let Some(rest) = s.strip_prefix("target ") {
                    m.target = rest
                        .trim_start_matches("sm_")
                        .trim_end_matches(|c: char| !c.is_ascii_digit())
                        .parse()
                        .unwrap_or(0);
                } else if s.contains("shared ") {
                    m.shared.push(variable(s.trim_end_matches(';')).ok_or_else(|| format!("not understood: {s}"))?);
                } else if let Some(rest) = s.strip_prefix("file") {
                    let mut parts = rest.trim().splitn(2, char::is_whitespace);
                    let number = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                    let path = parts.next().unwrap_or("").split('"').nth(1).unwrap_or("");
                    m.files.insert(number, path.rsplit('/').next().unwrap_or(path).to_string());
                }
            }
            if !s.starts_with(".global") && !s.starts_with(".visible .global") {
                depth += line.matches('{').count();
                depth = depth.saturating_sub(line.matches('}').count());
            }
            at += line.len();
        }
        debug_assert!(at == text.len());
        Ok(m)
    }
}
