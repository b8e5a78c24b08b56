use super::{changes::*, table::table};
use jiff::Timestamp;
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, AgentRunStatus};

fn status(value: Value) -> AgentRunStatus {
    serde_json::from_value(value).unwrap()
}

fn texts(old: Option<Value>, new: Value) -> Vec<String> {
    let old = old.map(status);
    changes(old.as_ref(), &status(new))
        .into_iter()
        .map(|l| l.text)
        .collect()
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message,
           "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn revision(name: &str) -> Value {
    json!({"name": name, "revision": format!("sha256:{}", "ab".repeat(32))})
}

fn step(name: &str, phase: &str, attempts: u32) -> Value {
    json!({"name": name, "role": "engineer", "phase": phase, "attempts": attempts})
}

fn with(mut value: Value, more: &Value) -> Value {
    for (key, entry) in more.as_object().unwrap() {
        value[key] = entry.clone();
    }
    value
}

#[test]
fn nothing_new_is_no_line() {
    let same = json!({"phase": "Running", "launch": 1, "round": 1, "steps": [step("code", "Running", 1)],
                      "conditions": [condition("Reconciling", "True", "Running", "step code")]});
    assert_eq!(texts(Some(same.clone()), same), Vec::<String>::new());
}

#[test]
fn a_plan_and_a_launch_have_a_line_each() {
    let new = json!({"phase": "Pending", "launch": 1, "jobName": "run-1", "sop": revision("company"), "policy": revision("default"),
                     "plan": {"configMap": "run-plan", "digest": format!("sha256:{}", "12".repeat(32))},
                     "steps": [step("code", "Pending", 0)]});
    assert_eq!(
        texts(None, new),
        [
            "plan 121212121212 frozen: SOP company@abababababab, policy default@abababababab, 1 step",
            "launch 1: Job run-1"
        ]
    );
}

#[test]
fn what_an_incremental_run_is_about_has_a_line() {
    let about = |edited: u32, derived: u32| json!({"launch": 1, "incremental": {"kind": "bug", "message": "it crashes", "path": "docs/bugfix.txt", "editedFiles": edited, "derivedFiles": derived}});
    let before = json!({"launch": 1});
    assert_eq!(
        texts(Some(before.clone()), about(0, 0)),
        ["the idea is a bug report, written to docs/bugfix.txt"]
    );
    assert_eq!(
        texts(Some(before), about(2, 1)),
        [
            "the idea is a bug report, written to docs/bugfix.txt; edited by hand: 2; edited by hand although derived: 1"
        ]
    );
    assert!(texts(Some(about(2, 1)), about(2, 1)).is_empty());
}

#[test]
fn a_reason_to_wait_is_shown_once_and_again_when_it_changes() {
    let secret = json!({"phase": "Pending", "conditions": [
        condition("Reconciling", "True", "MissingSecret", "Secret \"model-provider\" has no key \"api-key\"")]});
    let image = json!({"phase": "Pending", "conditions": [condition("Reconciling", "True", "ImageUnavailable", "x")]});
    assert_eq!(
        texts(None, secret.clone()),
        ["pending: MissingSecret: Secret \"model-provider\" has no key \"api-key\""]
    );
    assert!(texts(Some(secret.clone()), secret.clone()).is_empty());
    assert_eq!(texts(Some(secret), image), ["pending: ImageUnavailable: x"]);
}

#[test]
fn an_attempt_shows_start_gates_and_end_in_order() {
    let old = json!({"phase": "Running", "steps": [step("code", "Pending", 0), step("test", "Pending", 0)]});
    let done = with(
        step("code", "Succeeded", 1),
        &json!({"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:05Z", "message": "handed over 3 artifacts",
               "tokens": {"input": 1200, "output": 340}, "cost": "0.0222",
               "gates": [{"name": "lint", "kind": "command", "verdict": "Passed", "observed": "exit code 0", "threshold": "exit code 0",
                          "at": "2026-01-01T00:01:04Z"}]}),
    );
    let running = with(
        step("test", "Running", 1),
        &json!({"startedAt": "2026-01-01T00:01:05Z"}),
    );
    let usage = json!({"llmRequests": 3, "llmErrors": 0, "inputTokens": 1200, "outputTokens": 340, "totalTokens": 1540,
                       "cost": "0.0222", "toolCalls": 0, "toolFailures": 0});
    let new = json!({"phase": "Running", "steps": [done, running], "usage": usage});
    assert_eq!(
        texts(Some(old), new),
        [
            "step code started (engineer)",
            "gate code/lint passed (command): exit code 0",
            "step code succeeded (1m05s; 1,540 tokens, $0.0222; the run so far 1,540 tokens, $0.0222): handed over 3 artifacts",
            "step test started (engineer)"
        ]
    );
}

#[test]
fn a_backtrack_tells_the_failed_gate_before_the_new_attempt() {
    let code = with(
        step("code", "Succeeded", 1),
        &json!({"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"}),
    );
    let test = with(
        step("test", "Running", 1),
        &json!({"startedAt": "2026-01-01T00:00:05Z"}),
    );
    let old = json!({"phase": "Running", "round": 1, "steps": [code, test]});
    let again = with(
        step("code", "Running", 2),
        &json!({"startedAt": "2026-01-01T00:00:09Z"}),
    );
    let failed = with(
        step("test", "Pending", 1),
        &json!({"startedAt": "2026-01-01T00:00:05Z", "finishedAt": "2026-01-01T00:00:09Z", "previousFailure": "unit-tests: 1 of 20 failed",
               "gates": [{"name": "unit-tests", "kind": "command", "verdict": "Failed", "observed": "19 of 20 tests passed"}]}),
    );
    let new = json!({"phase": "Running", "round": 2, "steps": [again, failed]});
    assert_eq!(
        texts(Some(old), new),
        [
            "gate test/unit-tests FAILED (command): 19 of 20 tests passed",
            "step test failed an attempt (4s)",
            "round 2",
            "step code started again (engineer), attempt 2, sent back by test: unit-tests: 1 of 20 failed"
        ]
    );
}

#[test]
fn a_retry_tells_why_the_attempt_before_failed() {
    let old = json!({"phase": "Running", "steps": [step("code", "Running", 1)]});
    let new = json!({"phase": "Running", "steps": [with(step("code", "Running", 2), &json!({"previousFailure": "lint: 2 findings"}))]});
    assert_eq!(
        texts(Some(old), new),
        ["step code started again (engineer), attempt 2, because: lint: 2 findings"]
    );
}

#[test]
fn a_stuck_step_is_shown_when_it_comes_and_when_it_goes() {
    let stuck = json!({"phase": "Running", "conditions": [condition("StepStuck", "True", "NoTrace", "step code: no trace for 60 s")]});
    let fine = json!({"phase": "Running"});
    assert_eq!(
        texts(Some(fine.clone()), stuck.clone()),
        ["StepStuck: NoTrace: step code: no trace for 60 s"]
    );
    assert_eq!(texts(Some(stuck), fine), ["StepStuck is over"]);
}

#[test]
fn who_comes_late_is_told_of_no_round_that_is_over() {
    let over = json!({"phase": "Succeeded", "round": 2});
    assert!(texts(None, over).is_empty());
}

#[test]
fn a_skipped_step_says_why() {
    let old = json!({"steps": [step("test", "Pending", 0)]});
    let new = json!({"steps": [with(step("test", "Skipped", 0), &json!({"message": "runTests is false"}))]});
    assert_eq!(
        texts(Some(old), new),
        ["step test skipped: runTests is false"]
    );
}

#[test]
fn the_last_words_give_reason_step_and_message() {
    let failed = status(
        json!({"phase": "Failed", "progress": "3/5", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:02:00Z",
        "steps": [step("code", "Succeeded", 2), step("test", "Failed", 2)],
        "failure": {"reason": "GateFailed", "step": "test", "message": "unit-tests: 1 of 20 failed\nand no round left"},
        "usage": {"llmRequests": 9, "llmErrors": 1, "inputTokens": 1000, "outputTokens": 200, "totalTokens": 1200, "cost": "0.016",
                  "toolCalls": 0, "toolFailures": 0}}),
    );
    assert_eq!(
        ending(&failed).unwrap(),
        "Failed after 2m00s: 3/5 steps, 4 attempts, 9 requests (1 failed), 1,000 tokens in, 200 out, $0.0160\n\
         GateFailed in step test:\n  unit-tests: 1 of 20 failed\n  and no round left"
    );
    assert_eq!(ending(&status(json!({"phase": "Waiting"}))), None);
}

#[test]
fn the_table_aligns_its_columns() {
    let steps = json!([
        with(
            step("code", "Succeeded", 2),
            &json!({"tokens": {"input": 1000, "output": 234}, "cost": "0.02",
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:30Z",
            "gates": [{"name": "a", "kind": "command", "verdict": "Passed"}, {"name": "b", "kind": "command", "verdict": "Failed"}]})
        ),
        with(
            step("verify", "Running", 1),
            &json!({"startedAt": "2026-01-01T00:00:30Z"})
        ),
    ]);
    let run: AgentRun = serde_json::from_value(json!({
        "apiVersion": "sopwith.dev/v1alpha1", "kind": "AgentRun", "metadata": {"name": "blackjack"},
        "spec": {"idea": "x", "sopRef": {"name": "company"}},
        "status": {"phase": "Running", "progress": "1/2", "round": 2, "startedAt": "2026-01-01T00:00:00Z", "steps": steps,
            "usage": {"llmRequests": 1, "llmErrors": 0, "inputTokens": 1000, "outputTokens": 234, "totalTokens": 1234, "cost": "0.02",
                      "toolCalls": 0, "toolFailures": 0}}}))
    .unwrap();
    let now: Timestamp = "2026-01-01T00:00:45Z".parse().unwrap();
    assert_eq!(
        table(&run, now).lines().collect::<Vec<_>>(),
        [
            "blackjack · company · Running · 1/2 steps · round 2 · 1,234 tokens · $0.0200 · 45s",
            "STEP      ROLE      STATE      TRY  GATES  TOKENS  COST     TIME",
            "✓ code    engineer  Succeeded  2    ✓✗     1,234   $0.0200  30s",
            "▶ verify  engineer  Running    1                            15s",
        ]
    );
}
