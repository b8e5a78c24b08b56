//! Incremental runs, on the real engine: classified, on the way of their kind, within what they may write over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod edited;
mod guarded;
mod resumed;
mod room;
#[path = "../git/server.rs"]
#[allow(
    dead_code,
    reason = "the servers of the tests of Git, of which these use a part"
)]
mod server;
mod ways;
