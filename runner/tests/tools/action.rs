//! Actions that call a tool, without a model.

use sopwith_crds::{contract::report::ToolStatus, status::FailureReason};

use crate::room::Room;

const PROMPT: &str = "    - {name: change, prompt: {template: mend, writes: {artifact: summary}}}";

/// The last step with another action.
fn room(action: &str) -> Room {
    Room::new().sop(PROMPT, &format!("    - {action}"))
}

#[tokio::test]
async fn an_action_calls_a_tool_and_writes_its_result() {
    let run = room("{name: look, tool: {name: find, arguments: {pattern: '{{ \"def\" }} add', context: '1'}, path: docs/summary.md}}")
        .fly(&[])
        .await;
    assert_eq!(run.flown.end.failure, None);
    assert_eq!(
        run.file("docs/summary.md").as_deref(),
        Some("1 lines in 1 files\nsrc/app.py:1: def add(a, b):\nsrc/app.py-2-     return a - b\n")
    );
    assert_eq!(run.calls(), [("find".to_owned(), ToolStatus::Ok)]);
    let messages = run.messages();
    let call = messages
        .iter()
        .find(|message| message.tool.is_some())
        .unwrap();
    assert_eq!(
        (call.sender.as_str(), call.cause.as_str()),
        ("engineer", "mend/look")
    );
    assert!(
        call.content
            .starts_with("{\"context\":1,\"pattern\":\"def add\"}\nok\n"),
        "{}",
        call.content
    );
}

#[tokio::test]
async fn a_call_that_fails_fails_the_attempt_and_says_why() {
    let table = [
        (
            "{name: edit, arguments: {path: src/app.py, old: nowhere, new: x}}",
            "tool edit failed (failed): `old` is not in \"src/app.py\"; read the file again",
        ),
        (
            "{name: find, arguments: {pattern: x, context: many}}",
            "tool find failed (invalid): the arguments do not match the tool's schema: /context: \"many\" is not of type \"integer\"",
        ),
        (
            "{name: edit, arguments: {path: tests/test_app.py, old: '3', new: '4'}}",
            "tool edit failed (failed): the path \"tests/test_app.py\" belongs to the artifact tests that step lay froze, and nobody may change it",
        ),
    ];
    for (call, expected) in table {
        let run = room(&format!("{{name: look, tool: {call}}}"))
            .fly(&[])
            .await;
        assert_eq!(
            run.failure(),
            (FailureReason::GateFailed, expected.to_owned())
        );
        assert_eq!((run.used().tool_calls, run.used().tool_failures), (1, 1));
    }
}

#[tokio::test]
async fn a_result_is_not_written_where_the_step_may_not() {
    let run =
        room("{name: look, tool: {name: find, arguments: {pattern: x}, path: tests/found.txt}}")
            .fly(&[])
            .await;
    assert_eq!(
        run.failure(),
        (FailureReason::GateFailed, "the path \"tests/found.txt\" belongs to the outputs of lay, and nobody else may write it".to_owned())
    );
}

#[tokio::test]
async fn what_the_plan_should_have_refused_is_refused_again_at_the_call() {
    let good = room("{name: look, tool: {name: delete_file, arguments: {path: src/other.py}}}");
    let mut plan = good.plan();
    plan.roles[0].tools = vec!["tag:project".to_owned()];
    let run = good.flown(plan).await;
    assert_eq!(
        run.failure(),
        (
            FailureReason::PolicyDenied,
            "mend/look calls tool delete_file: role engineer is not granted it".to_owned()
        )
    );
    let mut plan = good.plan();
    plan.tools.clear();
    let run = good.flown(plan).await;
    assert_eq!(
        run.failure(),
        (
            FailureReason::PolicyDenied,
            "mend/look calls tool delete_file: the policy does not allow it".to_owned()
        )
    );
    assert_eq!(run.used().tool_calls, 0);
}

#[test]
fn what_the_policy_does_not_allow_is_refused_before_the_run() {
    let table = [
        (
            room("{name: look, tool: {name: rm, arguments: {path: x}}}"),
            "sop:spec.steps[mend].actions[look].tool.name: the policy does not allow tool \"rm\"; it allows: delete_file, edit, find, list_files, patch, read_file",
        ),
        (
            room("{name: look, tool: {name: delete_file, arguments: {path: x}}}")
                .sop(", delete_file]", "]"),
            "sop:spec.steps[mend].actions[look].tool.name: role \"engineer\" is not granted tool \"delete_file\"; add it to spec.roles[engineer].tools",
        ),
        (
            Room::new().sop("'tag:project'", "'tag:admin'"),
            "sop:spec.roles[engineer].tools[tag:admin]: no tool of the policy has the tag \"admin\"; its tags are: look, project",
        ),
    ];
    for (room, expected) in table {
        let refused = room.planned().unwrap_err();
        assert_eq!(refused, format!("PolicyDenied: {expected}"));
    }
}
