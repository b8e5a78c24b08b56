//! What QA finds, and to whom it goes.

use std::fs;

use serde_json::{Value, json};
use sopwith_crds::status::FailureReason;

use super::{ended, played, summary};
use crate::flight::Landed;

/// A report of QA: the severities of what is open, wrong tests, and whether a criterion is not met.
fn report(open: &[&str], wrong: bool, unmet: bool) -> String {
    let verdict = |n| if unmet && n == 1 { "fail" } else { "pass" };
    let criteria: Vec<Value> = (1..=9)
        .map(|n| json!({"id": format!("AC-{n}"), "verdict": verdict(n), "evidence": "e"}))
        .collect();
    let bugs: Vec<Value> = open
        .iter()
        .zip(1..)
        .map(|(severity, n)| json!({"id": format!("BUG-{n}"), "severity": severity, "status": "open", "title": "t", "violates": "", "test": ""}))
        .collect();
    let wrong = if wrong {
        json!([{"test": "t", "why": "w"}])
    } else {
        json!([])
    };
    json!({"summary": "s", "criteria": criteria, "bugs": bugs, "wrong_tests": wrong, "recommendation": "release"}).to_string()
}

/// What QA does in an attempt: its test file, what it mends that to in each pass, and its report.
type Attempt<'a> = (&'a str, &'a [&'a str], String);

/// Runs with tests; the engineer's repairs are those that are recorded, in each attempt.
async fn tested(parameters: Value, attempts: &[Attempt<'_>], more: &[(&str, String)]) -> Landed {
    let mut all: Vec<(String, String)> = Vec::new();
    let covers: Vec<String> = (1..=9).map(|n| format!("AC-{n}")).collect();
    let plan = json!({"strategy": "s", "files": [{"path": "tests/test_app.py", "covers": covers, "what": "w"}]}).to_string();
    let content = |file: &str| {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../config/samples/software-company/content"
        );
        fs::read_to_string(format!("{folder}/implement/attempt-2/{file}")).unwrap()
    };
    for ((tests, mended, report), n) in attempts.iter().zip(1..) {
        all.push((format!("verify/plan-tests {n}"), plan.clone()));
        all.push((
            format!("verify/write-tests/write[tests/test_app.py] {n}"),
            (*tests).to_owned(),
        ));
        for (tests, pass) in mended.iter().zip(1..) {
            let files = json!({"files": [{"path": "tests/test_app.py", "content": tests}]});
            all.push((
                format!("verify/debug-tests/mend {n}.0.{pass}"),
                files.to_string(),
            ));
        }
        all.push((format!("verify/report {n}"), report.clone()));
        if n > 1 {
            all.push((
                format!("implement/plan-change {n}"),
                content("plan-change.json"),
            ));
            all.push((
                format!("implement/write-code/write[blackjack/hand.py] {n}"),
                content("write-code/write/blackjack/hand.py"),
            ));
            all.push((format!("implement/summarize {n}"), summary(false)));
        }
    }
    let mut others: Vec<(&str, String)> = all
        .iter()
        .map(|(key, text)| (key.as_str(), text.clone()))
        .collect();
    others.extend(more.iter().map(|(key, text)| (*key, text.clone())));
    let run = json!({"runTests": true, "codeReview": false, "parameters": parameters});
    played(run, &others).await
}

const GREEN: &str = "# pass a\n";
const RED: &str = "# pass a\n# fail b\n";
const BROKEN: &str = "# pass a\n# break b\n";

/// The attempts of engineer and QA, in order, without the steps before and after.
fn way(landed: &Landed) -> Vec<String> {
    let path = landed.path();
    let ours = |end: &&String| end.starts_with("implement") || end.starts_with("verify");
    path.iter().filter(ours).cloned().collect()
}

#[tokio::test]
async fn who_has_to_mend_it_depends_on_what_failed() {
    let clean = || report(&[], false, false);
    let blocked = || report(&["critical"], false, true);
    let by_qa = ["implement 1 Passed", "verify 1 Failed", "verify 2 Passed"];
    let by_engineer = [
        "implement 1 Passed",
        "verify 1 Failed",
        "implement 2 Passed",
        "verify 2 Passed",
    ];
    for (why, first, expected) in [
        (
            "a broken test is mended at once",
            (BROKEN, &[GREEN][..], clean()),
            &["implement 1 Passed", "verify 1 Passed"][..],
        ),
        (
            "or in two passes",
            (BROKEN, &[BROKEN, GREEN], clean()),
            &["implement 1 Passed", "verify 1 Passed"],
        ),
        (
            "a test that stays broken is QA's",
            (BROKEN, &[BROKEN, BROKEN], clean()),
            &by_qa,
        ),
        (
            "a wrong test is QA's",
            (RED, &[], report(&[], true, false)),
            &by_qa,
        ),
        (
            "too few tests are QA's",
            ("# pass a\n# coverage 0.5\n", &[], clean()),
            &by_qa,
        ),
        (
            "no tests at all are QA's",
            ("# coverage 1.0\n", &[], clean()),
            &by_qa,
        ),
        (
            "a failed assertion is the engineer's",
            (RED, &[], blocked()),
            &by_engineer,
        ),
        (
            "so is an open blocker that no test shows",
            (GREEN, &[], report(&["critical"], false, false)),
            &by_engineer,
        ),
        (
            "and a criterion that is not met",
            (GREEN, &[], report(&[], false, true)),
            &by_engineer,
        ),
        (
            "and more defects than may be open",
            (GREEN, &[], report(&["minor"; 4], false, false)),
            &by_engineer,
        ),
    ] {
        let landed = tested(json!({}), &[first, (GREEN, &[], clean())], &[]).await;
        assert!(landed.succeeded(), "{why}");
        assert_eq!(way(&landed), expected, "{why}");
    }
}

#[tokio::test]
async fn code_goes_back_as_often_as_the_parameter_says() {
    for (most, rounds) in [("0", 1), ("1", 2), ("2", 3)] {
        // Each repair leaves one defect less, but never none.
        let attempts: Vec<Attempt<'_>> = (0..3)
            .map(|n| (RED, &[][..], report(&["critical"; 3][n..], false, true)))
            .collect();
        let landed = tested(json!({"maxRepairs": most}), &attempts, &[]).await;
        let (reason, message) = ended(&landed);
        assert_eq!(reason, FailureReason::GateFailed);
        assert!(
            message.starts_with("gate unit-tests failed: 2 tests: 1 passed, 1 failed"),
            "{message}"
        );
        let verified = way(&landed)
            .iter()
            .filter(|end| end.starts_with("verify"))
            .count();
        assert_eq!(verified, rounds, "{most}");
    }
}

#[tokio::test]
async fn a_repair_that_leaves_no_fewer_defects_is_taken_back() {
    let attempts = [
        (RED, &[][..], report(&["critical"], false, true)),
        (RED, &[], report(&["critical", "major"], false, true)),
        (GREEN, &[], report(&[], false, false)),
    ];
    let landed = tested(json!({}), &attempts, &[]).await;
    assert!(landed.succeeded());
    assert_eq!(
        way(&landed),
        [
            "implement 1 Passed",
            "verify 1 Failed",
            "implement 2 Passed",
            "verify 2 Failed",
            "implement 3 Passed",
            "verify 3 Passed"
        ]
    );
    let failed = &landed.ends()[6].message;
    assert!(
        failed.starts_with("gate bug-trend-falls failed"),
        "{failed}"
    );
    // The engineer begins from the code before the repair.
    for attempt in [2, 3] {
        let question = landed.question(&format!("implement/plan-change {attempt}"));
        assert!(
            question.contains("if total > LIMIT and high_aces:"),
            "{attempt}: {question}"
        );
    }
    let report = &landed.files()["docs/quality_reports/blackjack.md"];
    assert!(
        report.contains("Open defects, report by report: 1, 2, 0."),
        "{report}"
    );
}

#[tokio::test]
async fn code_that_reaches_into_its_own_judging_ends_the_run() {
    let tamper = [(
        "implement/write-code/write[blackjack/hand.py]",
        "TAMPER = 1".to_owned(),
    )];
    let landed = tested(
        json!({}),
        &[(GREEN, &[], report(&[], false, false))],
        &tamper,
    )
    .await;
    let (reason, message) = ended(&landed);
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains("canary red-is-red did not fail as it must"),
        "{message}"
    );
    assert_eq!(way(&landed), ["implement 1 Passed", "verify 1 Failed"]);
}
