//! Texts with questions whose answers stand in them.

use serde::Deserialize;
use std::path::Path;

use crate::plan::read_limited;

/// An answer of the text.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Byte offset of the answer in the text.
    pub answer_start: usize,
    pub answer: String,
    /// Byte offset of what it depends on.
    pub key_at: usize,
    /// `recall`, `reasoning`, ...
    pub kind: String,
}

impl Question {
    /// What is wrong with a question, if anything is.
    fn defect(&self, text: &str) -> Option<String> {
        let (start, n) = (self.answer_start, text.len());
        if self.answer.is_empty() {
            return Some("answer: is empty".to_string());
        }
        match text.get(start..) {
            None if start > n => Some(format!("answer_start: {start} lies beyond the {n} bytes of the text")),
            None => Some(format!("answer_start: {start} lies within a character, offsets are in bytes")),
            Some(rest) if !rest.starts_with(&self.answer) => {
                Some(format!("answer_start: '{}' does not stand in the text at byte {start}", self.answer))
            }
            Some(_) if self.key_at >= start => {
                Some(format!("key_at: {} is not before the answer, which starts at {start}", self.key_at))
            }
            Some(_) => None,
        }
    }
}

/// A text and its questions, one object of a file like `model/questions.jsonl`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    pub text: String,
    pub questions: Vec<Question>,
}

impl Document {
    /// Reads the documents of a file, one JSON object per line.
    ///
    /// # Errors
    /// A message that names the file, the line and what is wrong.
    pub fn load(path: &Path) -> Result<Vec<Document>, String> {
        let bytes = read_limited(path, 1 << 28).map_err(|e| format!("{}: {e}", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{}: not text (UTF-8)", path.display()))?;
        let mut documents = Vec::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let at = |what: String| format!("{}: line {}: {what}", path.display(), i + 1);
            let document: Document = serde_json::from_str(line).map_err(|e| at(e.to_string()))?;
            for (n, q) in document.questions.iter().enumerate() {
                if let Some(what) = q.defect(&document.text) {
                    return Err(at(format!("questions[{n}]: {what}")));
                }
            }
            documents.push(document);
        }
        if documents.is_empty() {
            return Err(format!("{}: no documents", path.display()));
        }
        Ok(documents)
    }
}
