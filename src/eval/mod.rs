//! Teacher-forced scoring of a text with one KV cache, in steps small enough that the cache is read as in decoding.
//!
//! A batch attends to itself at full precision, so a perplexity taken in batches of 512 would flatter every narrow cache.
//! The text is fed in steps of a few tokens; what lies further back than the step comes from the cache.

mod questions;
mod score;

pub use questions::{Document, Question};
pub use score::{log_softmax, score, Answers, Interval, Run, Settings, Watch};
