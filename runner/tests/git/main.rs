//! Repositories of Git on real servers: git's http-backend and OpenSSH's sshd, as the tests start them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod objects;
mod remote;
mod runs;
mod server;
