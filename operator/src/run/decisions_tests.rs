use super::*;
use crate::run::fixture::at;
use rstest::rstest;
use sopwith_crds::contract::{Digest, report::Wait};

fn waiting(kind: GateKind) -> Waiting {
    let options = if kind == GateKind::Approval {
        vec![DecisionVerdict::Approve, DecisionVerdict::Reject]
    } else {
        vec![
            DecisionVerdict::Proceed,
            DecisionVerdict::Retry,
            DecisionVerdict::Backtrack,
            DecisionVerdict::Cancel,
        ]
    };
    Waiting {
        step: "design".to_owned(),
        attempt: 2,
        wait: Wait {
            gate: "sign-off".to_owned(),
            kind,
            subject: Digest::of("subject"),
            question: "Is the design sound?".to_owned(),
            options,
            back: vec!["think".to_owned()],
        },
        since: at(0),
    }
}

/// A decision in the words of its verdict and who made it, with what else is said of it.
fn decision(text: &str) -> Decision {
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let verdict = match word().as_str() {
        "Approve" => DecisionVerdict::Approve,
        "Reject" => DecisionVerdict::Reject,
        "Proceed" => DecisionVerdict::Proceed,
        "Retry" => DecisionVerdict::Retry,
        "Backtrack" => DecisionVerdict::Backtrack,
        "Cancel" => DecisionVerdict::Cancel,
        other => panic!("{other}"),
    };
    let mut decision = Decision {
        step: "design".to_owned(),
        gate: "sign-off".to_owned(),
        attempt: 2,
        subject: Digest::of("subject").to_string(),
        verdict,
        by: word(),
        ..Decision::default()
    };
    for word in words {
        match word.split_once('=') {
            Some(("step", step)) => decision.step = step.to_owned(),
            Some(("gate", gate)) => decision.gate = gate.to_owned(),
            Some(("attempt", attempt)) => decision.attempt = attempt.parse().unwrap(),
            Some(("subject", subject)) => decision.subject = Digest::of(subject).to_string(),
            Some(("to", to)) => decision.to = Some(to.to_owned()),
            other => panic!("{other:?}"),
        }
    }
    decision
}

fn spec(decisions: &[&str], requester: Option<&str>) -> AgentRunSpec {
    AgentRunSpec {
        decisions: decisions.iter().map(|text| decision(text)).collect(),
        requested_by: requester.map(str::to_owned),
        ..AgentRunSpec::default()
    }
}

fn approvals(count: u32, separate: bool, expires: Option<u32>) -> Approvals {
    Approvals {
        count: Some(count),
        separation_of_duties: Some(separate),
        expires_after_seconds: expires,
    }
}

fn answered(tally: &Tally) -> String {
    let by = tally
        .answer
        .iter()
        .map(|d| format!("{:?} {}", d.verdict, d.by));
    by.collect::<Vec<_>>().join(", ")
}

#[rstest]
#[case::nobody(&[], 1, false, "", "")]
#[case::one_is_enough(&["Approve jane"], 1, false, "Approve jane", "1 of 1")]
#[case::one_of_two(&["Approve jane"], 2, false, "", "1 of 2")]
#[case::two_of_two(&["Approve jane", "Approve joe"], 2, false, "Approve jane, Approve joe", "2 of 2|2 of 2")]
#[case::one_rejects(&["Approve jane", "Reject joe"], 2, false, "Reject joe", "1 of 2|takes effect")]
#[case::a_rejection_weighs_more(&["Approve jane", "Reject joe"], 1, false, "Reject joe", "1 of 1|takes effect")]
#[case::requester(&["Approve ada"], 1, true, "", "!who requested the run may not approve it (separationOfDuties)")]
#[case::requester_beside_another(&["Approve ada", "Approve jane"], 1, true, "Approve jane", "!who requested the run may not approve it (separationOfDuties)|1 of 1")]
#[case::requester_rejects(&["Reject ada"], 1, true, "Reject ada", "takes effect")]
#[case::requester_without_separation(&["Approve ada"], 1, false, "Approve ada", "1 of 1")]
#[case::other_step(&["Approve jane step=code"], 1, false, "", "!gate sign-off of step design waits")]
#[case::other_gate(&["Approve jane gate=tests"], 1, false, "", "!gate sign-off of step design waits")]
#[case::stale_attempt(&["Approve jane attempt=1"], 1, false, "", "!the gate waits in attempt 2")]
#[case::attempt_to_come(&["Approve jane attempt=3"], 1, false, "", "!the gate waits in attempt 2")]
#[case::other_verdict(&["Proceed jane"], 1, false, "", "!the gate takes Approve, Reject")]
fn decisions_on_an_approval(
    #[case] decisions: &[&str],
    #[case] count: u32,
    #[case] separate: bool,
    #[case] answer: &str,
    #[case] fates: &str,
) {
    let waiting = waiting(GateKind::Approval);
    let approvals = approvals(count, separate, None);
    let spec = spec(decisions, Some("ada"));
    let tally = tally(&spec, Some(&waiting), &Ok(approvals), at(9));
    assert_eq!(answered(&tally), answer);
    let told: Vec<String> = tally
        .fates
        .iter()
        .map(|fate| format!("{}{}", if fate.counts { "" } else { "!" }, fate.message))
        .collect();
    assert_eq!(told.join("|"), fates);
}

#[rstest]
#[case::proceed(&["Proceed jane"], 1, "Proceed jane")]
#[case::not_enough_to_waive(&["Proceed jane"], 2, "")]
#[case::one_is_enough_to_try_again(&["Retry jane"], 2, "Retry jane")]
#[case::back(&["Backtrack jane to=think"], 2, "Backtrack jane")]
#[case::back_to_nowhere(&["Backtrack jane to=code"], 1, "")]
#[case::cancel(&["Cancel jane", "Proceed joe"], 1, "Cancel jane")]
#[case::not_asked(&["Approve jane"], 1, "")]
fn decisions_on_a_failed_gate(
    #[case] decisions: &[&str],
    #[case] count: u32,
    #[case] answer: &str,
) {
    let waiting = waiting(GateKind::Command);
    let approvals = approvals(count, false, None);
    let tally = tally(
        &spec(decisions, None),
        Some(&waiting),
        &Ok(approvals),
        at(9),
    );
    assert_eq!(answered(&tally), answer);
}

#[test]
fn another_digest_counts_for_nothing() {
    let waiting = waiting(GateKind::Approval);
    let spec = spec(&["Approve jane subject=other"], None);
    let tally = tally(&spec, Some(&waiting), &Ok(Approvals::default()), at(9));
    assert_eq!(tally.answer, []);
    let wanted = format!("what is decided on is {}", Digest::of("subject"));
    assert_eq!(tally.fates[0].message, wanted);
}

#[test]
fn nothing_counts_without_a_requester_to_tell_apart_a_policy_or_proof_of_who_decided() {
    let waiting = waiting(GateKind::Approval);
    let spec = spec(&["Approve jane", "Reject joe"], None);
    let mut policy = ToolPolicy::default();
    policy.spec.approvals = Some(approvals(1, true, None));
    let unproven = || {
        Err(Pending {
            reason: "AdmissionNotEnforced",
            message: "nobody proves it".to_owned(),
        })
    };
    for (policy, proof, words, rejects) in [
        (Some(&policy), Ok(()), "spec.requestedBy is not set", true),
        (None, Ok(()), "is not there", false),
        (
            Some(&policy),
            unproven(),
            "AdmissionNotEnforced: nobody",
            false,
        ),
        (None, unproven(), "AdmissionNotEnforced: nobody", false),
    ] {
        let tally = tally(&spec, Some(&waiting), &rules(policy, proof), at(9));
        assert_eq!(!tally.answer.is_empty(), rejects, "{words}");
        let fate = &tally.fates[0];
        assert!(!fate.counts && fate.message.contains(words), "{fate:?}");
    }
}

#[rstest]
#[case::in_time(59, &[], "")]
#[case::too_late(60, &[], "Reject ToolPolicy default")]
#[case::answered_before(60, &["Approve jane"], "Approve jane")]
fn a_question_that_nobody_answers_is_rejected(
    #[case] now: i64,
    #[case] decisions: &[&str],
    #[case] answer: &str,
) {
    let waiting = waiting(GateKind::Approval);
    let approvals = approvals(1, false, Some(60));
    let tally = tally(
        &spec(decisions, None),
        Some(&waiting),
        &Ok(approvals),
        at(now),
    );
    assert_eq!(answered(&tally), answer);
    assert_eq!(tally.expires, Some(at(60)));
}

#[test]
fn what_became_of_a_decision_stays_when_the_run_goes_on() {
    let waiting = waiting(GateKind::Approval);
    let spec = spec(&["Approve jane", "Approve joe step=code"], None);
    let policy = Approvals::default();
    let first = tally(&spec, Some(&waiting), &Ok(policy.clone()), at(9));
    let told = shown(&[], &first, Some(&waiting));
    assert_eq!(told, first.fates);
    // The gate passed; the second decision is on a gate that has come to wait now.
    let later = Waiting {
        step: "code".to_owned(),
        ..waiting.clone()
    };
    let second = tally(&spec, Some(&later), &Ok(policy.clone()), at(10));
    let told = shown(&told, &second, Some(&later));
    let counts: Vec<(&str, bool)> = told.iter().map(|f| (f.by.as_str(), f.counts)).collect();
    assert_eq!(counts, [("jane", true), ("joe", true)]);
    let none = tally(&spec, None, &Ok(policy.clone()), at(11));
    assert_eq!(shown(&told, &none, None), told);
    assert_eq!(shown(&[], &none, None)[0].message, NOT_WAITING);
}

#[test]
fn a_status_shows_the_newest_of_many_decisions() {
    let many: Vec<String> = (0..100).map(|n| format!("Approve user{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let tally = tally(&spec(&many, None), None, &Ok(Approvals::default()), at(0));
    let told = shown(&[], &tally, None);
    assert_eq!(shown(&told, &tally, None), told);
    assert_eq!((told.len(), told[31].by.as_str()), (MOST_SHOWN, "user99"));
}

#[test]
fn the_instructions_hold_the_command_that_decides() {
    let waiting = waiting(GateKind::Approval);
    let tally = tally(
        &spec(&[], None),
        Some(&waiting),
        &Ok(approvals(2, false, None)),
        at(9),
    );
    let text = instructions("demo", "blackjack", &waiting, &tally);
    let patch = text
        .split_once(" -p '")
        .unwrap()
        .1
        .strip_suffix('\'')
        .unwrap();
    let patch = patch.replace(
        "'\"$(kubectl auth whoami -o jsonpath='{.status.userInfo.username}')\"'",
        "jane",
    );
    let patch: serde_json::Value = serde_json::from_str(&patch).unwrap();
    assert_eq!(patch[0]["op"], "add");
    let value: Decision = serde_json::from_value(patch[0]["value"].clone()).unwrap();
    assert_eq!(value, decision("Approve jane"));
    assert!(text.contains("0 of 2") && text.len() < 1500, "{text}");
}
