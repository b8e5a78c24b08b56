//! The Sopwith runner: executes a run plan inside its pod.
//!
//! Deciding: [`sop`], [`trail`], [`role`], [`gate`], [`measures`], [`ownership`], [`context`], [`llm::budget`], [`llm::codec`], [`llm::replay`].
//! Doing: [`engine`], [`attempt`], [`action::command`], [`llm::transport`], [`report`], [`snapshot`], [`gateway`],
//! [`workbench`].

pub mod action;
pub mod attempt;
pub mod base;
pub mod cassette;
pub mod context;
pub mod ending;
pub mod engine;
pub mod gate;
pub mod gateway;
mod handover;
pub mod inject;
pub mod kept;
pub mod llm;
pub mod local;
pub mod measures;
pub mod ownership;
pub mod recover;
pub mod report;
pub mod role;
pub mod run;
pub mod snapshot;
pub mod sop;
pub mod trail;
pub mod tree;
pub mod workbench;
