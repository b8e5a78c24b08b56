//! Roles that pick their actions themselves.

use std::fmt::Write as _;

use sopwith_crds::{
    agent_run::{Decision, DecisionVerdict},
    contract::report::{LaunchStart, Next, Outcome},
    status::FailureReason,
};

use crate::play::{Play, Played};

const SOP: &str = r#"
  roles: [{name: fixer, profile: Fixer, reactMode: Free, maxTurns: 6}]
  templates:
    read: "What is wrong with {{ idea }}?"
    patch: "Mend {{ idea }}.{{ findings }}"
    report: "{{ artifacts.code.text }} is mended."
  steps:
  - name: fix
    role: fixer
    outputs: [{name: code, path: a.py}]
    actions:
    - {name: read, description: Look closely., prompt: {template: read, writes: {path: notes.md}}}
    - name: patch
      prompt: {template: patch, writes: {artifact: code}}
      gates: [{name: right, kind: expression, expression: artifacts.code.text.contains("right"), onFailure: [{action: Retry, maxAttempts: 1}]}]
    - {name: report, when: artifacts.code.exists, render: {template: report, path: report.md}}
"#;

/// Choices of attempt 1 in order, and what is answered else: `place` is `action` or `action N` for its Nth pick.
fn play(choices: &[&str], answers: &[(&str, &str)]) -> Play {
    Play::new(SOP, &told(1, choices, answers))
}

fn told(attempt: u32, choices: &[&str], answers: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut add = |action: &str, pick: &str, turn: usize, content: &str| {
        let content = serde_json::to_string(content).unwrap();
        let _ = writeln!(
            text,
            "- {{key: {{step: fix, action: {action}, attempt: {attempt}, pick: {pick}, turn: {turn}}}, response: {{content: {content}}}}}"
        );
    };
    for (index, choice) in choices.iter().enumerate() {
        // What is no choice is answered as it stands.
        let content = if choice.contains(' ') {
            (*choice).to_owned()
        } else {
            format!("{{\"next\": \"{choice}\", \"why\": \"I want to\"}}")
        };
        add("react", "1", index + 1, &content);
    }
    for (place, content) in answers {
        let (action, pick) = place.split_once(' ').unwrap_or((place, "1"));
        add(action, pick, 1, content);
    }
    text
}

/// What was said, as `cause: content` or `cause: wrote PATHS`.
fn trace(played: &Played) -> Vec<String> {
    let said = played.trace().into_iter().map(|message| {
        if message.wrote.is_empty() {
            format!("{}: {}", message.cause, message.content)
        } else {
            format!("{}: wrote {}", message.cause, message.wrote.join(" "))
        }
    });
    said.collect()
}

#[tokio::test]
async fn the_model_picks_among_what_is_open_in_its_own_order() {
    let play = play(
        &["patch", "report", "read", "done"],
        &[("patch", "right"), ("read", "nothing")],
    );
    let played = play.first().await.succeeded();
    assert_eq!(
        trace(&played),
        [
            "fix/react: picked patch: I want to",
            "fix/patch: wrote a.py",
            "fix/patch/right: expression/right Passed: holds",
            "fix/react: picked report: I want to",
            "fix/report: wrote report.md",
            "fix/react: picked read: I want to",
            "fix/read: wrote notes.md",
            "fix/react: is done: I want to",
        ]
    );
    assert_eq!(played.file("report.md").unwrap(), "right\n is mended.\n");
    let choice = &played.trace()[0];
    assert_eq!(
        (choice.sender.as_str(), choice.recipients.len()),
        ("fixer", 0)
    );
    assert!(choice.input_tokens > 0 && choice.output_tokens > 0);

    let open = |turn: u32| {
        let asked = played.asked.iter();
        let key = format!("fix/react attempt 1 turn {turn}");
        let mut asked = asked.filter(|(asked, _)| asked.to_string() == key);
        let body = asked.next().unwrap().1.body.clone().unwrap();
        let schema = &body["response_format"]["json_schema"]["schema"];
        schema["properties"]["next"]["enum"].to_string()
    };
    assert_eq!(open(1), r#"["read","patch","done"]"#);
    assert_eq!(open(2), r#"["read","patch","report","done"]"#);
    let second = played.told("fix/react attempt 1 turn 2", "user");
    assert!(
        second.starts_with("You are at work on the step fix, for this requirement:\na game\n\nThe actions of the step:\n- read: Look closely.\n- patch: you are asked (patch), and answer into the artifact code\n"),
        "{second}"
    );
    assert!(
        second.ends_with(
            "What the step must hand over:\n- code (a.py) is there\n\nWhat was done so far, oldest first:\n- fix/patch: wrote a.py\n\
             - fix/patch/right: expression/right Passed: holds\n\nYou can pick now, 5 more at most: read, patch, report, done."
        ),
        "{second}"
    );
}

#[tokio::test]
async fn a_role_that_says_early_that_it_is_done_must_have_handed_over() {
    let done = play(&["patch", "done"], &[("patch", "right")]);
    let done = done.first().await.succeeded();
    assert_eq!(done.file("notes.md"), None);

    let nothing = play(&["done"], &[]).first().await;
    assert_eq!(
        nothing.failure(),
        (
            FailureReason::GateFailed,
            "the output code is missing: there is no file a.py".to_owned()
        )
    );
}

#[tokio::test]
async fn what_is_no_choice_is_repaired() {
    let play = play(
        &["{\"next\": \"report\"}", "patch", "done"],
        &[("patch", "right")],
    );
    let played = play.first().await.succeeded();
    let told = played.told("fix/react attempt 1 turn 2", "user");
    assert!(
        told.starts_with("Your answer is not what was asked for:\n- "),
        "{told}"
    );
    assert!(told.contains("/next: \"report\" is not one of"), "{told}");

    let never = self::play(&["a b", "c d", "e f"], &[]).first().await;
    let (reason, message) = never.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.starts_with(
            "the answer to fix/react attempt 1 turn 3 is not what was asked for after 2 repairs: "
        ),
        "{message}"
    );
}

#[tokio::test]
async fn turns_are_bounded_and_the_gates_judge_what_is_there_then() {
    let answers = [
        ("patch", "right"),
        ("patch 2", "right, too"),
        ("read", "1"),
        ("read 2", "2"),
    ];
    let bounded = |choices: &[&str]| {
        let sop = SOP.replace("maxTurns: 6", "maxTurns: 2");
        Play::new(&sop, &told(1, choices, &answers))
    };
    let played = bounded(&["read", "patch"]).first().await.succeeded();
    // Who can pick nothing more is not asked.
    assert_eq!(
        played.keys(),
        [
            "fix/patch attempt 1 turn 1",
            "fix/react attempt 1 turn 1",
            "fix/react attempt 1 turn 2",
            "fix/read attempt 1 turn 1"
        ]
    );
    let told = played.told("fix/react attempt 1 turn 2", "user");
    assert!(
        told.contains("You can pick now, 1 more at most: "),
        "{told}"
    );

    let over = bounded(&["read", "read"]).first().await;
    let (_, message) = over.failure();
    assert_eq!(
        message,
        "the output code is missing: there is no file a.py; the 2 turns of role fixer are over (maxTurns of the role)"
    );
}

#[tokio::test]
async fn an_action_is_done_again_where_something_has_changed_since() {
    let play = play(
        &["read", "patch", "read", "done"],
        &[
            ("read", "it is wrong"),
            ("patch", "right"),
            ("read 2", "it is right"),
        ],
    );
    let played = play.first().await.succeeded();
    assert_eq!(played.file("notes.md").unwrap(), "it is right\n");
    assert!(
        played
            .keys()
            .contains(&"fix/read attempt 1 pick 2 turn 1".to_owned())
    );
}

#[tokio::test]
async fn a_repetition_is_told_once_and_then_fails_the_attempt() {
    let again = "fix/react: picked read again, which was not done: nothing in the project has changed since: I want to";
    let told = play(
        &["read", "read", "patch", "done"],
        &[("read", "it is wrong"), ("patch", "right")],
    );
    let told = told.first().await.succeeded();
    assert_eq!(trace(&told)[2], again);
    let third = told.told("fix/react attempt 1 turn 3", "user");
    assert!(
        third.contains("\n\nYour last choice was not done: nothing in the project has changed"),
        "{third}"
    );
    let fourth = told.told("fix/react attempt 1 turn 4", "user");
    assert!(
        !fourth.contains("Your last choice was not done"),
        "{fourth}"
    );

    let stuck = play(&["read", "read", "read"], &[("read", "it is wrong")]);
    let stuck = stuck.first().await;
    assert_eq!(
        stuck.failure(),
        (
            FailureReason::GateFailed,
            "role fixer picked fix/read again and again, though nothing in the project had changed since, and it was told so; change its \
             prompts, or use reactMode: ByOrder"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn a_gate_that_failed_follows_its_rules_and_is_judged_again_whatever_is_picked() {
    let first = told(1, &["patch"], &[("patch", "wrong")]);
    let mended = told(2, &["patch", "done"], &[("patch", "right")]);
    let mended = Play::new(SOP, &format!("{first}{mended}"));
    let mended = mended.first().await.succeeded();
    assert_eq!(mended.ends().len(), 2);
    let choice = mended.told("fix/react attempt 2 turn 1", "user");
    assert!(
        choice.contains(
            "Your last attempt did not pass. What was found:\nThis condition does not hold:"
        ),
        "{choice}"
    );

    let ignored = told(2, &["done"], &[]);
    let ignored = Play::new(SOP, &format!("{first}{ignored}")).first().await;
    let (reason, message) = ignored.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains("gate right failed: does not hold"),
        "{message}"
    );
}

#[tokio::test]
async fn an_answer_in_markdown_is_a_choice_too() {
    let answers = told(
        1,
        &[
            "# next\npatch\n\n# why\nIt is time.",
            "# next\ndone\n\n# why\nAll is well.",
        ],
        &[("patch", "right")],
    );
    let mut play = Play::new(SOP, &answers);
    play.option("promptSchema: markdown");
    let played = play.first().await.succeeded();
    assert_eq!(trace(&played)[0], "fix/react: picked patch: It is time.");
    let told = played.told("fix/react attempt 1 turn 1", "user");
    assert!(
        told.contains("\n\nAnswer in Markdown, with nothing around it."),
        "{told}"
    );
}

#[tokio::test]
async fn what_people_approve_at_the_end_is_not_picked_anew() {
    let sop = format!("{SOP}    gates: [{{name: sign-off, kind: approval}}]\n");
    let play = Play::new(&sop, &told(1, &["patch", "done"], &[("patch", "right")]));
    let first = play.first().await;
    assert_eq!(first.flown.end.outcome, Outcome::Waiting);
    let end = first.ends().pop().unwrap();
    let Next::Wait(wait) = &end.next else {
        panic!("{end:?}");
    };
    let decision = Decision {
        step: "fix".into(),
        gate: "sign-off".into(),
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
    let second = play.launch(first.flown.gateway.clone()).await.succeeded();
    assert_eq!(second.keys(), [""; 0]);
}

#[tokio::test]
async fn what_was_not_picked_is_not_asked_for_by_the_compliance_of_the_run() {
    let sop = format!(
        "{SOP}    gates: [{{name: written, kind: expression, expression: artifacts.code.exists}}]\n  - name: release\n    needs: [fix]\n    \
         gates: [{{name: by-the-book, kind: compliance}}]\n"
    );
    let sop = sop.replace(
        "writes: {path: notes.md}}}",
        "writes: {path: notes.md}}, gates: [{name: noted, kind: expression, expression: 'false'}]}",
    );
    let answers = told(1, &["patch", "done"], &[("patch", "right")]);
    let played = Play::new(&sop, &answers).first().await.succeeded();
    let said = trace(&played).pop().unwrap();
    assert!(
        said.contains("release/by-the-book: compliance/by-the-book Passed"),
        "{said}"
    );
}

#[tokio::test]
async fn what_an_earlier_run_picked_is_judged_again_and_nothing_else_and_nobody_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let sop = SOP.replace(
        "writes: {path: notes.md}}}",
        "writes: {path: notes.md}}, gates: [{name: noted, kind: expression, expression: 'false'}]}",
    );
    let answers = told(1, &["patch", "report", "done"], &[("patch", "right")]);
    let first = Play::new(&sop, &answers).first().await.succeeded();
    first.flown.write(folder.path()).unwrap();
    let mut again = Play::new(&sop, "  []\n");
    // Another option: every gate is judged again.
    again.option("codeReview: false");
    again.recover(folder.path());
    let again = again.first().await.succeeded();
    assert_eq!(again.keys(), [""; 0]);
    let said = trace(&again);
    let judged: Vec<&String> = said.iter().filter(|said| said.contains("Passed")).collect();
    assert_eq!(judged.len(), 2, "{said:?}");
    assert!(!said.iter().any(|said| said.contains("noted")), "{said:?}");
}
