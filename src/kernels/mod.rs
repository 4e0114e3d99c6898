//! CPU kernels of the cache: store a token's K or V, shrink blocks in place, attention over blocks of mixed widths, merge
//! of partial results, and the transforms before and behind them.
//!
//! Each operation has a scalar version in [`mod@reference`], written for reading, and a fast one with the same signature.
//! Store and shrink give the same bytes in both. Attention multiplies codes by integers: it adds less than a quarter of the
//! cache's own error to what f32 sums would give (`docs/kernels.md`). The bytes are drawn in [`layout`] and in
//! `docs/layout.md`.
//!
//! Every operation is called by each of `nth` threads with its own `ith`; no two of them touch the same byte, and none waits
//! for another. The CPU's best instructions are chosen at run time; `PMKVQ_CPU=avx512|avxvnni|avx2|neon|scalar|reference` forces a
//! level.

pub mod args;
mod attention;
pub mod codes;
mod dots;
mod error;
mod f16;
mod fit;
pub mod isa;
mod lanes;
pub mod layout;
mod level;
mod load;
mod merge;
mod narrow;
pub mod oracle;
pub(crate) mod pack;
mod prefetch;
mod quantize;
pub mod range;
pub mod reference;
mod scratch;
mod shrink;
mod softmax;
mod store;
mod tiles;
mod transform;
mod words;

pub use args::{Cells, MaskF16, PartialsMut, RowsF32, SideView};
pub use attention::{attention_partial, attention_partial_at, AttentionArgs, Schedule};
pub use error::KernelError;
pub use isa::Isa;
pub use load::{load, load_at};
pub use merge::{attention_merge, attention_merge_at, MergeArgs};
pub use range::RangeRule;
pub use shrink::{shrink, shrink_at, ShrinkOp};
pub use store::{store, store_at};
pub use transform::{rotate, transform, transform_at, RowTransform, TransformRows};
