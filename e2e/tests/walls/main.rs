//! What is held back: attempts of people, of runs, and of the code that models write. Each fails or is contained.

mod admission;
mod attempts;
mod decisions;
mod deputy;
mod evidence;
mod fuzz;
mod operator;
mod rights;
mod workbench;
