//! What an incremental run needs: a project, a procedure with two ways through it, answers of a model.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use sopwith_crds::{
    contract::{
        Digest,
        cassette::Key,
        incremental::{Classified, EditsTold},
        plan::RunPlan,
        report::{Outcome, What},
        snapshot::{Message, TreeEntry},
    },
    status::{FailureReason, Usage},
};
use sopwith_runner::{
    gateway::LocalGateway,
    incremental::dependencies::{Dependencies, Read},
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
    - {name: gpt, inputPerMillion: "10", outputPerMillion: "30", capabilities: [tools, jsonSchema]}
  tools:
  - {name: read_file, builtin: read_file}
  - {name: edit, builtin: edit_file}
  - {name: patch, builtin: apply_patch}
"#;

/// Requirements go through `prd` and `code`, bug reports to `mend`.
const SOP: &str = r##"
apiVersion: sopwith.dev/v1alpha1
kind: SopDefinition
metadata: {name: two-ways}
spec:
  roles:
  - {name: manager, profile: Product Manager}
  - {name: engineer, profile: Engineer, tools: [read_file, edit, patch]}
  - {name: author, profile: Author}
  schemas:
    prd:
      type: object
      required: [title, files]
      properties:
        title: {type: string}
        files: {type: array, items: {type: object, required: [path], properties: {path: {type: string}}}}
  templates:
    prd: |
      The new requirement: {{ file(layout.requirement) }}
      Edited by hand: {% for edit in incremental.edited %}{{ edit.path }} {{ edit.change }}; {% endfor %}
    document: "# {{ artifacts.prd.json.title }}\n"
    code: |
      Write {{ item.path }}.
      {% if glob(item.path) %}
      It is now:
      {{ file(item.path) }}
      {% endif %}
    mend: |
      Mend this {{ incremental.kind }}: {{ file(layout.bugfix) }}
      {% for path in glob(layout.codeSummaries ~ '/mend.md') %}Last time: {{ file(path) }}{% endfor %}
  steps:
  - name: prd
    role: manager
    when: "incremental.kind != 'bug'"
    outputs:
    - {name: prd, path: "{{ layout.prd }}/game.json", schema: prd}
    - {name: document, path: "{{ layout.prds }}/game.md"}
    actions:
    - {name: write, prompt: {template: prd, schema: prd, writes: {artifact: prd}}}
    - {name: render, render: {template: document, path: "{{ layout.prds }}/game.md"}}
  - name: code
    role: author
    needs: [prd]
    when: "incremental.kind != 'bug'"
    inputs: [{artifact: prd}]
    outputs: [{name: code, glob: "game/**"}]
    actions:
    - name: files
      loop:
        forEach: artifacts.prd.json.files
        actions:
        - {name: write, prompt: {template: code, writes: {path: "{{ item.path }}"}}}
  - name: mend
    role: engineer
    needs: [code]
    when: incremental.kind == 'bug'
    outputs:
    - {name: mended, glob: "game/**"}
    - {name: summary, path: "{{ layout.codeSummaries }}/mend.md"}
    actions:
    - {name: mend, prompt: {template: mend, writes: {artifact: summary}}}
  - name: check
    needs: [mend]
    gates:
    - {name: changed, kind: expression, expression: incremental.changed.size() > 0}
"##;

const RUN: &str = r"
apiVersion: sopwith.dev/v1alpha1
kind: AgentRun
metadata: {name: next}
spec:
  idea: IDEA
  sopRef: {name: two-ways}
  incremental: true
  project: {name: game}
";

/// A project that was never seen by a run: a text with lines of Windows, a binary, a program, an older iteration's bug report.
pub(crate) const FILES: [(&str, &[u8], bool); 6] = [
    ("game/main.py", b"def play():\n    return 21\n", false),
    ("game/run.bat", b"@echo off\r\npython main.py\r\n", false),
    ("game/run.sh", b"#!/bin/sh\nexec python main.py\n", true),
    ("game/logo.bin", b"\x00\xff\r\n\x01", false),
    ("README.md", b"# Game\r\nmixed\n", false),
    ("docs/bugfix.txt", b"an old bug\n", false),
];

pub(crate) const BUG: &str = r#"{content: '{"kind": "bug", "reason": "It crashes."}', usage: {prompt_tokens: 90, completion_tokens: 10}}"#;
pub(crate) const REQUIREMENT: &str = r#"{content: '{"kind": "requirement", "reason": "It asks for more."}', usage: {prompt_tokens: 90, completion_tokens: 10}}"#;

/// One answer: step, action, item (empty outside of loops), turn, and the response as YAML of a cassette.
pub(crate) type Said<'a> = (&'a str, &'a str, &'a str, u32, &'a str);

pub(crate) const fn classify(response: &str) -> Said<'_> {
    ("sopwith", "classify", "", 1, response)
}

/// A response that says a text.
pub(crate) fn text(text: &str) -> String {
    let content = serde_json::to_string(text).unwrap();
    format!("{{content: {content}, usage: {{prompt_tokens: 10, completion_tokens: 10}}}}")
}

pub(crate) fn cassette(answers: &[Said<'_>]) -> String {
    let one = |(step, action, item, turn, response): &Said<'_>| {
        let item = if item.is_empty() {
            String::new()
        } else {
            format!("item: {item}, ")
        };
        format!(
            "\n- key: {{step: {step}, action: {action}, {item}attempt: 1, turn: {turn}}}\n  response: {response}"
        )
    };
    let all: String = answers.iter().map(one).collect();
    let none = if answers.is_empty() { " []" } else { "" };
    format!("version: 1\ninteractions:{none}{all}")
}

pub(crate) fn key(step: &str, action: &str, item: &str, turn: u32) -> Key {
    Key {
        step: step.into(),
        action: action.into(),
        item: item.into(),
        turn,
        ..Key::default()
    }
}

/// Files of a run, and its project.
pub(crate) struct Room {
    pub(crate) sop: String,
    pub(crate) run: String,
    pub(crate) policy: String,
    folder: tempfile::TempDir,
    /// The project's folder; none: the run names where it comes from.
    pub(crate) project: Option<PathBuf>,
    /// The folder of a run to recover from, and its step.
    pub(crate) recover: Option<(PathBuf, String)>,
}

impl Room {
    /// A run with an idea on the project of [`FILES`].
    pub(crate) fn new(idea: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("project");
        for (path, bytes, executable) in FILES {
            let path = project.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Self {
            sop: SOP.to_owned(),
            run: RUN.replace("IDEA", idea),
            policy: POLICY.to_owned(),
            project: Some(project),
            recover: None,
            folder,
        }
    }

    /// The same over what another run left, as it was written to a folder.
    pub(crate) fn over(idea: &str, left: &Run) -> Self {
        let room = Self::new(idea);
        let out = room.path("left");
        left.flown.write(&out).unwrap();
        Self {
            project: Some(out.join("project")),
            ..room
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn sop(mut self, from: &str, to: &str) -> Self {
        assert!(self.sop.contains(from), "{from}");
        self.sop = self.sop.replace(from, to);
        self
    }

    pub(crate) fn run(mut self, from: &str, to: &str) -> Self {
        assert!(self.run.contains(from), "{from}");
        self.run = self.run.replace(from, to);
        self
    }

    /// Edits a file of the project by hand.
    pub(crate) fn edit(self, path: &str, text: &str) -> Self {
        let path = self.project.as_ref().unwrap().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn remove(self, path: &str) -> Self {
        fs::remove_file(self.project.as_ref().unwrap().join(path)).unwrap();
        self
    }

    pub(crate) fn inputs(&self) -> Inputs {
        let write = |name: &str, text: &str| -> PathBuf {
            let path = self.path(name);
            fs::write(&path, text).unwrap();
            path
        };
        Inputs {
            sop: write("sop.yaml", &self.sop),
            policy: write("policy.yaml", &self.policy),
            run: write("run.yaml", &self.run),
            project: self.project.clone(),
            recover: self.recover.as_ref().map(|(folder, _)| folder.clone()),
            recover_step: self.recover.as_ref().map(|(_, step)| step.clone()),
            ..Inputs::default()
        }
    }

    pub(crate) fn planned(&self) -> Result<RunPlan, String> {
        self.inputs().plan().map_err(|error| error.to_string())
    }

    pub(crate) async fn fly(&self, answers: &[Said<'_>]) -> Run {
        self.fly_on(answers, LocalGateway::default()).await
    }

    pub(crate) async fn fly_on(&self, answers: &[Said<'_>], gateway: LocalGateway) -> Run {
        self.inputs().give(&gateway).unwrap();
        let replay = Replay::new(&[("answers".to_owned(), cassette(answers))]).unwrap();
        let replay = Arc::new(replay.filling());
        let places = Places {
            secrets: self.folder.path().to_owned(),
            config: self.folder.path().to_owned(),
        };
        let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
        let plan = self.planned().unwrap();
        let flown = fly(plan, Arc::clone(&replay), &places, program, gateway).await;
        Run { flown, replay }
    }
}

/// A run that ended.
pub(crate) struct Run {
    pub(crate) flown: Flown,
    pub(crate) replay: Arc<Replay>,
}

impl Run {
    pub(crate) fn succeeded(self) -> Self {
        let end = &self.flown.end;
        assert_eq!(end.outcome, Outcome::Succeeded, "{:?}", end.failure);
        self
    }

    pub(crate) fn failure(&self) -> (FailureReason, String) {
        let failure = self.flown.end.failure.clone().expect("the run failed");
        (failure.reason, failure.message)
    }

    pub(crate) fn events(&self) -> Vec<What> {
        let events = self.flown.gateway.events().into_iter();
        events.map(|event| event.what).collect()
    }

    /// What each time was told of the idea and of edits.
    pub(crate) fn classified(&self) -> Vec<Classified> {
        let classified = |what| match what {
            What::Classified { found } => Some(*found),
            _ => None,
        };
        self.events().into_iter().filter_map(classified).collect()
    }

    /// Edited files, and edited derived ones, as they were told.
    pub(crate) fn edits(&self) -> (String, String) {
        let found = self.classified().pop().unwrap();
        let told = |edits: EditsTold| edits.to_string();
        (told(found.edited), told(found.derived))
    }

    pub(crate) fn skipped(&self) -> Vec<String> {
        let skipped = |what| match what {
            What::StepSkipped { step, .. } => Some(step),
            _ => None,
        };
        self.events().into_iter().filter_map(skipped).collect()
    }

    pub(crate) fn tree(&self) -> Vec<TreeEntry> {
        self.flown.snapshot().unwrap().tree.into_values().collect()
    }

    pub(crate) fn entry(&self, path: &str) -> Option<TreeEntry> {
        self.tree().into_iter().find(|entry| entry.path == path)
    }

    pub(crate) fn file(&self, path: &str) -> Option<String> {
        let digest = self.entry(path)?.digest;
        let bytes = self.flown.gateway.blob(&digest)?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// The list of dependencies that the run left.
    pub(crate) fn list(&self) -> Dependencies {
        let text = self.file(".dependencies.json").unwrap();
        let Read::Known(list) = Dependencies::read(Some(text.as_bytes())) else {
            panic!("{text}");
        };
        list
    }

    /// The files that one was made from.
    pub(crate) fn made_from(&self, path: &str) -> Vec<String> {
        self.list().0[path].depends_on.iter().cloned().collect()
    }

    pub(crate) fn used(&self) -> Usage {
        self.flown.gateway.batches().last().unwrap().usage.clone()
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.flown.trace()
    }

    /// The message of a cause.
    pub(crate) fn message(&self, cause: &str) -> Message {
        let mut all = self.messages().into_iter();
        all.find(|message| message.cause == cause).unwrap()
    }

    /// What models were asked, in the order of keys.
    pub(crate) fn asked(&self) -> Vec<Key> {
        self.replay.filled().into_keys().collect()
    }

    /// The last message of a question, without white space at its end.
    pub(crate) fn told(&self, key: &Key) -> String {
        let body: Value = self.replay.filled()[key].body.clone().unwrap();
        let messages = body["messages"].as_array().unwrap();
        messages.last().unwrap()["content"]
            .as_str()
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// Asserts that files are as they were in [`FILES`].
    pub(crate) fn left_alone(&self, paths: &[&str]) {
        for path in paths {
            let (_, bytes, executable) = FILES.into_iter().find(|(own, ..)| own == path).unwrap();
            let entry = self.entry(path).unwrap();
            let is = (entry.digest, entry.executable);
            assert_eq!(is, (Digest::of(bytes), executable), "{path}");
        }
    }
}
