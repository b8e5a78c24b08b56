//! kubectl plugin: watch and pull runs.

fn main() {}
