//! The sample `software-company`, as it is and with one deliberate change.

use crate::{fixture, repository};
use anyhow::{Context as _, Result, ensure};
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, sop_definition::GateKind};

/// Name of the sample's run.
pub const RUN: &str = "blackjack";
/// Name of the sample's endpoint credentials.
pub const SECRET: &str = "model-provider";

/// Every object of the sample but the Secret, in the order in which a user applies them.
pub fn objects() -> Result<Vec<DynamicObject>> {
    let folder = repository().join("config/samples/software-company");
    let mut objects = Vec::new();
    for file in [
        "sop.yaml",
        "cassette.yaml",
        "toolpolicy.yaml",
        "agentrun.yaml",
    ] {
        objects.extend(fixture::read(folder.join(file))?);
    }
    Ok(objects)
}

/// The Secret that the sample's policy grants. Replay has no use for the key, but the run still asks for it.
pub fn secret() -> Result<DynamicObject> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SECRET },
        "stringData": { "api-key": "not-a-real-key" }
    });
    Ok(serde_json::from_value(secret)?)
}

/// The object of a kind.
pub fn of_kind<'a>(objects: &'a mut [DynamicObject], kind: &str) -> Result<&'a mut DynamicObject> {
    objects
        .iter_mut()
        .find(|object| {
            object
                .types
                .as_ref()
                .is_some_and(|types| types.kind == kind)
        })
        .with_context(|| format!("the sample has no {kind}"))
}

/// Replaces a text wherever it stands in the strings of a value, and says how often it did.
pub fn replace(value: &mut Value, from: &str, to: &str) -> usize {
    match value {
        Value::String(text) => {
            let found = text.matches(from).count();
            if found > 0 {
                *text = text.replace(from, to);
            }
            found
        }
        Value::Array(values) => values
            .iter_mut()
            .map(|value| replace(value, from, to))
            .sum(),
        Value::Object(values) => values
            .values_mut()
            .map(|value| replace(value, from, to))
            .sum(),
        _ => 0,
    }
}

/// Changes one text of one object, and makes sure that it was there.
pub fn change(objects: &mut [DynamicObject], kind: &str, from: &str, to: &str) -> Result<()> {
    let object = of_kind(objects, kind)?;
    let found = replace(&mut object.data, from, to);
    ensure!(
        found > 0,
        "{} {} does not contain \"{from}\"",
        kind,
        object.name_any()
    );
    Ok(())
}

/// The small procedure of `e2e/fixtures` with one text changed.
pub fn small_sop_with(from: &str, to: &str) -> Result<Vec<DynamicObject>> {
    let mut objects = fixture::read(repository().join("e2e/fixtures/small/sop.yaml"))?;
    change(&mut objects, "SopDefinition", from, to)?;
    Ok(objects)
}

/// What must depend neither on how answers came nor on who was killed meanwhile: artifacts, attempts, verdicts, tokens and cost. The evidence of a
/// command gate has its reports in it, and those say when they were written.
pub fn results(run: &AgentRun) -> Result<Value> {
    let status = run.status.clone().context("no status")?;
    let steps: Vec<_> = status
        .steps
        .iter()
        .map(|step| {
            let gates = step.gates.iter().map(|g| {
                let evidence = g.evidence.as_ref().filter(|_| g.kind != GateKind::Command);
                json!([g.name, g.verdict, g.observed, evidence])
            });
            let gates: Vec<_> = gates.collect();
            json!([
                step.name,
                step.attempts,
                step.artifacts,
                step.tokens,
                step.cost,
                step.previous_failure,
                gates
            ])
        })
        .collect();
    Ok(json!({ "steps": steps, "usage": status.usage, "phase": status.phase }))
}
