//! Gates at which people decide: the launch ends, the next goes on with what was decided.

use super::*;
use sopwith_crds::{
    agent_run::{Decision, DecisionVerdict},
    contract::report::Wait,
    sop_definition::GateKind,
    status::GateStatus,
};

/// The fixtures' procedure with a question after the words and another at the end of the step.
fn asking() -> RunPlan {
    let sop = |text: String| {
        let after_words = "    - name: words\n      gates: [{name: sound, kind: approval, approval: {message: Do they sound right?}, onFailure: [{action: Retry}]}]\n      loop:";
        let at_the_end = "    gates: [{name: sign-off, kind: approval}]\n  - name: check";
        text.replace("    - name: words\n      loop:", after_words)
            .replace("  - name: check", at_the_end)
    };
    plan(sop, same, same)
}

/// The fixtures' procedure, whose failed gate asks.
fn failing(gate: &str) -> RunPlan {
    plan(
        |text| text.replace("onFailure: [{action: Backtrack, to: write}]", gate),
        same,
        same,
    )
}

fn waits(flown: &Flown) -> (StepEnd, Wait) {
    assert_eq!(flown.end.outcome, Outcome::Waiting);
    let end = ends(flown).pop().expect("an end");
    let Next::Wait(wait) = end.next.clone() else {
        panic!("{end:?}");
    };
    assert_eq!(end.verdict, Verdict::Pending);
    (end, *wait)
}

fn decision(end: &StepEnd, wait: &Wait, verdict: DecisionVerdict) -> Decision {
    Decision {
        step: end.step.clone(),
        gate: wait.gate.clone(),
        attempt: end.attempt,
        subject: wait.subject.to_string(),
        verdict,
        to: (verdict == DecisionVerdict::Backtrack).then(|| "write".to_owned()),
        by: "jane".to_owned(),
        reason: Some("it sounds flat".to_owned()),
        at: None,
    }
}

/// The next launch, told what was decided.
async fn goes_on(plan: RunPlan, before: &Flown, decisions: Vec<Decision>) -> (Flown, Arc<Replay>) {
    before.gateway.next_launch(LaunchStart {
        snapshot: before.end.snapshot.clone(),
        decisions,
        ..LaunchStart::default()
    });
    flown(plan, filling(), before.gateway.clone()).await
}

fn judged(flown: &Flown, gate: &str) -> GateStatus {
    let events = flown.gateway.events().into_iter();
    let mut judged = events.filter_map(|event| match event.what {
        What::GateJudged { gate: status, .. } if status.name == gate => Some(status),
        _ => None,
    });
    judged.next_back().expect("the gate was judged")
}

fn asked_for(replay: &Replay) -> Vec<String> {
    let keys = replay.filled().into_keys();
    keys.map(|key| format!("{}/{} {}", key.step, key.action, key.attempt))
        .collect()
}

#[tokio::test]
async fn a_run_that_waited_hands_over_what_an_unbroken_one_does_and_repeats_nothing() {
    let (first, replay) = flown(asking(), filling(), LocalGateway::default()).await;
    let (end, wait) = waits(&first);
    assert_eq!((end.step.as_str(), wait.gate.as_str()), ("write", "sound"));
    assert_eq!(wait.question, "Do they sound right?");
    assert_eq!(
        wait.options,
        [DecisionVerdict::Approve, DecisionVerdict::Reject]
    );
    let mut asked = asked_for(&replay);
    let document = first.gateway.blob(&wait.subject).expect("the document");
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(Digest::of_json(&document), wait.subject);
    assert_eq!(document["gate"], "sound");
    assert_eq!(document["artifacts"][1]["files"][0]["path"], "word.txt");
    let status = judged(&first, "sound");
    assert_eq!(
        (status.verdict, status.evidence),
        (Verdict::Pending, Some(wait.subject.to_string()))
    );

    let approve = decision(&end, &wait, DecisionVerdict::Approve);
    let (second, replay) = goes_on(asking(), &first, vec![approve]).await;
    let (end, wait) = waits(&second);
    assert_eq!(
        (end.step.as_str(), wait.gate.as_str()),
        ("write", "sign-off")
    );
    assert_eq!(end.attempt, 1);
    asked.extend(asked_for(&replay));
    let status = judged(&second, "sound");
    assert_eq!(status.verdict, Verdict::Passed);
    assert_eq!(status.decided_by.as_deref(), Some("jane"));

    let approve = decision(&end, &wait, DecisionVerdict::Approve);
    let (third, replay) = goes_on(asking(), &second, vec![approve]).await;
    // The word of the first attempt is wrong: the line goes back, and what was approved then is asked anew.
    let (end, again) = waits(&third);
    assert_eq!((end.attempt, again.gate.as_str()), (2, "sound"));
    asked.extend(asked_for(&replay));
    let approve = decision(&end, &again, DecisionVerdict::Approve);
    let (fourth, replay) = goes_on(asking(), &third, vec![approve]).await;
    asked.extend(asked_for(&replay));
    let (end, last) = waits(&fourth);
    assert_ne!(last.subject, wait.subject);
    let approve = decision(&end, &last, DecisionVerdict::Approve);
    let (fifth, replay) = goes_on(asking(), &fourth, vec![approve]).await;
    asked.extend(asked_for(&replay));
    assert_eq!(fifth.end.outcome, Outcome::Succeeded);

    let (unbroken, replay) = flown(plain(), filling(), LocalGateway::default()).await;
    let mut unbroken_asked = asked_for(&replay);
    asked.sort();
    unbroken_asked.sort();
    assert_eq!(asked, unbroken_asked);
    let tree = |flown: &Flown| flown.snapshot().expect("a snapshot").tree;
    assert_eq!(tree(&fifth), tree(&unbroken));
}

#[tokio::test]
async fn a_launch_that_finds_nothing_decided_waits_again_and_changes_nothing() {
    let (first, _) = flown(asking(), filling(), LocalGateway::default()).await;
    let (end, wait) = waits(&first);
    let good = decision(&end, &wait, DecisionVerdict::Approve);
    let on_another = Decision {
        subject: Digest::of("another").to_string(),
        ..good.clone()
    };
    let stale = Decision { attempt: 9, ..good };
    let (second, replay) = goes_on(asking(), &first, vec![on_another, stale]).await;
    assert_eq!(second.end.outcome, Outcome::Waiting);
    assert_eq!(second.end.snapshot, first.end.snapshot);
    assert!(replay.filled().is_empty() && ends(&second).is_empty());
}

#[tokio::test]
async fn a_rejection_is_given_to_the_next_attempt_or_ends_the_run() {
    let (first, _) = flown(asking(), filling(), LocalGateway::default()).await;
    let (end, wait) = waits(&first);
    let reject = decision(&end, &wait, DecisionVerdict::Reject);
    let (second, _) = goes_on(asking(), &first, vec![reject.clone()]).await;
    let (ended, again) = waits(&second);
    assert_eq!(ended.attempt, 2);
    assert_ne!(again.subject, wait.subject);
    let rejected = &ends(&second)[0];
    assert_eq!(
        (rejected.attempt, rejected.verdict, &rejected.next),
        (1, Verdict::Failed, &Next::Retry)
    );
    assert!(
        rejected
            .message
            .contains("rejected by jane: jane: it sounds flat"),
        "{}",
        rejected.message
    );
    // The rule is used up.
    let reject = decision(&ended, &again, DecisionVerdict::Reject);
    let (third, _) = goes_on(asking(), &second, vec![reject]).await;
    assert_eq!(failure(&third).0, FailureReason::Rejected);
}

#[tokio::test]
async fn a_failed_gate_that_asks_does_as_people_say() {
    use DecisionVerdict::{Backtrack, Cancel, Proceed, Reject, Retry};
    let table = [
        (Proceed, Outcome::Succeeded, Verdict::Waived),
        (Backtrack, Outcome::Succeeded, Verdict::Passed),
        (Retry, Outcome::Waiting, Verdict::Failed),
        (Cancel, Outcome::Failed, Verdict::Failed),
        // Nobody answered in time.
        (Reject, Outcome::Failed, Verdict::Failed),
    ];
    for asks in ["exhausted: Ask", "onFailure: [{action: Ask}]"] {
        for (verdict, outcome, judgement) in table {
            let (first, _) = flown(failing(asks), filling(), LocalGateway::default()).await;
            let (end, wait) = waits(&first);
            assert_eq!(wait.kind, GateKind::Command);
            assert_eq!(wait.back, ["think", "write"]);
            let told = judged(&first, "right-word");
            assert_eq!(told.verdict, Verdict::Failed);
            let decided = decision(&end, &wait, verdict);
            let (second, _) = goes_on(failing(asks), &first, vec![decided]).await;
            assert_eq!(
                second.end.outcome, outcome,
                "{verdict:?} {:?}",
                second.end.failure
            );
            let after = judged(&second, "right-word");
            assert_eq!(after.verdict, judgement, "{verdict:?}");
            if verdict == Cancel {
                assert_eq!(failure(&second).0, FailureReason::Cancelled);
            }
            if verdict == Proceed {
                assert_eq!(after.decided_by.as_deref(), Some("jane"));
                assert_eq!(
                    (after.observed, after.evidence),
                    (told.observed, told.evidence)
                );
            }
        }
    }
}
