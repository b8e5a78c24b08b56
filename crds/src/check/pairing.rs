//! What a run and its procedure need, against what the policy allows. What is not allowed is denied.

use super::{
    Finding, Found, evidence, gates, project, review,
    text::{is_template, list},
    tools,
};
use crate::{
    AgentRunSpec, SopDefinitionSpec, ToolPolicySpec,
    agent_run::Environment,
    sop_definition::{Command, CommandGate, NetworkAccess, Step, Work},
    tool_policy::{Provider, gate_matches},
};

pub(super) fn check(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
) -> Vec<Finding> {
    let mut found = Found::default();
    environment(run, policy, &mut found);
    if !policy.sops.is_empty()
        && policy
            .sops
            .iter()
            .all(|allowed| allowed.name != run.sop_ref.name)
    {
        found.add(
            "run:spec.sopRef.name",
            format!(
                "the policy does not allow SOP \"{}\"; it allows: {}",
                run.sop_ref.name,
                list(policy.sops.iter().map(|sop| sop.name.as_str()))
            ),
        );
    }
    required_gates(sop, policy, &mut found);
    evidence::pairing(sop, policy, &mut found);
    requester(run, sop, policy, &mut found);
    models(run, sop, policy, &mut found);
    review::pairing(run, sop, policy, &mut found);
    tools::pairing(run, sop, policy, &mut found);
    project::pairing(run, policy, &mut found);
    for step in &sop.steps {
        for (path, command) in commands(step) {
            check_command(&format!("sop:{path}"), command, policy, &mut found);
        }
    }
    found.sorted()
}

fn environment(run: &AgentRunSpec, policy: &ToolPolicySpec, found: &mut Found) {
    let environment = run.environment.unwrap_or_default();
    let dev_only = [Environment::Dev];
    let allowed = if policy.environments.is_empty() {
        &dev_only[..]
    } else {
        &policy.environments
    };
    if !allowed.contains(&environment) {
        found.add(
            "run:spec.environment",
            format!(
                "the policy does not allow runs in {}; it allows: {}",
                environment.as_str(),
                list(allowed.iter().map(|environment| environment.as_str()))
            ),
        );
    }
    for endpoint in &policy.llm {
        if endpoint.provider == Provider::Replay && environment == Environment::Prod {
            found.add(
                format!("policy:spec.llm[{}].provider", endpoint.name),
                "replayed answers are not allowed in prod; name a real provider, or run in dev or staging",
            );
        }
    }
}

fn required_gates(sop: &SopDefinitionSpec, policy: &ToolPolicySpec, found: &mut Found) {
    for required in &policy.required_gates {
        let mut gates = sop.steps.iter().flat_map(Step::all_gates);
        let there = gates.any(|gate| gate_matches(required, gate.kind, &gate.name));
        if !there {
            found.add(
                format!("policy:spec.requiredGates[{required}]"),
                format!(
                    "the procedure has no gate {required}; add it, or choose another procedure"
                ),
            );
        }
    }
}

/// Who approves can be told apart from who requested only where the run says who that was.
fn requester(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
    found: &mut Found,
) {
    let separate = policy
        .approvals
        .as_ref()
        .and_then(|approvals| approvals.separation_of_duties);
    let asks = sop
        .steps
        .iter()
        .flat_map(Step::all_gates)
        .any(gates::asks_people);
    if separate == Some(true) && asks && run.requested_by.is_none() {
        found.add(
            "run:spec.requestedBy",
            "is not set, and the policy separates who requests from who approves (spec.approvals.separationOfDuties); write your \
             user name, as `kubectl auth whoami` shows it",
        );
    }
}

/// Whether the role of a step picks its actions, for which its model is asked.
fn is_picked(sop: &SopDefinitionSpec, step: &Step) -> bool {
    let mut roles = sop.roles.iter();
    !step.actions.is_empty()
        && roles.any(|role| Some(&role.name) == step.role.as_ref() && role.picks())
}

fn models(run: &AgentRunSpec, sop: &SopDefinitionSpec, policy: &ToolPolicySpec, found: &mut Found) {
    let known: Vec<&str> = policy
        .llm
        .iter()
        .flat_map(|endpoint| &endpoint.models)
        .flat_map(|model| std::iter::once(&model.name).chain(&model.aliases))
        .map(String::as_str)
        .collect();
    let mut work = sop.steps.iter().flat_map(of_work);
    let asks = work.any(|(_, work)| work.prompt.is_some())
        || sop.steps.iter().any(review::asks_judges)
        || sop.steps.iter().any(|step| is_picked(sop, step));
    if known.is_empty() {
        if asks {
            found.add(
                "policy:spec.llm",
                "is empty, and the procedure asks models; name an endpoint and its models",
            );
        }
        return;
    }
    let unknown = |model: &str| {
        (!known.contains(&model)).then(|| {
            format!(
                "the policy has no model or alias \"{model}\"; it has: {}",
                list(known.iter().copied())
            )
        })
    };
    if let Some(model) = &run.model {
        found.add_some("run:spec.model", unknown(model));
    }
    for role in &sop.roles {
        if let Some(model) = &role.model {
            found.add_some(
                format!("sop:spec.roles[{}].model", role.name),
                unknown(model),
            );
        }
    }
    for endpoint in &policy.llm {
        for model in &endpoint.models {
            let path = format!("policy:spec.llm[{}].models[{}]", endpoint.name, model.name);
            for (field, price) in [
                ("inputPerMillion", model.input_per_million),
                ("outputPerMillion", model.output_per_million),
            ] {
                if price.is_none() {
                    found.add(
                        format!("{path}.{field}"),
                        "is not set, and the run's money is bounded; write the price in US dollars, \"0\" for a local model",
                    );
                }
            }
        }
    }
}

/// Everything that a step's actions do, with their paths.
pub(super) fn of_work(step: &Step) -> Vec<(String, &Work)> {
    let mut found = Vec::new();
    for action in &step.actions {
        let path = format!("spec.steps[{}].actions[{}]", step.name, action.name);
        let inner = action.repeat.iter().flat_map(|repeat| &repeat.actions);
        found.extend(
            inner.map(|inner| (format!("{path}.loop.actions[{}]", inner.name), &inner.work)),
        );
        found.push((path, &action.work));
    }
    found
}

/// All programs that a step may run, with their paths.
fn commands(step: &Step) -> Vec<(String, &Command)> {
    let mut commands: Vec<(String, &Command)> = of_work(step)
        .into_iter()
        .filter_map(|(path, work)| Some((format!("{path}.command"), work.command.as_ref()?)))
        .collect();
    for (path, gate) in gates::with_paths(step) {
        let programs = gate.command.iter().flat_map(CommandGate::programs);
        commands
            .extend(programs.map(|(field, command)| (format!("{path}.command.{field}"), command)));
    }
    commands
}

fn check_command(path: &str, command: &Command, policy: &ToolPolicySpec, found: &mut Found) {
    if !policy
        .images
        .iter()
        .any(|pattern| image_matches(pattern, &command.image))
    {
        found.add(
            format!("{path}.image"),
            format!(
                "the policy does not allow image \"{}\"; it allows: {}",
                command.image,
                list(policy.images.iter().map(String::as_str))
            ),
        );
    }
    let asked = command.network.unwrap_or_default();
    let matching: Vec<_> = policy
        .commands
        .iter()
        .filter(|allowed| starts_with(&command.argv, &allowed.argv))
        .collect();
    if matching.is_empty() {
        let allowed: Vec<String> = policy
            .commands
            .iter()
            .map(|allowed| allowed.argv.join(" "))
            .collect();
        found.add(
            format!("{path}.argv"),
            format!(
                "the policy does not allow \"{}\"; it allows what begins with: {}",
                command.argv.join(" "),
                list(allowed.iter().map(String::as_str))
            ),
        );
    } else if matching
        .iter()
        .all(|allowed| reach(allowed.network.unwrap_or_default()) < reach(asked))
    {
        found.add(
            format!("{path}.network"),
            format!("the policy does not allow \"{}\" the network access it asks for; lower it, or raise it in the policy", command.argv.join(" ")),
        );
    }
}

/// Words that a template fills in could be anything, so they never match.
fn starts_with(argv: &[String], allowed: &[String]) -> bool {
    !allowed.is_empty()
        && allowed.len() <= argv.len()
        && allowed
            .iter()
            .zip(argv)
            .all(|(allowed, word)| allowed == word && !is_template(word))
}

const fn reach(network: NetworkAccess) -> u8 {
    match network {
        NetworkAccess::None => 0,
        NetworkAccess::Loopback => 1,
        NetworkAccess::Egress => 2,
    }
}

/// Whether an image matches a pattern in which `*` stands for any characters but `/`.
pub(super) fn image_matches(pattern: &str, image: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == image;
    };
    let Some(image) = image.strip_prefix(head) else {
        return false;
    };
    let end = image.find('/').unwrap_or(image.len());
    // Every length that the star may take; the rest of the pattern decides.
    image
        .char_indices()
        .map(|(at, _)| at)
        .chain(std::iter::once(image.len()))
        .take_while(|&at| at <= end)
        .any(|at| image_matches(rest, &image[at..]))
}
