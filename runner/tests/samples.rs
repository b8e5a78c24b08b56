//! The sample without code, played on this machine: what it shows, and that each of its gates can fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use sopwith_crds::{
    cassette::CassetteFile,
    contract::{
        plan::RunPlan,
        report::{Next, Outcome, StepEnd, What},
    },
    status::Verdict,
};
use sopwith_runner::{
    gateway::LocalGateway,
    llm::{
        replay::{Replay, parse},
        transport::Places,
    },
    local::{Flown, Inputs, approved, fly},
};

/// A file of the sample, and a text in it with what stands in its place.
type Change<'a> = (&'a str, &'a str, &'a str);

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/incident-review")
}

fn changed(file: &str, changes: &[Change<'_>]) -> String {
    let mut text = fs::read_to_string(sample().join(file)).unwrap();
    for (_, from, to) in changes.iter().filter(|(name, ..)| *name == file) {
        assert!(text.contains(from), "{file} does not contain {from:?}");
        text = text.replace(from, to);
    }
    text
}

fn plan(changes: &[Change<'_>]) -> RunPlan {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, changed(name, changes)).unwrap();
        path
    };
    let inputs = Inputs {
        sop: file("sop.yaml"),
        policy: file("toolpolicy.yaml"),
        run: file("agentrun.yaml"),
        config: sample(),
        ..Inputs::default()
    };
    inputs.plan().unwrap()
}

fn parts() -> Vec<(String, String)> {
    let file = CassetteFile::parse(&changed("cassette.yaml", &[])).unwrap();
    file.parts().to_vec()
}

/// The recorded answers, one of them changed; questions are not compared.
fn answering(step: &str, attempt: u32, from: &str, to: &str) -> Replay {
    let mut parts = parts();
    let mut found = 0;
    for (name, text) in &mut parts {
        let mut cassette = parse(name, text).unwrap();
        for interaction in &mut cassette.interactions {
            let key = &interaction.key;
            let Some(content) = &mut interaction.response.content else {
                continue;
            };
            if (key.step.as_str(), key.attempt) == (step, attempt) {
                found += content.matches(from).count();
                *content = content.replace(from, to);
            }
        }
        *text = serde_saphyr::to_string(&cassette).unwrap();
    }
    assert!(
        found > 0 || from.is_empty(),
        "{step} {attempt} does not answer {from:?}"
    );
    Replay::new(&parts).unwrap().filling()
}

/// Plays the review; people approve what they are asked. Gives how each attempt ended, and the last launch.
async fn played(plan: RunPlan, replay: Replay) -> (Vec<StepEnd>, Flown) {
    let places = Places {
        secrets: "none".into(),
        config: "none".into(),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
    let (gateway, replay) = (LocalGateway::default(), Arc::new(replay));
    let mut ends = Vec::new();
    loop {
        let (plan, replay) = (plan.clone(), Arc::clone(&replay));
        let flown = fly(plan, replay, &places, program, gateway.clone()).await;
        ends.extend(
            flown
                .gateway
                .events()
                .into_iter()
                .filter_map(|event| match event.what {
                    What::StepEnded { end } => Some(*end),
                    _ => None,
                }),
        );
        match approved(&flown, "incident-owner") {
            Some(next) => gateway.next_launch(next),
            None => return (ends, flown),
        }
    }
}

fn file(flown: &Flown, path: &str) -> String {
    let tree = flown.snapshot().unwrap().tree;
    let entry = tree.get(path);
    let entry = entry.unwrap_or_else(|| panic!("there is no {path}"));
    String::from_utf8(flown.gateway.blob(&entry.digest).unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_review_goes_back_to_its_causes_and_is_published_once_its_owner_has_approved() {
    let (ends, flown) = played(plan(&[]), Replay::new(&parts()).unwrap()).await;
    assert_eq!(
        flown.end.outcome,
        Outcome::Succeeded,
        "{:?}",
        flown.end.failure
    );
    let path: Vec<String> = ends
        .iter()
        .map(|end| format!("{} {} {:?}", end.step, end.attempt, end.verdict))
        .collect();
    assert_eq!(
        path,
        [
            "timeline 1 Passed",
            "causes 1 Passed",
            "actions 1 Failed",
            "causes 2 Passed",
            "actions 2 Failed",
            "actions 3 Passed",
            "review 1 Pending",
            "review 1 Passed",
            "publish 1 Passed",
        ]
    );
    assert_eq!(
        ends[2].next,
        Next::Backtrack {
            to: "causes".into()
        }
    );
    assert_eq!(ends[4].next, Next::Retry);
    let review = file(&flown, "docs/incidents/checkout-2026-09-17.md");
    assert!(
        review.contains("### C-3 (detection)") && review.contains("| A-5 | detect |"),
        "{review}"
    );
    let tickets = file(&flown, "resources/actions/checkout-2026-09-17.csv");
    assert_eq!(tickets.lines().count(), 6, "{tickets}");
    assert!(
        file(&flown, "docs/incidents/checkout-2026-09-17-customers.md")
            .contains("## What we change")
    );
}

#[tokio::test]
async fn each_gate_of_the_review_can_fail() {
    for (gate, step, attempt, from, to) in [
        (
            "quotes-are-in-the-records",
            "timeline",
            1,
            "three customers cannot",
            "four customers cannot",
        ),
        (
            "events-are-in-order",
            "timeline",
            1,
            "T09:12:00Z",
            "T19:12:00Z",
        ),
        (
            "minutes-add-up",
            "timeline",
            1,
            "\"to_detect\": 16",
            "\"to_detect\": 15",
        ),
        (
            "minutes-add-up",
            "timeline",
            1,
            "\"started\": \"E-4\"",
            "\"started\": \"E-40\"",
        ),
        (
            "answers-rest-on-events",
            "causes",
            1,
            "\"E-15\"",
            "\"E-99\"",
        ),
        (
            "blames-nobody",
            "causes",
            1,
            "That was a standard change",
            "Somebody forgot the load test",
        ),
        ("late-detection-is-answered", "actions", 1, "", ""),
        (
            "every-cause-has-an-action",
            "actions",
            2,
            "[\"C-2\"]",
            "[\"C-1\"]",
        ),
        ("every-action-has-an-owner", "actions", 2, "", ""),
        (
            "ends-can-be-measured",
            "actions",
            3,
            "fires before 14:02",
            "fires sooner",
        ),
        (
            "ends-can-be-measured",
            "actions",
            3,
            "2026-09-25",
            "2026-09-05",
        ),
        (
            "names-no-one",
            "review",
            1,
            "these repeats",
            "Mirela saw that these repeats",
        ),
        ("notice-complete", "publish", 1, "## What we did", "## Then"),
        (
            "nothing-internal",
            "publish",
            1,
            "our payment system",
            "payments-db",
        ),
        (
            "nothing-internal",
            "publish",
            1,
            "our payment system",
            "a system of data-platform",
        ),
    ] {
        let (ends, _) = played(plan(&[]), answering(step, attempt, from, to)).await;
        fails(&ends, gate, step, attempt);
    }
}

#[tokio::test]
async fn what_the_procedure_asks_for_must_be_there() {
    let more_whys = (
        "sop.yaml",
        "default: \"5\"\n  - name: detectWithin",
        "default: \"6\"\n  - name: detectWithin",
    );
    let no_lessons = ("sop.yaml", "## Lessons", "## Learned");
    for (gate, step, change) in [
        ("asked-why-often-enough", "causes", more_whys),
        ("review-complete", "review", no_lessons),
    ] {
        let (ends, _) = played(plan(&[change]), answering(step, 1, "", "")).await;
        fails(&ends, gate, step, 1);
    }
}

fn fails(ends: &[StepEnd], gate: &str, step: &str, attempt: u32) {
    let end = ends
        .iter()
        .find(|end| end.step == step && end.attempt == attempt);
    let end = end.unwrap_or_else(|| panic!("{step} {attempt} did not end: {ends:?}"));
    assert_eq!(end.verdict, Verdict::Failed, "{gate} passed: {end:?}");
    assert!(
        end.message.starts_with(&format!("gate {gate} failed")),
        "{}",
        end.message
    );
}
