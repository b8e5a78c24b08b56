//! Tests of Sopwith against a real cluster: apiserver, kubelet, containers. `make e2e` prepares it and runs them.

mod admission;
mod alerts;
mod approval;
mod changes;
mod control;
mod flight;
mod projects;
mod providers;
mod samples;
mod stuck;
mod theatre;
mod waiting;
