//! The flow of procedures, on the real engine: loops, routing, options, resuming. Models are replayed, commands are processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod company;
mod flight;
mod loops;
mod options;
mod property;
mod routing;
mod server;
