//! The Sopwith runner: executes a run plan inside its pod.

pub mod inject;
pub mod workbench;
