//! Steps, their contracts and their actions.

use super::Gate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One step of the procedure: who, from what, to what, and what must hold at its end.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Name of the step.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The role that does it. None: a step of gates only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub role: Option<String>,
    /// Steps that must have finished or been skipped before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub needs: Vec<String>,
    /// CEL; where it is false the step is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
    /// CEL that must hold before the step may begin; otherwise the run fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub prerequisite: Option<String>,
    /// Who is responsible, accountable, consulted and informed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raci: Option<Raci>,
    /// Artifacts of earlier steps that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["artifact"])))]
    pub inputs: Vec<ArtifactRef>,
    /// Artifacts that it hands over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub outputs: Vec<Artifact>,
    /// What is done, in this order, or as the role's model picks (`reactMode: Free` of the role).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub actions: Vec<Action>,
    /// What must hold at its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub gates: Vec<Gate>,
    /// Most seconds of one attempt. Default: 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
    /// Seconds of working time without a trace after which the step counts as stuck. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 86400))]
    pub stuck_after_seconds: Option<u32>,
    /// What happens to a stuck step. Default: Alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_stuck: Option<OnStuck>,
}

impl Step {
    /// All its gates: of its actions, of its loops, its own.
    pub fn all_gates(&self) -> impl Iterator<Item = &Gate> {
        let of_actions = self.actions.iter().flat_map(|action| {
            let of_loop = action.repeat.iter().flat_map(|repeat| {
                let inner = repeat.actions.iter().flat_map(|action| &action.gates);
                inner.chain(&repeat.gates)
            });
            of_loop.chain(&action.gates)
        });
        of_actions.chain(&self.gates)
    }
}

/// What happens to a stuck step.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum OnStuck {
    /// People are told.
    #[default]
    Alert,
    /// The launch is ended, and a new one goes on after the last finished step. Three launches in a row without a newly finished
    /// step end the run.
    Restart,
    /// The run ends as cancelled.
    Cancel,
}

/// Who is responsible, accountable, consulted and informed: names of roles, teams or people.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Raci {
    /// Who does the work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub responsible: Vec<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub accountable: Vec<String>,
    /// Who is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub consulted: Vec<String>,
    /// Who is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub informed: Vec<String>,
}

/// An artifact that a step reads.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ArtifactRef {
    /// Name of the artifact, as some earlier step declares it.
    #[schemars(length(min = 1, max = 63))]
    pub artifact: String,
    /// Whether the step can do without it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

/// An artifact that a step hands over: one file (`path`) or a set of files (`glob`).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.path) != has(self.glob)", "message": "an artifact needs exactly one of path and glob"}]))]
pub struct Artifact {
    /// Name, used as `artifacts.NAME` in expressions and templates.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    )]
    pub name: String,
    /// Path in the project, relative; a minijinja template over `layout`, `parameters` and `project`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// Pattern of paths in the project (`**` for any depth); a minijinja template as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub glob: Option<String>,
    /// Media type, for people and tools. Default: by the file's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub media_type: Option<String>,
    /// One of the SOP's `schemas`, that a JSON artifact must match when the step ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub schema: Option<String>,
    /// Whether later steps may not change it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<bool>,
}

/// One action of a step: exactly one of `prompt`, `command`, `tool`, `render` and `loop`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "[has(self.prompt), has(self.command), has(self.tool), has(self.render), has(self.loop)].filter(x, x).size() == 1", "message": "an action needs exactly one of prompt, command, tool, render and loop"}]))]
pub struct Action {
    /// Name of the action.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// What it is for, in words: a role that picks its actions itself chooses by it (MetaGPT: desc of an action).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub description: Option<String>,
    /// CEL; where it is false the action is skipped. Of a role that picks its actions itself: it cannot be picked then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
    /// What must hold after the action.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub gates: Vec<Gate>,
    /// Most seconds of the action, all items of a loop together, its gates not. Default: those of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
    /// The work of an action without a loop.
    #[serde(flatten)]
    pub work: Work,
    /// Repeats actions over a list.
    #[serde(default, rename = "loop", skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Loop>,
}

/// What an action does.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Asks a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Prompt>,
    /// Runs a program in a workbench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Calls a tool of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolCall>,
    /// Writes a file from a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub render: Option<Render>,
}

/// Asks a model and writes its answer into the project.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Prompt {
    /// Name of the template of the system message. Default: made from the role's profile, goal and constraints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub system: Option<String>,
    /// Name of the template of the user message.
    #[schemars(length(min = 1, max = 63))]
    pub template: String,
    /// One of the SOP's `schemas`: the answer must be JSON that matches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub schema: Option<String>,
    /// Where the answer goes.
    pub writes: PromptWrites,
}

/// Where a model's answer goes: to an artifact, to a path, or to the files it names itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "[has(self.artifact), has(self.path), has(self.files)].filter(x, x).size() == 1", "message": "writes needs exactly one of artifact, path and files"}]))]
pub struct PromptWrites {
    /// Name of an output of the step with a `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub artifact: Option<String>,
    /// A path in the project; a minijinja template, which in a loop sees `item`. A single fenced code
    /// block around the answer is taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// Patterns of the files that the answer may write. The answer is JSON: `{"files": [{"path", "content"}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub files: Option<Vec<String>>,
}

/// Runs a program in a workbench container.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// The program and its arguments; no shell is involved. Each is a minijinja template.
    #[schemars(length(min = 1, max = 64))]
    pub argv: Vec<String>,
    /// The workbench's image; the policy must allow it.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Folder to run in, relative to the project. Default: the project's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub working_dir: Option<String>,
    /// Patterns of files that are taken from the workbench into the project afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub collect: Vec<String>,
    /// What the program may reach. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkAccess>,
    /// Most seconds. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
}

/// What a command may reach.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum NetworkAccess {
    /// Nothing.
    #[default]
    None,
    /// Itself.
    Loopback,
    /// The hosts that the policy names for the command.
    Egress,
}

/// Calls a tool of the policy. A call that fails fails the attempt.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ToolCall {
    /// Name of the tool; of an MCP server `NAME/FUNCTION`. The step's role must be granted it.
    #[schemars(length(min = 1, max = 192))]
    pub name: String,
    /// Its arguments; each value is a minijinja template. Where the tool takes a number, a boolean, a list or an object,
    /// the rendered text is read as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub arguments: BTreeMap<String, String>,
    /// A path in the project to which its result is written; a minijinja template. Default: it is in the trace only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
}

/// Writes a file from a template, without a model.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Render {
    /// Name of the template.
    #[schemars(length(min = 1, max = 63))]
    pub template: String,
    /// A path in the project; a minijinja template.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
}

/// Repeats actions: over a list, until a condition holds, or both. Loops do not nest.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Loop {
    /// CEL that gives the list; the actions are done for each of its items. Without it they repeat until `until` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub for_each: Option<String>,
    /// Name under which templates and expressions see the item. Default: item.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    )]
    pub item_name: Option<String>,
    /// How many items are worked on at once. From 2 on, each item sees the project as it was when the loop began and what it
    /// wrote itself, and no two items may write the same file differently; messages come in the order of the items. For
    /// prompts and renders only. Default: 1, one after the other, each seeing what those before it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub parallel: Option<u32>,
    /// What is done in a pass.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub actions: Vec<LoopAction>,
    /// CEL; where it holds after a pass, no further pass follows over this item. `pass` is the number of the pass, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub until: Option<String>,
    /// Most passes over one item where `until` does not hold before, a number or CEL, for example
    /// `options.maxAutoSummarizeCode`: from 0, which leaves the loop and its gates out, to 100; -1 is 100. When they are over the
    /// line moves on: what must hold then belongs into a gate. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub max: Option<String>,
    /// What must hold after each item's last pass. Of a gate in a loop, `Retry` begins the item again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub gates: Vec<Gate>,
}

/// One action of a loop: exactly one of `prompt`, `command`, `tool` and `render`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "[has(self.prompt), has(self.command), has(self.tool), has(self.render)].filter(x, x).size() == 1", "message": "an action of a loop needs exactly one of prompt, command, tool and render"}]))]
pub struct LoopAction {
    /// Name of the action.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// CEL; where it is false the action is skipped for the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
    /// What must hold after the action. `Retry` begins the item again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub gates: Vec<Gate>,
    /// Most seconds of the action in one pass, its gates not. Default: those of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
    /// The work.
    #[serde(flatten)]
    pub work: Work,
}
