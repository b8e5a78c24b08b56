//! The Sopwith runner: executes a run plan inside its pod.

fn main() {}
