//! What must hold, and what happens where it does not.

use super::{
    Found, compliance,
    names::{Scope, unknown_artifact},
    review,
    sop::check_schema,
    templates,
    text::{file_mistake, list},
    work::check_command,
};
use crate::sop_definition::{
    AfterFailure, Artifact, Canary, CommandGate, FailureAction, FailureRule, Gate, GateKind, Step,
};
use std::collections::BTreeSet;

/// All gates of a step with their paths.
pub(super) fn with_paths(step: &Step) -> Vec<(String, &Gate)> {
    fn add<'a>(to: &mut Vec<(String, &'a Gate)>, parent: &str, gates: &'a [Gate]) {
        let path = |gate: &Gate| format!("{parent}.gates[{}]", gate.name);
        to.extend(gates.iter().map(|gate| (path(gate), gate)));
    }
    let mut found = Vec::new();
    let path = format!("spec.steps[{}]", step.name);
    for action in &step.actions {
        let path = format!("{path}.actions[{}]", action.name);
        if let Some(repeat) = &action.repeat {
            let path = format!("{path}.loop");
            for inner in &repeat.actions {
                let path = format!("{path}.actions[{}]", inner.name);
                add(&mut found, &path, &inner.gates);
            }
            add(&mut found, &path, &repeat.gates);
        }
        add(&mut found, &path, &action.gates);
    }
    add(&mut found, &path, &step.gates);
    found
}

/// Whether a person may have to decide on a gate.
pub(super) fn asks_people(gate: &Gate) -> bool {
    gate.kind == GateKind::Approval
        || gate.exhausted == Some(AfterFailure::Ask)
        || gate
            .on_failure
            .iter()
            .any(|rule| rule.action == FailureAction::Ask)
}

pub(super) fn check<'a>(outer: &Scope<'a>, parent: &str, gate: &'a Gate, found: &mut Found) {
    let path = format!("{parent}.gates[{}]", gate.name);
    let reports: BTreeSet<&str> = outer
        .step
        .into_iter()
        .flat_map(|(_, step)| step.all_gates())
        .filter_map(|gate| gate.command.as_ref())
        .flat_map(|command| &command.reports)
        .map(|report| report.name.as_str())
        .collect();
    let scope = Scope {
        reports: Some(reports),
        exit_code: gate.kind == GateKind::Command,
        ..outer.clone()
    };
    if let Some(when) = &gate.when {
        templates::expression(outer, &format!("{path}.when"), when, found);
    }
    check_kind(&path, gate, found);
    if let Some(schema) = &gate.schema {
        let artifact = one_file(
            &scope,
            &format!("{path}.schema.artifact"),
            &schema.artifact,
            found,
        );
        match &schema.schema {
            Some(name) => check_schema(
                scope.declared,
                &format!("{path}.schema.schema"),
                name,
                found,
            ),
            None if artifact.is_some_and(|artifact| artifact.schema.is_none()) => found.add(
                format!("{path}.schema.schema"),
                format!(
                    "is not set, and artifact `{}` has no schema of its own; name one",
                    schema.artifact
                ),
            ),
            None => {}
        }
    }
    if let Some(sections) = &gate.sections {
        one_file(
            &scope,
            &format!("{path}.sections.artifact"),
            &sections.artifact,
            found,
        );
        if sections
            .headings
            .iter()
            .all(|heading| heading.trim().is_empty())
        {
            found.add(
                format!("{path}.sections.headings"),
                "is empty; name the headings that must be there",
            );
        }
    }
    if let Some(expression) = &gate.expression {
        templates::expression(&scope, &format!("{path}.expression"), expression, found);
    }
    if let Some(command) = &gate.command {
        check_gate_command(outer, &scope, &format!("{path}.command"), command, found);
    }
    if let Some(asked) = &gate.review {
        review::check(outer, &format!("{path}.review"), asked, found);
    }
    let shown = gate
        .review
        .iter()
        .flat_map(|review| review.artifacts.iter().map(|name| ("review", name)));
    let shown = shown.chain(
        gate.approval
            .iter()
            .flat_map(|a| a.artifacts.iter().map(|name| ("approval", name))),
    );
    for (kind, name) in shown {
        found.add_some(
            format!("{path}.{kind}.artifacts[{name}]"),
            scope.mistake(&["artifacts", name]),
        );
    }
    if let Some(asked) = &gate.compliance {
        compliance::check(&scope, &format!("{path}.compliance"), asked, found);
    }
    for measure in &gate.measures {
        let path = format!("{path}.measures[{}]", measure.name);
        if scope.item.is_some() {
            found.add(
                path,
                "is taken for each item of a loop, and its list would not be over attempts; put the gate on the loop's own action, or on the step",
            );
            continue;
        }
        templates::expression(&scope, &format!("{path}.value"), &measure.value, found);
    }
    check_rules(&scope, &path, &gate.on_failure, found);
    check_waits(&scope, &path, gate, found);
}

/// People decide on a step or an action of it, once: not on each item of a loop, not between actions that a model picks, and
/// not again on what they rejected. An attempt is taken up again where it waited, and what was picked until then is over.
fn check_waits(scope: &Scope<'_>, path: &str, gate: &Gate, found: &mut Found) {
    let people = gate.kind == GateKind::Approval;
    let rules = gate.on_failure.iter().enumerate();
    let mut asks: Vec<String> = rules
        .filter(|(_, rule)| rule.action == FailureAction::Ask)
        .map(|(index, _)| format!("{path}.onFailure[{index}].action"))
        .collect();
    if gate.exhausted == Some(AfterFailure::Ask) {
        asks.push(format!("{path}.exhausted"));
    }
    let looped = scope.looped;
    if looped && people {
        found.add(
            format!("{path}.kind"),
            "approval cannot be asked for each item of a loop; put the gate on the loop's own action, or on the step",
        );
    } else if scope.picked && people {
        found.add(
            format!("{path}.kind"),
            "approval cannot be asked for between actions that the role picks itself (reactMode: Free); put the gate on the step",
        );
    }
    for asks in asks {
        if people {
            found.add(
                asks,
                "Ask would ask again what people have rejected; use Retry, Backtrack or Fail",
            );
        } else if looped {
            found.add(
                asks,
                "Ask cannot be used for each item of a loop; use Retry, Backtrack or Fail, or put the gate on the loop's own action",
            );
        } else if scope.picked {
            found.add(
                asks,
                "Ask cannot be used between actions that the role picks itself (reactMode: Free); use Retry, Backtrack or Fail, or put the gate on the step",
            );
        }
    }
}

/// A gate has the field of its kind, and no other.
fn check_kind(path: &str, gate: &Gate, found: &mut Found) {
    let fields = [
        (GateKind::Schema, gate.schema.is_some(), true),
        (GateKind::Sections, gate.sections.is_some(), true),
        (GateKind::Expression, gate.expression.is_some(), true),
        (GateKind::Command, gate.command.is_some(), true),
        (GateKind::Review, gate.review.is_some(), true),
        (GateKind::Approval, gate.approval.is_some(), false),
        (GateKind::Compliance, gate.compliance.is_some(), false),
    ];
    for (kind, set, needed) in fields {
        let name = kind.as_str();
        if set && kind != gate.kind {
            found.add(
                format!("{path}.{name}"),
                format!(
                    "does not belong to a gate of kind {}; take it away, or change the kind",
                    gate.kind.as_str()
                ),
            );
        } else if !set && needed && kind == gate.kind {
            found.add(
                path,
                format!("a gate of kind {name} needs the field {name}"),
            );
        }
    }
}

/// An artifact of one file that the step may read.
fn one_file<'a>(
    scope: &Scope<'a>,
    path: &str,
    name: &str,
    found: &mut Found,
) -> Option<&'a Artifact> {
    if let Some(message) = scope.mistake(&["artifacts", name]) {
        found.add(path, message);
        return None;
    }
    let Some(&(_, artifact)) = scope.declared.artifacts.get(name) else {
        found.add(path, unknown_artifact(scope.declared, name));
        return None;
    };
    if artifact.path.is_none() {
        found.add(path, format!("artifact `{name}` is a set of files (glob); this gate judges an artifact with a path"));
    }
    Some(artifact)
}

fn check_gate_command<'a>(
    outer: &Scope<'a>,
    scope: &Scope<'a>,
    path: &str,
    command: &'a CommandGate,
    found: &mut Found,
) {
    if command.run.is_empty() {
        found.add(format!("{path}.run"), "is empty; name a program to run");
    }
    for (field, program) in command.programs() {
        check_command(outer, &format!("{path}.{field}"), program, found);
    }
    if let Some((first, other)) = command.run.first().and_then(|first| {
        command
            .run
            .iter()
            .find(|program| program.image != first.image)
            .map(|other| (&first.image, &other.image))
    }) {
        found.add(
            format!("{path}.run"),
            format!("uses the images \"{first}\" and \"{other}\"; the programs of one gate share one tree, so use one image"),
        );
    }
    found.repeated(
        &format!("{path}.reports"),
        "report",
        command.reports.iter().map(|r| r.name.as_str()),
    );
    for report in &command.reports {
        found.add_some(
            format!("{path}.reports[{}].path", report.name),
            file_mistake(&report.path),
        );
    }
    found.repeated(
        &format!("{path}.canaries"),
        "canary",
        command.canaries.iter().map(|canary| canary.name.as_str()),
    );
    for canary in &command.canaries {
        check_canary(
            outer,
            &format!("{path}.canaries[{}]", canary.name),
            canary,
            command,
            found,
        );
    }
    if let Some(pass) = &command.pass {
        let own = Scope {
            reports: Some(
                command
                    .reports
                    .iter()
                    .map(|report| report.name.as_str())
                    .collect(),
            ),
            ..scope.clone()
        };
        templates::expression(&own, &format!("{path}.pass"), pass, found);
    }
}

/// A canary says something about the programs that judge only where it is run as they are.
fn check_canary(
    scope: &Scope<'_>,
    path: &str,
    canary: &Canary,
    gate: &CommandGate,
    found: &mut Found,
) {
    found.add_some(format!("{path}.path"), file_mistake(&canary.path));
    templates::inline(scope, &format!("{path}.path"), &canary.path, found);
    templates::named(scope, &format!("{path}.template"), &canary.template, found);
    let image = &canary.run.image;
    if !gate.run.is_empty() && gate.run.iter().all(|program| &program.image != image) {
        found.add(
            format!("{path}.run.image"),
            format!("\"{image}\" is no image of the programs that judge; a canary must be run as they are"),
        );
    }
}

fn check_rules(scope: &Scope<'_>, path: &str, rules: &[FailureRule], found: &mut Found) {
    let scope = &Scope {
        failed: true,
        ..scope.clone()
    };
    let mut ends: Option<usize> = None;
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("{path}.onFailure[{index}]");
        if let Some(end) = ends {
            found.add(path.as_str(), format!("is never reached: rule {end} before it always applies; put it first, or give rule {end} a when"));
        }
        if rule.when.is_none() && matches!(rule.action, FailureAction::Fail | FailureAction::Ask) {
            ends = ends.or(Some(index));
        }
        if let Some(when) = &rule.when {
            templates::expression(scope, &format!("{path}.when"), when, found);
        }
        let again = matches!(rule.action, FailureAction::Retry | FailureAction::Backtrack);
        if rule.workspace.is_some() && !again {
            found.add(
                format!("{path}.workspace"),
                "belongs to the actions Retry and Backtrack, after which something is done again; take it away",
            );
        }
        match (&rule.to, rule.action) {
            (Some(to), FailureAction::Backtrack) => {
                found.add_some(format!("{path}.to"), target_mistake(scope, to));
            }
            (Some(_), _) => found.add(
                format!("{path}.to"),
                "belongs to the action Backtrack only; take it away",
            ),
            (None, FailureAction::Backtrack) => {
                found.add(
                    format!("{path}.to"),
                    "is not set; name the step to go back to",
                );
            }
            (None, _) => {}
        }
    }
}

/// A line can only go back to a step that it has surely passed.
fn target_mistake(scope: &Scope<'_>, to: &str) -> Option<String> {
    let (index, step) = scope.step?;
    if step.name == to {
        return Some(format!("`{to}` is the step itself; use the action Retry"));
    }
    if let Some(message) = unknown_step(scope, to) {
        return Some(message);
    }
    let target = scope
        .declared
        .spec
        .steps
        .iter()
        .position(|step| step.name == to)?;
    (!scope.declared.ancestors[index].contains(&target)).then(|| {
        format!("step `{to}` does not come before step `{}`; name one that it needs, or add {to} to its needs", step.name)
    })
}

pub(super) fn unknown_step(scope: &Scope<'_>, name: &str) -> Option<String> {
    let steps = &scope.declared.spec.steps;
    steps.iter().all(|step| step.name != name).then(|| {
        format!(
            "there is no step `{name}`; known are: {}",
            list(steps.iter().map(|step| step.name.as_str()))
        )
    })
}
