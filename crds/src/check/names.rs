//! What a procedure declares, and what expressions and templates at a place of it may refer to.

use super::{defaults, order::ancestors, text::list};
use crate::{
    SopDefinitionSpec,
    language::{Templates, includes},
    sop_definition::{Artifact, Step},
};
use std::collections::{BTreeMap, BTreeSet};

const OPTIONS: [&str; 14] = [
    "codeReview",
    "environment",
    "idea",
    "implement",
    "incremental",
    "investment",
    "maxAutoSummarizeCode",
    "projectName",
    "projectSource",
    "promptSchema",
    "recoverFrom",
    "reqaFile",
    "rounds",
    "runTests",
];
const INCREMENTAL: [&str; 4] = ["changed", "derived", "edited", "kind"];
const ROLE: [&str; 4] = ["constraints", "goal", "name", "profile"];
const GATE: [&str; 5] = ["findings", "kind", "name", "observed", "threshold"];
const ARTIFACT: [&str; 4] = ["exists", "json", "paths", "text"];
/// Functions of templates, and names that the language itself gives.
const TEMPLATE_GLOBALS: [&str; 12] = [
    "caller",
    "debug",
    "dict",
    "diff",
    "file",
    "glob",
    "kwargs",
    "namespace",
    "range",
    "self",
    "super",
    "varargs",
];
/// Values that are known before anything runs.
const PLACE_ROOTS: [&str; 5] = ["inputs", "layout", "options", "parameters", "project"];
/// Values that are known wherever a step works.
const STEP_ROOTS: [&str; 8] = [
    "artifacts",
    "attempt",
    "findings",
    "idea",
    "incremental",
    "measures",
    "recalled",
    "round",
];
/// Values that are known where the step has a role.
const ROLE_ROOTS: [&str; 2] = ["messages", "role"];
/// Values that are known in a loop.
const LOOP_ROOTS: [&str; 2] = ["pass", "retry"];

/// What a procedure declares, looked up once.
pub(super) struct Declared<'a> {
    pub(super) spec: &'a SopDefinitionSpec,
    /// Texts of all templates by name.
    pub(super) texts: BTreeMap<&'a str, &'a str>,
    /// Whether texts are missing because nobody read the ConfigMaps.
    pub(super) incomplete: bool,
    /// Those templates that compile.
    pub(super) templates: Templates,
    /// Index of the step that makes an artifact, and the artifact.
    pub(super) artifacts: BTreeMap<&'a str, (usize, &'a Artifact)>,
    /// Names of the measures that gates take.
    pub(super) measures: BTreeSet<&'a str>,
    /// For each step the steps that come before it in any case.
    pub(super) ancestors: Vec<BTreeSet<usize>>,
    layout: BTreeSet<String>,
}

impl<'a> Declared<'a> {
    pub(super) fn new(
        spec: &'a SopDefinitionSpec,
        extra_templates: Option<&'a BTreeMap<String, String>>,
    ) -> Self {
        let mut texts: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, text) in extra_templates.into_iter().flatten().chain(&spec.templates) {
            texts.insert(name, text);
        }
        let mut templates = Templates::empty();
        for (name, text) in &texts {
            // Mistakes are reported where the template stands.
            let _ = templates.add(name, text);
        }
        let mut artifacts = BTreeMap::new();
        for (index, step) in spec.steps.iter().enumerate() {
            for artifact in &step.outputs {
                artifacts
                    .entry(artifact.name.as_str())
                    .or_insert((index, artifact));
            }
        }
        Self {
            spec,
            texts,
            incomplete: extra_templates.is_none() && !spec.templates_from.is_empty(),
            templates,
            artifacts,
            measures: spec
                .steps
                .iter()
                .flat_map(Step::all_gates)
                .flat_map(|gate| &gate.measures)
                .map(|measure| measure.name.as_str())
                .collect(),
            ancestors: ancestors(&spec.steps),
            layout: defaults::layout(&spec.layout, "").into_keys().collect(),
        }
    }

    /// The names of templates that a template includes, as far as they are written out.
    pub(super) fn includes(&self, name: &str) -> Vec<&'a str> {
        self.texts
            .get(name)
            .map_or_else(Vec::new, |text| includes(text))
    }
}

/// A place in the procedure, and the values that are known there.
#[derive(Clone)]
pub(super) struct Scope<'a> {
    pub(super) declared: &'a Declared<'a>,
    /// The step, unless only what is known before anything runs can be used.
    pub(super) step: Option<(usize, &'a Step)>,
    /// Whether it is in an action that its role picks itself.
    pub(super) picked: bool,
    /// Whether it is in a loop.
    pub(super) looped: bool,
    /// Name of the loop's item.
    pub(super) item: Option<&'a str>,
    /// Whether a gate has failed.
    pub(super) failed: bool,
    /// Names of reports; `None` where there is no gate.
    pub(super) reports: Option<BTreeSet<&'a str>>,
    /// Whether a command has run.
    pub(super) exit_code: bool,
}

impl<'a> Scope<'a> {
    /// The values that paths of artifacts see.
    pub(super) fn place(declared: &'a Declared<'a>) -> Self {
        Self {
            declared,
            step: None,
            picked: false,
            looped: false,
            item: None,
            failed: false,
            reports: None,
            exit_code: false,
        }
    }

    /// The values that a step's expressions and templates see.
    pub(super) fn step(declared: &'a Declared<'a>, index: usize, step: &'a Step) -> Self {
        Self {
            step: Some((index, step)),
            ..Self::place(declared)
        }
    }

    /// The same within an action.
    pub(super) fn in_action(&self) -> Self {
        let role = self.step.and_then(|(_, step)| step.role.as_ref());
        let roles = &self.declared.spec.roles;
        Self {
            picked: roles
                .iter()
                .any(|known| Some(&known.name) == role && known.picks()),
            ..self.clone()
        }
    }

    /// The same within a loop, whose item has this name where it goes over a list.
    pub(super) fn in_loop(&self, item: Option<&'a str>) -> Self {
        Self {
            looped: true,
            item,
            ..self.clone()
        }
    }

    /// What is wrong with a reference in a template, if anything.
    pub(super) fn template_mistake(&self, reference: &str) -> Option<String> {
        let path: Vec<&str> = reference.split('.').collect();
        if path
            .first()
            .is_some_and(|root| TEMPLATE_GLOBALS.contains(root))
        {
            return None;
        }
        self.mistake(&path)
    }

    /// What is wrong with a reference, if anything.
    pub(super) fn mistake(&self, path: &[&str]) -> Option<String> {
        let root = *path.first()?;
        let member = path.get(1).copied();
        if self.item == Some(root) {
            return None;
        }
        if !self.roots().contains(&root) {
            return Some(self.unknown_root(root));
        }
        let known = |known: &[&str]| {
            member
                .filter(|member| !known.contains(member))
                .map(|member| {
                    format!(
                        "there is no `{root}.{member}`; {root} has: {}",
                        list(known.iter().copied())
                    )
                })
        };
        match root {
            "options" => known(&OPTIONS),
            "incremental" => known(&INCREMENTAL),
            "role" => known(&ROLE),
            "gate" => known(&GATE),
            "project" => known(&["name"]),
            "layout" => known(
                &self
                    .declared
                    .layout
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            ),
            "parameters" => {
                let names: Vec<&str> = self
                    .declared
                    .spec
                    .parameters
                    .iter()
                    .map(|p| p.name.as_str())
                    .collect();
                member.filter(|member| !names.contains(member)).map(|member| {
                    format!("there is no parameter `{member}`; declare it in spec.parameters, which has: {}", list(names))
                })
            }
            "reports" => {
                let names: Vec<&str> = self.reports.iter().flatten().copied().collect();
                member.filter(|member| !names.contains(member)).map(|member| {
                    format!("there is no report `{member}`; the commands of this step's gates leave: {}", list(names))
                })
            }
            "measures" => {
                let measures = &self.declared.measures;
                member
                    .filter(|member| !measures.contains(member))
                    .map(|member| {
                        format!(
                            "there is no measure `{member}`; the gates of the procedure take: {}",
                            list(measures.iter().copied())
                        )
                    })
            }
            "artifacts" => self.artifact_mistake(member?, path.get(2).copied()),
            _ => None,
        }
    }

    fn roots(&self) -> Vec<&'a str> {
        let mut roots = PLACE_ROOTS.to_vec();
        if let Some((_, step)) = self.step {
            roots.extend(STEP_ROOTS);
            roots.extend(ROLE_ROOTS.iter().filter(|_| step.role.is_some()));
        }
        if self.looped {
            roots.extend(LOOP_ROOTS);
        }
        roots.extend(self.item);
        if self.failed {
            roots.push("gate");
        }
        if self.reports.is_some() {
            roots.push("reports");
        }
        if self.exit_code {
            roots.push("exitCode");
        }
        roots
    }

    fn unknown_root(&self, root: &str) -> String {
        let hint = match (root, self.step) {
            ("role" | "messages", Some((_, step))) if step.role.is_none() => {
                format!(" since step `{}` has no role", step.name)
            }
            ("item", Some(_)) if self.item.is_none() => {
                String::from(" outside of a loop over a list")
            }
            ("pass" | "retry", _) => String::from(" outside of a loop"),
            ("gate", _) => String::from(" but in the rules of a gate"),
            ("exitCode" | "reports", _) => String::from(" outside of a gate that runs a command"),
            _ => String::new(),
        };
        format!(
            "there is no value `{root}`{hint}; known here are: {}",
            list(self.roots())
        )
    }

    /// A step may read what it makes and what it declares to read: the contract is complete.
    fn artifact_mistake(&self, name: &str, field: Option<&str>) -> Option<String> {
        let (index, step) = self.step?;
        let Some(&(maker, artifact)) = self.declared.artifacts.get(name) else {
            return Some(unknown_artifact(self.declared, name));
        };
        if maker != index && step.inputs.iter().all(|input| input.artifact != name) {
            return Some(format!(
                "artifact `{name}` is not among the inputs of step `{}`; add {{artifact: {name}}} to them",
                step.name
            ));
        }
        let field = field?;
        if !ARTIFACT.contains(&field) {
            return Some(format!(
                "there is no `artifacts.{name}.{field}`; an artifact has: {}",
                list(ARTIFACT)
            ));
        }
        (artifact.glob.is_some() && ["json", "text"].contains(&field)).then(|| {
            format!("artifact `{name}` is a set of files and has no `{field}`; use `paths`, or file(path) in a template")
        })
    }
}

/// The message on an artifact that no step makes.
pub(super) fn unknown_artifact(declared: &Declared<'_>, name: &str) -> String {
    format!(
        "there is no artifact `{name}`; the outputs of the steps are: {}",
        list(declared.artifacts.keys().copied())
    )
}
