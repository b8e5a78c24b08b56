//! What changed, as templates show it.

use sopwith_crds::contract::report::{LaunchStart, Outcome};
use sopwith_runner::local::approved;

use crate::play::Play;

/// Three steps; the second is tried twice and waits for people in between.
const SOP: &str = r#"
  roles: [{name: writer}]
  templates:
    text: "Write."
    told: "run:{{ diff('run') }}step:{{ diff() }}attempt:{{ diff('attempt') }}"
  steps:
  - name: first
    role: writer
    outputs: [{name: one, path: one.txt}]
    actions: [{name: write, prompt: {template: text, writes: {artifact: one}}}]
  - name: second
    role: writer
    needs: [first]
    outputs: [{name: two, path: two.txt}]
    actions:
    - name: write
      prompt: {template: text, writes: {artifact: two}}
      gates: [{name: right, kind: approval, onFailure: [{action: Retry}]}]
    - {name: told, render: {template: told, path: told.txt}}
"#;
const ANSWERS: &str = "
- {key: {step: first, action: write, attempt: 1, turn: 1}, response: {content: one}}
- {key: {step: second, action: write, attempt: 1, turn: 1}, response: {content: two}}
";
const ONE: &str = "--- /dev/null\n+++ b/one.txt\n@@ -0,0 +1 @@\n+one\n";
const TWO: &str = "--- /dev/null\n+++ b/two.txt\n@@ -0,0 +1 @@\n+two\n";

#[tokio::test]
async fn a_resumed_launch_tells_changes_since_run_step_and_attempt_began() {
    let play = Play::new(SOP, ANSWERS);
    let waiting = play.first().await;
    assert_eq!(waiting.flown.end.outcome, Outcome::Waiting);
    let next = approved(&waiting.flown, "jane").unwrap();
    waiting.flown.gateway.next_launch(next);
    let played = play.launch(waiting.flown.gateway.clone()).await.succeeded();
    assert_eq!(
        played.file("told.txt").unwrap(),
        format!("run:{ONE}{TWO}step:{TWO}attempt:{TWO}")
    );
}

#[tokio::test]
async fn another_attempt_tells_what_it_changed_itself() {
    let sop = SOP.replace(
        "kind: approval",
        "kind: expression, expression: attempt == 2",
    );
    let answers = format!(
        "{ANSWERS}- {{key: {{step: second, action: write, attempt: 2, turn: 1}}, response: {{content: other}}}}\n"
    );
    let played = Play::new(&sop, &answers).first().await.succeeded();
    let step = TWO.replace("+two", "+other");
    let attempt = "--- a/two.txt\n+++ b/two.txt\n@@ -1 +1 @@\n-two\n+other\n";
    assert_eq!(
        played.file("told.txt").unwrap(),
        format!("run:{ONE}{step}step:{step}attempt:{attempt}")
    );
}

/// A launch that begins anew from the snapshot before the attempt, as after a lost pod.
#[tokio::test]
async fn a_lost_launch_changes_nothing_of_it() {
    let sop = SOP.replace(
        "kind: approval",
        "kind: expression, expression: attempt == 2",
    );
    let answers = format!(
        "{ANSWERS}- {{key: {{step: second, action: write, attempt: 2, turn: 1}}, response: {{content: other}}}}\n"
    );
    let play = Play::new(&sop, &answers);
    let whole = play.first().await.succeeded();
    let after_first_attempt = whole.ends()[1].snapshot.clone();
    whole.flown.gateway.next_launch(LaunchStart {
        snapshot: Some(after_first_attempt),
        ..LaunchStart::default()
    });
    let resumed = play.launch(whole.flown.gateway.clone()).await.succeeded();
    assert_eq!(resumed.keys(), ["second/write attempt 2 turn 1"]);
    assert_eq!(resumed.file("told.txt"), whole.file("told.txt"));
}
