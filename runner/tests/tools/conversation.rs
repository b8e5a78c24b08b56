//! Roles that call tools while they answer.

use sopwith_crds::{
    cassette::CassetteFile,
    contract::report::{Outcome, ToolStatus},
    status::FailureReason,
};
use sopwith_runner::{gateway::LocalGateway, llm::replay::Replay};

use crate::room::{Room, cassette};

const READ: &str = "{tool_calls: [{name: find, arguments: {pattern: 'return a'}}, {name: read_file, arguments: {path: src/app.py}}], usage: {prompt_tokens: 100, completion_tokens: 10}}";
const PATCH: &str = r#"{content: "I see.", tool_calls: [{name: patch, arguments: {patch: "--- a/src/app.py\n+++ b/src/app.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n"}}], usage: {prompt_tokens: 200, completion_tokens: 20}}"#;
const DONE: &str = "{content: 'Adds now.', usage: {prompt_tokens: 300, completion_tokens: 5}}";

#[tokio::test]
async fn an_engineer_searches_reads_and_patches_and_what_it_left_alone_stays_the_same() {
    let run = Room::new().fly(&[READ, PATCH, DONE]).await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(
        run.file("src/app.py").as_deref(),
        Some("def add(a, b):\n    return a + b\n")
    );
    assert_eq!(
        run.file("src/other.py").as_deref(),
        Some("# nothing here is to change\n")
    );
    assert_eq!(run.file("docs/summary.md").as_deref(), Some("Adds now.\n"));
    // What the model was told of its calls.
    assert_eq!(
        run.told(2)[..2],
        [
            "src/app.py: all 2 lines\ndef add(a, b):\n    return a - b\n",
            "1 lines in 1 files\nsrc/app.py:2:     return a - b\n",
        ]
    );
    assert_eq!(run.told(3)[..2], ["patched src/app.py\n", "I see."]);
    // Reported, counted and in the trace, each call.
    let called = |tool: &str| (tool.to_owned(), ToolStatus::Ok);
    assert_eq!(
        run.calls(),
        [called("find"), called("read_file"), called("patch")]
    );
    let used = run.used();
    assert_eq!(
        (
            used.llm_requests,
            used.total_tokens,
            used.tool_calls,
            used.tool_failures
        ),
        (3, 635, 3, 0)
    );
    let messages = run.messages();
    let calls: Vec<_> = messages
        .iter()
        .filter(|message| message.tool.is_some())
        .collect();
    assert_eq!(
        calls
            .iter()
            .map(|call| call.tool.as_deref().unwrap())
            .collect::<Vec<_>>(),
        ["find", "read_file", "patch"]
    );
    assert_eq!(
        (
            calls[2].sender.as_str(),
            calls[2].cause.as_str(),
            calls[2].wrote.as_slice()
        ),
        ("engineer", "mend/change", &["src/app.py".to_owned()][..])
    );
    assert!(
        calls[1]
            .content
            .starts_with("{\"path\":\"src/app.py\"}\nok\nsrc/app.py: all 2 lines"),
        "{}",
        calls[1].content
    );
    assert_eq!(messages.last().unwrap().content, "Adds now.");
    let numbers: Vec<u64> = messages.iter().map(|message| message.number).collect();
    assert_eq!(numbers, (1..=messages.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_filled_cassette_replays_every_turn_and_a_changed_result_is_a_difference() {
    let room = Room::new();
    let first = room.fly(&[READ, PATCH, DONE]).await;
    let file = CassetteFile::parse(&cassette(&[READ, PATCH, DONE])).unwrap();
    let (text, unasked) = file.filled(&first.replay.filled()).unwrap();
    assert!(unasked.is_empty(), "{unasked:?}");
    let parts = [("filled".to_owned(), text)];
    let again = room
        .replayed(Replay::new(&parts).unwrap(), LocalGateway::default())
        .await;
    assert_eq!(again.flown.end.failure, None);
    assert_eq!(
        again.flown.snapshot().unwrap().tree,
        first.flown.snapshot().unwrap().tree
    );
    let other = Room::new().sop("return a - b", "return a * b");
    let other = other
        .replayed(Replay::new(&parts).unwrap(), LocalGateway::default())
        .await;
    let (reason, message) = other.failure();
    assert_eq!(reason, FailureReason::ProviderFailed);
    assert!(
        message.contains("mend/change attempt 1 turn 2 differs"),
        "{message}"
    );
    assert!(
        message.contains("-src/app.py:2:     return a - b\n+src/app.py:2:     return a * b"),
        "{message}"
    );
}

/// Calls that must not be made; what the model is told, and how they are counted.
#[tokio::test]
async fn what_a_role_may_not_call_or_calls_wrongly_is_told_and_not_done() {
    let table = [
        (
            "{name: delete_file, arguments: {path: src/other.py}}",
            "delete_file, 'tag:project'",
            "'tag:project'",
            "error: there is no tool \"delete_file\" for you; you can call: read_file, find, list_files, edit, patch",
            ("unknown", ToolStatus::Denied),
        ),
        (
            "{name: rm, arguments: {}}",
            "",
            "",
            "error: there is no tool \"rm\" for you",
            ("unknown", ToolStatus::Denied),
        ),
        (
            "{name: read_file, arguments: {file: a}}",
            "",
            "",
            "error: the arguments do not match the tool's schema: ",
            ("read_file", ToolStatus::Invalid),
        ),
        (
            "{name: read_file, arguments: [a]}",
            "",
            "",
            "error: the arguments are no JSON object",
            ("read_file", ToolStatus::Invalid),
        ),
        (
            "{name: read_file, arguments: {path: ../secret}}",
            "",
            "",
            "error: there is no file \"../secret\"",
            ("read_file", ToolStatus::Failed),
        ),
        (
            "{name: edit, arguments: {path: ../x, old: '', new: x}}",
            "",
            "",
            "error: path \"../x\" has a `.` or `..` component",
            ("edit", ToolStatus::Failed),
        ),
        (
            "{name: edit, arguments: {path: tests/test_app.py, old: '3', new: '4'}}",
            "",
            "",
            "error: the path \"tests/test_app.py\" belongs to the artifact tests that step lay froze",
            ("edit", ToolStatus::Failed),
        ),
        (
            "{name: delete_file, arguments: {path: tests/test_app.py}}",
            "",
            "",
            "error: the path \"tests/test_app.py\" belongs to the artifact",
            ("delete_file", ToolStatus::Failed),
        ),
    ];
    for (call, from, to, told, (tool, status)) in table {
        let mut room = Room::new();
        if !from.is_empty() {
            room = room.sop(
                "tools: ['tag:project', delete_file]",
                &format!("tools: [{to}]"),
            );
        }
        let run = room
            .fly(&[&format!("{{tool_calls: [{call}]}}"), DONE])
            .await;
        assert_eq!(run.flown.end.failure, None, "{call}");
        let said = &run.told(2)[0];
        assert!(said.starts_with(told), "{call}: {said}");
        assert_eq!(run.calls(), [(tool.to_owned(), status)], "{call}");
        assert_eq!(
            (run.used().tool_calls, run.used().tool_failures),
            (1, 1),
            "{call}"
        );
        assert_eq!(
            run.file("src/other.py").as_deref(),
            Some("# nothing here is to change\n")
        );
        assert_eq!(
            run.file("tests/test_app.py").as_deref(),
            Some("assert add(1, 2) == 3\n")
        );
    }
}

#[tokio::test]
async fn a_model_is_told_what_it_may_call_and_in_its_last_turn_that_it_may_no_more() {
    let room = Room::new().sop("model: strong,", "model: strong, maxTurns: 2,");
    let run = room.fly(&[READ, DONE]).await;
    assert_eq!(run.flown.end.failure, None);
    let names = |turn| {
        let question = run.question(turn);
        let tools = question["tools"].as_array().unwrap().clone();
        tools
            .iter()
            .map(|tool| tool["function"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(1),
        [
            "read_file",
            "find",
            "list_files",
            "edit",
            "patch",
            "delete_file"
        ]
    );
    assert_eq!(
        run.question(1)["tools"][0]["function"]["parameters"]["required"][0],
        "path"
    );
    assert!(run.question(1).get("tool_choice").is_none());
    assert_eq!(run.question(2)["tool_choice"], "none");
    assert_eq!(
        run.told(2)[0],
        "You can call no more tools. Answer now, whole."
    );
    // A model that calls nevertheless is not served.
    let run = room.fly(&[READ, READ]).await;
    let (reason, message) = run.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains("calls tools in the last of its 2 turns: raise maxTurns"),
        "{message}"
    );
    assert_eq!(run.calls().len(), 2);
    // What was called stays in the trace of the attempt that failed.
    assert_eq!(
        run.messages()
            .iter()
            .filter(|message| message.tool.is_some())
            .count(),
        2
    );
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_repaired_after_calls_too() {
    let room = Room::new()
        .sop(
            "  steps:",
            "  schemas: {note: {type: object, required: [note]}}\n  steps:",
        )
        .sop(
            "template: mend, writes",
            "template: mend, schema: note, writes",
        );
    let run = room
        .fly(&[READ, DONE, PATCH, "{content: '{\"note\": 1}'}"])
        .await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(
        run.file("docs/summary.md").as_deref(),
        Some("{\"note\": 1}\n")
    );
    assert!(run.told(3)[0].starts_with("Your answer is not what was asked for"));
    // The schema is told in words, since a grammar would let the model call nothing.
    assert!(run.question(1).get("response_format").is_none());
    assert!(
        run.question(1)["messages"][1]["content"]
            .as_str()
            .unwrap()
            .contains("JSON Schema")
    );
}

#[tokio::test]
async fn results_are_bounded_by_the_window_and_old_ones_make_room() {
    let long: String = "      # a line of the file that is read again and again\n".repeat(100);
    let room = Room::new()
        .sop("    other: |\n", &format!("    other: |\n{long}"))
        .sop("model: strong,", "model: strong, maxTurns: 12,")
        .policy(
            "aliases: [strong],",
            "aliases: [strong], contextWindow: 6000, maxOutputTokens: 1000,",
        );
    let read = "{tool_calls: [{name: read_file, arguments: {path: src/other.py}}]}";
    let mut answers = vec![read; 10];
    answers.push(DONE);
    let run = room.fly(&answers).await;
    assert_eq!(run.flown.end.failure, None);
    let first = &run.told(2)[0];
    assert!(
        first.starts_with(
            "src/other.py: lines 1 to 32 of 101; the rest does not fit, read on from line 33\n"
        ),
        "{first}"
    );
    let last = run.told(11);
    let left_out = last
        .iter()
        .filter(|text| text.starts_with("[left out to make room"))
        .count();
    assert!(
        left_out >= 1 && last[0].len() > 1500,
        "{left_out} {}",
        last[0].len()
    );
    let size: usize = last.iter().map(String::len).sum();
    assert!(size <= 5000 * 3, "{size}");
}

#[tokio::test]
async fn a_budget_bounds_every_turn() {
    let mut room = Room::new();
    // Turn 1 costs 0.0013; the second cannot be reserved any more.
    room.policy.push_str("  budgets: {costPerRun: \"0.155\"}\n");
    let run = room.fly(&[READ, PATCH, DONE]).await;
    assert_eq!(run.failure().0, FailureReason::BudgetExhausted);
    assert_eq!((run.used().llm_requests, run.used().tool_calls), (1, 2));
    assert_eq!(run.flown.end.outcome, Outcome::Failed);
}
