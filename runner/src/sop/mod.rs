//! The state machine of a procedure: which step comes next, and what follows from what happened. Pure.

mod machine;
mod state;

pub(crate) use machine::again;
pub use machine::{
    Decision, Fault, Happened, ItemRules, Way, apply, item_again, next, restores, targets, way,
};
pub use state::{Phase, Point, State, StepState, Wait};

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
