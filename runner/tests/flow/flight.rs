//! A procedure in a few lines, what its models answer, and what came of it.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Value, json};
use sopwith_crds::{
    AgentRun, SopDefinition, ToolPolicy,
    contract::{
        cassette::Key,
        plan::RunPlan,
        report::{Outcome, StepEnd, What},
        snapshot::Message,
    },
    plan::{PlanInputs, build},
    status::{FailureReason, Verdict},
};
use sopwith_runner::{
    gateway::LocalGateway,
    llm::{replay::Replay, transport::Places},
    local::{Flown, fly},
};

/// One endpoint that replays, and every program and image that tests use.
const POLICY: &str = r#"
llm:
- name: recorded
  provider: replay
  replay: {cassetteRef: {name: c}}
  models: [{name: gpt, maxOutputTokens: 1000, inputPerMillion: "10", outputPerMillion: "30"}]
commands: [{argv: [grep]}, {argv: [cp]}, {argv: [sh]}, {argv: [sleep]}, {argv: [test]}]
images: ["bench:1"]
"#;

/// The plan of a procedure's `spec`, for a run whose `spec` has these lines as well.
pub(crate) fn planned(sop: &str, run: &str) -> RunPlan {
    plan_or_mistakes(sop, run).unwrap()
}

/// The plan, or everything that is wrong.
pub(crate) fn plan_or_mistakes(sop: &str, run: &str) -> Result<RunPlan, String> {
    let mut spec: Value = yaml("idea: a thing\nsopRef: {name: s}");
    let more: Value = if run.is_empty() { json!({}) } else { yaml(run) };
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    built(&yaml(sop), &spec, &yaml(POLICY))
}

/// The plan of a procedure, a run and a policy, by their `spec`s.
pub(crate) fn planned_with(sop: &Value, run: &Value, policy: &Value) -> RunPlan {
    let mut run = run.clone();
    run["idea"] = json!("a thing");
    run["sopRef"] = json!({"name": "s"});
    built(sop, &run, policy).unwrap()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn built(sop: &Value, run: &Value, policy: &Value) -> Result<RunPlan, String> {
    let object = |name: &str, spec: &Value| json!({"metadata": {"name": name, "namespace": "n", "uid": "u"}, "spec": spec});
    let sop: SopDefinition = serde_json::from_value(object("s", sop)).unwrap();
    let policy: ToolPolicy = serde_json::from_value(object("default", policy)).unwrap();
    let run: AgentRun = serde_json::from_value(object("r", run)).unwrap();
    build(&PlanInputs {
        run: &run,
        sop: ("s", &sop.spec),
        policy: ("default", &policy.spec),
        idea: "a thing",
        inputs: &BTreeMap::new(),
        templates: &BTreeMap::new(),
        earlier: None,
        memory: &[],
    })
    .map_err(|rejection| rejection.message)
}

/// A cassette that gives these answers to whatever is asked. A key is `step/action[item] attempt.retry.pass.turn`; what is left out
/// of the numbers is as at the first time.
pub(crate) fn answers(answers: &[(&str, &str)]) -> Replay {
    let interactions: Vec<Value> = answers
        .iter()
        .map(|(key, content)| {
            json!({"key": key_of(key), "response": {"content": content, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}})
        })
        .collect();
    let cassette = json!({"version": 1, "interactions": interactions}).to_string();
    Replay::new(&[("c".into(), cassette)]).unwrap().filling()
}

pub(crate) fn key_of(text: &str) -> Key {
    // An item may have a space in its name.
    let end = text.rfind(']').map_or(0, |end| end + 1);
    let split = text[end..].find(' ').map_or(text.len(), |at| end + at);
    let (place, numbers) = (&text[..split], text[split..].trim_start());
    let (place, item) = match place.split_once('[') {
        Some((place, item)) => (place, item.trim_end_matches(']')),
        None => (place, ""),
    };
    let (step, action) = place.split_once('/').unwrap();
    let mut numbers = numbers.split('.').filter_map(|number| number.parse().ok());
    Key {
        step: step.to_owned(),
        action: action.to_owned(),
        item: item.to_owned(),
        attempt: numbers.next().unwrap_or(1),
        retry: numbers.next().unwrap_or(0),
        pass: numbers.next().unwrap_or(1),
        turn: numbers.next().unwrap_or(1),
        ..Key::default()
    }
}

/// What came of a run.
pub(crate) struct Landed {
    pub(crate) flown: Flown,
    pub(crate) asked: Arc<Replay>,
}

/// Runs a plan to its end in one launch.
pub(crate) async fn flown(plan: RunPlan, replay: Replay) -> Landed {
    launched(plan, Arc::new(replay), LocalGateway::default()).await
}

/// Flies one launch of a plan.
pub(crate) async fn launched(plan: RunPlan, replay: Arc<Replay>, gateway: LocalGateway) -> Landed {
    let places = Places {
        secrets: "none".into(),
        config: "none".into(),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
    let flown = fly(plan, Arc::clone(&replay), &places, program, gateway).await;
    Landed {
        flown,
        asked: replay,
    }
}

impl Landed {
    pub(crate) fn succeeded(&self) -> bool {
        assert_eq!(self.flown.end.failure, None);
        self.flown.end.outcome == Outcome::Succeeded
    }

    pub(crate) fn failure(&self) -> (FailureReason, String) {
        let failure = self.flown.end.failure.clone().expect("the run failed");
        (failure.reason, failure.message)
    }

    /// The requests that were made, in the form of [`answers`].
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked
            .filled()
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    /// What a request said to the model, without the system message.
    pub(crate) fn question(&self, key: &str) -> String {
        let filled = self.asked.filled();
        let request = filled
            .get(&key_of(key))
            .unwrap_or_else(|| panic!("{key} was not asked, but {:?}", self.asked()));
        let body = request.body.as_ref().unwrap();
        let messages = body["messages"].as_array().unwrap();
        messages
            .iter()
            .filter(|message| message["role"] != "system")
            .map(|message| message["content"].as_str().unwrap())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Steps, attempts and verdicts in order: `plan 1 Passed`.
    pub(crate) fn path(&self) -> Vec<String> {
        self.ends()
            .into_iter()
            .map(|end| format!("{} {} {:?}", end.step, end.attempt, end.verdict))
            .collect()
    }

    pub(crate) fn ends(&self) -> Vec<StepEnd> {
        self.what()
            .into_iter()
            .filter_map(|what| match what {
                What::StepEnded { end } => Some(*end),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn what(&self) -> Vec<What> {
        let events = self.flown.gateway.events().into_iter();
        events.map(|event| event.what).collect()
    }

    /// Verdicts in the order in which they were told: `gate Passed`.
    pub(crate) fn verdicts(&self) -> Vec<(String, Verdict)> {
        self.what()
            .into_iter()
            .filter_map(|what| match what {
                What::GateJudged { gate, .. } => Some((gate.name, gate.verdict)),
                _ => None,
            })
            .collect()
    }

    /// What was told of actions: `action[item]: message`.
    pub(crate) fn told(&self) -> Vec<String> {
        self.what()
            .into_iter()
            .filter_map(|what| match what {
                What::ActionEnded {
                    action,
                    item,
                    message,
                    ..
                } => Some(match item {
                    Some(item) => format!("{action}[{item}]: {message}"),
                    None => format!("{action}: {message}"),
                }),
                _ => None,
            })
            .collect()
    }

    /// The project's files and their texts.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let snapshot = self.flown.snapshot().unwrap();
        let text = |digest| {
            let bytes = self.flown.gateway.blob(digest).unwrap();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let files = snapshot.tree.values();
        files
            .map(|entry| (entry.path.clone(), text(&entry.digest)))
            .collect()
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.flown.trace()
    }
}
