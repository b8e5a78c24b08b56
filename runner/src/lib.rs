//! The Sopwith runner: executes a run plan inside its pod.
//!
//! Deciding: [`sop`], [`trail`], [`role`], [`messages`], [`gate`], [`measures`], [`ownership`], [`guard`], [`changes`],
//! [`context`], [`incremental`], [`recall`], [`llm::budget`], [`llm::codec`], [`llm::replay`], [`tool::builtin`].
//! Doing: [`engine`], [`attempt`], [`action::command`], [`llm::transport`], [`report`], [`snapshot`], [`gateway`],
//! [`git::remote`], [`facts`], [`workbench`].

pub mod action;
pub mod attempt;
pub mod base;
pub mod changes;
mod commits;
pub mod context;
pub mod ending;
pub mod engine;
pub mod facts;
mod fork;
pub mod gate;
pub mod gateway;
pub mod git;
pub mod guard;
mod handover;
pub mod incremental;
pub mod inject;
pub mod kept;
pub mod llm;
pub mod local;
pub mod measures;
pub mod messages;
pub mod ownership;
mod rate;
pub mod recall;
pub mod recover;
mod repeat;
pub mod report;
mod restore;
pub mod role;
pub mod run;
pub mod snapshot;
pub mod sop;
pub mod tool;
pub mod trail;
pub mod tree;
pub mod unmet;
pub mod workbench;
