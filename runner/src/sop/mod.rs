//! The state machine of a procedure: which step comes next, and what follows from what happened. Pure.

mod machine;
mod state;

pub(crate) use machine::again;
pub use machine::{Decision, Fault, Happened, Way, apply, next, targets, way};
pub use state::{Phase, Point, State, StepState, Wait};

#[cfg(test)]
mod tests;
