//! Playing a procedure with recorded answers, and looking at what was asked and what is left.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use sopwith_crds::{
    contract::{
        cassette::{Key, Request},
        plan::RunPlan,
        report::{Event, Outcome, StepEnd, What},
        snapshot::Message,
    },
    status::FailureReason,
};
use sopwith_runner::{
    gateway::LocalGateway,
    kept,
    llm::{replay::Replay, transport::Places},
    local::{Flown, Inputs, LocalError, fly},
};

const POLICY: &str = "
apiVersion: sopwith.dev/v1alpha1
kind: ToolPolicy
metadata: {name: default}
spec:
  llm:
  - name: recorded
    provider: replay
    replay: {cassetteRef: {name: none}}
    models:
    - {name: gpt, maxOutputTokens: 1000, inputPerMillion: \"1\", outputPerMillion: \"3\"}
  commands: [{argv: [grep]}, {argv: [cp]}, {argv: [sh]}]
  images: [\"localhost/bench:*\"]
";

/// A procedure, a run of it and what models answer.
pub(crate) struct Play {
    sop: String,
    run: String,
    policy: String,
    answers: String,
    memory: Option<PathBuf>,
    recover: Option<PathBuf>,
}

impl Play {
    /// `sop` is the spec of a procedure, `answers` are the interactions of a cassette.
    pub(crate) fn new(sop: &str, answers: &str) -> Self {
        Self {
            sop: format!("apiVersion: sopwith.dev/v1alpha1\nkind: SopDefinition\nmetadata: {{name: team}}\nspec:\n{sop}"),
            run: "apiVersion: sopwith.dev/v1alpha1\nkind: AgentRun\nmetadata: {name: team}\nspec:\n  idea: a game\n  sopRef: {name: team}\n".to_owned(),
            policy: POLICY.to_owned(),
            answers: format!("version: 1\ninteractions:\n{answers}"),
            memory: None,
            recover: None,
        }
    }

    /// Sets an option of the run.
    pub(crate) fn option(&mut self, line: &str) {
        self.run.extend(["  ", line, "\n"]);
    }

    /// Recalls from a folder, and leaves there what the run learned.
    pub(crate) fn remember(&mut self, folder: &Path) {
        self.memory = Some(folder.to_owned());
    }

    /// Begins from the state that a run left in a folder.
    pub(crate) fn recover(&mut self, folder: &Path) {
        self.recover = Some(folder.to_owned());
    }

    /// Says more about the model.
    pub(crate) fn model(&mut self, fields: &str) {
        self.policy = self
            .policy
            .replace("{name: gpt, ", &format!("{{name: gpt, {fields}"));
    }

    pub(crate) fn plan(&self) -> RunPlan {
        self.planned().unwrap()
    }

    pub(crate) fn planned(&self) -> Result<RunPlan, LocalError> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let inputs = Inputs {
            sop: write("sop.yaml", &self.sop),
            policy: write("policy.yaml", &self.policy),
            run: write("run.yaml", &self.run),
            recover: self.recover.clone(),
            memory: self.memory.clone(),
            ..Inputs::default()
        };
        inputs.plan()
    }

    pub(crate) fn replay(&self) -> Replay {
        Replay::new(&[("cassette".to_owned(), self.answers.clone())]).unwrap()
    }

    /// Plays the first launch; whatever is asked is answered by its key.
    pub(crate) async fn first(&self) -> Played {
        let gateway = LocalGateway::default();
        if let Some(folder) = &self.recover {
            kept::give(folder, &gateway).unwrap();
        }
        self.launch(gateway).await
    }

    /// Plays the launch that the gateway begins with.
    pub(crate) async fn launch(&self, gateway: LocalGateway) -> Played {
        let places = Places {
            secrets: "none".into(),
            config: "none".into(),
        };
        let replay = Arc::new(self.replay().filling());
        let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
        let flown = fly(self.plan(), Arc::clone(&replay), &places, program, gateway).await;
        if let Some(folder) = &self.memory {
            flown.remember(folder).unwrap();
        }
        Played {
            flown,
            asked: replay.filled(),
        }
    }
}

/// A launch that has ended.
pub(crate) struct Played {
    pub(crate) flown: Flown,
    /// The requests by key.
    pub(crate) asked: BTreeMap<Key, Request>,
}

impl Played {
    pub(crate) fn succeeded(self) -> Self {
        let end = &self.flown.end;
        assert_eq!(end.outcome, Outcome::Succeeded, "{:?}", end.failure);
        self
    }

    pub(crate) fn failure(&self) -> (FailureReason, String) {
        let failure = self.flown.end.failure.clone().expect("the run failed");
        (failure.reason, failure.message)
    }

    /// The keys of the requests, as people read them, in the order of keys.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.asked.keys().map(ToString::to_string).collect()
    }

    /// The content of one of a request's messages, `system` or `user` (the last of them).
    pub(crate) fn told(&self, key: &str, role: &str) -> String {
        let (_, request) = self
            .asked
            .iter()
            .find(|(asked, _)| asked.to_string() == key)
            .unwrap_or_else(|| panic!("nobody asked {key}, but {:?}", self.keys()));
        let body = request.body.as_ref().unwrap();
        let messages = body["messages"].as_array().unwrap();
        let message = messages.iter().rev().find(|one| one["role"] == role);
        message.unwrap()["content"].as_str().unwrap().to_owned()
    }

    /// The trace.
    pub(crate) fn trace(&self) -> Vec<Message> {
        self.flown.trace()
    }

    /// A file of the project.
    pub(crate) fn file(&self, path: &str) -> Option<String> {
        let entry = self.flown.snapshot()?.tree.remove(path)?;
        let bytes = self.flown.gateway.blob(&entry.digest)?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// How attempts ended.
    pub(crate) fn ends(&self) -> Vec<StepEnd> {
        let ended = |event: Event| match event.what {
            What::StepEnded { end } => Some(*end),
            _ => None,
        };
        let events = self.flown.gateway.events().into_iter();
        events.filter_map(ended).collect()
    }
}
