//! Teacher-forced scoring of texts with several KV caches, in steps small enough that the cache is read as in decoding.
//!
//! A batch attends to itself at full precision, so a perplexity taken in batches of 512 would flatter every narrow cache.
//! The text is fed in steps of a few tokens; what lies further back than the step comes from the cache.

mod attention;
mod held;
mod lockstep;
mod pace;
pub mod pool;
mod questions;
mod row;
mod score;
pub mod stats;
pub mod text;

pub use attention::AttentionSample;
pub use held::{mean_bits, values_per_token, Held, HeldLayer};
pub use lockstep::{lockstep, Lane, Pass, Steps};
pub use questions::{Document, Question};
pub use row::{log_softmax, measure, top, Measured, Reference};
pub use score::{score, Answers, Interval, Run, Settings, Watch};
pub use text::{Located, Passage, Text};
