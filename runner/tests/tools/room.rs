//! What a run with tools needs: a procedure, a policy, answers of a model.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use sopwith_crds::{
    contract::{
        cassette::Key,
        plan::RunPlan,
        report::{ToolStatus, What},
        snapshot::Message,
    },
    status::{FailureReason, Usage},
};
use sopwith_runner::{
    gateway::LocalGateway,
    llm::{replay::Replay, transport::Places},
    local::{Flown, Inputs, fly},
};

const POLICY: &str = r#"
apiVersion: sopwith.dev/v1alpha1
kind: ToolPolicy
metadata: {name: default}
spec:
  llm:
  - name: recorded
    provider: replay
    replay: {cassetteRef: {name: c}}
    models:
    - {name: gpt, aliases: [strong], inputPerMillion: "10", outputPerMillion: "30"}
  images: ["localhost/bench:*"]
  tools:
  - {name: read_file, builtin: read_file, tags: [project, look]}
  - {name: find, builtin: search, tags: [project, look]}
  - {name: list_files, builtin: list_files, tags: [project, look]}
  - {name: edit, builtin: edit_file, tags: [project]}
  - {name: patch, builtin: apply_patch, tags: [project]}
  - {name: delete_file, builtin: delete_file, critical: true}
"#;

const SOP: &str = r"
apiVersion: sopwith.dev/v1alpha1
kind: SopDefinition
metadata: {name: mend}
spec:
  roles:
  - {name: engineer, profile: Engineer, model: strong, tools: ['tag:project', delete_file]}
  templates:
    app: |
      def add(a, b):
          return a - b
    other: |
      # nothing here is to change
    test: |
      assert add(1, 2) == 3
    mend: 'Mend: {{ idea }}'
  steps:
  - name: lay
    outputs: [{name: tests, glob: 'tests/**', freeze: true}]
    actions:
    - {name: app, render: {template: app, path: src/app.py}}
    - {name: other, render: {template: other, path: src/other.py}}
    - {name: test, render: {template: test, path: tests/test_app.py}}
  - name: mend
    role: engineer
    needs: [lay]
    outputs: [{name: summary, path: docs/summary.md}]
    actions:
    - {name: change, prompt: {template: mend, writes: {artifact: summary}}}
";

const RUN: &str = r"
apiVersion: sopwith.dev/v1alpha1
kind: AgentRun
metadata: {name: mend}
spec: {idea: adding subtracts, sopRef: {name: mend}}
";

/// Files of a run, each with places changed that must be there.
pub(crate) struct Room {
    pub(crate) sop: String,
    pub(crate) policy: String,
    folder: tempfile::TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            sop: SOP.to_owned(),
            policy: POLICY.to_owned(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn sop(mut self, from: &str, to: &str) -> Self {
        assert!(self.sop.contains(from), "{from}");
        self.sop = self.sop.replace(from, to);
        self
    }

    pub(crate) fn policy(mut self, from: &str, to: &str) -> Self {
        assert!(self.policy.contains(from), "{from}");
        self.policy = self.policy.replace(from, to);
        self
    }

    /// The plan, or why there is none.
    pub(crate) fn planned(&self) -> Result<RunPlan, String> {
        let write = |name: &str, text: &str| -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let inputs = Inputs {
            sop: write("sop.yaml", &self.sop),
            policy: write("policy.yaml", &self.policy),
            run: write("run.yaml", RUN),
            ..Inputs::default()
        };
        inputs.plan().map_err(|error| error.to_string())
    }

    pub(crate) fn plan(&self) -> RunPlan {
        self.planned().unwrap()
    }

    pub(crate) fn places(&self) -> Places {
        Places {
            secrets: self.folder.path().to_owned(),
            config: self.folder.path().to_owned(),
        }
    }

    /// Flies with a model that answers the turns of the action `change` with these, as YAML of a cassette's response.
    pub(crate) async fn fly(&self, answers: &[&str]) -> Run {
        self.fly_on(answers, LocalGateway::default()).await
    }

    pub(crate) async fn fly_on(&self, answers: &[&str], gateway: LocalGateway) -> Run {
        let replay = Replay::new(&[("answers".to_owned(), cassette(answers))]).unwrap();
        self.replayed(replay.filling(), gateway).await
    }

    pub(crate) async fn replayed(&self, replay: Replay, gateway: LocalGateway) -> Run {
        self.flown_with(self.plan(), replay, gateway).await
    }

    /// Flies a plan without a model.
    pub(crate) async fn flown(&self, plan: RunPlan) -> Run {
        self.flown_with(plan, Replay::default(), LocalGateway::default())
            .await
    }

    async fn flown_with(&self, plan: RunPlan, replay: Replay, gateway: LocalGateway) -> Run {
        let replay = Arc::new(replay);
        let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
        let flown = fly(plan, Arc::clone(&replay), &self.places(), program, gateway).await;
        Run { flown, replay }
    }
}

/// A cassette with the answers of the action `change`.
pub(crate) fn cassette(answers: &[&str]) -> String {
    let one = |(answer, turn): (&&str, usize)| {
        format!(
            "\n- key: {{step: mend, action: change, attempt: 1, turn: {turn}}}\n  response: {answer}"
        )
    };
    let all: Vec<String> = answers.iter().zip(1..).map(one).collect();
    let none = if all.is_empty() { " []" } else { "" };
    format!("version: 1\ninteractions:{none}{}", all.concat())
}

/// A run that ended.
pub(crate) struct Run {
    pub(crate) flown: Flown,
    pub(crate) replay: Arc<Replay>,
}

impl Run {
    pub(crate) fn file(&self, path: &str) -> Option<String> {
        let entry = self.flown.snapshot()?.tree.remove(path)?;
        Some(String::from_utf8(self.flown.gateway.blob(&entry.digest)?.to_vec()).unwrap())
    }

    pub(crate) fn failure(&self) -> (FailureReason, String) {
        let failure = self.flown.end.failure.clone().expect("the run failed");
        (failure.reason, failure.message)
    }

    /// Tools and how their calls ended, as they were reported.
    pub(crate) fn calls(&self) -> Vec<(String, ToolStatus)> {
        let call = |what: What| match what {
            What::ToolCall { tool, status, .. } => Some((tool, status)),
            _ => None,
        };
        let events = self.flown.gateway.events().into_iter();
        events.filter_map(|event| call(event.what)).collect()
    }

    pub(crate) fn used(&self) -> Usage {
        self.flown.gateway.batches().last().unwrap().usage.clone()
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.flown.trace()
    }

    /// The body of the question of a turn.
    pub(crate) fn question(&self, turn: u32) -> Value {
        let key = Key {
            step: "mend".into(),
            action: "change".into(),
            attempt: 1,
            turn,
            ..Key::default()
        };
        self.replay.filled()[&key].body.clone().unwrap()
    }

    /// What the model was told before a turn, the last message first.
    pub(crate) fn told(&self, turn: u32) -> Vec<String> {
        let question = self.question(turn);
        let messages = question["messages"].as_array().unwrap().iter().rev();
        messages
            .map(|message| message["content"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}
