//! Gates on whole runs: judges, compliance, reports, measures, evidence that a policy trusts.

use super::*;
use sopwith_crds::{contract::report::Wait, status::GateStatus, status::Trust};
use std::fmt::Write as _;

/// A model for judges beside the author's.
fn with_judge(policy: &str) -> String {
    let model = "    - {name: other, aliases: [judge], maxOutputTokens: 1000, inputPerMillion: \"10\", outputPerMillion: \"30\"}\n";
    policy.replace("  commands:", &format!("{model}  commands:"))
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "as the others that change a text"
)]
fn judge_too(policy: String) -> String {
    with_judge(&policy)
}

/// The fixtures' procedure with a gate of judges on the words, of whom one must say yes.
fn judged(text: &str) -> String {
    let gate = "    gates:\n    - name: fits\n      kind: review\n      review:\n        artifacts: [words]\n        judges: 2\n        agree: 1\n        criteria: [{name: right, question: Is it the right word?}]\n      onFailure: [{action: Retry}]\n  - name: check";
    text.replace("  - name: check", gate)
}

fn answer(met: bool, quotation: &str, reason: &str) -> String {
    serde_json::json!({"right": {"met": met, "quotation": quotation, "reason": reason}}).to_string()
}

/// Answers of the two judges, beside the fixtures'.
fn judges(first: [&str; 2], second: [&str; 2]) -> Replay {
    let mut text = "version: 1\ninteractions:\n".to_owned();
    for (attempt, answers) in [(1, first), (2, second)] {
        for (index, answer) in answers.into_iter().enumerate() {
            let answer = serde_json::Value::from(answer);
            let judge = index + 1;
            let _ = writeln!(
                text,
                "- key: {{step: write, gate: fits, judge: {judge}, attempt: {attempt}, turn: 1}}\n  response: {{content: {answer}, usage: {{prompt_tokens: 40, completion_tokens: 4}}}}"
            );
        }
    }
    let parts = [
        ("cassette".to_owned(), fixture("cassette.yaml")),
        ("judges".to_owned(), text),
    ];
    Replay::new(&parts).unwrap().filling()
}

fn judges_who_see_it() -> Replay {
    let (no, dreamt) = (
        answer(false, "wrong", "It is the wrong word."),
        answer(true, "it is the right word", "It says so."),
    );
    let (yes, no_too) = (
        answer(true, "right", "It is."),
        answer(false, "", "I do not like it."),
    );
    judges([&no, &dreamt], [&yes, &no_too])
}

fn verdicts(flown: &Flown, gate: &str) -> Vec<(GateStatus, String)> {
    let events = flown.gateway.events().into_iter();
    let judged = events.filter_map(|event| match event.what {
        What::GateJudged {
            gate: status,
            findings,
            ..
        } if status.name == gate => Some((status, findings)),
        _ => None,
    });
    judged.collect()
}

fn way(flown: &Flown) -> Vec<String> {
    let ends = ends(flown).into_iter();
    ends.map(|end| format!("{} {} {:?}", end.step, end.attempt, end.verdict))
        .collect()
}

/// A file of the evidence.
fn evidence(flown: &Flown, path: &str) -> String {
    let entries = flown.snapshot().unwrap().evidence;
    let entry = entries.get(path);
    let entry = entry.unwrap_or_else(|| panic!("there is no {path}"));
    String::from_utf8(flown.gateway.blob(&entry.digest).unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn judges_send_the_author_back_with_what_they_found_and_an_invented_quotation_is_no_yes() {
    let plan = plan(|sop| judged(&sop), judge_too, same);
    let (flown, replay) = flown(plan, judges_who_see_it(), LocalGateway::default()).await;
    assert_eq!(flown.end.failure, None);
    assert_eq!(
        way(&flown),
        [
            "think 1 Passed",
            "write 1 Failed",
            "write 2 Passed",
            "check 1 Passed"
        ]
    );
    let verdicts = verdicts(&flown, "fits");
    let findings = "Judges found what is not met:\n- right: Is it the right word?\n  met for 0 of 2 judges, 1 are needed\n  judge 1: It is the wrong word. (of: \"wrong\")\n  judge 2: says yes, but what it quotes does not stand there: \"it is the right word\"";
    assert_eq!(verdicts[0].1, findings);
    let asked = replay.filled();
    let again = asked
        .iter()
        .find(|(key, _)| key.action == "words/word" && key.attempt == 2);
    let told = again.unwrap().1.body.as_ref().unwrap()["messages"][1]["content"].clone();
    assert!(told.as_str().unwrap().ends_with(findings), "{told}");
    let passed = &verdicts[1].0;
    assert_eq!(
        (
            passed.verdict,
            passed.observed.as_deref(),
            passed.threshold.as_deref()
        ),
        (
            Verdict::Passed,
            Some("1 of 1 criteria met (asked: other, other)"),
            Some("each criterion is met for 1 of 2 judges")
        )
    );
    let digest: Digest = passed.evidence.as_ref().unwrap().parse().unwrap();
    let kept = flown.gateway.blob(&digest).expect("the evidence is kept");
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["judges"][0]["answers"][0]["quotation"], "right");
    assert!(evidence(&flown, "gates/write/fits.md").contains("  > right\n"));
    // Judges are asked for by their alias, each in a request of its own that counts like any.
    let judged: Vec<_> = asked.iter().filter(|(key, _)| key.gate == "fits").collect();
    assert_eq!(judged.len(), 4);
    assert!(
        judged
            .iter()
            .all(|(_, request)| request.body.as_ref().unwrap()["model"] == "other")
    );
    let usage = flown.gateway.batches().last().unwrap().usage.clone();
    assert_eq!((usage.llm_requests, usage.total_tokens), (8, 360 + 4 * 44));
}

#[tokio::test]
async fn a_judge_whose_answer_is_none_is_told_so_and_counts_for_nothing_in_the_end() {
    let (good, yes) = ("{}", answer(true, "right", "It is."));
    let replay = judges([good, good], [&yes, &yes]);
    let plan = plan(|sop| judged(&sop), judge_too, same);
    let (flown, _) = flown(plan, replay, LocalGateway::default()).await;
    // Its second turn is not recorded: it was asked to repair its answer.
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProviderFailed);
    assert!(
        message.contains("no request write gate fits judge 1 attempt 1 turn 2"),
        "{message}"
    );
}

#[tokio::test]
async fn a_judge_that_does_not_fit_the_investment_is_not_asked() {
    let plan = plan(
        |sop| judged(&sop),
        judge_too,
        |run| run + "  investment: \"0.045\"\n",
    );
    let (flown, replay) = flown(plan, judges_who_see_it(), LocalGateway::default()).await;
    assert_eq!(failure(&flown).0, FailureReason::BudgetExhausted);
    let asked = replay.filled();
    assert_eq!(asked.len(), 3);
    assert!(asked.keys().all(|key| key.gate.is_empty()));
}

/// The fixtures' procedure with a last step that checks the trace.
fn complying(compliance: &str) -> impl Fn(String) -> String {
    let step = format!(
        "  - name: release\n    needs: [check, never]\n    gates: [{{name: by-the-book, kind: compliance{compliance}}}]\n"
    );
    move |sop| {
        let raci = "    role: writer\n    raci: {responsible: [writer], accountable: [writer]}\n";
        sop.replacen("    role: writer\n", raci, 1) + &step
    }
}

#[tokio::test]
async fn a_run_complies_with_its_procedure_and_people_can_read_why() {
    let plan = plan(complying(""), same, same);
    let (flown, _) = flown(plan, filling(), LocalGateway::default()).await;
    assert_eq!(flown.end.failure, None);
    let verdicts = verdicts(&flown, "by-the-book");
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].0.trust, Some(Trust::External));
    let observed = verdicts[0].0.observed.clone().unwrap();
    let list = evidence(&flown, "gates/release/by-the-book.md");
    assert!(list.contains(&format!("{observed}.")), "{observed}\n{list}");
    for line in [
        "| ✓ |  | no more rounds than allowed | 2 of 5 rounds |",
        "| ✓ | think | writer answers for it | by the gates that it passed |",
        "| ✓ | write | done | attempt 2 in round 2 |",
        "| ✓ | check | gate command/right-word passed | passed |",
        "| ✓ | never | done, or not asked for | skipped: options.runTests does not hold |",
        "check: attempt 1 failed, back to write",
    ] {
        assert!(list.contains(line), "{line}\n{list}");
    }
    assert!(!list.contains('✗'), "{list}");
}

#[tokio::test]
async fn a_required_step_that_was_skipped_does_not_comply() {
    let plan = plan(
        complying(", compliance: {steps: [think, never]}"),
        same,
        same,
    );
    let (flown, _) = flown(plan, filling(), LocalGateway::default()).await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::GateFailed);
    assert_eq!(
        message,
        "gate by-the-book failed: 8 of 9 checks hold; never: done: it was skipped"
    );
    assert_eq!(
        verdicts(&flown, "by-the-book")[0].1,
        "The run does not comply with its procedure:\n- never: done: it was skipped"
    );
}

/// Reports that a program leaves, as a template fills them in, and a gate over them on the words.
fn reporting(gate: &str) -> impl Fn(String) -> String {
    let templates = r#"    junit: |
      <testsuite>{% for n in range(3 - attempt) %}<testcase name="t{{ n }}"><failure message="no"/></testcase>{% endfor %}<testcase name="ok"/></testsuite>
    sarif: |
      {"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "lint"}}, "results": [{"ruleId": "W1", "message": {"text": "too long"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": "word.txt"}, "region": {"startLine": 1}}}]}]}]}
    trace: |
      SF:word.txt
      DA:1,1
      DA:2,0
      end_of_record
    plan: |
"#;
    let render = "    - {name: r1, render: {template: junit, path: r/junit.xml}}\n    - {name: r2, render: {template: sarif, path: r/lint.json}}\n    - {name: r3, render: {template: trace, path: r/lcov.info}}\n    - name: summarize\n";
    let command = "command: {run: [{argv: [cp, r/junit.xml, r/lint.json, r/lcov.info, .], image: \"localhost/bench:1\"}], reports: [{name: junit, format: junit, path: junit.xml}, {name: lint, format: sarif, path: lint.json}, {name: lcov, format: lcov, path: lcov.info}]";
    let gate = gate.replace("COMMAND", command);
    move |sop| {
        sop.replace("    plan: |\n", templates)
            .replace("    - name: summarize\n", render)
            .replace("  - name: check", &format!("{gate}  - name: check"))
    }
}

/// The word is right at once.
fn right() -> Replay {
    let text = fixture("cassette.yaml")
        .replace("wrong", "right")
        .replace("attempt: 2, turn: 1}", "attempt: 3, turn: 1}");
    let second = "- key: {step: write, action: words/word, item: word.txt, attempt: 2, turn: 1}\n  response: {content: \"right\"}\n";
    Replay::new(&[("cassette".into(), text + second)])
        .unwrap()
        .filling()
}

#[tokio::test]
async fn reports_of_linters_and_other_toolchains_decide() {
    for (pass, passed, found) in [
        (
            "reports.lint.warnings == 1 && reports.lint.errors == 0 && 'W1' in reports.lint.rules && reports.lcov.lineRate >= 0.5",
            true,
            "",
        ),
        (
            "reports.lint.results == 0",
            false,
            "- word.txt:1: W1 (warning) too long",
        ),
        (
            "reports.lcov.lineRate >= 0.8",
            false,
            "Line coverage is 0.500 (1 of 2 lines).",
        ),
    ] {
        let gate = format!(
            "    gates:\n    - name: clean\n      kind: command\n      COMMAND, pass: \"{pass}\"}}\n"
        );
        let tests = "{name: junit, format: junit, path: junit.xml}, ";
        let plan = plan(|sop| reporting(&gate)(sop).replace(tests, ""), same, same);
        let (flown, _) = flown(plan, right(), LocalGateway::default()).await;
        let (status, findings) = verdicts(&flown, "clean").remove(0);
        assert_eq!(
            status.verdict == Verdict::Passed,
            passed,
            "{pass}: {findings}"
        );
        assert!(findings.contains(found), "{pass}: {findings}");
    }
}

const TREND: &str = "    gates:
    - name: tests
      kind: command
      COMMAND, pass: \"measures.failed.falls() && measures.failed.last() == 0\"}
      measures: [{name: failed, value: reports.junit.failures}]
      onFailure:
      - {when: reports.junit.failures > 5, action: Fail}
      - {when: reports.junit.failures > 0 && exitCode == 0, action: Retry, maxAttempts: 2}
    - {name: sign, kind: approval}
";

fn waits(flown: &Flown) -> (StepEnd, Wait) {
    let end = ends(flown).pop().expect("an end");
    let Next::Wait(wait) = end.next.clone() else {
        panic!("{end:?}: {:?}", flown.end.failure);
    };
    (end, *wait)
}

#[tokio::test]
async fn the_trend_of_failing_tests_is_measured_over_attempts_and_launches() {
    let sop = |sop: String| {
        let sop = reporting(TREND)(sop);
        let seen = "    gates:\n    - {name: seen, kind: expression, expression: \"measures.failed == [2, 1, 0]\"}\n    - name: right-word";
        sop.replace("    gates:\n    - name: right-word", seen)
    };
    let told = |flown: &Flown| -> Vec<Verdict> {
        let verdicts = verdicts(flown, "tests").into_iter();
        verdicts.map(|(status, _)| status.verdict).collect()
    };
    let gateway = LocalGateway::default();
    let (first, _) = flown(plan(sop, same, same), right(), gateway.clone()).await;
    let (end, wait) = waits(&first);
    assert_eq!(
        told(&first),
        [Verdict::Failed, Verdict::Failed, Verdict::Passed]
    );
    let approve = sopwith_crds::agent_run::Decision {
        step: end.step,
        gate: wait.gate,
        attempt: end.attempt,
        subject: wait.subject.to_string(),
        verdict: sopwith_crds::agent_run::DecisionVerdict::Approve,
        to: None,
        by: "jane".to_owned(),
        reason: None,
        at: None,
    };
    gateway.next_launch(LaunchStart {
        snapshot: first.end.snapshot.clone(),
        decisions: vec![approve],
        ..LaunchStart::default()
    });
    let (second, _) = flown(plan(sop, same, same), right(), gateway).await;
    assert_eq!(second.end.failure, None);
    let seen = verdicts(&second, "seen").remove(0).0;
    assert_eq!(
        (seen.verdict, seen.trust),
        (Verdict::Passed, Some(Trust::InProcess))
    );
}

#[tokio::test]
async fn a_trend_that_does_not_fall_fails_the_gate() {
    let sop = |sop: String| reporting(TREND)(sop).replace("range(3 - attempt)", "range(2)");
    let (flown, _) = flown(plan(sop, same, same), right(), LocalGateway::default()).await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.starts_with("gate tests failed: 3 tests: 1 passed, 2 failed"),
        "{message}"
    );
    assert_eq!(way(&flown).len(), 4);
}

#[tokio::test]
async fn evidence_that_the_policy_does_not_trust_is_none() {
    let rules = |policy: String| {
        with_judge(&policy)
            + "  requiredGates: [review/fits]\n  evidence: {minimumTrust: external}\n"
    };
    // The copy among the words was written by a program.
    let (flown_words, _) = flown(
        plan(|sop| judged(&sop), rules, same),
        judges_who_see_it(),
        LocalGateway::default(),
    )
    .await;
    let (reason, message) = failure(&flown_words);
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.ends_with("the evidence is inProcess, not external"),
        "{message}"
    );
    let told = &verdicts(&flown_words, "fits")[1].1;
    assert!(
        told.starts_with("The policy asks for evidence of this gate that is external"),
        "{told}"
    );
    // The word alone was not.
    let word = |sop: String| judged(&sop).replace("artifacts: [words]", "files: [word.txt]");
    let (flown_word, _) = flown(
        plan(word, rules, same),
        judges_who_see_it(),
        LocalGateway::default(),
    )
    .await;
    assert_eq!(flown_word.end.failure, None);
}

#[tokio::test]
async fn a_run_that_skipped_what_the_policy_asks_evidence_of_does_not_succeed() {
    let rules = |policy: String| {
        with_judge(&policy) + "  evidence: {minimumTrust: external, gates: [review/fits]}\n"
    };
    let skipped = |sop: String| {
        judged(&sop).replace(
            "      kind: review\n",
            "      kind: review\n      when: options.runTests\n",
        )
    };
    let (flown, _) = flown(
        plan(skipped, rules, same),
        judges_who_see_it(),
        LocalGateway::default(),
    )
    .await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::PolicyDenied);
    assert!(
        message.contains("evidence that is external of review/fits"),
        "{message}"
    );
}
