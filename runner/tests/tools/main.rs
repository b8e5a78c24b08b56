//! Tools in whole runs on this machine: what roles and actions call, what they may not, and what stays of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod action;
mod command;
mod conversation;
mod limits;
mod mcp;
mod room;
mod server;
