//! Tools: what roles and actions may call beside asking and running.
//!
//! The policy decides what there is, the SOP which role may call what of it, and both are looked at again here, for each
//! call: a model is shown what it may call, and what it calls is checked as if it had been shown nothing. Arguments are
//! checked against the tool's schema before the call, results are bounded after it.

mod book;
pub mod builtin;
pub(crate) mod command;
mod limits;
mod registry;
mod result;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use sopwith_crds::{
    contract::report::ToolStatus,
    status::FailureReason,
    tool_policy::{Granted, Tool},
};

pub(crate) use book::Book;
pub use book::Record;
use limits::Limits;
pub(crate) use registry::{Known, Offer};
pub(crate) use result::{make_room, most_of, shortened};

/// Why a tool cannot be had at all. The attempt fails: a role without a tool that it counts on would make something up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tool {tool}: {message}")]
pub struct ToolError {
    /// The tool.
    pub tool: String,
    /// Why the run fails.
    pub reason: FailureReason,
    /// Why, and what to do.
    pub message: String,
}

/// What a call led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) status: ToolStatus,
    /// What the caller is told: the result, or why there is none.
    pub(crate) told: String,
    /// Paths that were written or deleted.
    pub(crate) wrote: Vec<String>,
}

impl Called {
    /// A call that did not do what it was for.
    pub(crate) fn not(status: ToolStatus, why: impl Into<String>) -> Self {
        Self {
            status,
            told: why.into(),
            wrote: Vec::new(),
        }
    }

    /// A call that did.
    pub(crate) fn ok(told: String) -> Self {
        Self {
            told,
            ..Self::default()
        }
    }
}

/// The tools of a run, and the book of their calls.
#[derive(Debug, Default)]
pub struct Toolbox {
    pub(crate) limits: Arc<Limits>,
    pub(crate) book: Book,
}

impl Toolbox {
    /// The tools of a plan, of which earlier launches made so many calls.
    pub fn new(tools: &[Tool], made: BTreeMap<String, u32>) -> Self {
        Self {
            limits: Arc::new(Limits::new(tools, made)),
            book: Book::default(),
        }
    }

    /// The same tools within the same limits, with a book of its own.
    pub(crate) fn beside(&self) -> Self {
        Self {
            limits: self.limits.clone(),
            book: Book::default(),
        }
    }
}

/// What a role can call.
pub(crate) fn offer(granted: &[Granted<'_>]) -> Result<Offer, ToolError> {
    let mut all = Vec::new();
    for granted in granted {
        if granted.functions.is_empty() {
            all.push(known(granted.tool, None)?);
        }
        for function in &granted.functions {
            all.push(known(granted.tool, Some(function))?);
        }
    }
    Ok(Offer::new(all))
}

/// A tool, or a function of it, with its documentation.
pub(crate) fn known(tool: &Tool, function: Option<&str>) -> Result<Known, ToolError> {
    let lacks = |message: &str| ToolError {
        tool: tool.name.clone(),
        reason: FailureReason::InvalidPlan,
        message: message.to_owned(),
    };
    match (tool.builtin, &tool.command, function) {
        (Some(builtin), _, None) => {
            let own = builtin.description().to_owned();
            Ok(Known::new(tool, None, own, builtin.schema()))
        }
        (None, Some(command), None) => {
            let none = || json!({"type": "object", "additionalProperties": false});
            let schema = command.schema.clone().unwrap_or_else(none);
            Ok(Known::new(tool, None, String::new(), schema))
        }
        _ => Err(lacks("is of no kind that this version supports")),
    }
}
