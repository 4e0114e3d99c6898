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
                let there = document.text.get(q.answer_start..).is_some_and(|t| t.starts_with(&q.answer));
                if !there || q.answer.is_empty() || q.key_at >= q.answer_start {
                    return Err(at(format!("questions[{n}]: its answer does not stand in the text at answer_start")));
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
