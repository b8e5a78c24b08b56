//! What expressions and templates see, as JSON. Pure but for the tree it reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use serde_json::{Map, Value, json};
use sopwith_crds::{
    contract::{memory::Fact, plan::RunPlan, snapshot::Message},
    language::{Files, Since, TemplateError, Templates},
    sop_definition::{Artifact, Role, Step},
};

use crate::{
    changes::diff,
    messages::seen,
    recall,
    tree::{Tree, TreeError},
};

/// The project's tree as engine and templates share it, and what it was before.
#[derive(Debug, Clone, Default)]
pub struct SharedTree {
    now: Arc<RwLock<Tree>>,
    before: Arc<RwLock<BTreeMap<Since, Tree>>>,
    /// Paths that templates read since somebody asked.
    read: Arc<Mutex<BTreeSet<String>>>,
    /// Paths that no comparison shows.
    hidden: Arc<OnceLock<Vec<String>>>,
}

impl SharedTree {
    /// The same, to be changed apart from this one.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            now: Arc::new(RwLock::new(self.read(Clone::clone))),
            before: self.before.clone(),
            read: Arc::default(),
            hidden: self.hidden.clone(),
        }
    }

    /// What changes in these files is not told: the system keeps them, and nobody has to look at that. Said once.
    pub fn hide(&self, paths: &[String]) {
        let _ = self.hidden.set(paths.to_vec());
    }

    /// The paths that templates read since this was asked last.
    pub fn take_read(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the tree.
    pub fn read<T>(&self, look: impl FnOnce(&Tree) -> T) -> T {
        look(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the tree.
    pub fn write<T>(&self, change: impl FnOnce(&mut Tree) -> T) -> T {
        change(&mut self.now.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on, what changes is told against this tree; nothing is known before the first.
    pub fn remember(&self, since: Since, tree: Tree) {
        let mut before = self.before.write().unwrap_or_else(PoisonError::into_inner);
        before.insert(since, tree);
    }
}

impl Files for SharedTree {
    fn file(&self, path: &str) -> Option<String> {
        let text = self.read(|tree| {
            tree.get(path)
                .and_then(|file| String::from_utf8(file.bytes.to_vec()).ok())
        })?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(path.to_owned());
        Some(text)
    }

    fn glob(&self, pattern: &str) -> Vec<String> {
        self.read(|tree| tree.glob(pattern)).unwrap_or_default()
    }

    fn diff(&self, since: Since) -> String {
        let before = self.before.read().unwrap_or_else(PoisonError::into_inner);
        let nothing = Tree::default();
        let shown = |tree: &Tree| {
            let mut tree = tree.clone();
            for path in self.hidden.get().into_iter().flatten() {
                tree.remove(path);
            }
            tree
        };
        let before = shown(before.get(&since).unwrap_or(&nothing));
        self.read(|tree| diff(&before, &shown(tree)))
    }
}

/// Where an artifact is, its templates rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the artifact.
    pub name: String,
    /// The step that hands it over.
    pub step: String,
    /// Path of its one file.
    pub path: Option<String>,
    /// Pattern of its files.
    pub glob: Option<String>,
    /// Name of the schema that its JSON must match.
    pub schema: Option<String>,
    /// Whether later steps may not change it.
    pub frozen: bool,
}

impl Place {
    /// The paths of its files that are there.
    pub fn paths(&self, tree: &Tree) -> Result<Vec<String>, TreeError> {
        match (&self.path, &self.glob) {
            (Some(path), _) => Ok(tree.get(path).map(|_| path.clone()).into_iter().collect()),
            (None, Some(glob)) => tree.glob(glob),
            (None, None) => Ok(Vec::new()),
        }
    }
}

/// The places of all artifacts of a plan.
pub fn places(plan: &RunPlan, templates: &Templates) -> Result<Vec<Place>, TemplateError> {
    let context = base(plan);
    let rendered = |text: &Option<String>| {
        text.as_ref()
            .map(|text| templates.render_inline(text, &context))
            .transpose()
    };
    let of = |step: &Step, artifact: &Artifact| {
        Ok(Place {
            name: artifact.name.clone(),
            step: step.name.clone(),
            path: rendered(&artifact.path)?,
            glob: rendered(&artifact.glob)?,
            schema: artifact.schema.clone(),
            frozen: artifact.freeze.unwrap_or(false),
        })
    };
    plan.steps
        .iter()
        .flat_map(|step| step.outputs.iter().map(move |artifact| of(step, artifact)))
        .collect()
}

/// What holds for the whole run.
pub fn base(plan: &RunPlan) -> Value {
    let options = &plan.options;
    json!({
        "idea": options.idea,
        "inputs": options.inputs,
        "parameters": options.parameters,
        "options": {
            "idea": options.idea,
            "environment": options.environment,
            "rounds": options.rounds,
            "codeReview": options.code_review,
            "runTests": options.run_tests,
            "implement": options.implement,
            "incremental": options.incremental,
            "maxAutoSummarizeCode": options.max_auto_summarize_code,
            "reqaFile": options.reqa_file,
            "projectSource": options.project_source,
            "recoverFrom": options.recover_from,
            "promptSchema": options.prompt_schema,
            "projectName": options.project_name,
            "investment": options.investment,
        },
        "project": {"name": options.project_name},
        "layout": plan.layout,
    })
}

/// What an attempt adds.
#[derive(Debug, Clone, Default)]
pub struct Moment<'a> {
    /// The role that works.
    pub role: Option<&'a Role>,
    /// What the attempt has to mend.
    pub findings: &'a str,
    /// Counted from 1.
    pub round: u32,
    /// Counted from 1.
    pub attempt: u32,
    /// In a loop, the number of the pass and how often the item was begun again.
    pub lap: Option<(u32, u32)>,
    /// In a loop over a list, the item and its name.
    pub item: Option<(&'a str, &'a Value)>,
    /// What the role remembers, oldest first.
    pub messages: Vec<&'a Message>,
    /// What is recalled of earlier runs, nearest first.
    pub recalled: Vec<&'a Fact>,
}

/// Everything that holds at a moment in a step. Of the artifacts it sees those that it hands over and those that it declares to
/// read, as the checker has it.
pub fn at(
    plan: &RunPlan,
    step: &Step,
    places: &[Place],
    tree: &Tree,
    moment: &Moment<'_>,
) -> Value {
    let mut context = base(plan);
    let Some(object) = context.as_object_mut() else {
        return context;
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let role = moment.role.map_or_else(
        || json!({"name": "", "profile": "", "goal": "", "constraints": ""}),
        |role| json!({"name": role.name, "profile": text(&role.profile), "goal": text(&role.goal), "constraints": text(&role.constraints)}),
    );
    object.insert("role".into(), role);
    let artifacts: Map<String, Value> = places
        .iter()
        .filter(|place| {
            place.step == step.name || step.inputs.iter().any(|input| input.artifact == place.name)
        })
        .map(|place| (place.name.clone(), artifact(place, tree)))
        .collect();
    object.insert("artifacts".into(), Value::Object(artifacts));
    object.insert("findings".into(), json!(moment.findings));
    object.insert("messages".into(), seen(&moment.messages));
    object.insert("recalled".into(), recall::seen(&moment.recalled));
    object.insert("round".into(), json!(moment.round));
    object.insert("attempt".into(), json!(moment.attempt));
    if let Some((pass, retry)) = moment.lap {
        object.insert("pass".into(), json!(pass));
        object.insert("retry".into(), json!(retry));
    }
    if let Some((name, item)) = moment.item {
        object.insert(name.to_owned(), item.clone());
    }
    context
}

fn artifact(place: &Place, tree: &Tree) -> Value {
    let paths = place.paths(tree).unwrap_or_default();
    let text = place.path.as_ref().and_then(|path| tree.text(path));
    let json: Option<Value> = text
        .as_ref()
        .and_then(|text| serde_json::from_str(text).ok());
    json!({"exists": !paths.is_empty(), "paths": paths, "text": text, "json": json})
}

/// How a loop's item is named in keys and messages: its `path` or `name`, or itself.
pub fn label(item: &Value) -> String {
    let named = ["path", "name"]
        .iter()
        .find_map(|field| item.get(*field).and_then(Value::as_str));
    named
        .or(item.as_str())
        .map_or_else(|| item.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sopwith_crds::sop_definition::ArtifactRef;

    #[test]
    fn artifacts_are_seen_by_name_with_text_and_json() {
        let plan = RunPlan {
            steps: vec![Step {
                name: "s".into(),
                outputs: vec![
                    Artifact {
                        name: "doc".into(),
                        path: Some("{{ layout.docs }}/{{ project.name }}.json".into()),
                        ..Artifact::default()
                    },
                    Artifact {
                        name: "code".into(),
                        glob: Some("**/*.py".into()),
                        ..Artifact::default()
                    },
                ],
                ..Step::default()
            }],
            layout: [("docs".to_owned(), "docs".to_owned())].into(),
            options: sopwith_crds::contract::plan::RunOptions {
                project_name: "game".into(),
                ..Default::default()
            },
            ..RunPlan::default()
        };
        let places = places(&plan, &Templates::empty()).unwrap();
        let mut tree = Tree::default();
        let maker = &plan.steps[0];
        let before = at(&plan, maker, &places, &tree, &Moment::default());
        assert_eq!(
            before["artifacts"]["doc"],
            json!({"exists": false, "paths": [], "text": null, "json": null})
        );
        tree.write("docs/game.json", Bytes::from_static(b"{\"a\": 1}"), false)
            .unwrap();
        tree.write("p/x.py", Bytes::from_static(b"x"), false)
            .unwrap();
        let item = json!({"path": "p"});
        let moment = Moment {
            item: Some(("file", &item)),
            attempt: 2,
            round: 1,
            ..Moment::default()
        };
        let after = at(&plan, maker, &places, &tree, &moment);
        assert_eq!(after["artifacts"]["doc"]["json"]["a"], 1);
        assert_eq!(after["artifacts"]["code"]["paths"], json!(["p/x.py"]));
        assert_eq!(
            (after["file"]["path"].as_str(), after["attempt"].as_u64()),
            (Some("p"), Some(2))
        );
        let reader = Step {
            inputs: vec![ArtifactRef {
                artifact: "doc".into(),
                ..ArtifactRef::default()
            }],
            ..Step::default()
        };
        let seen = at(&plan, &reader, &places, &tree, &moment);
        let names: Vec<&String> = seen["artifacts"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["doc"]);
    }

    #[test]
    fn templates_are_told_apart_by_what_they_read_and_see_no_change_of_what_is_hidden() {
        let tree = SharedTree::default();
        tree.hide(&["list".to_owned()]);
        tree.write(|tree| {
            for path in ["a", "list"] {
                tree.write(path, Bytes::from_static(b"x\n"), false).unwrap();
            }
        });
        assert_eq!(
            tree.diff(Since::Run),
            "--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+x\n"
        );
        assert_eq!(tree.file("none"), None);
        assert_eq!(tree.file("list").as_deref(), Some("x\n"));
        let beside = tree.beside();
        assert!(beside.file("a").is_some());
        assert_eq!(tree.take_read(), ["list".to_owned()].into());
        assert!(tree.take_read().is_empty());
        assert_eq!(beside.take_read(), ["a".to_owned()].into());
        assert_eq!(beside.diff(Since::Run), tree.diff(Since::Run));
    }

    #[test]
    fn an_item_is_named_by_its_path_or_name() {
        let table = [
            (json!({"path": "a", "name": "b"}), "a"),
            (json!({"name": "b"}), "b"),
            (json!("c"), "c"),
            (json!(4), "4"),
        ];
        for (item, expected) in table {
            assert_eq!(label(&item), expected);
        }
    }
}
