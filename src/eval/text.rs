//! A text, cut into the passages that are scored: each has a context of its own.

use std::path::Path;

use super::{Document, Question};
use crate::ffi::Model;
use crate::plan::read_limited;

/// Largest file of text or documents, bytes.
pub const MAX_FILE: u64 = 1 << 28;

/// An answer, in tokens of its passage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The answer's tokens.
    pub tokens: std::ops::Range<usize>,
    /// Token in which what it depends on begins.
    pub key: usize,
    pub kind: String,
}

/// What is scored in one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub tokens: Vec<i32>,
    pub questions: Vec<Located>,
    /// Predictions made at earlier positions are not scored.
    pub scored_from: usize,
}

/// Several passages of one kind; their results are pooled.
#[derive(Clone, Debug)]
pub struct Text {
    pub name: String,
    /// Of the file.
    pub bytes: Vec<u8>,
    pub passages: Vec<Passage>,
}

/// Reads a file of text.
///
/// # Errors
/// A message that names the file.
pub fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read_limited(path, MAX_FILE).map_err(|e| format!("{}: {e}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| format!("{}: not text (UTF-8)", path.display()))
}

/// The tokens of a text, after the one that the model wants before every text.
fn tokenize(model: &Model, text: &str) -> Result<Vec<i32>, String> {
    let mut tokens: Vec<i32> = model.first_token().into_iter().collect();
    tokens.extend(model.tokenize(text)?);
    Ok(tokens)
}

/// Where questions stand in tokens. An answer is all tokens that hold a byte of it.
///
/// # Errors
/// A tokenizer that does not give the text back, so that offsets mean nothing.
pub fn locate(
    pieces: impl Iterator<Item = usize>,
    lead: usize,
    text_len: usize,
    questions: &[Question],
) -> Result<Vec<Located>, String> {
    // ends of the tokens, bytes
    let ends: Vec<usize> = pieces
        .scan(0, |at, n| {
            *at += n;
            Some(*at)
        })
        .collect();
    if ends.last().copied().unwrap_or(0) != text_len {
        return Err(
            "the model's tokenizer does not give the text back byte for byte, so the questions' offsets can't be \
                    found in its tokens: score the text without --questions"
                .to_string(),
        );
    }
    let token_of = |byte: usize| lead + ends.partition_point(|end| *end <= byte);
    let located = questions.iter().map(|q| Located {
        tokens: token_of(q.answer_start)..token_of(q.answer_start + q.answer.len() - 1) + 1,
        key: token_of(q.key_at),
        kind: q.kind.clone(),
    });
    Ok(located.collect())
}

/// Least tokens of a passage: one is read, one is predicted.
const LEAST: usize = 2;

impl Text {
    /// A plain text as one passage of at most `n_ctx` tokens.
    ///
    /// # Errors
    /// A text that can't be read, or is shorter than `least` tokens.
    pub fn plain(model: &Model, path: &Path, n_ctx: Option<u32>, least: usize) -> Result<Text, String> {
        let text = read_text(path)?;
        let mut tokens = tokenize(model, &text).map_err(|e| format!("{}: {e}", path.display()))?;
        long_enough(path, tokens.len(), least, "")?;
        tokens.truncate(n_ctx.map_or(usize::MAX, |n| n as usize));
        let passages = vec![Passage { tokens, questions: Vec::new(), scored_from: 0 }];
        Ok(Text { name: name(path), bytes: text.into_bytes(), passages })
    }

    /// A plain text in chunks as `llama-perplexity` makes them: whole ones only, each begins with the model's first token
    /// in place of its own, and the second half is scored.
    ///
    /// # Errors
    /// As for [`Text::plain`]; two chunks are the least.
    pub fn chunks(model: &Model, path: &Path, n: usize, most: usize) -> Result<Text, String> {
        let text = read_text(path)?;
        // as its argument parser does
        let tokens = tokenize(model, text.strip_suffix('\n').unwrap_or(&text));
        let tokens = tokens.map_err(|e| format!("{}: {e}", path.display()))?;
        long_enough(path, tokens.len(), 2 * n, &format!(", two chunks of --chunk {n}"))?;
        let passages = tokens.chunks_exact(n).take(most).map(|chunk| {
            let mut tokens = chunk.to_vec();
            if let Some(first) = model.first_token() {
                tokens[0] = first;
            }
            Passage { tokens, questions: Vec::new(), scored_from: n / 2 }
        });
        Ok(Text { name: name(path), passages: passages.collect(), bytes: text.into_bytes() })
    }

    /// Documents with questions, the first `most` of the file, each cut at `n_ctx` tokens with the questions beyond.
    ///
    /// # Errors
    /// As for [`Text::plain`]; questions that don't fit the text or the tokenizer.
    pub fn documents(
        model: &Model,
        path: &Path,
        most: usize,
        n_ctx: Option<u32>,
        least: usize,
    ) -> Result<Text, String> {
        let documents = Document::load(path)?;
        if documents.len() < most {
            let (have, path) = (documents.len(), path.display());
            return Err(format!("{path}: has {have} document(s), --documents asks for {most}"));
        }
        let mut passages = Vec::new();
        let mut bytes = Vec::new();
        for document in &documents[..most] {
            bytes.extend_from_slice(document.text.as_bytes());
            let mut tokens = tokenize(model, &document.text).map_err(|e| format!("{}: {e}", path.display()))?;
            long_enough(path, tokens.len(), least, "")?;
            let lead = usize::from(model.first_token().is_some());
            let pieces = tokens[lead..].iter().map(|t| model.piece(*t).len());
            let located = locate(pieces, lead, document.text.len(), &document.questions);
            let mut questions = located.map_err(|e| format!("{}: {e}", path.display()))?;
            tokens.truncate(n_ctx.map_or(usize::MAX, |n| n as usize));
            // a first token has nothing to be predicted from
            questions.retain(|q| q.tokens.end <= tokens.len() && q.tokens.start > 0);
            passages.push(Passage { tokens, questions, scored_from: 0 });
        }
        Ok(Text { name: name(path), bytes, passages })
    }

    /// Tokens of the longest passage.
    pub fn longest(&self) -> usize {
        self.passages.iter().map(|p| p.tokens.len()).max().unwrap_or(0)
    }

    pub fn has_questions(&self) -> bool {
        self.passages.iter().any(|p| !p.questions.is_empty())
    }
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

fn long_enough(path: &Path, n: usize, least: usize, why: &str) -> Result<(), String> {
    let least = least.max(LEAST);
    if n < least {
        return Err(format!("{}: has {n} tokens, too short: at least {least} are needed{why}", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(answer_start: usize, answer: &str, key_at: usize) -> Question {
        Question { answer_start, answer: answer.to_string(), key_at, kind: "recall".to_string() }
    }

    #[test]
    fn answers_in_tokens() {
        // "ab cd ef" as [ab][ c][d ][ef], after one special token
        let pieces = || [2usize, 2, 2, 2].into_iter();
        let questions = [question(3, "cd", 0), question(6, "e", 4), question(7, "f", 3)];
        let found = locate(pieces(), 1, 8, &questions).unwrap();
        let spans: Vec<_> = found.iter().map(|l| (l.tokens.clone(), l.key)).collect();
        assert_eq!(spans, [(2..4, 1), (4..5, 3), (4..5, 2)]);
        assert!(locate(pieces(), 1, 9, &questions).unwrap_err().contains("byte for byte"));
    }
}
