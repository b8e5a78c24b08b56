//! A procedure as a whole, its roles and its steps.

use super::{
    Finding, Found, compliance, gates,
    names::{Declared, Scope, unknown_artifact},
    order, templates,
    text::{file_mistake, glob_mistake, is_template, list, path_mistake},
    work,
};
use crate::{
    SopDefinitionSpec,
    contract::snapshot::SYSTEM,
    sop_definition::{Artifact, ReactMode, Role, Step},
};
use std::collections::BTreeMap;

/// The most steps that a procedure may have: status holds them all.
const MAX_STEPS: usize = 64;

pub(super) fn check(
    spec: &SopDefinitionSpec,
    extra_templates: Option<&BTreeMap<String, String>>,
) -> Vec<Finding> {
    let declared = Declared::new(spec, extra_templates);
    let mut found = Found::default();
    head(spec, &mut found);
    for name in extra_templates.into_iter().flatten().map(|(name, _)| name) {
        if spec.templates.contains_key(name) {
            found.add(
                format!("spec.templates[{name}]"),
                format!(
                    "a ConfigMap of templatesFrom has a template `{name}`, too; rename one of them"
                ),
            );
        }
    }
    templates::check(&declared, &mut found);
    roles(spec, &mut found);
    artifacts(spec, &mut found);
    if let Err(cycle) = order(&spec.steps) {
        found.0.push(cycle);
    }
    let gates = spec.steps.iter().flat_map(Step::all_gates);
    found.repeated(
        "spec.steps[].gates[].measures",
        "measure",
        gates
            .flat_map(|gate| &gate.measures)
            .map(|measure| measure.name.as_str()),
    );
    compliance::raci(spec, &mut found);
    for (index, step) in spec.steps.iter().enumerate() {
        check_step(&declared, index, step, &mut found);
    }
    found.sorted()
}

fn head(spec: &SopDefinitionSpec, found: &mut Found) {
    if spec.steps.is_empty() {
        found.add("spec.steps", "has no steps; a procedure needs at least one");
    }
    if spec.steps.len() > MAX_STEPS {
        found.add(
            "spec.steps",
            format!(
                "has {} steps, the most is {MAX_STEPS}; join steps or split the procedure",
                spec.steps.len()
            ),
        );
    }
    found.repeated(
        "spec.steps",
        "step",
        spec.steps.iter().map(|step| step.name.as_str()),
    );
    found.repeated(
        "spec.roles",
        "role",
        spec.roles.iter().map(|role| role.name.as_str()),
    );
    let steps = spec.steps.iter().map(|step| ("steps", &step.name));
    let roles = spec.roles.iter().map(|role| ("roles", &role.name));
    for (list, name) in steps.chain(roles).filter(|(_, name)| *name == SYSTEM) {
        found.add(
            format!("spec.{list}[{name}]"),
            format!("\"{name}\" is how messages name the system itself; choose another name"),
        );
    }
    found.repeated(
        "spec.parameters",
        "parameter",
        spec.parameters.iter().map(|p| p.name.as_str()),
    );
    for parameter in &spec.parameters {
        if parameter.required == Some(true) && parameter.default.is_some() {
            found.add(
                format!("spec.parameters[{}]", parameter.name),
                "is required and has a default; take one of them away",
            );
        }
    }
    for (name, place) in &spec.layout {
        let path = format!("spec.layout[{name}]");
        if is_template(place) {
            found.add(path, format!("\"{place}\" is a template, but places are taken as they stand; write the place itself"));
        } else {
            found.add_some(path, path_mistake(place));
        }
    }
    for (name, schema) in &spec.schemas {
        if let Err(error) = jsonschema::validator_for(schema) {
            found.add(
                format!("spec.schemas[{name}]"),
                format!(
                    "is not a JSON Schema: {error} (at \"{}\")",
                    error.instance_path()
                ),
            );
        }
    }
}

fn roles(spec: &SopDefinitionSpec, found: &mut Found) {
    for role in &spec.roles {
        if let Some(temperature) = &role.temperature {
            let ok = temperature
                .parse::<f64>()
                .is_ok_and(|value| (0.0..=2.0).contains(&value));
            if !ok {
                found.add(
                    format!("spec.roles[{}].temperature", role.name),
                    format!("\"{temperature}\" is not a number from \"0\" to \"2\"; write for example \"0.2\""),
                );
            }
        }
        turns(role, found);
    }
}

/// The last turn is for the answer: with tools there must be another.
fn turns(role: &Role, found: &mut Found) {
    let Some(turns) = role.max_turns else { return };
    let path = format!("spec.roles[{}].maxTurns", role.name);
    let free = role.picks();
    if role.tools.is_empty() && !free && turns > 1 {
        found.add(
            path,
            "bounds calls of tools and free reactions, and the role has neither; take it away, or grant the role tools",
        );
    } else if !role.tools.is_empty() && turns < 2 {
        found.add(
            path,
            format!("{turns} leaves no turn for a call of a tool, since the last one is for the answer; write at least 2, or take the role's tools away"),
        );
    } else if free && turns < 2 {
        found.add(
            path,
            format!("{turns} lets the role do one action, and it picks its actions itself (reactMode: Free); write at least 2, or use ByOrder"),
        );
    }
}

/// A role that picks its actions itself has something to pick from, and a word for being done.
fn picks(spec: &SopDefinitionSpec, path: &str, step: &Step, found: &mut Found) {
    let role = spec
        .roles
        .iter()
        .find(|role| Some(&role.name) == step.role.as_ref());
    let Some(role) = role.filter(|role| role.picks()) else {
        return;
    };
    let name = &role.name;
    if let [only] = step.actions.as_slice() {
        found.add(
            format!("{path}.actions"),
            format!("has one action, `{}`, and role `{name}` picks its actions itself (reactMode: Free); add another, or use ByOrder", only.name),
        );
    }
    let words = [
        (
            ReactMode::DONE,
            "what the role says when nothing is left to do",
        ),
        (
            ReactMode::CHOICE,
            "the name of the question which action is next",
        ),
    ];
    for (word, what) in words {
        if step.actions.iter().any(|action| action.name == word) {
            found.add(
                format!("{path}.actions[{word}]"),
                format!("\"{word}\" is {what}, since role `{name}` picks its actions itself (reactMode: Free); name the action differently"),
            );
        }
    }
}

/// Names and places of artifacts are unique over the whole procedure.
fn artifacts(spec: &SopDefinitionSpec, found: &mut Found) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut places: BTreeMap<String, (&str, &str)> = BTreeMap::new();
    for step in &spec.steps {
        for artifact in &step.outputs {
            let path = format!("spec.steps[{}].outputs[{}]", step.name, artifact.name);
            if let Some(other) = names.insert(&artifact.name, &step.name) {
                found.add(
                    path.as_str(),
                    format!(
                        "step `{other}` makes an artifact `{}`, too; name them differently",
                        artifact.name
                    ),
                );
            }
            let Some(place) = &artifact.path else {
                continue;
            };
            let normal: String = place.split_whitespace().collect();
            if let Some((other, by)) = places.insert(normal, (&artifact.name, &step.name)) {
                found.add(
                    format!("{path}.path"),
                    format!("artifact `{other}` of step `{by}` has the path \"{place}\", too; give each its own"),
                );
            }
        }
    }
}

fn check_step<'a>(declared: &'a Declared<'a>, index: usize, step: &'a Step, found: &mut Found) {
    let path = format!("spec.steps[{}]", step.name);
    let spec = declared.spec;
    let scope = Scope::step(declared, index, step);
    if step.actions.is_empty() && step.gates.is_empty() {
        found.add(
            path.as_str(),
            "has neither actions nor gates; say what it does, or what it judges",
        );
    }
    if let Some(role) = &step.role
        && spec.roles.iter().all(|known| &known.name != role)
    {
        found.add(
            format!("{path}.role"),
            format!(
                "there is no role `{role}`; known are: {}",
                list(spec.roles.iter().map(|r| r.name.as_str()))
            ),
        );
    }
    for need in &step.needs {
        if spec.steps.iter().all(|known| &known.name != need) {
            found.add(
                format!("{path}.needs[{need}]"),
                format!(
                    "there is no step `{need}`; known are: {}",
                    list(spec.steps.iter().map(|s| s.name.as_str()))
                ),
            );
        }
    }
    if let Some(when) = &step.when {
        templates::expression(&scope, &format!("{path}.when"), when, found);
    }
    if let Some(prerequisite) = &step.prerequisite {
        templates::expression(&scope, &format!("{path}.prerequisite"), prerequisite, found);
    }
    found.repeated(
        &format!("{path}.inputs"),
        "artifact",
        step.inputs.iter().map(|i| i.artifact.as_str()),
    );
    for input in &step.inputs {
        found.add_some(
            format!("{path}.inputs[{}]", input.artifact),
            input_mistake(declared, index, step, &input.artifact),
        );
    }
    for output in &step.outputs {
        check_output(
            declared,
            &format!("{path}.outputs[{}]", output.name),
            output,
            found,
        );
    }
    found.repeated(
        &format!("{path}.actions"),
        "action",
        step.actions.iter().map(|a| a.name.as_str()),
    );
    // Status and decisions know a gate by step and name, wherever in the step it stands.
    found.repeated(
        &format!("{path}.gates"),
        "gate",
        step.all_gates().map(|gate| gate.name.as_str()),
    );
    picks(spec, &path, step, found);
    for action in &step.actions {
        work::check_action(&scope, &path, action, found);
    }
    for gate in &step.gates {
        gates::check(&scope, &path, gate, found);
    }
}

fn input_mistake(
    declared: &Declared<'_>,
    index: usize,
    step: &Step,
    artifact: &str,
) -> Option<String> {
    let Some(&(maker, _)) = declared.artifacts.get(artifact) else {
        return Some(unknown_artifact(declared, artifact));
    };
    if maker == index {
        return Some(format!(
            "artifact `{artifact}` is an output of the step itself; take it out of the inputs"
        ));
    }
    if declared.ancestors[index].contains(&maker) {
        return None;
    }
    let maker = &declared.spec.steps[maker].name;
    Some(format!(
        "artifact `{artifact}` is made by step `{maker}`, which step `{}` does not need; add {maker} to its needs",
        step.name
    ))
}

fn check_output(declared: &Declared<'_>, path: &str, output: &Artifact, found: &mut Found) {
    let scope = Scope::place(declared);
    match (&output.path, &output.glob) {
        (Some(place), None) => {
            found.add_some(format!("{path}.path"), file_mistake(place));
            templates::inline(&scope, &format!("{path}.path"), place, found);
        }
        (None, Some(glob)) => {
            found.add_some(format!("{path}.glob"), glob_mistake(glob));
            templates::inline(&scope, &format!("{path}.glob"), glob, found);
        }
        (Some(_), Some(_)) => found.add(path, "has path and glob; take one of them away"),
        (None, None) => found.add(
            path,
            "has neither path nor glob; say which file or files it is",
        ),
    }
    if let Some(schema) = &output.schema {
        check_schema(declared, &format!("{path}.schema"), schema, found);
        if output.glob.is_some() {
            found.add(
                format!("{path}.schema"),
                "belongs to an artifact of one file; give the artifact a path instead of a glob",
            );
        }
    }
}

/// One of the procedure's schemas, by name.
pub(super) fn check_schema(declared: &Declared<'_>, path: &str, name: &str, found: &mut Found) {
    if !declared.spec.schemas.contains_key(name) {
        found.add(
            path,
            format!(
                "there is no schema `{name}`; known are: {}",
                list(declared.spec.schemas.keys().map(String::as_str))
            ),
        );
    }
}
