//! The language of procedures: CEL for what is decided, minijinja for what is written.
//!
//! Both see the same values. An expression or template that names anything else is a mistake that
//! [`crate::check`] reports before a run begins.
//!
//! | name | what it is |
//! |---|---|
//! | `idea` | the requirement, a string |
//! | `inputs.NAME` | further texts of the run; a name that the run did not give is not defined |
//! | `parameters.NAME` | values of the procedure's parameters, strings |
//! | `options.{idea, investment, rounds, codeReview, runTests, implement, projectName, incremental, projectSource, reqaFile, maxAutoSummarizeCode, recoverFrom, environment, promptSchema}` | what the run asked for, defaults filled in; strings are empty where it asked for nothing |
//! | `project.name` | the project's name, the same as `options.projectName` |
//! | `role.{name, profile, goal, constraints}` | who does the step; strings, empty where the role says nothing |
//! | `layout.NAME` | places of the project |
//! | `artifacts.NAME.{exists, paths, text, json}` | inputs and outputs of the step: a boolean, a list of paths, and for an artifact of one file its text and, where it parses, the value of its JSON |
//! | `findings` | what gates found at the previous attempt, a string, empty at the first |
//! | `messages` | where the step has a role: the newest messages addressed to it, as many as its `memory.window` (5 where it has none), oldest first; each has `number`, `sender`, `cause` (`step/action` or `step/gate`), `attempt`, `item`, `content`, `wrote` |
//! | `incremental.kind` | in an incremental run what the idea is, `requirement` or `bug`; empty in any other |
//! | `incremental.{edited, derived}` | in an incremental run the files that people edited since the last run where they may, and where steps derive them: each has `path` and `change` (`added`, `changed`, `removed`); empty in any other |
//! | `incremental.changed` | in an incremental run the paths that differ from the project it began with; empty in any other |
//! | `round`, `attempt` | integers counted from 1 |
//! | `item` | in a loop over a list: the item at hand, or under the name that `as` gives |
//! | `pass`, `retry` | in a loop: the number of the pass over the item, from 1, and how often the item was begun again, from 0 |
//! | `reports.NAME.FIELD` | in gates and their rules: what the reports of the step's commands say so far, see [`crate::sop_definition::ReportFormat`] |
//! | `exitCode` | in gates of kind command and in rules: the exit code of the last program that ran |
//! | `gate.{name, kind, observed, threshold, findings}` | in the rules of a gate: what it found; strings |
//! | `measures.NAME` | what gates have measured over all attempts: a list of numbers, the oldest first |
//!
//! Expressions have CEL's operators, macros (`has`, `all`, `exists`, `exists_one`, `map`, `filter`) and functions,
//! and of its extensions those on strings (`split`, `join`, `trim`, `lowerAscii` …) and lists (`sort`, `distinct`,
//! `flatten`, `slice`); lists of numbers have `last()` and `falls()`: whether the last is lower than the one before, or 0.
//! The keys of a map come in no order: sort what goes over them. Templates have minijinja's filters and tests, `json`, and the
//! functions `file(path)`, `glob(pattern)` and `diff(since)` over the project. `diff()` is what changed since the step began in
//! this round, as a unified diff; `diff("attempt")` since its present attempt began, `diff("run")` since the run did.
//!
//! `path` and `glob` of an artifact are known before anything runs: they see `layout`, `parameters`,
//! `project`, `options` and `inputs` only.

mod expression;
mod functions;
mod parts;
mod references;
mod template;

pub use expression::{Expression, ExpressionError, MAX_EXPRESSION_BYTES};
pub use parts::Part;
pub(crate) use template::includes;
pub use template::{Files, NoFiles, Since, TemplateError, Templates};

#[cfg(test)]
mod tests;
