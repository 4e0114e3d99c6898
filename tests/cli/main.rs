//! The tool `pmkvq` as people and scripts run it: what goes where, exit codes, and one message per mistake.

mod bad;
mod docs;
mod doctor;
mod output;
mod plan;
mod show;
mod tool;
