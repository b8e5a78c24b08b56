//! Answers in Markdown: the same artifacts as from JSON.

use crate::play::Play;

const SOP: &str = r#"
  roles: [{name: architect}, {name: engineer, model: gpt}]
  templates:
    design: "Design {{ idea }}."
    code: "Write {{ artifacts.design.json.files | map(attribute='path') | join(', ') }}."
  schemas:
    design:
      type: object
      additionalProperties: false
      required: [approach, flow, files]
      properties:
        approach: {type: string, minLength: 3}
        flow: {type: string}
        files: {type: array, items: {type: object, required: [path, what], properties: {path: {type: string}, what: {type: string}}}}
  steps:
  - name: design
    role: architect
    outputs: [{name: design, path: design.json, schema: design}]
    actions: [{name: draft, prompt: {template: design, schema: design, writes: {artifact: design}}}]
  - name: code
    role: engineer
    needs: [design]
    inputs: [{artifact: design}]
    outputs: [{name: code, glob: "src/*.py"}]
    actions: [{name: write, prompt: {template: code, writes: {files: ["src/*.py"]}}}]
"#;
const DESIGN: &str = "# approach\nA loop.\n\n# flow\n```mermaid\ngraph TD\n    A --> B\n```\n\n# files\n| path | what |\n|---|---|\n| src/a.py | deals |\n";
const CODE: &str = "# src/a.py\n```python\nprint(\"a\")\n```\n";

fn answers(design: &[&str], code: &str) -> String {
    let answer = |step: &str, action: &str, turn: usize, content: &str| {
        let content = serde_json::to_string(content).unwrap();
        format!(
            "- {{key: {{step: {step}, action: {action}, attempt: 1, turn: {turn}}}, response: {{content: {content}}}}}\n"
        )
    };
    let design = design.iter().enumerate();
    let design: String = design
        .map(|(index, content)| answer("design", "draft", index + 1, content))
        .collect();
    design + &answer("code", "write", 1, code)
}

fn markdown(design: &[&str], code: &str) -> Play {
    let mut play = Play::new(SOP, &answers(design, code));
    play.option("promptSchema: markdown");
    play
}

#[tokio::test]
async fn a_run_in_markdown_hands_over_what_one_in_json_does() {
    let flow = r#"{"approach": "A loop.", "flow": "graph TD\n    A --> B", "files": [{"path": "src/a.py", "what": "deals"}]}"#;
    let files = r#"{"files": [{"path": "src/a.py", "content": "print(\"a\")\n"}]}"#;
    let json = Play::new(SOP, &answers(&[flow], files))
        .first()
        .await
        .succeeded();
    let markdown = markdown(&[DESIGN], CODE).first().await.succeeded();
    for (path, compared) in [("design.json", false), ("src/a.py", true)] {
        let (one, other) = (json.file(path).unwrap(), markdown.file(path).unwrap());
        if compared {
            assert_eq!(one, other);
        } else {
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(value(&one), value(&other));
        }
    }
}

#[tokio::test]
async fn markdown_is_asked_for_in_words_and_json_in_the_field_for_it() {
    let key = "design/draft attempt 1 turn 1";
    let in_field = |played: &crate::play::Played| {
        let request = played.asked.values().next_back().unwrap();
        request
            .body
            .as_ref()
            .unwrap()
            .get("response_format")
            .is_some()
    };
    let played = markdown(&[DESIGN], CODE).first().await.succeeded();
    let told = played.told(key, "user");
    assert!(
        told.starts_with("Design a game.\n\nAnswer in Markdown, with nothing around it."),
        "{told}"
    );
    assert!(
        told.contains("\n# files\nA table with the columns path, what."),
        "{told}"
    );
    assert!(!in_field(&played));
    assert!(
        played
            .told("code/write attempt 1 turn 1", "user")
            .contains("for each file a heading `# ` with its path")
    );
}

#[tokio::test]
async fn an_answer_that_does_not_match_is_repaired() {
    let wrong = DESIGN.replace("A loop.", "A");
    let play = markdown(&["No headings.", &wrong, DESIGN], CODE);
    let played = play.first().await.succeeded();
    assert_eq!(
        played.told("design/draft attempt 1 turn 2", "user"),
        "Your answer is not what was asked for:\n- the answer: expected the headings approach, flow, files\nAnswer again, whole, with nothing around it."
    );
    assert_eq!(
        played.told("design/draft attempt 1 turn 3", "user"),
        "Your answer is not what was asked for:\n- /approach: \"A\" is shorter than 3 characters\nAnswer again, whole, with nothing around it."
    );
    assert!(
        played
            .file("design.json")
            .unwrap()
            .contains("graph TD\\n    A --> B")
    );
}
