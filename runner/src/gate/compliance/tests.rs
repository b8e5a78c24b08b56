use super::*;
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    contract::{
        plan::RunOptions,
        trail::{Passage, Then},
    },
    sop_definition::{Action, FailureAction, FailureRule, Gate, GateKind, Raci, Role},
    status::Verdict,
};

/// Two steps with a gate each; the second goes back to the first, or asks people. The third judges.
fn plan() -> RunPlan {
    let gate = |name: &str, kind: GateKind, rules: Vec<FailureRule>| Gate {
        name: name.into(),
        kind,
        on_failure: rules,
        ..Gate::default()
    };
    let step = |name: &str, needs: &[&str], gates: Vec<Gate>| Step {
        name: name.into(),
        role: Some("writer".into()),
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        actions: vec![Action {
            name: "do".into(),
            gates: vec![gate("quick", GateKind::Schema, vec![])],
            ..Action::default()
        }],
        gates,
        raci: Some(Raci {
            responsible: vec!["writer".into()],
            accountable: vec!["owner".into()],
            ..Raci::default()
        }),
        ..Step::default()
    };
    let back = FailureRule {
        action: FailureAction::Backtrack,
        to: Some("one".into()),
        ..FailureRule::default()
    };
    let mut two = step(
        "two",
        &["one"],
        vec![gate("check", GateKind::Command, vec![back])],
    );
    two.raci = Some(Raci {
        accountable: vec!["writer".into()],
        ..Raci::default()
    });
    let mut extra = step("extra", &[], vec![]);
    extra.when = Some("options.runTests".into());
    RunPlan {
        roles: ["writer", "tester"]
            .map(|name| Role {
                name: name.into(),
                ..Role::default()
            })
            .to_vec(),
        steps: vec![
            step("one", &[], vec![gate("sign", GateKind::Approval, vec![])]),
            two,
            extra,
            step(
                "three",
                &["two"],
                vec![gate("sop", GateKind::Compliance, vec![])],
            ),
        ],
        options: RunOptions {
            rounds: 2,
            ..RunOptions::default()
        },
        ..RunPlan::default()
    }
}

fn judged(gate: &str, kind: GateKind, verdict: Verdict, by: Option<&str>) -> Passage {
    Passage::Judged {
        gate: gate.into(),
        kind,
        verdict,
        trust: None,
        by: by.map(str::to_owned),
    }
}

fn entry(step: &str, attempt: u32, what: Passage) -> Entry {
    Entry {
        step: step.into(),
        attempt,
        round: 1,
        what,
    }
}

/// An attempt whose gates pass.
fn passes(step: &str, attempt: u32) -> Vec<Entry> {
    let own = match step {
        "one" => judged("sign", GateKind::Approval, Verdict::Passed, Some("jane")),
        _ => judged("check", GateKind::Command, Verdict::Passed, None),
    };
    let all = [
        Passage::Began,
        judged("do/quick", GateKind::Schema, Verdict::Passed, None),
        own,
        Passage::Passed,
    ];
    all.map(|what| entry(step, attempt, what)).to_vec()
}

/// An attempt of the second step whose own gate fails.
fn fails(attempt: u32, then: Then) -> Vec<Entry> {
    let failed = Passage::Failed {
        gate: Some("check".into()),
        then,
    };
    let all = [
        Passage::Began,
        judged("do/quick", GateKind::Schema, Verdict::Passed, None),
        judged("check", GateKind::Command, Verdict::Failed, None),
        failed,
    ];
    all.map(|what| entry("two", attempt, what)).to_vec()
}

fn good() -> Vec<Entry> {
    [
        passes("one", 1),
        fails(1, Then::Back("one".into())),
        passes("one", 2),
        passes("two", 2),
        vec![entry("extra", 0, Passage::Skipped)],
    ]
    .concat()
}

fn said(sender: &str, cause: &str, attempt: u32) -> Message {
    Message {
        number: 1,
        at: Timestamp::UNIX_EPOCH,
        sender: sender.into(),
        recipients: vec![],
        cause: cause.into(),
        attempt,
        tool: None,
        item: None,
        verdict: None,
        content: String::new(),
        wrote: vec![],
        input_tokens: 0,
        output_tokens: 0,
    }
}

fn talk() -> Vec<Message> {
    let did = [("one/do", 1), ("two/do", 1), ("one/do", 2), ("two/do", 2)];
    did.map(|(cause, attempt)| said("writer", cause, attempt))
        .to_vec()
}

fn checked(steps: &[&str], plan: &RunPlan, trail: &[Entry], messages: &[Message]) -> Judgement {
    let gate = ComplianceGate {
        steps: steps.iter().map(|step| (*step).to_owned()).collect(),
    };
    let trace = Trace {
        plan,
        trail,
        messages,
    };
    judge(&gate, "three", trace)
}

#[test]
fn a_run_by_the_book_complies_and_its_checklist_says_so() {
    let (plan, trail, talk) = (plan(), good(), talk());
    let judgement = checked(&[], &plan, &trail, &talk);
    assert_eq!(judgement.findings, "");
    assert!(judgement.passed);
    assert_eq!(judgement.observed, "14 of 14 checks hold");
    let list = judgement.document.unwrap();
    for line in [
        "| ✓ |  | no more rounds than allowed | 2 of 2 rounds |",
        "| ✓ | one | done | attempt 2 in round 2 |",
        "| ✓ | two | after what it needs, as its rules say | after one |",
        "| ✓ | one | by the role that is responsible | writer: it worked alone |",
        "| ✓ | one | gate approval/sign passed | approved by jane |",
        "| ✓ | one | owner answers for it | approved by jane |",
        "| ✓ | two | writer answers for it | by the gates that it passed |",
        "| ✓ | extra | done, or not asked for | skipped: options.runTests does not hold |",
        "two: attempt 1 failed, back to one",
    ] {
        assert!(list.contains(line), "{line}\n{list}");
    }
    // The same run gives the same evidence.
    let again = checked(&[], &plan, &trail, &talk);
    assert_eq!(again.evidence, judgement.evidence);
}

/// A trail, its change, and what is found.
type Case = (&'static str, fn(&mut Vec<Entry>), &'static str);

const CASES: [Case; 13] = [
    (
        "never done",
        |trail| trail.retain(|entry| entry.step != "two"),
        "two: done: it was never begun",
    ),
    (
        "not finished",
        |trail| {
            trail.retain(|entry| {
                !(entry.step == "two" && entry.attempt == 2 && entry.what == Passage::Passed)
            });
        },
        "two: done: attempt 2 has not ended",
    ),
    (
        "too early",
        |trail| *trail = [passes("two", 1), passes("one", 1)].concat(),
        "two: after what it needs, as its rules say: attempt 1 began before one was finished",
    ),
    (
        "at once",
        |trail| {
            let began = trail.remove(0);
            trail.insert(0, entry("extra", 1, Passage::Began));
            trail.insert(1, began);
        },
        "one: after what it needs, as its rules say: attempt 1 began while extra was at work",
    ),
    (
        "an attempt is missing",
        |trail| trail.retain(|entry| !(entry.step == "two" && entry.attempt == 1)),
        "two: after what it needs, as its rules say: attempt 2 followed attempt 0",
    ),
    (
        "no rule to retry",
        |trail| *trail = [passes("one", 1), fails(1, Then::Retry), passes("two", 2)].concat(),
        "two: after what it needs, as its rules say: after gate check the line was tried again, which no rule and nobody said",
    ),
    (
        "no rule to go there",
        |trail| {
            *trail = [
                passes("one", 1),
                fails(1, Then::Back("extra".into())),
                passes("two", 2),
            ]
            .concat();
        },
        "after gate check the line went back to extra, which no rule and nobody said",
    ),
    (
        "too many rounds",
        |trail| {
            trail.splice(
                0..0,
                [passes("one", 1), fails(1, Then::Back("one".into()))].concat(),
            );
        },
        "no more rounds than allowed: 3 of 2 rounds",
    ),
    (
        "a failed gate",
        |trail| {
            let what = judged("check", GateKind::Command, Verdict::Failed, None);
            trail.insert(trail.len() - 2, entry("two", 2, what));
        },
        "two: gate command/check passed: failed",
    ),
    (
        "a gate that was not judged",
        |trail| {
            trail.retain(|entry| {
                    !matches!(&entry.what, Passage::Judged { gate, .. } if gate == "check" && entry.attempt == 2)
                });
        },
        "two: gate command/check passed: it was not judged",
    ),
    (
        "waived by nobody",
        |trail| {
            let what = judged("check", GateKind::Command, Verdict::Waived, None);
            trail.insert(trail.len() - 2, entry("two", 2, what));
        },
        "two: gate command/check passed: waived, but nobody's name is on it",
    ),
    (
        "approved by nobody",
        |trail| {
            for entry in trail {
                if let Passage::Judged { by, .. } = &mut entry.what {
                    *by = None;
                }
            }
        },
        "one: gate approval/sign passed: approved, but nobody's name is on it",
    ),
    (
        "skipped for no reason",
        |trail| {
            trail.retain(|entry| entry.step != "two");
            trail.push(entry("two", 0, Passage::Skipped));
        },
        "two: done, or not asked for: it was skipped, though the procedure always asks for it",
    ),
];

#[test]
fn what_is_against_the_procedure_is_found() {
    for (name, change, expected) in CASES {
        let mut trail = good();
        change(&mut trail);
        let judgement = checked(&[], &plan(), &trail, &talk());
        assert!(!judgement.passed, "{name}");
        assert!(
            judgement.findings.contains(expected),
            "{name}: {}",
            judgement.findings
        );
        assert!(judgement.document.unwrap().contains('✗'));
    }
}

#[test]
fn the_work_is_done_by_who_is_responsible_and_people_answer_for_it() {
    let mut talk = talk();
    talk.push(said("tester", "two/do", 2));
    let judgement = checked(&[], &plan(), &good(), &talk);
    assert!(
        judgement.findings.contains(
            "two: by the role that is responsible: tester worked in it, its role is writer"
        ),
        "{}",
        judgement.findings
    );
    let mut other = plan();
    if let Some(raci) = &mut other.steps[0].raci {
        raci.responsible = vec!["tester".into()];
    }
    let judgement = checked(&[], &other, &good(), &talk);
    assert!(
        judgement
            .findings
            .contains("writer does it, responsible is tester"),
        "{}",
        judgement.findings
    );
    let mut other = plan();
    if let Some(raci) = &mut other.steps[1].raci {
        raci.accountable = vec!["board".into()];
    }
    let judgement = checked(&[], &other, &good(), &talk);
    assert!(
        judgement
            .findings
            .contains("board answers for it: board is no role, and nobody approved it"),
        "{}",
        judgement.findings
    );
}

#[test]
fn people_may_let_the_line_go_where_no_rule_does() {
    let waived = judged("check", GateKind::Command, Verdict::Waived, Some("jane"));
    let mut trail = [passes("one", 1), fails(1, Then::Ask)].concat();
    trail.extend(
        [
            Passage::Waits {
                gate: "check".into(),
            },
            Passage::GoesOn,
            waived,
            Passage::Passed,
        ]
        .map(|what| entry("two", 1, what)),
    );
    let judgement = checked(&["one", "two"], &plan(), &trail, &talk());
    assert_eq!(judgement.findings, "");
    assert!(judgement.document.unwrap().contains("| waived by jane |"));
    // Sent back by people.
    let mut trail = [passes("one", 1), fails(1, Then::Ask)].concat();
    let sent = judged("check", GateKind::Command, Verdict::Failed, Some("jane"));
    let back = Passage::Failed {
        gate: Some("check".into()),
        then: Then::Retry,
    };
    trail.extend([Passage::GoesOn, sent, back].map(|what| entry("two", 1, what)));
    trail.extend(passes("two", 2));
    let judgement = checked(&["one", "two"], &plan(), &trail, &talk());
    assert_eq!(judgement.findings, "");
}

#[test]
fn a_step_that_is_named_must_have_been_done() {
    let judgement = checked(&["extra"], &plan(), &good(), &talk());
    assert!(
        judgement.findings.contains("extra: done: it was skipped"),
        "{}",
        judgement.findings
    );
    assert!(checked(&["one"], &plan(), &good(), &talk()).passed);
}
