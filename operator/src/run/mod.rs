//! Runs: resolve → plan → launch → apply → status, as named stages.
//!
//! `job`, `pod`, `plan`, `observe`, `progress`, `decisions`, `earlier`, `launch`, `stuck`, `status` and `transition` decide and are pure. The others do:
//! `controller` takes a run to its stage, which is `begin`, `going` or `finish`; `look`, `resolve`, `facts` and `apply` read and write.

pub mod apply;
mod begin;
pub mod controller;
pub mod decisions;
pub mod earlier;
mod facts;
mod finish;
mod going;
pub mod job;
pub mod launch;
mod look;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod pod;
pub mod progress;
pub mod resolve;
mod stage;
pub mod status;
pub mod stuck;
pub mod transition;

#[cfg(test)]
mod fixture;
