//! llama.cpp as the tool `pmkvq` uses it. The bindings are generated (`pmkvq-bindings`) and committed.

// formatted by its generator
#[rustfmt::skip]
#[allow(non_camel_case_types, non_snake_case, non_upper_case_globals, dead_code, clippy::all)]
pub mod bindings;
mod describe;
mod devices;
mod observe;
mod session;

pub use describe::{describe_model, Described};
pub use devices::{backends, Backend, Device};
pub use observe::{Attention, ObservedRows, Observer};
pub use session::{BatchToken, Cache, Context, ContextOptions, ContextSizes, DecodeError, Model, PlainType};
