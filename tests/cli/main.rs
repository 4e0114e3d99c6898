//! The tool `pmkvq` as people and scripts run it: what goes where, exit codes, and one message per mistake.

mod bad;
mod budgets;
mod diff;
mod docs;
mod doctor;
mod output;
mod plan;
mod show;
mod sweep;
mod tool;
mod verify;
