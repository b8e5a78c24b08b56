//! A run by itself.

use super::{Finding, Found, project, text::file_mistake};
use crate::{AgentRunSpec, agent_run::DecisionVerdict};

pub(super) fn check(spec: &AgentRunSpec) -> Vec<Finding> {
    let mut found = Found::default();
    match (&spec.idea, &spec.idea_from) {
        (Some(_), Some(_)) => found.add(
            "spec.idea",
            "is set, and so is ideaFrom; take one of them away",
        ),
        (None, None) => found.add(
            "spec.idea",
            "is not set; say in a line what the team is to build, or name a ConfigMap in ideaFrom",
        ),
        (Some(idea), None) if idea.trim().is_empty() => {
            found.add(
                "spec.idea",
                "is empty; say in a line what the team is to build",
            );
        }
        _ => {}
    }
    if spec.sop_ref.name.trim().is_empty() {
        found.add(
            "spec.sopRef.name",
            "is empty; name a SopDefinition of this namespace",
        );
    }
    found.repeated(
        "spec.inputs",
        "input",
        spec.inputs.iter().map(|input| input.name.as_str()),
    );
    for input in &spec.inputs {
        if input.value.is_some() == input.config_map_key_ref.is_some() {
            found.add(
                format!("spec.inputs[{}]", input.name),
                "needs exactly one of value and configMapKeyRef",
            );
        }
    }
    if spec.rounds == Some(0) {
        found.add("spec.rounds", "is 0; a run needs at least one pass forward");
    }
    if let Some(name) = spec
        .project
        .as_ref()
        .and_then(|project| project.name.as_ref())
    {
        let simple = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        if !simple {
            found.add(
                "spec.project.name",
                format!("\"{name}\" names a folder; use letters, digits, `-`, `_` and `.`, with a letter or digit at both ends"),
            );
        }
    }
    project::of_run(spec, &mut found);
    incremental(spec, &mut found);
    memory(spec, &mut found);
    for (index, decision) in spec.decisions.iter().enumerate() {
        if (decision.verdict == DecisionVerdict::Backtrack) != decision.to.is_some() {
            found.add(
                format!("spec.decisions[{index}].to"),
                "names the step to go back to, and belongs to the verdict Backtrack only",
            );
        }
    }
    found.sorted()
}

/// What an incremental run needs, and what belongs to one only.
fn incremental(spec: &AgentRunSpec, found: &mut Found) {
    let source = spec
        .project
        .as_ref()
        .and_then(|project| project.source.as_ref());
    let incremental = spec.incremental == Some(true);
    if incremental && source.is_none() && spec.recover_from.is_none() {
        found.add(
            "spec.incremental",
            "is true, and there is no project to work on; name one in spec.project.source (git, run or upload) or recover from a run, or begin \
             a new project without it",
        );
    }
    let Some(file) = &spec.reqa_file else {
        return;
    };
    found.add_some("spec.reqaFile", file_mistake(file));
    if !incremental {
        found.add(
            "spec.reqaFile",
            "belongs to incremental runs; set spec.incremental to true, or take it away",
        );
    }
}

/// Facts are kept by the name of the project; the run's own name, which else stands for it, no other run has.
fn memory(spec: &AgentRunSpec, found: &mut Found) {
    let project = spec.project.as_ref();
    let source = project.and_then(|project| project.source.as_ref());
    let named = project.is_some_and(|project| project.name.is_some())
        || source.is_some_and(|source| source.run.is_some())
        || spec.recover_from.is_some();
    if spec.long_term_memory == Some(true) && !named {
        found.add(
            "spec.longTermMemory",
            "is true, and facts are kept for the later runs of a project by its name, which is not set; name the project in spec.project.name",
        );
    }
}
