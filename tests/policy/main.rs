//! The policy against slow models of what it promises. Seeds are printed; `PMKVQ_SEED=n` runs that seed alone.

mod fall;
mod look;
#[path = "../shared/rng.rs"]
mod rng;
mod rules;
mod speed;
mod traces;
mod walk;
mod world;
