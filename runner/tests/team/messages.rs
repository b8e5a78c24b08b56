//! Messages: who is told what, and what a role remembers of it.

use crate::play::{Play, Played};

const SOP: &str = r#"
  roles:
  - {name: architect}
  - {name: engineer, memory: {window: 2}}
  - {name: tester, memory: {window: 3}}
  - {name: lawyer}
  templates:
    design: "Design {{ idea }}."
    code: "Write code.\n"
    shown: "Read {% for m in messages %}<{{ m.number }} {{ m.sender }} {{ m.cause }} {{ m.wrote | join }}>{% endfor %}"
  steps:
  - name: design
    role: architect
    raci: {consulted: [lawyer, the board]}
    outputs: [{name: design, path: design.md}]
    actions:
    - {name: draft, prompt: {template: design, writes: {artifact: design}}}
    - {name: sketch, prompt: {template: design, writes: {path: sketch.md}}}
    - {name: note, render: {template: design, path: note.md}}
  - name: implement
    role: engineer
    needs: [design]
    inputs: [{artifact: design}]
    outputs: [{name: code, path: code.py}]
    actions:
    - {name: write, prompt: {template: code, writes: {artifact: code}}}
    gates:
    - {name: right, kind: expression, expression: artifacts.code.text.contains("right"), onFailure: [{action: Retry}]}
  - name: gate
    needs: [implement]
    gates:
    - {name: two-told, kind: expression, expression: "round == 1"}
  - name: test
    role: tester
    needs: [gate]
    when: messages.exists(m, m.cause == "implement/write" && m.attempt == 2)
    actions:
    - {name: read, prompt: {template: shown, writes: {path: test.md}}}
"#;
const ANSWERS: &str = "
- {key: {step: design, action: draft, attempt: 1, turn: 1}, response: {content: A table of cards.}}
- {key: {step: design, action: sketch, attempt: 1, turn: 1}, response: {content: A sketch of it.}}
- {key: {step: implement, action: write, attempt: 1, turn: 1}, response: {content: wrong}}
- {key: {step: implement, action: write, attempt: 2, turn: 1}, response: {content: right}}
- {key: {step: test, action: read, attempt: 1, turn: 1}, response: {content: read}}
";

async fn played() -> Played {
    Play::new(SOP, ANSWERS).first().await.succeeded()
}

#[tokio::test]
async fn the_trace_names_who_is_told() {
    let told: Vec<(String, String)> = played()
        .await
        .trace()
        .into_iter()
        .map(|message| (message.cause, message.recipients.join(" ")))
        .collect();
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(cause, to)| (cause.as_str(), to.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("design/draft", "engineer lawyer"),
            ("design/sketch", "engineer lawyer"),
            ("design/note", "engineer lawyer"),
            // Who builds on it hears what was written, across a step without a role; who wrote it, why it did not pass.
            ("implement/write", "tester"),
            ("implement/right", "engineer"),
            ("implement/write", "tester"),
            ("implement/right", ""),
            ("gate/two-told", ""),
            ("test/read", ""),
        ]
    );
}

#[tokio::test]
async fn a_role_is_told_as_much_as_its_memory_holds() {
    let played = played().await;
    assert_eq!(
        played.told("implement/write attempt 1 turn 1", "user"),
        "Write code.\n\nWhat you were told, oldest first:\n\n[architect in design/sketch]\nwrote sketch.md\nA sketch of it.\n\n\
         [sopwith in design/note]\nwrote note.md"
    );
    // What was found is told once, as what has to be mended.
    assert_eq!(
        played.told("implement/write attempt 2 turn 1", "user"),
        "Write code.\n\nWhat you were told, oldest first:\n\n[sopwith in design/note]\nwrote note.md\n\n\
         Your last attempt did not pass. What was found:\nThis condition does not hold:\nartifacts.code.text.contains(\"right\")"
    );
    // Without a memory, nothing is added.
    assert_eq!(
        played.told("design/draft attempt 1 turn 1", "user"),
        "Design a game."
    );
}

#[tokio::test]
async fn a_template_and_an_expression_see_the_messages() {
    let played = played().await;
    assert_eq!(
        played.told("test/read attempt 1 turn 1", "user"),
        "Read <4 engineer implement/write code.py><6 engineer implement/write code.py>"
    );
}
