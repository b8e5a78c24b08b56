//! Gates of kind compliance: that they look at what has been, and at nothing that can never comply.

use super::{Found, gates::unknown_step, names::Scope, text::list};
use crate::{
    SopDefinitionSpec,
    sop_definition::{ComplianceGate, GateKind, Step},
};
use std::collections::BTreeSet;

/// A trace can only be checked up to here.
pub(super) fn check(scope: &Scope<'_>, path: &str, compliance: &ComplianceGate, found: &mut Found) {
    for name in &compliance.steps {
        let path = format!("{path}.steps[{name}]");
        let unknown = unknown_step(scope, name);
        let known = unknown.is_none();
        found.add_some(path.as_str(), unknown);
        let Some((index, step)) = scope.step else {
            continue;
        };
        let spec = scope.declared.spec;
        let comes_before = |before: &usize| spec.steps[*before].name == *name;
        if known && !scope.declared.ancestors[index].iter().any(comes_before) {
            found.add(
                path,
                format!(
                    "step `{name}` does not come before step `{}`; name one that it needs, or add {name} to its needs",
                    step.name
                ),
            );
        }
    }
}

/// Where a procedure asks for compliance, its RACI must be one that can be complied with.
pub(super) fn raci(spec: &SopDefinitionSpec, found: &mut Found) {
    let asks = |step: &Step| {
        let mut gates = step.all_gates();
        gates.any(|gate| gate.kind == GateKind::Compliance)
    };
    if !spec.steps.iter().any(asks) {
        return;
    }
    // A step that judges compliance is still at work then; it is not checked itself.
    for step in spec.steps.iter().filter(|step| !asks(step)) {
        let Some(raci) = &step.raci else { continue };
        let path = format!("spec.steps[{}].raci", step.name);
        let roles: BTreeSet<&str> = spec.roles.iter().map(|role| role.name.as_str()).collect();
        let is_role = |name: &String| roles.contains(name.as_str());
        if let Some(role) = &step.role
            && !raci.responsible.is_empty()
            && !raci.responsible.contains(role)
        {
            found.add(
                format!("{path}.responsible"),
                format!(
                    "role `{role}` does the step, responsible is {}: that cannot comply; add {role}, or change the step's role",
                    list(raci.responsible.iter().map(String::as_str))
                ),
            );
        }
        let people: Vec<&String> = raci
            .accountable
            .iter()
            .filter(|name| !is_role(name))
            .collect();
        if let Some(first) = people.first()
            && step.all_gates().all(|gate| gate.kind != GateKind::Approval)
        {
            found.add(
                format!("{path}.accountable[{first}]"),
                format!("`{first}` is no role of the procedure, and nobody is asked to approve the step: that cannot comply; add a gate of kind approval"),
            );
        } else if !raci.accountable.is_empty() && step.all_gates().next().is_none() {
            found.add(
                format!("{path}.accountable"),
                "nobody can answer for a step without gates: that cannot comply; add one",
            );
        }
    }
}
