//! Programs in a workbench as tools.

use sopwith_crds::{contract::report::ToolStatus, status::FailureReason};

use crate::room::Room;

const DONE: &str = "{content: done}";
const TOOLS: &str = r#"  tools:
  - name: count
    description: Counts lines that have a text.
    tags: [project]
    command:
      image: localhost/bench:1
      argv: [grep, "{% if arguments.deep %}-r{% endif %}", -c, --, "{{ arguments.text }}", "{{ arguments.path }}"]
      schema: {type: object, required: [text, path], properties: {text: {type: string}, path: {type: string}, deep: {type: boolean}}}
  - name: echo
    description: Gives back what it is given.
    tags: [project]
    timeoutSeconds: 5
    command: {image: localhost/bench:1, argv: [cat], schema: {type: object}}
  - name: format
    description: Formats the code.
    tags: [project]
    command: {image: localhost/bench:1, argv: [sed, -i, s/return/RETURN/, src/app.py, src/other.py], collect: [src/app.py]}
  - name: spoil
    description: Writes where others' files are.
    tags: [project]
    command: {image: localhost/bench:1, argv: [cp, src/app.py, tests/test_app.py], collect: ["**"]}
  - name: forever
    description: Does not end.
    tags: [project]
    timeoutSeconds: 1
    command: {image: localhost/bench:1, argv: [sleep, "60"]}
"#;

fn room() -> Room {
    Room::new().policy("  tools:\n", TOOLS)
}

fn calls(list: &str) -> String {
    format!("{{tool_calls: [{list}]}}")
}

#[tokio::test]
async fn a_program_gets_the_arguments_as_words_and_as_json_and_its_output_is_the_result() {
    let turn = calls(
        "{name: count, arguments: {text: 'return a', path: src/app.py}}, {name: count, arguments: {text: '; rm -rf /', path: src/app.py}}, {name: echo, arguments: {b: [1, 2], a: ü}}",
    );
    let run = room().fly(&[&turn, DONE]).await;
    assert_eq!(run.flown.end.failure, None);
    // The newest result first.
    assert_eq!(
        run.told(2)[..3],
        [
            "{\"a\":\"ü\",\"b\":[1,2]}\n",
            "error: exited with 1\n0\n",
            "1\n"
        ]
    );
    let called = |tool: &str, status| (tool.to_owned(), status);
    assert_eq!(
        run.calls(),
        [
            called("count", ToolStatus::Ok),
            called("count", ToolStatus::Failed),
            called("echo", ToolStatus::Ok)
        ]
    );
}

#[tokio::test]
async fn what_a_program_writes_comes_back_as_far_as_the_policy_and_the_step_allow() {
    let turn = calls("{name: format, arguments: {}}, {name: spoil, arguments: {}}");
    let run = room().fly(&[&turn, DONE]).await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(
        run.file("src/app.py").as_deref(),
        Some("def add(a, b):\n    RETURN a - b\n")
    );
    assert_eq!(
        run.file("tests/test_app.py").as_deref(),
        Some("assert add(1, 2) == 3\n")
    );
    let told = run.told(2);
    assert!(
        told[0].contains("belongs to the outputs of lay, and nobody else may write it"),
        "{}",
        told[0]
    );
    assert_eq!(told[1], "done, without a word");
    let messages = run.messages();
    let format = messages
        .iter()
        .find(|message| message.tool.as_deref() == Some("format"))
        .unwrap();
    assert_eq!(format.wrote, ["src/app.py"]);
}

#[tokio::test]
async fn a_program_that_does_not_end_is_ended_and_the_role_goes_on() {
    let run = room()
        .fly(&[&calls("{name: forever, arguments: {}}"), DONE])
        .await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(run.calls(), [("forever".to_owned(), ToolStatus::Timeout)]);
    assert!(
        run.told(2)[0].starts_with("error: was still running after its 1 s"),
        "{}",
        run.told(2)[0]
    );
}

#[tokio::test]
async fn an_action_fails_where_its_program_does() {
    let action = |call: &str| {
        room().sop(
            "{name: change, prompt: {template: mend, writes: {artifact: summary}}}",
            &format!("{{name: look, tool: {{{call}, path: docs/summary.md}}}}"),
        )
    };
    let run = action("name: count, arguments: {text: return, path: src/app.py, deep: 'true'}")
        .fly(&[])
        .await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(run.file("docs/summary.md").as_deref(), Some("1\n"));
    let run = action("name: count, arguments: {text: nowhere, path: src/app.py}")
        .fly(&[])
        .await;
    assert_eq!(
        run.failure(),
        (
            FailureReason::GateFailed,
            "tool count failed (failed): exited with 1\n0".to_owned()
        )
    );
    let run = action("name: forever").fly(&[]).await;
    assert_eq!(run.failure().0, FailureReason::StepTimeout);
}

#[tokio::test]
async fn what_a_program_wrote_is_known_as_that_until_somebody_else_writes_it() {
    let by_programs = |run: &crate::room::Run| {
        let machine = run.flown.snapshot().unwrap().machine;
        machine.get("byPrograms").cloned().unwrap_or_default()
    };
    let format = calls("{name: format, arguments: {}}");
    let run = room().fly(&[&format, DONE]).await;
    assert_eq!(by_programs(&run), serde_json::json!(["src/app.py"]));
    let edit = "  tools:\n  - {name: edit_file, builtin: edit_file, tags: [project]}\n";
    let edited =
        calls("{name: edit_file, arguments: {path: src/app.py, old: RETURN, new: return}}");
    let run = room()
        .policy("  tools:\n", edit)
        .fly(&[&format, &edited, DONE])
        .await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(by_programs(&run), serde_json::Value::Null);
}
