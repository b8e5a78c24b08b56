//! Actions: what a role does. Each kind is a file of its own; loops repeat them over a list.

pub mod choice;
pub mod command;
pub mod draft;
pub mod fit;
pub mod form;
pub mod markdown;
pub mod prompt;
mod react;
mod tool;
mod work;
