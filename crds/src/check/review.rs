//! Gates of kind review: what they ask whom, and that nobody judges its own work.

use super::{Found, gates, names::Scope, templates, text::glob_mistake};
use crate::{
    AgentRunSpec, SopDefinitionSpec, ToolPolicySpec,
    sop_definition::{ReviewGate, Role, Step},
    tool_policy::{Endpoint, Model},
};
use std::collections::BTreeSet;

pub(super) fn check(scope: &Scope<'_>, path: &str, review: &ReviewGate, found: &mut Found) {
    if review.artifacts.is_empty() && review.files.is_empty() {
        found.add(
            path,
            "shows nothing to its judges; name artifacts, or files",
        );
    }
    for pattern in &review.files {
        let path = format!("{path}.files[{pattern}]");
        found.add_some(path.as_str(), glob_mistake(pattern));
        templates::inline(scope, &path, pattern, found);
    }
    if review.criteria.is_empty() {
        found.add(
            format!("{path}.criteria"),
            "is empty; ask at least one question that is answered with yes or no",
        );
    }
    found.repeated(
        &format!("{path}.criteria"),
        "criterion",
        review.criteria.iter().map(|one| one.name.as_str()),
    );
    let (judges, models) = (review.judges().len(), review.models.len());
    if judges < models {
        found.add(
            format!("{path}.judges"),
            format!("{judges} of {models} models are asked; name fewer models, or ask more judges"),
        );
    }
    if review.agree() > judges {
        found.add(
            format!("{path}.agree"),
            format!(
                "{} must agree, but {judges} are asked; lower it, or ask more judges",
                review.agree()
            ),
        );
    }
}

/// Nobody judges its own work: whichever endpoint answers, the model is another than the author's.
pub(super) fn pairing(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
    found: &mut Found,
) {
    for (step, (path, gate)) in sop
        .steps
        .iter()
        .flat_map(|step| gates::with_paths(step).into_iter().map(move |g| (step, g)))
    {
        let Some(review) = &gate.review else { continue };
        let path = format!("sop:{path}.review.models");
        let asked: BTreeSet<&str> = review.judges().into_iter().collect();
        for judge in asked {
            let judges = answering(policy, judge);
            if judges.is_empty() {
                found.add(
                    format!("{path}[{judge}]"),
                    format!("the policy has no model or alias \"{judge}\"; give a model that writes nothing in this procedure the alias {judge}"),
                );
            }
            for author in authors(sop, step, review) {
                let asks = asks(author, run, policy);
                let written = answering(policy, asks);
                if let Some((_, model)) = judges.iter().find(|one| has(&written, one)) {
                    let message = format!(
                        "\"{judge}\" can be {}, which also answers for role {} (\"{asks}\"), whose work gate {} judges; name a model that does not write it",
                        model.name, author.name, gate.name
                    );
                    found.add(format!("{path}[{judge}]"), message);
                }
            }
        }
    }
}

/// Whether a step asks judges.
pub(super) fn asks_judges(step: &Step) -> bool {
    step.all_gates().any(|gate| gate.review.is_some())
}

/// A model and the endpoint that has it.
type At<'a> = (&'a Endpoint, &'a Model);

/// The models that a name can mean: each endpoint's, since the next answers where one does not.
fn answering<'a>(policy: &'a ToolPolicySpec, name: &str) -> Vec<At<'a>> {
    let endpoints = policy.llm.iter();
    endpoints
        .filter_map(|endpoint| Some((endpoint, endpoint.model(name)?)))
        .collect()
}

/// The same model under one name anywhere, or the same deployment under two names.
fn has(models: &[At<'_>], judge: &At<'_>) -> bool {
    let deployment = |(_, model): &At<'_>| {
        let name = model.deployment.as_ref().unwrap_or(&model.name);
        name.clone()
    };
    models.iter().any(|model| {
        let together = model.0.name == judge.0.name;
        model.1.name == judge.1.name || (together && deployment(model) == deployment(judge))
    })
}

/// The roles that write what a gate shows.
fn authors<'a>(sop: &'a SopDefinitionSpec, step: &'a Step, review: &ReviewGate) -> Vec<&'a Role> {
    let makes = |step: &&Step| {
        step.outputs
            .iter()
            .any(|output| review.artifacts.contains(&output.name))
    };
    let own = (!review.files.is_empty()).then_some(step);
    let names: BTreeSet<&str> = sop
        .steps
        .iter()
        .filter(makes)
        .chain(own)
        .filter_map(|step| step.role.as_deref())
        .collect();
    let roles = sop.roles.iter();
    roles
        .filter(|role| names.contains(role.name.as_str()))
        .collect()
}

/// The model or alias that a role is asked by.
fn asks<'a>(role: &'a Role, run: &'a AgentRunSpec, policy: &'a ToolPolicySpec) -> &'a str {
    let first = || {
        let endpoint = policy.llm.first()?;
        Some(&endpoint.models.first()?.name)
    };
    let asked = role.model.as_ref().or(run.model.as_ref());
    asked.or_else(first).map_or("", String::as_str)
}
