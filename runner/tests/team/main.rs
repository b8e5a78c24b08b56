//! What roles know and how they are asked, on whole runs on this machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod changes;
mod free;
mod markdown;
mod memory;
mod messages;
mod play;
mod window;
