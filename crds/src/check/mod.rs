//! The one checker of procedures, policies and runs: used by the operator, the runner and `lint`.
//!
//! Everything is listed at once, so that nobody has to mend mistakes one by one. What a CRD's schema
//! refuses is checked here as well where a file could bring it past the apiserver.

pub mod defaults;

mod compliance;
mod evidence;
mod gates;
mod names;
mod order;
mod pairing;
mod policy;
mod project;
mod review;
mod run;
mod sop;
mod templates;
mod text;
mod tools;
mod unsupported;
mod work;

pub use order::order;

use crate::{AgentRunSpec, SopDefinitionSpec, ToolPolicySpec, tool_policy::Evidence};
use std::{collections::BTreeMap, fmt};

/// A mistake, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it is; members of lists by their names: `spec.steps[qa].gates[tests].onFailure[0].to`.
    pub path: String,
    /// What is wrong, with the value and the remedy.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every mistake in a procedure, sorted by path, as far as it can be judged without the ConfigMaps of its
/// `templatesFrom`.
pub fn sop(spec: &SopDefinitionSpec) -> Vec<Finding> {
    sop::check(spec, None)
}

/// Every mistake in a procedure, sorted by path; `extra_templates` are those of its `templatesFrom`.
pub fn sop_with(
    spec: &SopDefinitionSpec,
    extra_templates: &BTreeMap<String, String>,
) -> Vec<Finding> {
    sop::check(spec, Some(extra_templates))
}

/// Every mistake in a policy, sorted by path.
pub fn policy(spec: &ToolPolicySpec) -> Vec<Finding> {
    policy::check(spec)
}

/// Every mistake in a run that can be seen without its procedure and policy, sorted by path.
pub fn run(spec: &AgentRunSpec) -> Vec<Finding> {
    run::check(spec)
}

/// What the run or its procedure needs and the policy does not allow, sorted by path.
/// Paths begin with `run:`, `sop:` or `policy:`, the object they are in.
///
/// The run's parameters, and a revision of the procedure that the policy pins, are left to
/// [`crate::plan::build`], which knows the objects' names.
pub fn pairing(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Vec<Finding> {
    pairing::check(run, sop, policy)
}

/// The policy's rules on evidence, the gates they are about named.
pub fn evidence(policy: &ToolPolicySpec) -> Option<Evidence> {
    evidence::resolved(policy)
}

/// Every field that is set and whose behaviour does not exist in this version, sorted by path.
/// Paths begin with `run:`, `sop:` or `policy:`, the object they are in.
pub fn not_supported_yet(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Vec<Finding> {
    unsupported::check(run, sop, policy)
}

/// Collects findings.
#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding {
            path: path.into(),
            message: message.into(),
        });
    }

    fn add_some(&mut self, path: impl Into<String>, message: Option<String>) {
        if let Some(message) = message {
            self.add(path, message);
        }
    }

    /// Names that occur more than once in a list that is a map.
    fn repeated<'a>(&mut self, path: &str, what: &str, names: impl IntoIterator<Item = &'a str>) {
        let mut seen: Vec<&str> = Vec::new();
        let mut told: Vec<&str> = Vec::new();
        for name in names {
            if seen.contains(&name) && !told.contains(&name) {
                told.push(name);
                self.add(
                    format!("{path}[{name}]"),
                    format!("{what} `{name}` is there more than once; name them differently"),
                );
            }
            seen.push(name);
        }
    }

    fn sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

#[cfg(test)]
mod tests;
