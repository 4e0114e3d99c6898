//! The policy of the cache: in which cells tokens go, which pages a block has, and which block shrinks next.
//!
//! Free of llama.cpp and of cell contents. llama.cpp's cell array is passed as a read-only view ([`CellView`]) at every
//! call, so nothing has to be hooked where cells are freed: the policy looks. The order of calls for a ubatch:
//!
//! ```text
//! place        cells for the tokens (pure; may be called tentatively for ubatches to come)
//!              ... llama.cpp enters the tokens in its cells ...
//! plan_ubatch  block operations to run before the ubatch is computed; a new table is staged
//! commit       they ran: the staged table is the table       | rollback   none did: the table stays
//!              | commit_partly   some did: their blocks have the new width, all else stays
//! ```
//!
//! A saved state comes back in the same steps: `place_blocks`, `plan_blocks` (which starts blocks at the widths that were
//! saved), `commit`.
//!
//! The rules, their order and what is guaranteed are in `docs/policy.md`.

mod cells;
mod config;
pub mod fall;
mod pages;
mod place;
mod plan;
mod price;
mod restore;
mod shrink;
mod stage;
mod state;
mod stats;
mod survey;

pub(crate) use cells::subtiles;
pub use cells::{CellView, SeqSet};
pub use config::{monotone_loss, Config, ConfigError, Initial, PoolConfig, Rule, SideConfig};
pub use plan::Starts;
pub(crate) use restore::bits;
pub use restore::{Placed, SavedBlock};
pub use stage::{BlockOp, Ops, PolicyError};
pub use state::Policy;
pub use stats::{PoolStats, SideStats, Stats};
