//! The `CustomResourceDefinition`s as the chart ships them: what derives from the types, and what only the whole schema can say.

use crate::{AgentRun, SopDefinition, ToolPolicy};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, ValidationRule,
};
use kube::CustomResourceExt;
use serde_json::json;

/// Longest name of an `AgentRun`: Jobs (`<run>-<n>`) and their pods add to it.
pub const MAX_RUN_NAME: usize = 50;

/// Fields of an `AgentRun`'s spec that may change after creation, each by a rule of its own or freely.
const MUTABLE: [&str; 5] = [
    "suspend",
    "cancel",
    "decisions",
    "ttlSecondsAfterFinished",
    "investment",
];

/// All three definitions, as files of the chart's `crds` folder: file name and object.
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("agentruns.sopwith.dev.yaml", agent_run()),
        (
            "sopdefinitions.sopwith.dev.yaml",
            with_status_default(SopDefinition::crd()),
        ),
        (
            "toolpolicies.sopwith.dev.yaml",
            with_status_default(ToolPolicy::crd()),
        ),
    ]
}

fn agent_run() -> CustomResourceDefinition {
    let mut definition = with_status_default(AgentRun::crd());
    if let Some(root) = root(&mut definition) {
        root.x_kubernetes_validations = Some(vec![rule(
            &format!("size(self.metadata.name) <= {MAX_RUN_NAME}"),
            &format!(
                "metadata.name may have at most {MAX_RUN_NAME} characters: Jobs and pods are named after it"
            ),
        )]);
        if let Some(spec) = root.properties.as_mut().and_then(|p| p.get_mut("spec")) {
            let fields: Vec<String> = spec
                .properties
                .iter()
                .flatten()
                .map(|(name, _)| name.clone())
                .collect();
            spec.x_kubernetes_validations = Some(spec_rules(&fields));
        }
    }
    definition
}

/// Rules of the spec. Immutability is compared here rather than on the fields, since a rule with `oldSelf` on a field does
/// not fire when an optional field appears or goes.
fn spec_rules(fields: &[String]) -> Vec<ValidationRule> {
    let mut rules = vec![
        rule(
            "has(self.idea) != has(self.ideaFrom)",
            "spec needs exactly one of idea and ideaFrom",
        ),
        rule(
            "!has(self.project) || !has(self.project.source) || [has(self.project.source.git), has(self.project.source.run), has(self.project.source.upload)].filter(x, x).size() == 1",
            "spec.project.source needs exactly one of git, run and upload",
        ),
        rule(
            "!has(self.incremental) || !self.incremental || has(self.recoverFrom) || (has(self.project) && has(self.project.source))",
            "spec.incremental works on an existing project: name it in spec.project.source or spec.recoverFrom",
        ),
        rule(
            "!has(self.reqaFile) || (has(self.incremental) && self.incremental)",
            "spec.reqaFile belongs to incremental runs: set spec.incremental to true, or take it away",
        ),
        rule(
            "!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)",
            "spec.cancel cannot be taken back: create a new AgentRun",
        ),
        rule(
            "!has(oldSelf.decisions) || (has(self.decisions) && oldSelf.decisions.all(o, self.decisions.exists(n, n == o)))",
            "spec.decisions can be added to, but no decision can be changed or removed",
        ),
        rule(
            "(has(self.decisions) ? self.decisions.size() : 0) <= (has(oldSelf.decisions) ? oldSelf.decisions.size() : 0) + 1",
            "spec.decisions takes one more decision in a request, as each is proven against who makes the request",
        ),
        ValidationRule {
            // Rules with a plain oldSelf are not asked when an object is created.
            optional_old_self: Some(true),
            ..rule(
                "oldSelf.hasValue() || !has(self.decisions) || self.decisions.size() == 0",
                "spec.decisions must be empty in a new AgentRun: nothing waits for a decision yet",
            )
        },
        rule(
            "(has(oldSelf.investment) ? has(self.investment) && double(self.investment) >= double(oldSelf.investment) : !has(self.investment) || double(self.investment) >= 3.0)",
            "spec.investment may be raised, not lowered or removed (unset means 3.0)",
        ),
    ];
    rules.extend(fields.iter().filter(|field| !MUTABLE.contains(&field.as_str())).map(|field| {
        rule(
            &format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"),
            &format!("spec.{field} cannot be changed after creation: create a new AgentRun"),
        )
    }));
    rules
}

/// kstatus calls an object without `observedGeneration` and conditions current; this default says otherwise.
fn with_status_default(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    if let Some(status) = root(&mut definition)
        .and_then(|r| r.properties.as_mut())
        .and_then(|p| p.get_mut("status"))
    {
        status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        // With a default the field is never null, and a nullable object cannot be pruned to its default.
        status.nullable = None;
    }
    definition
}

fn root(definition: &mut CustomResourceDefinition) -> Option<&mut JSONSchemaProps> {
    definition
        .spec
        .versions
        .first_mut()?
        .schema
        .as_mut()?
        .open_api_v3_schema
        .as_mut()
}

fn rule(rule: &str, message: &str) -> ValidationRule {
    ValidationRule {
        rule: rule.to_owned(),
        message: Some(message.to_owned()),
        ..ValidationRule::default()
    }
}

/// One definition as YAML with a line that says where it comes from.
///
/// # Errors
/// Where the object cannot be written as YAML, which would be a fault of the types.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    Ok(format!(
        "# Generated from crds/src by `make generate`. Do not edit.\n{}",
        serde_saphyr::to_string(definition)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_field_is_immutable_or_named_as_mutable() {
        let definition = agent_run();
        let schema = definition.spec.versions[0]
            .schema
            .as_ref()
            .unwrap()
            .open_api_v3_schema
            .as_ref()
            .unwrap();
        let spec = &schema.properties.as_ref().unwrap()["spec"];
        let rules = spec.x_kubernetes_validations.as_ref().unwrap();
        for field in spec.properties.as_ref().unwrap().keys() {
            let mentioned = rules
                .iter()
                .any(|r| r.rule.contains("oldSelf") && r.rule.contains(&format!(".{field}")));
            assert!(
                mentioned || MUTABLE.contains(&field.as_str()),
                "{field} has no rule"
            );
        }
    }

    #[test]
    fn every_field_is_described() {
        fn walk(path: &str, schema: &JSONSchemaProps, missing: &mut Vec<String>) {
            for (name, property) in schema.properties.iter().flatten() {
                let here = format!("{path}.{name}");
                // Types of Kubernetes itself describe their own fields.
                if property.description.is_none()
                    && !["metadata", "apiVersion", "kind"].contains(&name.as_str())
                {
                    missing.push(here.clone());
                }
                walk(&here, property, missing);
            }
        }
        let mut missing = Vec::new();
        for (file, definition) in definitions() {
            let schema = definition.spec.versions[0]
                .schema
                .as_ref()
                .unwrap()
                .open_api_v3_schema
                .as_ref()
                .unwrap();
            walk(file, schema, &mut missing);
        }
        assert_eq!(missing, Vec::<String>::new());
    }
}
