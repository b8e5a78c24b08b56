//! Runs: resolve → plan → launch → apply → status, as named stages.
//!
//! `job`, `pod`, `observe`, `progress`, `launch`, `stuck`, `status` and `transition` decide and are pure; `resolve`,
//! `apply` and `controller` do.

pub mod apply;
pub mod controller;
pub mod job;
pub mod launch;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod pod;
pub mod progress;
pub mod resolve;
pub mod status;
pub mod stuck;
pub mod transition;

#[cfg(test)]
mod fixture;
