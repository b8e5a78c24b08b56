//! Questions that are larger than a model's window.

use sopwith_crds::{contract::report::What, status::FailureReason};

use crate::play::{Play, Played};

const SOP: &str = r#"
  roles: [{name: writer, profile: Writer}]
  templates:
    long: "{% for n in range(400) %}line {{ n }} of the report\n{% endfor %}"
    sum: "Sum up this report for {{ idea }}:\n{{ artifacts.report.text }}\nIn one line."
  steps:
  - name: report
    role: writer
    outputs: [{name: report, path: report.txt}]
    actions: [{name: fill, render: {template: long, path: report.txt}}]
  - name: sum
    role: writer
    needs: [report]
    inputs: [{artifact: report}]
    outputs: [{name: sum, path: sum.txt, schema: sum}]
    actions: [{name: up, prompt: {template: sum, schema: sum, writes: {artifact: sum}}}]
  schemas: {sum: {type: object, required: [sum]}}
"#;
const ANSWERS: &str = "
- {key: {step: sum, action: up, attempt: 1, turn: 1}, response: {content: none}}
- {key: {step: sum, action: up, attempt: 1, turn: 2}, response: {content: '{\"sum\": \"400 lines\"}'}}
";
const FIRST: &str = "sum/up attempt 1 turn 1";

async fn played(window: u32) -> Played {
    let mut play = Play::new(SOP, ANSWERS);
    play.model(&format!("contextWindow: {window}, "));
    play.first().await
}

#[tokio::test]
async fn a_value_is_shortened_to_the_window_and_says_so() {
    let whole = played(10_000).await.succeeded();
    assert!(
        whole
            .told(FIRST, "user")
            .contains("line 200 of the report\n")
    );

    let short = played(2000).await.succeeded();
    let told = short.told(FIRST, "user");
    // (2000 - 1000 for the answer) × 3 bytes, less what stands around the value.
    assert!((2400..3000).contains(&told.len()), "{}", told.len());
    assert!(told.starts_with("Sum up this report for a game:\nline 0 of the report\n"));
    assert!(
        told.contains("\n[… ") && told.contains(" of 9090 characters left out …]\n"),
        "{told}"
    );
    assert!(
        told.ends_with("line 399 of the report\n\nIn one line."),
        "{told}"
    );
    let said: Vec<String> = short
        .flown
        .gateway
        .events()
        .into_iter()
        .filter_map(|event| match event.what {
            What::ActionEnded { step, message, .. } if step == "sum" => Some(message),
            _ => None,
        })
        .collect();
    assert_eq!(
        said,
        ["writer wrote (shortened for its window: artifacts.report.text): sum.txt"]
    );
}

#[tokio::test]
async fn the_same_question_is_fitted_in_the_same_way() {
    let (one, other) = (played(2000).await, played(2000).await);
    assert_eq!(one.asked, other.asked);
}

#[tokio::test]
async fn a_repair_fits_with_the_answer_that_it_is_about() {
    let played = played(2000).await.succeeded();
    let second = &played.asked.values().nth(1).unwrap().body;
    let messages = second.as_ref().unwrap()["messages"].as_array().unwrap();
    let sizes: Vec<usize> = messages
        .iter()
        .map(|message| message["content"].as_str().unwrap().len())
        .collect();
    assert_eq!(sizes.len(), 4);
    assert!(sizes.iter().sum::<usize>() <= 3000, "{sizes:?}");
    assert!(sizes[1] < played.told(FIRST, "user").len());
}

#[tokio::test]
async fn what_cannot_fit_is_not_asked() {
    let played = played(1100).await;
    assert!(played.asked.is_empty());
    let (reason, message) = played.failure();
    assert_eq!(reason, FailureReason::ProviderFailed);
    assert!(
        message.contains(
            "the window of gpt has 1100 tokens, of which its answer takes 1000, which leaves room for 300 bytes. Let the templates say less"
        ),
        "{message}"
    );
}
