//! Where the line goes after a gate that failed, and what becomes of the files.

use sopwith_crds::contract::report::Outcome;
use sopwith_crds::status::{FailureReason, Verdict};

use crate::flight::{Landed, answers, flown, planned};

/// Tests and code by two roles, and a program whose report says what failed.
const COMPANY: &str = r#"roles: [{name: engineer}, {name: qa}]
templates:
  tests: "tests {{ attempt }} round {{ round }}{% if findings %}: {{ findings }}{% endif %}"
  code: "code {{ attempt }} round {{ round }}{% if findings %}: {{ findings }}{% endif %}"
  notes: "round {{ round }}"
steps:
- name: tests
  role: qa
  outputs: [{name: tests, path: test.sh}]
  actions: [{name: write, prompt: {template: tests, writes: {artifact: tests}}}]
- name: code
  role: engineer
  needs: [tests]
  inputs: [{artifact: tests}]
  outputs: [{name: code, glob: "code*"}]
  actions: [{name: write, prompt: {template: code, writes: {path: "code{{ attempt }}"}}}]
- name: aside
  needs: [tests]
  outputs: [{name: notes, path: notes.txt}]
  actions: [{name: note, render: {template: notes, path: notes.txt}}]
- name: verify
  needs: [code, aside]
  inputs: [{artifact: tests}, {artifact: code}]
  gates:
  - name: tests-pass
    kind: command
    command:
      run: [{argv: [sh, test.sh], image: "bench:1"}]
      reports: [{name: junit, format: junit, path: junit.xml}]
    onFailure:
    RULES
"#;

/// Test programs: one that passes, one whose assertion fails, and one that breaks.
const PASSES: &str = "echo '<testsuite><testcase name=\"t\"/></testsuite>' > junit.xml";
const FAILS: &str = "echo '<testsuite><testcase classname=\"hand\" name=\"t\"><failure message=\"21 is not 22\"/></testcase></testsuite>' > junit.xml; exit 1";
const BREAKS: &str = "echo '<testsuite><testcase name=\"t\"><error message=\"no such command\"/></testcase></testsuite>' > junit.xml; exit 2";

fn company(rules: &str) -> String {
    COMPANY.replace("    RULES\n", rules)
}

/// Back to who wrote the tests where they break, else to who wrote the code.
const BY_REPORT: &str = r#"    - {when: reports.junit.errors > 0, action: Backtrack, to: tests}
    - {when: "reports.junit.failing.exists(t, t.name == 'hand::t' && t.message.contains('22'))", action: Backtrack, to: code}
"#;

#[tokio::test]
async fn what_failed_decides_who_mends_it() {
    let by_code = "    - {when: exitCode == 2, action: Backtrack, to: tests}
    - {when: exitCode == 1, action: Backtrack, to: code}
";
    let by_gate = r#"    - {when: "gate.kind == 'command' && gate.name == 'tests-pass' && gate.findings.contains('no such command')", action: Backtrack, to: tests}
    - {when: "gate.observed.contains('1 failed') && gate.threshold != ''", action: Backtrack, to: code}
"#;
    for rules in [BY_REPORT, by_code, by_gate] {
        let broken = [
            ("tests/write", BREAKS),
            ("tests/write 2", PASSES),
            ("code/write", "x"),
            ("code/write 2", "y"),
        ];
        let landed = flown(planned(&company(rules), ""), answers(&broken)).await;
        assert!(landed.succeeded());
        assert_eq!(
            landed.path(),
            [
                "tests 1 Passed",
                "code 1 Passed",
                "aside 1 Passed",
                "verify 1 Failed",
                "tests 2 Passed",
                "code 2 Passed",
                "aside 2 Passed",
                "verify 2 Passed"
            ]
        );
        assert!(landed.question("tests/write 2").contains("no such command"));
        assert_eq!(landed.question("code/write 2"), "code 2 round 2");

        let wrong = [
            ("tests/write", FAILS),
            ("code/write", "x"),
            ("code/write 2", "y"),
        ];
        let landed = flown(planned(&company(rules), ""), answers(&wrong)).await;
        // The tests stay as they are, so they fail again, and the rule is used up.
        assert_eq!(landed.failure().0, FailureReason::GateFailed);
        assert_eq!(
            landed.path(),
            [
                "tests 1 Passed",
                "code 1 Passed",
                "aside 1 Passed",
                "verify 1 Failed",
                "code 2 Passed",
                "verify 2 Failed"
            ]
        );
        assert!(landed.question("code/write 2").contains("21 is not 22"));
    }
}

#[tokio::test]
async fn the_report_of_a_program_is_seen_by_the_gates_that_follow_it() {
    let sop = company(
        "    - {action: Fail}\n  - {name: enough, kind: expression, expression: reports.junit.tests >= 2}\n",
    );
    let told = [("tests/write", PASSES), ("code/write", "x")];
    let landed = flown(planned(&sop, ""), answers(&told)).await;
    assert_eq!(landed.failure().0, FailureReason::GateFailed);
    assert_eq!(
        landed.verdicts(),
        [
            ("tests-pass".to_owned(), Verdict::Passed),
            ("enough".to_owned(), Verdict::Failed)
        ]
    );
    let enough = sop.replace(">= 2", ">= 1");
    assert!(
        flown(planned(&enough, ""), answers(&told))
            .await
            .succeeded()
    );
}

fn names(landed: &Landed) -> Vec<String> {
    landed.files().into_keys().collect()
}

#[tokio::test]
async fn a_backtrack_keeps_the_files_or_takes_them_back_but_for_those_of_steps_that_are_not_done_again()
 {
    // `aside` stands between the target and the step that fails, and is not done again.
    let told = [
        ("tests/write", FAILS),
        ("code/write", "x"),
        ("code/write 2", "y"),
    ];
    let rule = |workspace: &str| {
        company(&format!(
            "    - {{action: Backtrack, to: code{workspace}}}\n"
        ))
    };
    for (workspace, files) in [
        ("", &["code1", "code2", "notes.txt", "test.sh"][..]),
        (
            ", workspace: keep",
            &["code1", "code2", "notes.txt", "test.sh"],
        ),
        (", workspace: restore", &["code2", "notes.txt", "test.sh"]),
    ] {
        let landed = flown(planned(&rule(workspace), ""), answers(&told)).await;
        assert_eq!(landed.failure().0, FailureReason::GateFailed);
        assert_eq!(names(&landed), files, "{workspace}");
    }
}

/// A step that writes a file of its attempt's number and passes at the third.
const RETRIES: &str = r#"roles: [{name: writer}]
templates:
  write: "attempt {{ attempt }}, there are {{ glob('*.txt') | join(',') }}"
steps:
- name: write
  role: writer
  outputs: [{name: files, glob: "*.txt"}]
  actions: [{name: file, prompt: {template: write, writes: {path: "{{ attempt }}.txt"}}}]
  gates:
  - name: third
    kind: expression
    expression: attempt == 3
    onFailure:
    - {action: Retry, maxAttempts: 1}
    - {action: Retry, maxAttempts: 1, workspace: restore}
"#;

#[tokio::test]
async fn a_retry_keeps_the_files_or_begins_without_them() {
    let told = [
        ("write/file", "one"),
        ("write/file 2", "two"),
        ("write/file 3", "three"),
    ];
    let landed = flown(planned(RETRIES, ""), answers(&told)).await;
    assert!(landed.succeeded());
    let question = landed.question("write/file 2");
    assert!(
        question.starts_with("attempt 2, there are 1.txt\n"),
        "{question}"
    );
    let question = landed.question("write/file 3");
    assert!(question.starts_with("attempt 3, there are\n"), "{question}");
    assert_eq!(names(&landed), ["3.txt"]);
}

#[tokio::test]
async fn who_used_up_its_rules_fails_or_asks() {
    let told = [("write/file", "one"), ("write/file 2", "two")];
    let once = RETRIES.replace(
        "    - {action: Retry, maxAttempts: 1, workspace: restore}\n",
        "",
    );
    let landed = flown(planned(&once, ""), answers(&told)).await;
    assert_eq!(landed.failure().0, FailureReason::GateFailed);
    assert_eq!(landed.path(), ["write 1 Failed", "write 2 Failed"]);
    let asks = once.replace("    onFailure:", "    exhausted: Ask\n    onFailure:");
    let landed = flown(planned(&asks, ""), answers(&told)).await;
    assert_eq!(landed.flown.end.outcome, Outcome::Waiting);
    assert_eq!(landed.path(), ["write 1 Failed", "write 2 Pending"]);
}

#[tokio::test]
async fn a_backtrack_without_a_round_left_fails_the_run() {
    let told = [("tests/write", FAILS), ("code/write", "x")];
    let landed = flown(planned(&company(BY_REPORT), "rounds: 1"), answers(&told)).await;
    let (reason, message) = landed.failure();
    assert_eq!(reason, FailureReason::RoundsExhausted);
    assert!(
        message.ends_with("no round is left to go back (1 rounds, see spec.rounds)"),
        "{message}"
    );
}

#[tokio::test]
async fn a_prerequisite_and_a_needed_input_fail_the_run_and_an_optional_one_does_not() {
    let sop = |input: &str, more: &str| {
        format!(
            r#"roles: [{{name: writer}}]
templates:
  use: "{{{{ 'there' if artifacts.draft.exists else 'not there' }}}}"
steps:
- name: draft
  role: writer
  when: options.runTests
  outputs: [{{name: draft, path: draft.txt}}]
  actions: [{{name: write, render: {{template: use, path: draft.txt}}}}]
- name: use
  needs: [draft]
  {more}
  inputs: [{{artifact: draft{input}}}]
  outputs: [{{name: used, path: used.txt}}]
  actions: [{{name: write, render: {{template: use, path: used.txt}}}}]
"#
        )
    };
    let without = flown(planned(&sop("", ""), ""), answers(&[])).await;
    assert_eq!(
        without.failure(),
        (
            FailureReason::GateFailed,
            "step use needs the artifact draft, which is not there".to_owned()
        )
    );
    let optional = flown(planned(&sop(", optional: true", ""), ""), answers(&[])).await;
    assert!(optional.succeeded());
    assert_eq!(optional.files()["used.txt"], "not there\n");
    let unmet = flown(
        planned(
            &sop(", optional: true", "prerequisite: artifacts.draft.exists"),
            "",
        ),
        answers(&[]),
    )
    .await;
    assert_eq!(
        unmet.failure(),
        (
            FailureReason::GateFailed,
            "the prerequisite of step use does not hold: artifacts.draft.exists".to_owned()
        )
    );
    assert_eq!(unmet.path(), [""; 0]);
}

#[tokio::test]
async fn an_action_that_takes_longer_than_it_may_ends_the_run() {
    let sop = |plain: &str, inner: &str| {
        format!(
            r#"roles: [{{name: writer}}]
templates: {{x: x}}
steps:
- name: wait
  role: writer
  actions:
  - {{name: first, render: {{template: x, path: x.txt}}, timeoutSeconds: 5}}
  - {{name: sleep, {plain} command: {{argv: [sleep, "0"], image: "bench:1"}}}}
  - name: each
    loop:
      forEach: "['a', 'b']"
      actions:
      - {{name: sleep, {inner} command: {{argv: [sleep, "{{{{ '60' if item == 'b' else '0' }}}}"], image: "bench:1"}}}}
"#
        )
    };
    let plain = sop("timeoutSeconds: 1,", "").replace("sleep, \"0\"", "sleep, \"60\"");
    for (sop, place) in [
        (plain, "wait/sleep"),
        (sop("", "timeoutSeconds: 1,"), "wait/each/sleep[b]"),
    ] {
        let landed = flown(planned(&sop, ""), answers(&[])).await;
        assert_eq!(
            landed.failure(),
            (
                FailureReason::StepTimeout,
                format!("the action {place} took longer than 1 s (timeoutSeconds of the action)")
            )
        );
    }
}

#[tokio::test]
async fn a_program_runs_in_the_folder_that_is_named() {
    let sop = r#"templates: {one: "1"}
steps:
- name: work
  outputs: [{name: all, glob: "**/*.txt"}]
  actions:
  - {name: make, render: {template: one, path: parts/in/one.txt}}
  - name: copy
    command: {argv: [cp, one.txt, two.txt], image: "bench:1", workingDir: parts/in, collect: ["parts/in/two.txt"]}
  gates:
  - name: there
    kind: command
    command: {run: [{argv: [test, -f, in/two.txt], image: "bench:1", workingDir: parts}]}
"#;
    let landed = flown(planned(sop, ""), answers(&[])).await;
    assert!(landed.succeeded());
    assert_eq!(landed.files()["parts/in/two.txt"], "1\n");
}
