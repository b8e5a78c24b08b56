//! A policy by itself.

use super::{
    Finding, Found, evidence, project,
    text::{is_template, list},
    tools,
};
use crate::{
    ToolPolicySpec,
    sop_definition::GateKind,
    tool_policy::{Endpoint, Model, Provider, ReplayMode},
};
use regex::Regex;

const CAPABILITIES: [&str; 4] = ["jsonSchema", "reasoning", "streaming", "tools"];

pub(super) fn check(spec: &ToolPolicySpec) -> Vec<Finding> {
    let mut found = Found::default();
    found.repeated(
        "spec.llm",
        "endpoint",
        spec.llm.iter().map(|endpoint| endpoint.name.as_str()),
    );
    for (index, endpoint) in spec.llm.iter().enumerate() {
        check_endpoint(endpoint, &mut found);
        let mode = endpoint.replay.as_ref().and_then(|replay| replay.mode);
        if mode == Some(ReplayMode::RecordFromDifference) {
            for model in asked_by_nobody_else(endpoint, &spec.llm[index + 1..]) {
                found.add(
                    format!("spec.llm[{}].replay.mode", endpoint.name),
                    format!("recordFromDifference asks the next endpoint what differs, and none behind it has \"{model}\"; add an endpoint that answers for it"),
                );
            }
        }
    }
    tools::policy(spec, &mut found);
    found.repeated(
        "spec.sops",
        "SOP",
        spec.sops.iter().map(|sop| sop.name.as_str()),
    );
    for gate in &spec.required_gates {
        found.add_some(
            format!("spec.requiredGates[{gate}]"),
            required_gate_mistake(gate),
        );
    }
    evidence::check(spec, &mut found);
    for (index, command) in spec.commands.iter().enumerate() {
        let path = format!("spec.commands[{index}].argv");
        if command
            .argv
            .first()
            .is_none_or(|program| program.trim().is_empty())
        {
            found.add(path, "names no program; write the first words of the argument list, for example [pytest]");
        } else if let Some(word) = command.argv.iter().find(|word| is_template(word)) {
            found.add(path, format!("\"{word}\" is a template, but words are compared as they stand; write the word itself"));
        }
    }
    for image in &spec.images {
        if image.trim().is_empty() || image.contains(char::is_whitespace) {
            found.add(format!("spec.images[{image}]"), format!("\"{image}\" is no name of an image; write for example registry.example/team/python:*"));
        }
    }
    for (index, host) in spec.egress.iter().enumerate() {
        if host.host.is_some() == host.cidr.is_some() {
            found.add(
                format!("spec.egress[{index}]"),
                "needs exactly one of host and cidr",
            );
        }
    }
    project::of_policy(spec, &mut found);
    for pattern in spec
        .redaction
        .iter()
        .flat_map(|redaction| &redaction.patterns)
    {
        if let Err(error) = Regex::new(&pattern.regex) {
            let reason = error.to_string();
            let reason = reason
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ");
            found.add(
                format!("spec.redaction.patterns[{}].regex", pattern.name),
                format!("\"{}\" does not compile: {reason}", pattern.regex),
            );
        }
    }
    if let Some(pod) = &spec.pod {
        for (field, names) in [
            ("labels", pod.labels.keys()),
            ("annotations", pod.annotations.keys()),
        ] {
            for name in names.filter(|name| {
                name.split('/')
                    .next()
                    .is_some_and(|p| p.ends_with(crate::GROUP))
                    && name.contains('/')
            }) {
                found.add(
                    format!("spec.pod.{field}[{name}]"),
                    format!("\"{name}\" is the operator's own; choose another prefix"),
                );
            }
        }
    }
    found.sorted()
}

/// Names and aliases that no endpoint but a recorded one answers for.
fn asked_by_nobody_else<'a>(endpoint: &'a Endpoint, behind: &[Endpoint]) -> Vec<&'a str> {
    let names = endpoint.models.iter().flat_map(|model| {
        let aliases = model.aliases.iter().map(String::as_str);
        if model.aliases.is_empty() {
            vec![model.name.as_str()]
        } else {
            aliases.collect()
        }
    });
    let real = |other: &&Endpoint| other.provider != Provider::Replay;
    names
        .filter(|name| {
            !behind
                .iter()
                .filter(real)
                .any(|other| other.model(name).is_some())
        })
        .collect()
}

fn check_endpoint(endpoint: &Endpoint, found: &mut Found) {
    let path = format!("spec.llm[{}]", endpoint.name);
    match (endpoint.provider, &endpoint.replay) {
        (Provider::Replay, None) => {
            found.add(
                path.as_str(),
                "an endpoint of provider replay needs the field replay, which names the cassette",
            );
        }
        (Provider::Replay, Some(_)) | (_, None) => {}
        (_, Some(_)) => found.add(
            format!("{path}.replay"),
            "belongs to endpoints of provider replay; take it away, or change the provider",
        ),
    }
    if let Some(url) = &endpoint.base_url {
        found.add_some(format!("{path}.baseUrl"), url_mistake(url));
    }
    check_address(&path, endpoint, found);
    let public = endpoint.base_url.is_none()
        && matches!(endpoint.provider, Provider::Openai | Provider::Groq);
    if endpoint.secret_ref.is_none() && (public || endpoint.provider == Provider::Azure) {
        found.add(
            format!("{path}.secretRef"),
            format!("is not set, and provider {} asks for a key; name a Secret and its key, or set baseUrl to a server that needs none", endpoint.provider.as_str()),
        );
    }
    if endpoint.models.is_empty() {
        found.add(
            format!("{path}.models"),
            "is empty; name the models that runs may use",
        );
    }
    let names = endpoint.models.iter().flat_map(|model| {
        std::iter::once(model.name.as_str()).chain(model.aliases.iter().map(String::as_str))
    });
    found.repeated(&format!("{path}.models"), "model or alias", names);
    for model in &endpoint.models {
        let path = format!("{path}.models[{}]", model.name);
        check_model(&path, model, found);
        if endpoint.provider != Provider::Azure && model.deployment.is_some() {
            found.add(
                format!("{path}.deployment"),
                "belongs to endpoints of provider azure; take it away, or change the provider",
            );
        }
        if endpoint.provider == Provider::Ollama && model.context_window.is_none() {
            found.add(
                format!("{path}.contextWindow"),
                "is not set; Ollama reserves memory for as many tokens, so say how many, for example 16384",
            );
        }
    }
}

/// What the address of a provider must have, and what the provider adds to it by itself.
fn check_address(path: &str, endpoint: &Endpoint, found: &mut Found) {
    let (provider, url) = (endpoint.provider, endpoint.base_url.as_deref());
    let example = match provider {
        Provider::Azure => "https://NAME.openai.azure.com",
        Provider::Ollama => "http://ollama.models.svc:11434",
        Provider::Openai | Provider::Groq | Provider::Replay => "",
    };
    let own_path = match provider {
        Provider::Azure => &["/openai", "/openai/v1"][..],
        Provider::Ollama => &["/api", "/v1"][..],
        Provider::Openai | Provider::Groq => &["/chat/completions"][..],
        Provider::Replay => &[][..],
    };
    if url.is_none() && !example.is_empty() {
        let provider = provider.as_str();
        found.add(
            format!("{path}.baseUrl"),
            format!("is not set; an endpoint of provider {provider} needs its address, for example {example}"),
        );
    }
    let bare = url.unwrap_or_default().trim_end_matches('/');
    if let Some(end) = own_path.iter().find(|end| bare.ends_with(**end)) {
        found.add(
            format!("{path}.baseUrl"),
            format!("ends with {end}, which is added by itself; write the address without it"),
        );
    }
    match (provider, endpoint.api_version.as_deref()) {
        (_, None) => {}
        (Provider::Azure, Some(version)) if is_version(version) => {}
        (Provider::Azure, Some(version)) => found.add(
            format!("{path}.apiVersion"),
            format!("\"{version}\" is no version; write a date, for example 2024-10-21 or 2025-04-01-preview, or leave it out for the v1 path"),
        ),
        (_, Some(_)) => found.add(
            format!("{path}.apiVersion"),
            "belongs to endpoints of provider azure; take it away, or change the provider",
        ),
    }
}

/// Whether it is a version of Azure's API: a date, with `-preview` behind it or not, or `preview`.
fn is_version(version: &str) -> bool {
    let date = version.strip_suffix("-preview").unwrap_or(version);
    let digits = |part: &str, many: usize| {
        part.len() == many && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut parts = date.split('-');
    let lengths = [4, 2, 2].iter();
    version == "preview"
        || lengths
            .into_iter()
            .all(|many| parts.next().is_some_and(|part| digits(part, *many)))
            && parts.next().is_none()
}

fn check_model(path: &str, model: &Model, found: &mut Found) {
    for capability in &model.capabilities {
        if !CAPABILITIES.contains(&capability.as_str()) {
            found.add(
                format!("{path}.capabilities[{capability}]"),
                format!(
                    "\"{capability}\" is unknown; known are: {}",
                    list(CAPABILITIES)
                ),
            );
        }
    }
    let (window, answer) = (model.window(), model.most_output());
    if answer >= window {
        found.add(
            format!("{path}.maxOutputTokens"),
            format!("{answer} tokens of answer leave no room for a question in a context window of {window}; lower it, or set contextWindow"),
        );
    }
}

/// The address is part of plan and status: nothing secret may be in it.
pub(super) fn url_mistake(url: &str) -> Option<String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Some(format!(
            "\"{url}\" is no address; begin it with https:// or http://"
        ));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Some(String::from(
            "has a user or key before the host; put the key into a Secret and name it in secretRef",
        ));
    }
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Some(format!(
            "\"{url}\" has no host; write for example https://api.example.com/v1"
        ));
    }
    rest.contains(['?', '#']).then(|| {
        String::from("has a query or fragment; write the address only, keys belong into a Secret")
    })
}

pub(super) fn required_gate_mistake(gate: &str) -> Option<String> {
    let kinds = list(GateKind::ALL.map(GateKind::as_str));
    match gate.split_once('/') {
        None | Some((_, "")) => Some(format!("\"{gate}\" is not of the form kind/name or kind/*")),
        Some((kind, _)) if GateKind::ALL.iter().all(|known| known.as_str() != kind) => {
            Some(format!("\"{kind}\" is no kind of gate; known are: {kinds}"))
        }
        Some(_) => None,
    }
}
