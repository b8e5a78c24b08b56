//! Long-term memory: what one run leaves, and what the next one of its project is told.

use std::path::Path;

use sopwith_crds::{
    agent_run::{Decision, DecisionVerdict},
    contract::{
        report::{LaunchStart, Next, Outcome},
        snapshot::Message,
    },
};

use crate::play::{Play, Played};

const SOP: &str = r#"
  roles: [{name: writer, profile: Writer}]
  templates:
    draft: "Write about {{ idea }}."
    shown: "{% for f in recalled %}<{{ f.run }} {{ f.sender }} {{ f.source }} {{ f.text }}>{% endfor %}"
  steps:
  - name: write
    role: writer
    outputs: [{name: doc, path: a.md}]
    actions:
    - {name: draft, prompt: {template: draft, writes: {artifact: doc}}}
    gates:
    - {name: right, kind: expression, expression: artifacts.doc.text.contains("good"), onFailure: [{action: Retry, maxAttempts: 1}]}
  - name: show
    needs: [write]
    when: recalled.size() > 0
    outputs: [{name: shown, path: shown.md}]
    actions: [{name: show, render: {template: shown, path: shown.md}}]
"#;
const ANSWERS: &str = "
- {key: {step: write, action: draft, attempt: 1, turn: 1}, response: {content: bad cards}}
- {key: {step: write, action: draft, attempt: 2, turn: 1}, response: {content: good cards}}
";
const FIRST: &str = "write/draft attempt 1 turn 1";
const FAILED: &str = "expression/right Failed: does not hold This condition does not hold: artifacts.doc.text.contains(\"good\")";

fn remembering(sop: &str, answers: &str, folder: &Path) -> Play {
    let mut play = Play::new(sop, answers);
    play.option("longTermMemory: true");
    play.option("project: {name: game}");
    play.remember(folder);
    play
}

async fn played(folder: &Path) -> Played {
    remembering(SOP, ANSWERS, folder).first().await.succeeded()
}

fn memories(played: &Played) -> Vec<Message> {
    let trace = played.trace().into_iter();
    trace.filter(|message| message.cause == "memory").collect()
}

#[tokio::test]
async fn a_run_is_told_what_the_one_before_it_left_and_says_so_in_its_trace() {
    let folder = tempfile::tempdir().unwrap();
    let first = played(folder.path()).await;
    assert_eq!(first.told(FIRST, "user"), "Write about a game.");
    assert_eq!(first.file("shown.md"), None);
    let said = memories(&first);
    assert_eq!(said.len(), 1);
    assert_eq!(
        said[0].content,
        "recalls nothing: no earlier run of project game left anything"
    );
    assert_eq!((said[0].number, said[0].sender.as_str()), (1, "sopwith"));

    let second = played(folder.path()).await;
    assert_eq!(
        second.told(FIRST, "user"),
        format!(
            "Write about a game.\n\nWhat earlier runs of this project left, nearest first:\n\n[run team, sopwith in idea]\na game\n\n\
             [run team, sopwith in write/right]\n{FAILED}\n\n[run team, writer in write/draft]\nwrote a.md: good cards"
        )
    );
    let said = memories(&second);
    assert_eq!(said.len(), 1);
    assert_eq!(
        said[0].content,
        format!(
            "recalls 3 facts of project game, left by team:\n- [run team, sopwith in idea] a game\n- [run team, sopwith in write/right] {FAILED}\n\
             - [run team, writer in write/draft] wrote a.md: good cards"
        )
    );
    // Templates and conditions see what is near to their step.
    assert_eq!(
        second.file("shown.md").unwrap(),
        "<team sopwith idea a game>\n"
    );
}

#[tokio::test]
async fn what_a_template_shows_itself_is_not_told_again() {
    let folder = tempfile::tempdir().unwrap();
    played(folder.path()).await;
    let sop = SOP.replace(
        "Write about {{ idea }}.",
        "Write about {{ idea }}, with {{ recalled | length }} facts.",
    );
    let second = remembering(&sop, ANSWERS, folder.path()).first().await;
    let second = second.succeeded();
    assert_eq!(
        second.told(FIRST, "user"),
        "Write about a game, with 3 facts."
    );
}

#[tokio::test]
async fn only_runs_that_ask_for_it_recall_and_only_those_that_succeed_leave_anything() {
    let folder = tempfile::tempdir().unwrap();
    let forgetful = Play::new(SOP, ANSWERS).first().await.succeeded();
    assert!(memories(&forgetful).is_empty());
    forgetful.flown.remember(folder.path()).unwrap();

    let bad = ANSWERS.replace("good", "bad");
    let failed = remembering(SOP, &bad, folder.path()).first().await;
    assert_eq!(failed.flown.end.outcome, Outcome::Failed);

    let mut other = Play::new(SOP, ANSWERS);
    other.option("longTermMemory: true");
    other.option("project: {name: other}");
    other.remember(folder.path());
    other.first().await.succeeded();

    let alone = played(folder.path()).await;
    assert!(memories(&alone)[0].content.starts_with("recalls nothing"));
}

#[tokio::test]
async fn a_later_launch_recalls_the_same_and_does_not_say_it_again() {
    let folder = tempfile::tempdir().unwrap();
    played(folder.path()).await;
    let sop = SOP.replace(
        "  - name: show\n",
        "  - name: sign\n    needs: [write]\n    gates: [{name: off, kind: approval}]\n  - name: show\n",
    );
    let sop = sop.replace(
        "    needs: [write]\n    when",
        "    needs: [sign]\n    when",
    );
    let play = remembering(&sop, ANSWERS, folder.path());
    let plan = play.plan();
    let first = play.first().await;
    assert_eq!(first.flown.end.outcome, Outcome::Waiting);
    let end = first.ends().pop().unwrap();
    let Next::Wait(wait) = &end.next else {
        panic!("{end:?}");
    };
    let decision = Decision {
        step: "sign".into(),
        gate: "off".into(),
        attempt: 1,
        subject: wait.subject.to_string(),
        verdict: DecisionVerdict::Approve,
        to: None,
        by: "jane".into(),
        reason: None,
        at: None,
    };
    first.flown.gateway.next_launch(LaunchStart {
        snapshot: first.flown.end.snapshot.clone(),
        decisions: vec![decision],
        ..LaunchStart::default()
    });
    assert_eq!(play.plan(), plan);
    let second = play.launch(first.flown.gateway.clone()).await.succeeded();
    assert_eq!(memories(&second).len(), 1);
    assert_eq!(
        second.file("shown.md").unwrap(),
        "<team sopwith idea a game>\n"
    );
}

#[tokio::test]
async fn a_folder_for_a_run_that_keeps_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut play = Play::new(SOP, ANSWERS);
    play.remember(folder.path());
    let refused = play.planned().unwrap_err().to_string();
    assert_eq!(
        refused,
        format!(
            "--memory {} is for runs with long-term memory; set spec.longTermMemory: true, or leave --memory out",
            folder.path().display()
        )
    );
}

#[tokio::test]
async fn a_run_that_goes_on_from_another_recalls_what_that_one_did() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    played(folder.path()).await;
    let second = played(folder.path()).await;
    second.flown.write(out.path()).unwrap();
    // Since then there is more to recall.
    played(folder.path()).await;
    let mut third = remembering(SOP, "  []\n", folder.path());
    third.recover(out.path());
    assert_eq!(third.plan().memory, second.flown.plan.memory);
    let third = third.first().await.succeeded();
    assert_eq!(third.keys(), [""; 0]);
    assert_eq!(memories(&third).len(), 1);
}
