//! Whole runs on this machine: the engine, replayed models and real commands, without a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod approval;
mod gates;
mod projects;
mod recording;
mod tls;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use sopwith_crds::{
    cassette::CassetteFile,
    contract::{
        Digest,
        cassette::{Key, Request},
        plan::RunPlan,
        report::{LaunchStart, Next, Orders, Outcome, StepEnd, What},
    },
    status::{FailureReason, Usage, Verdict},
};
use sopwith_runner::{
    action::command::Benches,
    gateway::{Gateway, LocalGateway},
    llm::{
        replay::{Replay, parse, wire},
        transport::{Places, Transport},
    },
    local::{Flown, Inputs, fly},
    run::Flight,
};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The plan of the fixtures, each changed as told.
fn plan(
    sop: impl Fn(String) -> String,
    policy: impl Fn(String) -> String,
    run: impl Fn(String) -> String,
) -> RunPlan {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let inputs = Inputs {
        sop: write("sop.yaml", sop(fixture("sop.yaml"))),
        policy: write("policy.yaml", policy(fixture("policy.yaml"))),
        run: write("run.yaml", run(fixture("run.yaml"))),
        ..Inputs::default()
    };
    inputs.plan().unwrap()
}

fn plain() -> RunPlan {
    plan(same, same, same)
}

fn same(text: String) -> String {
    text
}

async fn flown(plan: RunPlan, replay: Replay, gateway: LocalGateway) -> (Flown, Arc<Replay>) {
    let places = Places {
        secrets: "none".into(),
        config: "none".into(),
    };
    let replay = Arc::new(replay);
    let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
    (
        fly(plan, Arc::clone(&replay), &places, program, gateway).await,
        replay,
    )
}

fn filling() -> Replay {
    Replay::new(&[("cassette".into(), fixture("cassette.yaml"))])
        .unwrap()
        .filling()
}

/// The cassette of the fixtures with the digests of a good run.
async fn recorded() -> Replay {
    let (_, replay) = flown(plain(), filling(), LocalGateway::default()).await;
    let file = CassetteFile::parse(&fixture("cassette.yaml")).unwrap();
    let (text, unasked) = file.filled(&replay.filled()).unwrap();
    assert!(unasked.is_empty(), "{unasked:?}");
    Replay::new(&[("cassette".into(), text)]).unwrap()
}

fn ends(flown: &Flown) -> Vec<StepEnd> {
    let ended = |what: What| match what {
        What::StepEnded { end } => Some(*end),
        _ => None,
    };
    flown
        .gateway
        .events()
        .into_iter()
        .filter_map(|event| ended(event.what))
        .collect()
}

fn file(flown: &Flown, path: &str) -> Option<String> {
    let snapshot = flown.snapshot()?;
    let entry = snapshot.tree.get(path)?;
    Some(String::from_utf8(flown.gateway.blob(&entry.digest)?.to_vec()).unwrap())
}

fn failure(flown: &Flown) -> (FailureReason, String) {
    let failure = flown.end.failure.clone().expect("the run failed");
    (failure.reason, failure.message)
}

#[tokio::test]
async fn a_failed_gate_sends_the_line_back_and_the_second_attempt_passes() {
    let (flown, _) = flown(plain(), recorded().await, LocalGateway::default()).await;
    assert_eq!(flown.end.outcome, Outcome::Succeeded);
    let path: Vec<(String, u32, Verdict)> = ends(&flown)
        .into_iter()
        .map(|end| (end.step, end.attempt, end.verdict))
        .collect();
    let expected = [
        ("think", 1, Verdict::Passed),
        ("write", 1, Verdict::Passed),
        ("check", 1, Verdict::Failed),
        ("write", 2, Verdict::Passed),
        ("check", 2, Verdict::Passed),
    ];
    assert_eq!(
        path,
        expected.map(|(step, attempt, verdict)| (step.to_owned(), attempt, verdict))
    );
    assert_eq!(ends(&flown)[2].next, Next::Backtrack { to: "write".into() });
    assert_eq!(
        ends(&flown)[2].message,
        "gate right-word failed: grep exited with 1"
    );
    assert_eq!(file(&flown, "word.txt").as_deref(), Some("right\n"));
    assert_eq!(file(&flown, "copy.txt").as_deref(), Some("right\n"));
    assert_eq!(
        file(&flown, "docs/summary.md").as_deref(),
        Some("1 file, attempt 2, round 2\n")
    );
    // 330 tokens in at 10, 30 out at 30 dollars a million.
    let usage = flown.gateway.batches().last().unwrap().usage.clone();
    assert_eq!(
        (usage.llm_requests, usage.total_tokens, usage.cost),
        (4, 360, "0.0042".parse().unwrap())
    );
}

#[tokio::test]
async fn what_belongs_together_is_reported_together() {
    let (flown, _) = flown(plain(), recorded().await, LocalGateway::default()).await;
    let name = |what: &What| {
        serde_json::to_value(what).unwrap()["type"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let batches: Vec<Vec<String>> = flown
        .gateway
        .batches()
        .iter()
        .map(|batch| batch.events.iter().map(|event| name(&event.what)).collect())
        .collect();
    assert_eq!(batches[0], ["launchStarted", "roundStarted", "stepStarted"]);
    for batch in &batches[1..] {
        if let Some(index) = batch.iter().position(|event| event == "stepEnded") {
            assert!(
                batch[index + 1..].contains(&"stepStarted".to_owned())
                    || batch.last().unwrap() == "launchEnded",
                "{batch:?}"
            );
        }
    }
    assert_eq!(
        batches.last().unwrap()[batches.last().unwrap().len() - 3..],
        ["stepEnded", "stepSkipped", "launchEnded"]
    );
}

#[tokio::test]
async fn a_changed_prompt_fails_with_the_difference() {
    let changed = plan(|sop| sop.replace("Plan for:", "A plan for:"), same, same);
    let (flown, _) = flown(changed, recorded().await, LocalGateway::default()).await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProviderFailed);
    assert!(
        message.contains("-Plan for: a right word\n+A plan for: a right word"),
        "{message}"
    );
}

#[tokio::test]
async fn a_request_that_does_not_fit_the_investment_is_not_made() {
    let poor = plan(same, same, |run| run + "  investment: \"0.001\"\n");
    let (flown, replay) = flown(poor, filling(), LocalGateway::default()).await;
    assert_eq!(failure(&flown).0, FailureReason::BudgetExhausted);
    assert!(replay.filled().is_empty());
    assert_eq!(ends(&flown).len(), 1);
}

#[tokio::test]
async fn rounds_bound_the_backtracks() {
    let one = plan(same, same, |run| run + "  rounds: 1\n");
    let (flown, _) = flown(one, recorded().await, LocalGateway::default()).await;
    assert_eq!(failure(&flown).0, FailureReason::RoundsExhausted);
}

/// The second step writes where the first one's plan is.
fn into_the_plan(sop: &str) -> String {
    sop.replace(
        "{argv: [cp, word.txt, copy.txt], image: \"localhost/bench:1\", collect: [copy.txt]}",
        "{argv: [cp, word.txt, docs/plan.json], image: \"localhost/bench:1\", collect: [docs/*]}",
    )
}

#[tokio::test]
async fn what_another_step_hands_over_cannot_be_written() {
    let (flown, _) = flown(
        plan(|sop| into_the_plan(&sop), same, same),
        filling(),
        LocalGateway::default(),
    )
    .await;
    assert_eq!(
        failure(&flown),
        (
            FailureReason::GateFailed,
            "the path \"docs/plan.json\" belongs to the outputs of think, and nobody else may write it".to_owned()
        )
    );
}

#[tokio::test]
async fn a_frozen_artifact_cannot_be_changed_by_a_later_step_that_hands_it_over_too() {
    let sop = |sop: String| {
        sop.replace("schema: plan, freeze: true}]", "schema: plan}, {name: notes, glob: \"*.txt\", freeze: true}]")
            .replace("    gates:\n    - name: has-files", "    - {name: note, render: {template: plan, path: note.txt}}\n    gates:\n    - name: has-files")
            .replace("[cp, word.txt, copy.txt], image: \"localhost/bench:1\", collect: [copy.txt]", "[cp, word.txt, note.txt], image: \"localhost/bench:1\", collect: [\"*.txt\"]")
    };
    let (flown, _) = flown(plan(sop, same, same), filling(), LocalGateway::default()).await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message
            .contains("changed note.txt, which belongs to the frozen artifact notes of step think"),
        "{message}"
    );
}

/// How the gate over programs ends where its program finds the first word right, and something is added to it.
async fn judged_with(added: &str) -> (Verdict, String) {
    let run = "run: [{argv: [grep, -q, right, word.txt], image: \"localhost/bench:1\", timeoutSeconds: 10}]";
    let sop = |sop: String| {
        assert!(sop.contains(run));
        let run = run.replace("right", "wrong");
        sop.replace("    plan: |\n", "    planted: <testsuite><testcase name=\"a\"/></testsuite>\n    plan: |\n")
            .replace("    - name: summarize\n", "    - {name: plant, render: {template: planted, path: report.xml}}\n    - name: summarize\n")
            .replace("run: [{argv: [grep, -q, right, word.txt], image: \"localhost/bench:1\", timeoutSeconds: 10}]", &format!("{run}\n        {added}"))
            .replace("onFailure: [{action: Backtrack, to: write}]", "onFailure: [{action: Fail}]")
    };
    let (flown, _) = flown(plan(sop, same, same), filling(), LocalGateway::default()).await;
    let mut judged = flown
        .gateway
        .events()
        .into_iter()
        .filter_map(|event| match event.what {
            What::GateJudged { gate, .. } if gate.name == "right-word" => Some(gate),
            _ => None,
        });
    let gate = judged.next_back().unwrap();
    (gate.verdict, gate.observed.unwrap())
}

#[tokio::test]
async fn a_report_that_no_program_wrote_is_no_report() {
    let report = "reports: [{name: junit, format: junit, path: report.xml}]\n        pass: reports.junit.tests == 1";
    assert_eq!(
        judged_with(report).await,
        (Verdict::Failed, "report junit was not written".to_owned())
    );
}

#[tokio::test]
async fn a_canary_stands_in_the_place_of_a_file_and_must_fail() {
    let canary = |path: &str| {
        format!(
            "canaries: [{{name: bird, path: {path}, template: planted, run: {{argv: [grep, -q, wrong, word.txt], image: \"localhost/bench:1\"}}}}]"
        )
    };
    assert_eq!(
        judged_with(&canary("word.txt")).await,
        (Verdict::Passed, "canary bird failed as it must".to_owned())
    );
    assert_eq!(
        judged_with(&canary("another.txt")).await,
        (
            Verdict::Failed,
            "canary bird did not fail as it must".to_owned()
        )
    );
}

#[tokio::test]
async fn a_program_and_a_step_that_take_too_long_are_ended() {
    let command = |sop: String| {
        sop.replace(
            "[cp, word.txt, copy.txt], image: \"localhost/bench:1\",",
            "[sleep, \"60\"], image: \"localhost/bench:1\", timeoutSeconds: 1,",
        )
    };
    let step = |sop: String| {
        sop.replace("[cp, word.txt, copy.txt]", "[sleep, \"60\"]")
            .replace(
                "  - name: write\n",
                "  - name: write\n    timeoutSeconds: 1\n",
            )
    };
    for (sop, part) in [
        (plan(command, same, same), "`sleep 60` was still running"),
        (plan(step, same, same), "timeoutSeconds of the step"),
    ] {
        let (flown, _) = flown(sop, filling(), LocalGateway::default()).await;
        let (reason, message) = failure(&flown);
        assert_eq!(reason, FailureReason::StepTimeout);
        assert!(message.contains(part), "{message}");
    }
    let deadline = plan(
        |sop| sop.replace("[cp, word.txt, copy.txt]", "[sleep, \"60\"]"),
        same,
        |run| run + "  deadlineSeconds: 1\n",
    );
    assert_eq!(
        failure(&flown(deadline, filling(), LocalGateway::default()).await.0).0,
        FailureReason::DeadlineExceeded
    );
}

/// The first launch is suspended at its first report after `think`; the second goes on and pays for nothing twice.
#[tokio::test]
async fn a_launch_goes_on_after_the_last_finished_step() {
    let gateway = LocalGateway::default();
    let sleeping = |seconds: &'static str| {
        plan(
            move |sop| {
                sop.replace(
                    "argv: [grep, -q, right, word.txt]",
                    &format!("argv: [sleep, \"{seconds}\"]"),
                )
            },
            same,
            same,
        )
    };
    let slow = sleeping("8");
    let orders = gateway.clone();
    let watch = async move {
        loop {
            let judged = orders.events().iter().any(
                |event| matches!(&event.what, What::StepStarted { step, .. } if step == "check"),
            );
            if judged {
                return orders.order(Orders {
                    suspend: true,
                    cancel: false,
                });
            }
            tokio::task::yield_now().await;
        }
    };
    let ((first, _), ()) = tokio::join!(flown(slow.clone(), filling(), gateway.clone()), watch);
    assert_eq!(first.end.outcome, Outcome::Suspended);
    let spent = first.gateway.batches().last().unwrap().usage.clone();
    assert_eq!(spent.llm_requests, 3);

    gateway.next_launch(LaunchStart {
        snapshot: first.end.snapshot.clone(),
        spent: spent.clone(),
        ..LaunchStart::default()
    });
    let mut quick = slow;
    for step in &mut quick.steps {
        step.timeout_seconds = Some(1);
    }
    // Another plan is not this run's: the snapshot is refused.
    let (other, _) = flown(quick, filling(), gateway.clone()).await;
    assert_eq!(failure(&other).0, FailureReason::Internal);

    gateway.next_launch(LaunchStart {
        snapshot: first.end.snapshot,
        spent,
        ..LaunchStart::default()
    });
    let stopper = gateway.clone();
    let cancel = async move {
        loop {
            if !stopper.batches().is_empty() {
                return stopper.order(Orders {
                    suspend: false,
                    cancel: true,
                });
            }
            tokio::task::yield_now().await;
        }
    };
    let ((second, replay), ()) =
        tokio::join!(flown(sleeping("8"), filling(), gateway.clone()), cancel);
    assert_eq!(second.end.outcome, Outcome::Cancelled);
    assert!(
        replay.filled().is_empty(),
        "no finished step is asked for again"
    );
    let started: Vec<String> = second
        .gateway
        .events()
        .into_iter()
        .filter_map(|event| {
            if let What::StepStarted { step, .. } = event.what {
                Some(step)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(started, ["check"]);
    assert_eq!(
        second.gateway.batches().last().unwrap().usage,
        Usage::default()
    );
}

#[tokio::test]
async fn the_trace_holds_who_did_what_in_order() {
    let (flown, _) = flown(plain(), recorded().await, LocalGateway::default()).await;
    let messages = flown.trace();
    let causes: Vec<&str> = messages
        .iter()
        .map(|message| message.cause.as_str())
        .collect();
    let write = [
        "write/words/word",
        "write/summarize",
        "write/copy",
        "check/right-word",
    ];
    assert_eq!(
        causes,
        [&["think/plan", "think/has-files"][..], &write, &write].concat()
    );
    assert_eq!(
        messages
            .iter()
            .map(|message| message.number)
            .collect::<Vec<_>>(),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(
        (messages[0].sender.as_str(), messages[0].input_tokens),
        ("writer", 220)
    );
}

/// A provider over TLS that finds its answer by the digest of the question, knowing nothing of steps and attempts.
async fn provider(requests: BTreeMap<Key, Request>) -> (String, String) {
    let answers: BTreeMap<Digest, (String, Vec<u8>)> = parse("cassette", &fixture("cassette.yaml"))
        .unwrap()
        .interactions
        .into_iter()
        .filter_map(|interaction| {
            Some((
                requests.get(&interaction.key)?.digest.clone()?,
                wire(&interaction.response),
            ))
        })
        .collect();
    tls::serve(move |call| {
        let question: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
        match answers.get(&Digest::of_json(&question)) {
            Some((kind, bytes)) => tls::Answer::new(200, kind, bytes.clone()),
            None => tls::Answer::new(404, "text/plain", b"not recorded".to_vec()),
        }
    })
    .await
}

#[tokio::test]
async fn the_same_cassette_served_over_tls_gives_the_same_result() {
    let (replayed, asked) = flown(plain(), filling(), LocalGateway::default()).await;
    let (address, certificate) = provider(asked.filled()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("ca")).unwrap();
    std::fs::write(folder.path().join("ca/ca.crt"), certificate).unwrap();
    let policy = |policy: String| {
        let endpoint = format!(
            "    provider: openai\n    baseUrl: {address}/v1\n    caRef: {{name: ca, key: ca.crt}}\n"
        );
        policy.replace(
            "    provider: replay\n    replay: {cassetteRef: {name: word}}\n",
            &endpoint,
        )
    };
    let places = Places {
        secrets: folder.path().to_owned(),
        config: folder.path().to_owned(),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
    let served = fly(
        plan(same, policy, same),
        Arc::default(),
        &places,
        program,
        LocalGateway::default(),
    )
    .await;
    assert_eq!(served.end.failure, None);
    assert_eq!(
        served.snapshot().unwrap().tree,
        replayed.snapshot().unwrap().tree
    );
    assert_eq!(ends(&served).len(), ends(&replayed).len());
    assert_eq!(
        served.gateway.batches().last().unwrap().usage,
        replayed.gateway.batches().last().unwrap().usage
    );
}

#[tokio::test]
async fn a_missing_secret_is_named_once_and_the_run_goes_on_when_it_appears() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |policy: String| {
        policy.replace(
            "    provider: replay\n",
            "    provider: replay\n    secretRef: {name: provider, key: token}\n",
        )
    };
    let steps = |sop: String| {
        sop.replace(
            "image: \"localhost/bench:1\", collect: [copy.txt]",
            "image: \"localhost/bench:1\"",
        )
    };
    let mut plan = plan(steps, secret, same);
    plan.steps.truncate(1);
    let gateway = LocalGateway::default();
    let flight = Flight {
        plan: Arc::new(plan),
        gateway: Gateway::Local(gateway.clone()),
        start: LaunchStart::default(),
        transports: Ok(vec![Transport::Replay(Arc::new(filling()))]),
        remote: None,
        secrets: Some(Places {
            secrets: folder.path().to_owned(),
            config: folder.path().to_owned(),
        }),
    };
    let appear = async {
        loop {
            if gateway
                .events()
                .iter()
                .any(|event| matches!(event.what, What::SecretMissing { .. }))
            {
                std::fs::create_dir(folder.path().join("provider")).unwrap();
                return std::fs::write(folder.path().join("provider/token"), "t").unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let ((end, words), ()) =
        tokio::join!(flight.fly(async { Ok(Benches::default()) }, |_| {}), appear);
    assert_eq!(
        (end.outcome, words.outcome),
        (Outcome::Succeeded, Outcome::Succeeded)
    );
    assert_eq!(
        words.acknowledged,
        gateway.batches().last().unwrap().sequence
    );
    let told: Vec<What> = gateway
        .events()
        .into_iter()
        .map(|event| event.what)
        .collect();
    let missing = What::SecretMissing {
        secret: "provider".into(),
        key: "token".into(),
    };
    assert_eq!(told.iter().filter(|what| **what == missing).count(), 1);
    assert_eq!((&told[1], &told[2]), (&missing, &What::SecretsFound));
}
