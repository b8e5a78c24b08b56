//! Models over real HTTP: each provider's wire protocol with each fault, what is tried again, what is booked, and what never
//! leaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod answers;
mod calls;
mod dialect;
mod faults;
mod room;
mod server;
