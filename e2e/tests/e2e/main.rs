//! Tests of Sopwith against a real cluster: apiserver, kubelet, containers. `make e2e` prepares it and runs them.

mod admission;
mod alerts;
mod approval;
mod changes;
mod control;
mod flight;
#[path = "../../../runner/tests/git/server.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the servers of the runner's own tests, of which these use a part"
)]
mod git_server;
mod incremental;
mod memory;
mod projects;
mod providers;
mod recording;
mod repository;
mod samples;
mod stuck;
mod theatre;
mod waiting;
