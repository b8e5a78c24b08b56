//! Every run records what its models were asked and answered, and can be played again: as it was, with other gates, or up to
//! where it differs.

use super::*;
use serde_json::Value;
use sopwith_crds::{
    cassette::{Form, of_run},
    contract::cassette::{Interaction, Response},
    status::GateStatus,
    tool_policy::ReplayMode,
};
use sopwith_runner::local::in_mode;
use std::sync::{Mutex, PoisonError};

/// What a run recorded, as a file.
fn tape(flown: &Flown, plan: &RunPlan) -> CassetteFile {
    let written = of_run(plan, flown.recorded().unwrap()).unwrap();
    assert_eq!(written.form, Form::Readable);
    CassetteFile::parse(&written.text).unwrap()
}

fn interactions(file: &CassetteFile) -> Vec<Interaction> {
    file.cassette().unwrap().interactions
}

fn play(file: &CassetteFile) -> Replay {
    Replay::new(file.parts()).unwrap()
}

/// Every verdict of the run, in order.
fn verdicts(flown: &Flown) -> Vec<(GateStatus, String)> {
    let judged = |what| match what {
        What::GateJudged { gate, findings, .. } => {
            Some((GateStatus { at: None, ..gate }, findings))
        }
        _ => None,
    };
    let events = flown.gateway.events().into_iter();
    events.filter_map(|event| judged(event.what)).collect()
}

/// A model on the network that answers what `answer` says, and what it was asked.
struct Live {
    folder: tempfile::TempDir,
    address: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Live {
    async fn new(answer: impl Fn(&Value, &str) -> String + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let (address, certificate) = tls::serve(move |call| {
            let question: Value = serde_json::from_slice(&call.body).unwrap();
            let response = Response {
                content: Some(answer(&question, &call.head)),
                ..Response::default()
            };
            heard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(question);
            let (kind, bytes) = wire(&response);
            tls::Answer::new(200, &kind, bytes)
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("ca/ca.crt", certificate.as_str()),
            ("live/key", "k3y-of-the-team"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self {
            folder,
            address,
            asked,
        }
    }

    /// The endpoint, as a policy names it.
    fn endpoint(&self, models: &str) -> String {
        format!(
            "  - name: live\n    provider: openai\n    baseUrl: {}/v1\n    caRef: {{name: ca, key: ca.crt}}\n    secretRef: {{name: live, key: key}}\n    models:\n{models}",
            self.address
        )
    }

    fn asked(&self) -> Vec<Value> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn fly(&self, plan: RunPlan, replay: Replay) -> Flown {
        let places = Places {
            secrets: self.folder.path().to_owned(),
            config: self.folder.path().to_owned(),
        };
        let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
        let gateway = LocalGateway::default();
        fly(plan, Arc::new(replay), &places, program, gateway).await
    }
}

const GPT: &str = "    - {name: gpt, aliases: [strong], maxOutputTokens: 1000, inputPerMillion: \"10\", outputPerMillion: \"30\"}\n";
const OTHER: &str = "    - {name: other, aliases: [judge], maxOutputTokens: 1000, inputPerMillion: \"10\", outputPerMillion: \"30\"}\n";

/// The fixtures' policy with an endpoint behind the recorded one.
fn behind(live: &Live, models: &str) -> impl Fn(String) -> String {
    let endpoint = live.endpoint(models);
    move |policy| policy.replace("  commands:", &format!("{endpoint}  commands:"))
}

#[tokio::test]
async fn a_replayed_run_gives_the_same_files_verdicts_and_costs_and_records_the_same() {
    let plan = plain();
    let (first, _) = flown(plan.clone(), filling(), LocalGateway::default()).await;
    let recorded = tape(&first, &plan);
    assert_eq!(interactions(&recorded).len(), 4);
    let (second, _) = flown(plan.clone(), play(&recorded), LocalGateway::default()).await;
    assert_eq!(second.end.failure, None);
    let tree = |flown: &Flown| flown.snapshot().unwrap().tree;
    assert_eq!(tree(&second), tree(&first));
    assert_eq!(verdicts(&second), verdicts(&first));
    assert_eq!(
        second.gateway.batches().last().unwrap().usage,
        first.gateway.batches().last().unwrap().usage
    );
    assert_eq!(second.recorded().unwrap(), first.recorded().unwrap());
}

#[tokio::test]
async fn what_a_provider_answered_on_the_network_is_replayed_without_it() {
    let live = Live::new(|question, _| {
        let asked = question["messages"][1]["content"]
            .as_str()
            .unwrap_or_default();
        match asked {
            text if text.starts_with("Plan for") => "{\"files\": [{\"path\": \"word.txt\"}]}",
            text if text.contains("Found") => "right",
            _ => "wrong",
        }
        .to_owned()
    })
    .await;
    let alone = |policy: String| {
        let start = policy.find("  - name: recorded").unwrap();
        let end = policy.find("  commands:").unwrap();
        policy.replace(&policy[start..end], &live.endpoint(GPT))
    };
    let live_plan = plan(same, alone, same);
    let first = live.fly(live_plan.clone(), Replay::default()).await;
    assert_eq!(first.end.failure, None);
    assert_eq!(live.asked().len(), 3);
    let recorded = tape(&first, &live_plan);
    let (second, _) = flown(plain(), play(&recorded), LocalGateway::default()).await;
    assert_eq!(second.end.failure, None);
    assert_eq!(
        second.snapshot().unwrap().tree,
        first.snapshot().unwrap().tree
    );
    assert_eq!(verdicts(&second), verdicts(&first));
    assert_eq!(live.asked().len(), 3);
}

#[tokio::test]
async fn a_key_that_a_model_repeats_is_not_recorded() {
    let live = Live::new(|_, head| {
        let sent = head
            .lines()
            .find_map(|line| line.strip_prefix("authorization: bearer "));
        format!(
            "{{\"files\": [{{\"path\": \"{}\"}}]}}",
            sent.unwrap_or("none")
        )
    })
    .await;
    let alone = |policy: String| {
        let start = policy.find("  - name: recorded").unwrap();
        let end = policy.find("  commands:").unwrap();
        policy.replace(&policy[start..end], &live.endpoint(GPT))
    };
    let live_plan = plan(same, alone, same);
    let flown = live.fly(live_plan.clone(), Replay::default()).await;
    let told: Vec<String> = live.asked().iter().map(ToString::to_string).collect();
    // The next prompt names the file, and so the key: that is the model's doing.
    assert!(told[1].contains("k3y-of-the-team"), "{told:?}");
    let text = of_run(&live_plan, flown.recorded().unwrap()).unwrap().text;
    assert!(
        text.contains("[masked]") && !text.contains("k3y-of-the-team"),
        "{text}"
    );
}

#[tokio::test]
async fn a_run_that_waited_records_what_an_unbroken_one_does() {
    let asking = |sop: String| {
        let at_the_end = "    gates: [{name: sign-off, kind: approval}]\n  - name: check";
        sop.replace("  - name: check", at_the_end)
    };
    let plan = plan(asking, same, same);
    let gateway = LocalGateway::default();
    let (mut last, mut launches) = (flown(plan.clone(), filling(), gateway.clone()).await.0, 1);
    while let Some(next) = sopwith_runner::local::approved(&last, "jane") {
        gateway.next_launch(next);
        last = flown(plan.clone(), filling(), gateway.clone()).await.0;
        launches += 1;
    }
    assert_eq!((last.end.failure.clone(), launches), (None, 3));
    let (unbroken, _) = flown(plain(), filling(), LocalGateway::default()).await;
    assert_eq!(
        interactions(&tape(&last, &plan)),
        interactions(&tape(&unbroken, &plain()))
    );
}

/// The fixtures' procedure with another prompt and another gate.
fn other_gates(expression: &str) -> impl Fn(String) -> String {
    let gate = format!(
        "    gates:\n    - {{name: new, kind: expression, expression: \"{expression}\", onFailure: [{{action: Retry}}]}}\n  - name: check"
    );
    move |sop| {
        sop.replace("Plan for:", "A plan for:")
            .replace("  - name: check", &gate)
    }
}

#[tokio::test]
async fn other_gates_judge_recorded_work_whatever_was_asked() {
    let recorded = tape(
        &flown(plain(), filling(), LocalGateway::default()).await.0,
        &plain(),
    );
    let stricter = plan(other_gates("artifacts.words.paths.size() == 2"), same, same);
    let strict = flown(stricter.clone(), play(&recorded), LocalGateway::default()).await;
    assert_eq!(failure(&strict.0).0, FailureReason::ProviderFailed);
    let stricter = in_mode(stricter, ReplayMode::GatesOnly);
    let (judged, _) = flown(stricter, play(&recorded), LocalGateway::default()).await;
    assert_eq!(judged.end.failure, None);
    let names: Vec<String> = verdicts(&judged)
        .into_iter()
        .map(|(gate, _)| gate.name)
        .collect();
    assert_eq!(
        names,
        ["has-files", "new", "right-word", "new", "right-word"]
    );
    // What was not recorded is not done: the gate fails on recorded work again and again.
    let never = plan(other_gates("artifacts.words.paths.size() == 3"), same, same);
    let never = in_mode(never, ReplayMode::GatesOnly);
    let (failed, _) = flown(never, play(&recorded), LocalGateway::default()).await;
    let (reason, message) = failure(&failed);
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(message.starts_with("gate new failed"), "{message}");
    let further = plan(
        |sop| {
            other_gates("attempt > 3")(sop)
                .replace("[{action: Retry}]", "[{action: Retry, maxAttempts: 9}]")
        },
        same,
        same,
    );
    let further = in_mode(further, ReplayMode::GatesOnly);
    let (failed, _) = flown(further, play(&recorded), LocalGateway::default()).await;
    let (reason, message) = failure(&failed);
    assert_eq!(reason, FailureReason::ProviderFailed);
    assert!(
        message.contains("the cassette has no request write/words/word[word.txt] attempt 3 turn 1")
            && message.contains("recorded work is judged and no new work is done"),
        "{message}"
    );
}

/// The fixtures' procedure with a gate of a judge.
fn reviewed(sop: &str) -> String {
    let gate = "    gates:\n    - {name: fits, kind: review, review: {artifacts: [words], criteria: [{name: short, question: Is it one word?}]}}\n  - name: check";
    sop.replace("  - name: check", gate)
}

#[tokio::test]
async fn a_new_judge_of_recorded_work_is_asked_at_the_next_endpoint_or_the_run_says_that_there_is_none()
 {
    let recorded = tape(
        &flown(plain(), filling(), LocalGateway::default()).await.0,
        &plain(),
    );
    let live = Live::new(|question, _| {
        let asked = question["messages"][1]["content"]
            .as_str()
            .unwrap_or_default();
        let word = if asked.contains("\nright\n") {
            "right"
        } else {
            "wrong"
        };
        serde_json::json!({"short": {"met": true, "quotation": word, "reason": "One word."}})
            .to_string()
    })
    .await;
    let recorded_judge =
        |policy: String| policy.replace("  commands:", &format!("{OTHER}  commands:"));
    let alone = in_mode(
        plan(|sop| reviewed(&sop), recorded_judge, same),
        ReplayMode::GatesOnly,
    );
    let (failed, _) = flown(alone, play(&recorded), LocalGateway::default()).await;
    let (reason, message) = failure(&failed);
    assert_eq!(reason, FailureReason::ProviderFailed);
    assert!(
        message.contains("the cassette has no request write gate fits judge 1 attempt 1 turn 1")
            && message
                .ends_with("No endpoint of the policy behind recorded has the model \"judge\""),
        "{message}"
    );
    let policy = |policy: String| behind(&live, OTHER)(recorded_judge(policy));
    let both = in_mode(
        plan(|sop| reviewed(&sop), policy, same),
        ReplayMode::GatesOnly,
    );
    let judged = live.fly(both.clone(), play(&recorded)).await;
    assert_eq!(judged.end.failure, None);
    // Two attempts were judged; nothing else was asked for.
    assert_eq!(live.asked().len(), 2);
    let whole = tape(&judged, &both);
    assert_eq!(interactions(&whole).len(), 6);
    // With the judge's answers the cassette is complete: the same gate needs nobody any more.
    let again = live.fly(both, play(&whole)).await;
    assert_eq!((again.end.failure, live.asked().len()), (None, 2));
}

#[tokio::test]
async fn what_differs_from_the_recording_is_asked_anew_and_recorded() {
    let recorded = tape(
        &flown(plain(), filling(), LocalGateway::default()).await.0,
        &plain(),
    );
    let live = Live::new(|_, _| "right".to_owned()).await;
    let changed = |sop: String| sop.replace("Write the word for", "Write one word for");
    let changed = plan(changed, behind(&live, GPT), same);
    let recording = in_mode(changed.clone(), ReplayMode::RecordFromDifference);
    let flown = live.fly(recording, play(&recorded)).await;
    assert_eq!(flown.end.failure, None);
    // The plan was recorded; the word is right at once.
    assert_eq!(live.asked().len(), 1);
    let told: Vec<String> = flown
        .gateway
        .events()
        .into_iter()
        .filter_map(|event| match event.what {
            What::RequestDiffers { difference, .. } => Some(difference),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains("-Write the word for word.txt.\n+Write one word for word.txt."),
        "{}",
        told[0]
    );
    let usage = flown.gateway.batches().last().unwrap().usage.clone();
    assert_eq!((usage.llm_requests, usage.llm_errors), (3, 0));
    let fresh = tape(&flown, &changed);
    let again = live.fly(changed, play(&fresh)).await;
    assert_eq!((again.end.failure.clone(), live.asked().len()), (None, 1));
    assert_eq!(
        again.snapshot().unwrap().tree,
        flown.snapshot().unwrap().tree
    );
    // A hand-written file takes what is new and loses what is not asked for any more.
    let by_hand = CassetteFile::parse(&fixture("cassette.yaml")).unwrap();
    let (text, unasked) = by_hand
        .recorded(&flown.recorded().unwrap().concat())
        .unwrap();
    assert_eq!(unasked.len(), 1);
    assert_eq!(interactions(&CassetteFile::parse(&text).unwrap()).len(), 3);
}
