//! A policy's rules on evidence: that they can be met, and that a procedure's gates meet them as far as it can be known before
//! anything runs.

use super::{Found, gates, policy::required_gate_mistake};
use crate::{
    SopDefinitionSpec, ToolPolicySpec,
    language::Expression,
    sop_definition::{Gate, GateKind},
    status::Trust,
    tool_policy::{Evidence, gate_matches},
};

/// The rules with the gates they are about.
pub(super) fn resolved(policy: &ToolPolicySpec) -> Option<Evidence> {
    let mut evidence = policy.evidence.clone()?;
    if evidence.gates.is_empty() {
        evidence.gates.clone_from(&policy.required_gates);
    }
    Some(evidence)
}

/// The policy by itself.
pub(super) fn check(policy: &ToolPolicySpec, found: &mut Found) {
    let Some(evidence) = resolved(policy) else {
        return;
    };
    let minimum = evidence.minimum_trust;
    if minimum == Trust::InProcess {
        found.add(
            "spec.evidence.minimumTrust",
            "inProcess is what any evidence is; write external or human, or take evidence away",
        );
        return;
    }
    if evidence.gates.is_empty() {
        found.add(
            "spec.evidence.gates",
            "is not set, nor is requiredGates; name the gates, as kind/name or kind/*",
        );
    }
    let own = policy.evidence.iter().flat_map(|evidence| &evidence.gates);
    for gate in own {
        found.add_some(
            format!("spec.evidence.gates[{gate}]"),
            required_gate_mistake(gate),
        );
    }
    for gate in &evidence.gates {
        let Some((kind, most)) = most_trust(gate) else {
            continue;
        };
        if most < minimum {
            found.add(
                format!("spec.evidence.gates[{gate}]"),
                format!(
                    "evidence of gates of kind {} is {} at the most, but {} is asked for; name gates of {}",
                    kind.as_str(),
                    most.as_str(),
                    minimum.as_str(),
                    if minimum == Trust::Human { "kind approval" } else { "another kind" }
                ),
            );
        }
    }
}

/// A procedure under the policy.
pub(super) fn pairing(sop: &SopDefinitionSpec, policy: &ToolPolicySpec, found: &mut Found) {
    let Some(evidence) = resolved(policy) else {
        return;
    };
    for pattern in &evidence.gates {
        let all = sop.steps.iter().flat_map(gates::with_paths);
        let mut meant = all
            .filter(|(_, gate)| gate_matches(pattern, gate.kind, &gate.name))
            .peekable();
        if meant.peek().is_none() && !policy.required_gates.contains(pattern) {
            found.add(
                format!("policy:spec.evidence.gates[{pattern}]"),
                format!("the procedure has no gate {pattern}; add it, or choose another procedure"),
            );
        }
        for (path, gate) in meant {
            if evidence.minimum_trust > Trust::InProcess
                && let Some(name) = said_by_programs(gate)
            {
                found.add(
                    format!("sop:{path}.expression"),
                    format!(
                        "looks at {name}, which programs in a workbench have said, and the policy asks for evidence of gate {pattern} that is {}",
                        evidence.minimum_trust.as_str()
                    ),
                );
            }
        }
    }
}

/// What an expression looks at that is never more than `inProcess`.
fn said_by_programs(gate: &Gate) -> Option<String> {
    let expression = Expression::compile(gate.expression.as_deref()?).ok()?;
    let mut names = expression.variables().into_iter();
    names.find(|name| ["reports", "exitCode"].contains(&name.as_str()))
}

/// The most that evidence of a gate can be trusted.
fn most_trust(pattern: &str) -> Option<(GateKind, Trust)> {
    let kind = pattern.split('/').next()?;
    let kind = GateKind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind)?;
    let most = match kind {
        GateKind::Command => Trust::InProcess,
        GateKind::Approval => Trust::Human,
        GateKind::Schema
        | GateKind::Sections
        | GateKind::Expression
        | GateKind::Review
        | GateKind::Compliance => Trust::External,
    };
    Some((kind, most))
}
