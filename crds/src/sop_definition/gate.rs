//! Gates: what must be true before the line moves on.

use super::Command;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition that a step, action or item must meet, and what happens when it does not.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.kind != 'schema' || has(self.schema)", "message": "a gate of kind schema needs the field schema"},
    {"rule": "self.kind != 'sections' || has(self.sections)", "message": "a gate of kind sections needs the field sections"},
    {"rule": "self.kind != 'expression' || has(self.expression)", "message": "a gate of kind expression needs the field expression"},
    {"rule": "self.kind != 'command' || has(self.command)", "message": "a gate of kind command needs the field command"},
    {"rule": "self.kind != 'review' || has(self.review)", "message": "a gate of kind review needs the field review"},
    {"rule": "(!has(self.schema) || self.kind == 'schema') && (!has(self.sections) || self.kind == 'sections') && (!has(self.expression) || self.kind == 'expression') && (!has(self.command) || self.kind == 'command') && (!has(self.review) || self.kind == 'review') && (!has(self.approval) || self.kind == 'approval') && (!has(self.compliance) || self.kind == 'compliance')", "message": "a gate may only have the field that belongs to its kind"}
]))]
pub struct Gate {
    /// Name of the gate.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// How it judges.
    pub kind: GateKind,
    /// CEL; where it is false the gate is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
    /// Of kind `schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaGate>,
    /// Of kind `sections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sections: Option<SectionsGate>,
    /// Of kind `expression`: CEL that must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub expression: Option<String>,
    /// Of kind `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandGate>,
    /// Of kind `review`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<ReviewGate>,
    /// Of kind `approval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalGate>,
    /// Of kind `compliance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliance: Option<ComplianceGate>,
    /// Numbers that are taken each time the gate judges, before it decides. All attempts of the run together they are the list
    /// `measures.NAME`, the oldest first. Not for gates in loops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub measures: Vec<Measure>,
    /// What happens when it fails: the first rule that applies and has attempts left. Default: Fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub on_failure: Vec<FailureRule>,
    /// What happens when no rule has attempts left. Default: Fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted: Option<AfterFailure>,
}

/// A number that a gate takes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Measure {
    /// Name, used as `measures.NAME`; unique in the procedure.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    )]
    pub name: String,
    /// CEL that gives a number, over what the gate sees; in gates of kind `command` also `exitCode` and `reports.NAME`.
    #[schemars(length(min = 1, max = 2048))]
    pub value: String,
}

/// How a gate judges.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum GateKind {
    /// An artifact matches a JSON Schema.
    Schema,
    /// A document has its headings.
    Sections,
    /// A CEL expression is true.
    #[default]
    Expression,
    /// A program exits with 0, and what its reports say holds.
    Command,
    /// Another model judges.
    Review,
    /// People decide.
    Approval,
    /// The trace follows SOP and RACI.
    Compliance,
}

impl GateKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Schema,
        Self::Sections,
        Self::Expression,
        Self::Command,
        Self::Review,
        Self::Approval,
        Self::Compliance,
    ];

    /// The name as written in a spec and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Sections => "sections",
            Self::Expression => "expression",
            Self::Command => "command",
            Self::Review => "review",
            Self::Approval => "approval",
            Self::Compliance => "compliance",
        }
    }
}

/// An artifact must match a JSON Schema.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct SchemaGate {
    /// Name of the artifact.
    #[schemars(length(min = 1, max = 63))]
    pub artifact: String,
    /// One of the SOP's `schemas`. Default: the artifact's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub schema: Option<String>,
}

/// A Markdown document must have headings, each with text below it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct SectionsGate {
    /// Name of the artifact.
    #[schemars(length(min = 1, max = 63))]
    pub artifact: String,
    /// The headings, compared without case and numbering.
    #[schemars(length(min = 1, max = 64))]
    pub headings: Vec<String>,
}

/// A program must succeed, and so must what its reports say.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct CommandGate {
    /// Programs that run one after the other on the tree under judgement, in this order.
    #[schemars(length(min = 1, max = 8))]
    pub run: Vec<Command>,
    /// Reports that they leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub reports: Vec<Report>,
    /// CEL over `exitCode` (of the last program that ran) and `reports.NAME`. Default: every program exits
    /// with 0, no JUnit report has a failure or is without a test, and no SARIF report has an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub pass: Option<String>,
    /// Tests that must fail, each run by itself after the programs, beside the code under judgement. One that does not fail shows
    /// that this code reaches into its own judging, and fails the gate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub canaries: Vec<Canary>,
}

impl CommandGate {
    /// Every program of the gate with its field: those that judge, then those of the canaries.
    pub fn programs(&self) -> impl Iterator<Item = (String, &Command)> {
        let judging = self.run.iter().enumerate();
        let judging = judging.map(|(index, command)| (format!("run[{index}]"), command));
        let canaries = self.canaries.iter();
        judging
            .chain(canaries.map(|canary| (format!("canaries[{}].run", canary.name), &canary.run)))
    }
}

/// A test that must fail. It comes from the SOP, so that nobody whose work is judged can have written it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Name of the canary.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Path in the project at which the test stands while it runs, in place of a file that is there; a minijinja template.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// Name of the template of the test. It should load the code under judgement as the real tests do, and then fail.
    #[schemars(length(min = 1, max = 63))]
    pub template: String,
    /// The program that must find it failed: the same as judges, with this test alone.
    pub run: Command,
    /// The exit code by which the program says that a test failed. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub exit_code: Option<u8>,
}

/// A report that a program leaves in the workbench.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Report {
    /// Name, used as `reports.NAME`.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    )]
    pub name: String,
    /// How it is written.
    pub format: ReportFormat,
    /// Path in the project.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
}

/// How a report is written, and what expressions see of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum ReportFormat {
    /// JUnit XML: `tests`, `passed`, `failures`, `errors`, `skipped`, and `failing`, a list of `{name, message, at}`: `CLASS::TEST`,
    /// what was asserted, and the last line of the report, which names file and line with pytest.
    #[default]
    Junit,
    /// Cobertura XML: `lineRate` from 0 to 1, `linesCovered`, `linesValid`.
    Cobertura,
    /// lcov: `lineRate` from 0 to 1, `linesCovered`, `linesValid`.
    Lcov,
    /// SARIF 2.1.0: `results`, of them `errors`, `warnings`, `notes`, and `critical` and `high` by the `security-severity` of
    /// their rules (from 9, from 7); `rules`, the names of rules that found something; `suppressed`, not counted elsewhere.
    Sarif,
}

/// Models judge by criteria, others than those that wrote what is judged.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct ReviewGate {
    /// Artifacts that are shown to the judges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub artifacts: Vec<String>,
    /// Files that are shown beside them, as paths or patterns; minijinja templates. For the file of a loop's item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub files: Vec<String>,
    /// What is asked. A judge answers each with yes or no and a quotation; a yes whose quotation does not occur in what was shown
    /// is a no.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub criteria: Vec<ReviewCriterion>,
    /// Model names or aliases of the policy, asked in turn. None of them may be able to answer for a role that writes what is
    /// shown. Default: judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), extend("x-kubernetes-list-type" = "atomic"))]
    pub models: Vec<String>,
    /// How many judges are asked, each by itself. Default: one for each of `models`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub judges: Option<u32>,
    /// How many of them must say yes to a criterion, for each of the criteria. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9))]
    pub agree: Option<u32>,
}

impl ReviewGate {
    /// The model or alias that each judge is asked by.
    pub fn judges(&self) -> Vec<&str> {
        let models: Vec<&str> = match self.models.as_slice() {
            [] => vec![JUDGE],
            models => models.iter().map(String::as_str).collect(),
        };
        let many = self.judges.map_or(models.len(), |many| many as usize);
        models.iter().copied().cycle().take(many).collect()
    }

    /// How many judges must say yes to a criterion.
    pub fn agree(&self) -> usize {
        let all = self.judges().len();
        self.agree.map_or(all, |agree| agree as usize)
    }
}

/// The alias of judges where a gate names no models.
const JUDGE: &str = "judge";

/// One question to a judge.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ReviewCriterion {
    /// Name of the criterion.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A question that is answered with yes or no.
    #[schemars(length(min = 1, max = 2048))]
    pub question: String,
}

/// People decide. The run waits without a pod until enough of them have, by `spec.decisions` of the AgentRun.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ApprovalGate {
    /// Artifacts that are shown to them. Default: the outputs of the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub artifacts: Vec<String>,
    /// What they are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
}

/// The trace must follow SOP and RACI.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ComplianceGate {
    /// Steps that must have been done. Default: all that come before it and were not skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub steps: Vec<String>,
}

/// What happens when a gate fails.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "(self.action == 'Backtrack') == has(self.to)", "message": "the field to names the step to go back to, and belongs to the action Backtrack only"}]))]
pub struct FailureRule {
    /// CEL; the rule applies where it is true. It sees what the gate sees, `gate.{name, kind, observed, threshold, findings}`
    /// and, where programs ran, `exitCode` and `reports`. Default: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
    /// What is done.
    pub action: FailureAction,
    /// With Backtrack: the step to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub to: Option<String>,
    /// How often this rule may be used in a run; of a `Retry` in a loop, for one item in one attempt of the step. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<u32>,
    /// Whether the files stay as they are when something is done again. Default: keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
}

/// What is done when a gate fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum FailureAction {
    /// The step is tried again, with the findings; of a gate in a loop, the item is begun again.
    Retry,
    /// An earlier step is done again, with the findings, and all that follow it.
    Backtrack,
    /// The run fails.
    #[default]
    Fail,
    /// People decide.
    Ask,
}

/// What happens when no rule has attempts left.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum AfterFailure {
    /// The run fails.
    #[default]
    Fail,
    /// People decide.
    Ask,
}

/// What happens to the files when a step is done again.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum Workspace {
    /// They stay as they are.
    #[default]
    Keep,
    /// They go back to what they were when that which is done again first began: the step in its round, or the item in its
    /// attempt. What steps hand over that are not done again stays.
    Restore,
}
