//! Tools: what roles and actions may call beside asking and running.
//!
//! The policy decides what there is, the SOP which role may call what of it, and both are looked at again here, for each
//! call: a model is shown what it may call, and what it calls is checked as if it had been shown nothing. Arguments are
//! checked against the tool's schema before the call, results are bounded after it.

mod book;
pub mod builtin;
pub(crate) mod command;
mod limits;
mod mcp;
mod registry;
mod result;

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use sopwith_crds::{
    check::defaults::TOOL_TIMEOUT_SECONDS,
    contract::report::ToolStatus,
    status::FailureReason,
    tool_policy::{Granted, Tool},
};

pub(crate) use book::Book;
use crate::llm::transport::Places;

pub use book::Record;
use limits::Limits;
use mcp::Server;
pub use mcp::functions as mcp_functions;
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
    servers: BTreeMap<String, Server>,
    pub(crate) limits: Limits,
    pub(crate) book: Book,
}

impl Toolbox {
    /// The tools of a plan, of which earlier launches made so many calls.
    pub fn new(tools: &[Tool], made: BTreeMap<String, u32>, places: &Places) -> Self {
        let with_server = tools.iter().filter(|tool| tool.mcp.is_some());
        Self {
            servers: with_server
                .map(|tool| (tool.name.clone(), Server::new(tool, places)))
                .collect(),
            limits: Limits::new(tools, made),
            book: Book::default(),
        }
    }

    /// What a role can call.
    pub(crate) async fn offer(&self, granted: &[Granted<'_>]) -> Result<Offer, ToolError> {
        let mut all = Vec::new();
        for granted in granted {
            if granted.functions.is_empty() {
                all.push(self.known(granted.tool, None).await?);
            }
            for function in &granted.functions {
                all.push(self.known(granted.tool, Some(function)).await?);
            }
        }
        Ok(Offer::new(all))
    }

    /// A tool, or a function of it, with its documentation.
    pub(crate) async fn known(
        &self,
        tool: &Tool,
        function: Option<&str>,
    ) -> Result<Known, ToolError> {
        match (self.server(&tool.name), function) {
            (Some(server), Some(function)) => server.known(function, timeout(tool)).await,
            _ => own(tool),
        }
    }

    /// The server that a tool is.
    pub(crate) fn server(&self, tool: &str) -> Option<&Server> {
        self.servers.get(tool)
    }
}

/// Most time of a call, and of the wait for its turn.
pub(crate) fn timeout(tool: &Tool) -> Duration {
    let seconds = tool.timeout_seconds.unwrap_or(TOOL_TIMEOUT_SECONDS);
    Duration::from_secs(seconds.into())
}

/// A tool of Sopwith or a program, with its documentation.
fn own(tool: &Tool) -> Result<Known, ToolError> {
    if let Some(builtin) = tool.builtin {
        let told = builtin.description().to_owned();
        return Ok(Known::new(tool, None, told, builtin.schema()));
    }
    let command = tool.command.as_ref().ok_or_else(|| ToolError {
        tool: tool.name.clone(),
        reason: FailureReason::InvalidPlan,
        message: "is of no kind that this version supports".to_owned(),
    })?;
    let none = || json!({"type": "object", "additionalProperties": false});
    let schema = command.schema.clone().unwrap_or_else(none);
    Ok(Known::new(tool, None, String::new(), schema))
}
