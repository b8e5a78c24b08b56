//! One step against its part of the procedure: done, in order, by its role, through its gates, answered for.

use std::collections::BTreeSet;

use sopwith_crds::{
    contract::snapshot::Message,
    sop_definition::{Gate, GateKind, Raci, Step},
    status::Verdict,
};

use super::{
    Check, Trace,
    path::{Judged, Walk, Walked},
};

pub(super) fn checks(step: &Step, trace: Trace<'_>, walked: &Walked<'_>) -> Vec<Check> {
    let walk = walked.of(&step.name);
    let name = &step.name;
    let mut checks = vec![
        Check::new(name, "done", walk.done()),
        Check::new(
            name,
            "after what it needs, as its rules say",
            walk.in_order(&step.needs),
        ),
        Check::new(
            name,
            "by the role that is responsible",
            by_its_role(step, trace),
        ),
    ];
    let did: Vec<&str> = messages(step, trace)
        // Calls of tools on the way to an answer are no answer.
        .filter(|message| message.attempt == walk.attempt && message.tool.is_none())
        .map(|message| message.cause.as_str())
        .collect();
    checks.extend(gates(step, walk, &did));
    if let Some(raci) = &step.raci {
        checks.extend(answered_for(step, raci, trace, walk));
    }
    checks
}

/// The messages of a step.
fn messages<'a>(step: &Step, trace: Trace<'a>) -> impl Iterator<Item = &'a Message> {
    let prefix = format!("{}/", step.name);
    let messages = trace.messages.iter();
    messages.filter(move |message| message.cause.starts_with(&prefix))
}

/// Only the step's role worked in it, and the RACI says that it is responsible.
fn by_its_role(step: &Step, trace: Trace<'_>) -> Result<String, String> {
    let is_role = |name: &str| trace.plan.roles.iter().any(|role| role.name == name);
    let worked: BTreeSet<&str> = messages(step, trace)
        .map(|message| message.sender.as_str())
        .filter(|sender| is_role(sender))
        .collect();
    let responsible = step.raci.as_ref().map(|raci| raci.responsible.as_slice());
    let responsible = responsible.unwrap_or_default();
    let role = step.role.as_deref().unwrap_or_default();
    let others: Vec<&str> = worked
        .iter()
        .copied()
        .filter(|name| *name != role)
        .collect();
    if !others.is_empty() {
        return Err(format!(
            "{} worked in it, its role is {}",
            others.join(", "),
            named(role)
        ));
    }
    if role.is_empty() {
        return Ok("no role: programs and gates".to_owned());
    }
    if !responsible.is_empty() && responsible.iter().all(|name| name != role) {
        return Err(format!(
            "{role} does it, responsible is {}",
            responsible.join(", ")
        ));
    }
    let worked = if worked.is_empty() {
        "no model was asked"
    } else {
        "it worked alone"
    };
    Ok(format!("{role}: {worked}"))
}

const fn named(role: &str) -> &str {
    if role.is_empty() { "none" } else { role }
}

/// Every gate that stands where the step's attempt came by has passed, or people let it pass.
fn gates(step: &Step, walk: &Walk<'_>, did: &[&str]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut add = |prefix: &str, came_by: bool, gates: &[Gate]| {
        for gate in gates {
            let label = if prefix.is_empty() {
                gate.name.clone()
            } else {
                format!("{prefix}/{}", gate.name)
            };
            let found = match walk.gates.get(label.as_str()) {
                Some(judged) => verdict(judged),
                None if came_by => Err("it was not judged".to_owned()),
                None => Ok("not asked for: its action was not".to_owned()),
            };
            let asked = format!("gate {}/{label} passed", gate.kind);
            checks.push(Check::new(&step.name, asked, found));
        }
    };
    for action in &step.actions {
        let cause = format!("{}/{}", step.name, action.name);
        let below = format!("{cause}/");
        let came_by = did
            .iter()
            .any(|did| *did == cause || did.starts_with(&below));
        if let Some(repeat) = &action.repeat {
            for inner in &repeat.actions {
                let path = format!("{}/{}", action.name, inner.name);
                let cause = format!("{}/{path}", step.name);
                add(&path, did.contains(&cause.as_str()), &inner.gates);
            }
            add(&action.name, came_by, &repeat.gates);
        }
        add(&action.name, came_by, &action.gates);
    }
    add("", true, &step.gates);
    checks
}

fn verdict(judged: &Judged<'_>) -> Result<String, String> {
    let by = |what: &str| match judged.by {
        Some(who) if !who.trim().is_empty() => Ok(format!("{what} by {who}")),
        _ => Err(format!("{what}, but nobody's name is on it")),
    };
    match (judged.verdict, judged.kind) {
        (Verdict::Passed, GateKind::Approval) => by("approved"),
        (Verdict::Waived, _) => by("waived"),
        (Verdict::Passed, _) => Ok("passed".to_owned()),
        (Verdict::Skipped, _) => Ok("does not apply".to_owned()),
        (Verdict::Failed, _) => Err("failed".to_owned()),
        (Verdict::Pending, _) => Err("nobody has decided".to_owned()),
    }
}

/// Who is accountable answers for the step: a role by the gates that its work passed, people by an approval.
fn answered_for(step: &Step, raci: &Raci, trace: Trace<'_>, walk: &Walk<'_>) -> Option<Check> {
    if raci.accountable.is_empty() {
        return None;
    }
    let is_role = |name: &String| trace.plan.roles.iter().any(|role| role.name == *name);
    let people: Vec<&str> = raci
        .accountable
        .iter()
        .filter(|name| !is_role(name))
        .map(String::as_str)
        .collect();
    let good = |judged: &&Judged<'_>| matches!(judged.verdict, Verdict::Passed | Verdict::Waived);
    let approved = walk
        .gates
        .values()
        .filter(good)
        .find(|judged| judged.kind == GateKind::Approval || judged.verdict == Verdict::Waived)
        .and_then(|judged| judged.by);
    let found = match (approved, people.as_slice()) {
        (Some(by), _) => Ok(format!("approved by {by}")),
        (None, []) if walk.gates.values().any(|judged| good(&judged)) => {
            Ok("by the gates that it passed".to_owned())
        }
        (None, []) => Err("it passed no gate".to_owned()),
        (None, people) => Err(format!(
            "{} is no role, and nobody approved it",
            people.join(", ")
        )),
    };
    let asked = format!("{} answers for it", raci.accountable.join(", "));
    Some(Check::new(&step.name, asked, found))
}
