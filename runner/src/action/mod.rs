//! Actions: what a role does. Each kind is a file of its own; loops repeat them over a list.

pub mod choice;
pub mod command;
pub mod draft;
pub mod fit;
pub mod form;
pub mod markdown;
pub mod prompt;
mod react;
pub(crate) mod repairs;
pub(crate) mod spent;
mod tool;
mod work;
