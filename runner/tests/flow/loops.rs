//! Loops: passes, attempts of items, items at once.

use std::fmt::Debug;

use sopwith_crds::status::{FailureReason, Verdict};

use crate::flight::{Landed, answers, flown, planned};

/// Writes each file, reviews it, and rewrites it until the review says `good`.
fn reviewed(with: &str) -> String {
    REVIEWED.replace("      WITH\n", with)
}

const REVIEWED: &str = r#"roles: [{name: engineer}]
templates:
  list: list
  write: "write {{ item.path }}, pass {{ pass }}{% if retry %}, retry {{ retry }}{% endif %}{% if findings %}: {{ findings }}{% endif %}"
  review: "review {{ file(item.path) }}"
schemas:
  list: {type: object}
steps:
- name: code
  role: engineer
  outputs: [{name: list, path: list.json}, {name: code, glob: "*.py"}, {name: reviews, glob: "*.review"}]
  actions:
  - {name: list, prompt: {template: list, schema: list, writes: {artifact: list}}}
  - name: files
    loop:
      forEach: artifacts.list.json.files
      WITH
      actions:
      - {name: write, prompt: {template: write, writes: {path: "{{ item.path }}"}}}
      - {name: review, prompt: {template: review, writes: {path: "{{ item.path }}.{{ pass }}.review"}}}
"#;

const LIST: (&str, &str) = (
    "code/list",
    r#"{"files": [{"path": "a.py"}, {"path": "b.py"}, {"path": "c.py"}]}"#,
);

const UNTIL: &str = r#"      until: "artifacts.reviews.paths.exists(p, p == item.path + '.2.review')"
"#;

/// Answers for files a, b and c in the first pass.
fn written() -> Vec<(&'static str, &'static str)> {
    vec![
        LIST,
        ("code/files/write[a.py]", "a = 1"),
        ("code/files/review[a.py]", "good"),
        ("code/files/write[b.py]", "b = 1"),
        ("code/files/review[b.py]", "good"),
        ("code/files/write[c.py]", "c = 1"),
        ("code/files/review[c.py]", "good"),
    ]
}

#[tokio::test]
async fn without_until_each_item_is_passed_over_once() {
    let landed = flown(planned(&reviewed(""), ""), answers(&written())).await;
    assert!(landed.succeeded());
    assert_eq!(
        landed.asked(),
        [
            "code/files/review[a.py] attempt 1 turn 1",
            "code/files/review[b.py] attempt 1 turn 1",
            "code/files/review[c.py] attempt 1 turn 1",
            "code/files/write[a.py] attempt 1 turn 1",
            "code/files/write[b.py] attempt 1 turn 1",
            "code/files/write[c.py] attempt 1 turn 1",
            "code/list attempt 1 turn 1",
        ]
    );
    assert_eq!(
        landed.question("code/files/write[b.py]"),
        "write b.py, pass 1"
    );
}

#[tokio::test]
async fn passes_over_an_item_end_where_until_holds() {
    let mut told = written();
    told.extend([
        ("code/files/write[a.py] 1.0.2", "a = 2"),
        ("code/files/review[a.py] 1.0.2", "good"),
        ("code/files/write[b.py] 1.0.2", "b = 2"),
        ("code/files/review[b.py] 1.0.2", "good"),
        ("code/files/write[c.py] 1.0.2", "c = 2"),
        ("code/files/review[c.py] 1.0.2", "good"),
    ]);
    let landed = flown(planned(&reviewed(UNTIL), ""), answers(&told)).await;
    assert!(landed.succeeded());
    assert_eq!(landed.files()["b.py"], "b = 2\n");
    assert_eq!(
        landed.question("code/files/write[c.py] 1.0.2"),
        "write c.py, pass 2"
    );
    assert_eq!(
        landed.question("code/files/review[c.py] 1.0.2"),
        "review c = 2\n"
    );
    let ends: Vec<String> = landed
        .told()
        .into_iter()
        .filter(|told| told.starts_with("files["))
        .collect();
    assert_eq!(
        ends,
        [
            "files[a.py]: 2 passes; until holds",
            "files[b.py]: 2 passes; until holds",
            "files[c.py]: 2 passes; until holds"
        ]
    );
}

/// A loop over nothing, with an option as its bound; says what was asked and how it ended.
async fn summarized(most: &str, good_at: u32) -> Landed {
    let sop = r#"roles: [{name: engineer}]
templates:
  write: "write"
  repair: "pass {{ pass }} of {{ options.maxAutoSummarizeCode }}"
  done: "{{ artifacts.code.text }}"
steps:
- name: code
  role: engineer
  outputs: [{name: code, path: code.py}]
  actions:
  - {name: write, prompt: {template: write, writes: {artifact: code}}}
  - name: summarize
    loop:
      until: artifacts.code.text.contains('good')
      max: options.maxAutoSummarizeCode
      actions:
      - {name: repair, prompt: {template: repair, writes: {artifact: code}}}
  - {name: keep, render: {template: done, path: done.txt}}
"#;
    let mut told = vec![("code/write".to_owned(), "bad")];
    for pass in 1..=100 {
        let text = if pass >= good_at { "good" } else { "bad" };
        told.push((format!("code/summarize/repair 1.0.{pass}"), text));
    }
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|(key, text)| (key.as_str(), *text))
        .collect();
    let run = format!("maxAutoSummarizeCode: {most}\ninvestment: \"100\"");
    flown(planned(sop, &run), answers(&told)).await
}

#[tokio::test]
async fn max_auto_summarize_code_bounds_a_loop() {
    for (most, good_at, asked, text) in [
        ("0", 1, 0, "bad\n"),
        ("2", 1, 1, "good\n"),
        ("2", 9, 2, "bad\n"),
        ("-1", 7, 7, "good\n"),
        ("-1", 1000, 100, "bad\n"),
    ] {
        let landed = summarized(most, good_at).await;
        assert!(landed.succeeded());
        assert_eq!(landed.asked().len(), asked + 1, "{most}");
        assert_eq!(landed.files()["done.txt"], text, "{most}");
    }
    let landed = summarized("2", 2).await;
    assert_eq!(
        landed.question("code/summarize/repair 1.0.2"),
        "pass 2 of 2"
    );
}

#[tokio::test]
async fn a_max_that_is_no_number_of_passes_fails_with_its_value() {
    for (max, given) in [
        ("size(artifacts.list.json.files) * 40", "120"),
        ("'3'", "\"3\""),
        ("0 - 2", "-2"),
    ] {
        let with = format!("      until: 'false'\n      max: \"{max}\"\n");
        let landed = flown(planned(&reviewed(&with), ""), answers(&written())).await;
        assert_eq!(
            landed.failure(),
            (
                FailureReason::InvalidPlan,
                format!(
                    "max of code/files[a.py]: must give a whole number from 0 to 100, or -1 for 100, but gives {given}"
                )
            )
        );
    }
}

/// Each file must say 3 in the end; who does not is begun again twice.
const THREE: &str = r#"      gates:
      - name: three
        kind: expression
        expression: "artifacts.code.paths.size() > 0 && pass + retry == 3 || item.path != 'b.py'"
        onFailure: [{action: Retry, maxAttempts: 2}]
"#;

#[tokio::test]
async fn a_failed_gate_of_an_item_begins_that_item_again_with_what_was_found() {
    let mut told = written();
    told.extend([
        ("code/files/write[b.py] 1.1", "b = 2"),
        ("code/files/review[b.py] 1.1", "good"),
        ("code/files/write[b.py] 1.2", "b = 3"),
        ("code/files/review[b.py] 1.2", "good"),
    ]);
    let landed = flown(planned(&reviewed(THREE), ""), answers(&told)).await;
    assert!(landed.succeeded());
    assert_eq!(landed.path(), ["code 1 Passed"]);
    assert_eq!(landed.asked().len(), told.len());
    assert_eq!(landed.files()["b.py"], "b = 3\n");
    let question = landed.question("code/files/write[b.py] 1.2");
    assert!(
        question.starts_with("write b.py, pass 1, retry 2: This condition does not hold:"),
        "{question}"
    );
    let verdicts: Vec<Verdict> = landed.verdicts().into_iter().map(|(_, v)| v).collect();
    assert_eq!(
        verdicts,
        [
            Verdict::Passed,
            Verdict::Failed,
            Verdict::Failed,
            Verdict::Passed,
            Verdict::Passed
        ]
    );
}

#[tokio::test]
async fn an_item_is_begun_again_no_more_often_than_its_rule_says() {
    let gate = THREE.replace("maxAttempts: 2", "maxAttempts: 1");
    let mut told = written();
    told.extend([
        ("code/files/write[b.py] 1.1", "b = 2"),
        ("code/files/review[b.py] 1.1", "good"),
    ]);
    let landed = flown(planned(&reviewed(&gate), ""), answers(&told)).await;
    assert_eq!(landed.failure().0, FailureReason::GateFailed);
    assert_eq!(landed.path(), ["code 1 Failed"]);
    // The items after it are not begun.
    assert!(!landed.asked().iter().any(|key| key.contains("c.py")));
}

#[tokio::test]
async fn an_action_of_a_loop_has_gates_of_its_own_and_an_item_can_go_back_to_its_files() {
    let sop = reviewed("").replace(
        "      - {name: write,",
        r#"      - name: note
        render: {template: list, path: "{{ item.path }}.note"}
        when: retry == 0
        gates:
        - name: first
          kind: expression
          expression: "retry == 1 || item.path != 'b.py'"
          onFailure: [{action: Retry, workspace: restore}]
      - {name: write,"#,
    );
    let sop = sop.replace("(item.path)", "(item.path) }}{{ glob('*.note') | join(',')");
    let mut told = written();
    told.extend([
        ("code/files/write[b.py] 1.1", "b = 2"),
        ("code/files/review[b.py] 1.1", "good"),
    ]);
    let landed = flown(planned(&sop, ""), answers(&told)).await;
    assert!(landed.succeeded());
    // What the failed begin of b wrote is gone, and its second begin leaves the action out.
    let notes: Vec<String> = landed
        .files()
        .into_keys()
        .filter(|path| path.contains(".note"))
        .collect();
    assert_eq!(notes, ["a.py.note", "c.py.note"]);
    assert!(
        !landed
            .asked()
            .contains(&"code/files/write[b.py] attempt 1 turn 1".to_owned())
    );
    let question = landed.question("code/files/review[b.py] 1.1");
    assert!(
        question.starts_with(
            "review b = 2
a.py.note
"
        ),
        "{question}"
    );
}

#[tokio::test]
async fn items_with_the_same_name_are_told_apart() {
    let list = (
        "code/list",
        r#"{"files": [{"path": "a.py"}, {"path": "a.py"}]}"#,
    );
    let told = [
        list,
        ("code/files/write[a.py]", "a = 1"),
        ("code/files/review[a.py]", "good"),
        ("code/files/write[a.py (2)]", "a = 2"),
        ("code/files/review[a.py (2)]", "good"),
    ];
    let landed = flown(planned(&reviewed(""), ""), answers(&told)).await;
    assert!(landed.succeeded());
    assert_eq!(landed.files()["a.py"], "a = 2\n");
}

/// What must be the same whether items are worked on at once or not.
fn essence(landed: &Landed) -> impl PartialEq + Debug {
    let messages = landed.messages().into_iter().map(|message| {
        format!(
            "{} {} {} {} {:?} {} {}",
            message.number,
            message.sender,
            message.cause,
            message.content,
            message.wrote,
            message.input_tokens,
            message.output_tokens
        )
    });
    (
        messages.collect::<Vec<_>>(),
        format!("{:?}", landed.files()),
        landed.verdicts(),
        landed.asked(),
    )
}

#[tokio::test]
async fn items_at_once_give_what_they_give_one_after_the_other() {
    let mut told = written();
    told.extend([
        ("code/files/write[b.py] 1.1", "b = 2"),
        ("code/files/review[b.py] 1.1", "good"),
        ("code/files/write[b.py] 1.2", "b = 3"),
        ("code/files/review[b.py] 1.2", "good"),
    ]);
    let one = flown(planned(&reviewed(THREE), ""), answers(&told)).await;
    assert!(one.succeeded());
    for at_once in ["2", "16"] {
        let with = format!("      parallel: {at_once}\n{THREE}");
        let many = flown(planned(&reviewed(&with), ""), answers(&told)).await;
        assert!(many.succeeded());
        assert_eq!(essence(&many), essence(&one));
    }
}

#[tokio::test]
async fn an_item_at_once_with_others_does_not_see_what_they_write() {
    let sop = |parallel: &str| {
        reviewed(parallel).replace(
            "review {{ file(item.path) }}",
            "{{ glob('*.py') | join(',') }}",
        )
    };
    let one = flown(planned(&sop(""), ""), answers(&written())).await;
    assert_eq!(one.question("code/files/review[c.py]"), "a.py,b.py,c.py");
    let many = flown(
        planned(&sop("      parallel: 3\n"), ""),
        answers(&written()),
    )
    .await;
    assert_eq!(many.question("code/files/review[c.py]"), "c.py");
}

#[tokio::test]
async fn two_items_at_once_that_change_one_file_differently_fail_the_step() {
    let sop =
        reviewed("      parallel: 2\n").replace("{{ item.path }}.{{ pass }}.review", "all.review");
    let mut told = written();
    let same = flown(planned(&sop, ""), answers(&told)).await;
    assert!(same.succeeded(), "the same content is no conflict");
    told[4].1 = "better";
    let landed = flown(planned(&sop, ""), answers(&told)).await;
    assert_eq!(
        landed.failure(),
        (
            FailureReason::GateFailed,
            "the items a.py and b.py of code/files both changed all.review, each in its own way: give each item its own files, or leave `parallel` out".to_owned()
        )
    );
}

#[tokio::test]
async fn of_items_at_once_that_cannot_go_on_the_first_in_their_order_counts() {
    let gate = "      parallel: 3\n      gates: [{name: only-a, kind: expression, expression: \"item.path == 'a.py'\"}]\n";
    let landed = flown(planned(&reviewed(gate), ""), answers(&written())).await;
    assert_eq!(landed.failure().0, FailureReason::GateFailed);
    // What those before it left stays, as it does one after the other.
    let files: Vec<String> = landed.files().into_keys().collect();
    assert_eq!(
        files,
        [
            "a.py",
            "a.py.1.review",
            "b.py",
            "b.py.1.review",
            "list.json"
        ]
    );
    assert_eq!(
        landed.verdicts(),
        [
            ("only-a".to_owned(), Verdict::Passed),
            ("only-a".to_owned(), Verdict::Failed)
        ]
    );
}

#[tokio::test]
async fn an_item_has_the_name_that_the_loop_gives_it() {
    let sop = r#"templates: {note: "{{ place.name }} in {{ place.land }}"}
steps:
- name: travel
  outputs: [{name: notes, glob: "*.txt"}]
  actions:
  - name: places
    loop:
      forEach: "[{'name': 'Rome', 'land': 'Italy'}, {'name': 'Oslo', 'land': 'Norway'}]"
      as: place
      actions:
      - {name: note, when: "place.name != 'Oslo'", render: {template: note, path: "{{ place.name }}.txt"}}
"#;
    let landed = flown(planned(sop, ""), answers(&[])).await;
    assert!(landed.succeeded());
    let files = landed.files();
    assert_eq!(
        files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect::<Vec<_>>(),
        [("Rome.txt", "Rome in Italy\n")]
    );
}
