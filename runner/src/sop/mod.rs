//! The state machine of a procedure: which step comes next, and what follows from what happened. Pure.

mod machine;

pub use machine::{Decision, Happened, Phase, State, StepState, apply, follows, next};
