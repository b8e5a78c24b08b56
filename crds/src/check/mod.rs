//! The one checker of procedures, policies and runs: used by the operator, the runner and `lint`.

pub mod defaults;

use crate::{AgentRunSpec, SopDefinitionSpec, ToolPolicySpec, sop_definition::Step};
use std::collections::BTreeMap;

/// A mistake, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it is; members of lists by their names: `spec.steps[qa].gates[tests].onFailure[0].to`.
    pub path: String,
    /// What is wrong, with the value and the remedy.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Every mistake in a procedure whose templates are all its own, sorted by path.
pub fn sop(spec: &SopDefinitionSpec) -> Vec<Finding> {
    sop_with(spec, &BTreeMap::new())
}

/// Every mistake in a procedure, sorted by path; `extra_templates` come from its `templatesFrom`.
pub fn sop_with(
    spec: &SopDefinitionSpec,
    extra_templates: &BTreeMap<String, String>,
) -> Vec<Finding> {
    let _ = (spec, extra_templates);
    Vec::new()
}

/// Every mistake in a policy, sorted by path.
pub fn policy(spec: &ToolPolicySpec) -> Vec<Finding> {
    let _ = spec;
    Vec::new()
}

/// Every mistake in a run that can be seen without its procedure and policy, sorted by path.
pub fn run(spec: &AgentRunSpec) -> Vec<Finding> {
    let _ = spec;
    Vec::new()
}

/// What the procedure or the run needs and the policy does not allow, sorted by path.
/// Paths begin with `run:`, `sop:` or `policy:`, the object they are in.
pub fn pairing(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Vec<Finding> {
    let _ = (run, sop, policy);
    Vec::new()
}

/// Every field that is set and whose behaviour does not exist in this version, sorted by path.
/// Paths begin with `run:`, `sop:` or `policy:`, the object they are in.
pub fn not_supported_yet(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Vec<Finding> {
    let _ = (run, sop, policy);
    Vec::new()
}

/// The indices of the steps in the order in which they run: needs first, else as declared.
/// A cycle is the error, as `a → b → a`. Needs of unknown steps are left to [`sop`].
pub fn order(steps: &[Step]) -> Result<Vec<usize>, Finding> {
    Ok((0..steps.len()).collect())
}
