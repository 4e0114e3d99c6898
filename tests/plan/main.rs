//! The plan file, its bytes, the planner and the sensitivity files. Seeds are printed; `PMKVQ_SEED=n` runs that seed alone.

mod bytes;
mod defects;
mod docs;
mod exhaustive;
mod files;
mod fuzz;
mod golden;
mod hostile;
mod planner;
mod resolve;
#[path = "../shared/rng.rs"]
mod rng;
mod round_trip;
mod samples;
mod sensitivity;
mod sizes;
#[path = "../shared/temporary.rs"]
mod temporary;
mod torch;
mod transforms;
mod zipped;
