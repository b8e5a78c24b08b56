use super::*;
use proptest::prelude::*;
use sopwith_crds::{
    contract::{
        Digest,
        plan::{RunOptions, RunPlan},
    },
    sop_definition::{AfterFailure, FailureAction, FailureRule, Step},
    status::FailureReason,
};

fn plan(rounds: u32, steps: &[(&str, &[&str])]) -> RunPlan {
    RunPlan {
        options: RunOptions {
            rounds,
            ..RunOptions::default()
        },
        steps: steps
            .iter()
            .map(|(name, needs)| Step {
                name: (*name).to_owned(),
                needs: needs.iter().map(|need| (*need).to_owned()).collect(),
                ..Step::default()
            })
            .collect(),
        ..RunPlan::default()
    }
}

fn abc(rounds: u32) -> RunPlan {
    plan(
        rounds,
        &[("a", &[]), ("b", &["a"]), ("side", &[]), ("c", &["b"])],
    )
}

fn rule(action: FailureAction, to: Option<&str>, most: u32) -> FailureRule {
    FailureRule {
        action,
        to: to.map(str::to_owned),
        max_attempts: Some(most),
        ..FailureRule::default()
    }
}

fn fault(step: &str, rules: &[(FailureRule, bool)]) -> Fault {
    Fault {
        step: step.into(),
        gate: "g".into(),
        rules: rules.to_vec(),
        exhausted: AfterFailure::Fail,
        reason: FailureReason::GateFailed,
        findings: "one test fails".into(),
        message: "gate g failed".into(),
    }
}

fn failed(step: &str, rules: &[(FailureRule, bool)]) -> Happened {
    Happened::GateFailed(fault(step, rules))
}

fn wait(step: &str, attempt: u32) -> Wait {
    Wait {
        step: step.into(),
        attempt,
        gate: "sign".into(),
        point: Point::default(),
        subject: Digest::of(format!("{step}/{attempt}")),
        failed: None,
    }
}

#[allow(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn step(plan: &RunPlan, mut state: State, happened: Happened) -> State {
    let name = match &happened {
        Happened::Passed { step } => step.clone(),
        Happened::GateFailed(fault) => fault.step.clone(),
        Happened::Waits(wait) => wait.step.clone(),
        _ => return apply(plan, &state, &happened),
    };
    state = apply(plan, &state, &Happened::Started { step: name });
    apply(plan, &state, &happened)
}

fn passed(name: &str) -> Happened {
    Happened::Passed { step: name.into() }
}

fn reason(decision: Decision) -> FailureReason {
    match decision {
        Decision::Failed(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn steps_run_in_order_and_a_skipped_one_satisfies_its_dependents() {
    let plan = abc(5);
    let mut state = State::new(&plan);
    for (index, happened) in [
        (0, passed("a")),
        (1, Happened::Skipped { step: "b".into() }),
        (2, passed("side")),
        (3, passed("c")),
    ] {
        assert_eq!(next(&plan, &state), Decision::Step(index));
        state = step(&plan, state, happened);
    }
    assert_eq!(next(&plan, &state), Decision::Succeeded);
}

#[test]
fn a_retry_hands_over_the_findings_until_its_attempts_are_used() {
    let plan = abc(5);
    let retry = [(rule(FailureAction::Retry, None, 2), true)];
    let mut state = State::new(&plan);
    for attempt in 1..=2 {
        state = step(&plan, state, failed("a", &retry));
        assert_eq!(next(&plan, &state), Decision::Step(0));
        assert_eq!(state.step("a").attempts, attempt);
        assert_eq!(state.step("a").findings, "one test fails");
    }
    state = step(&plan, state, failed("a", &retry));
    assert_eq!(reason(next(&plan, &state)), FailureReason::GateFailed);
}

#[test]
fn a_backtrack_opens_what_builds_on_its_target_and_nothing_else() {
    let plan = abc(5);
    let mut state = State::new(&plan);
    for name in ["a", "b", "side"] {
        state = step(&plan, state, passed(name));
    }
    state = step(
        &plan,
        state,
        failed("c", &[(rule(FailureAction::Backtrack, Some("b"), 1), true)]),
    );
    assert_eq!(state.round, 2);
    assert_eq!(next(&plan, &state), Decision::Step(1));
    assert_eq!(state.step("b").findings, "one test fails");
    assert_eq!(state.step("c").findings, "");
    let phases: Vec<Phase> = ["a", "b", "side", "c"]
        .iter()
        .map(|name| state.step(name).phase)
        .collect();
    assert_eq!(
        phases,
        [
            Phase::Finished,
            Phase::Pending,
            Phase::Finished,
            Phase::Pending
        ]
    );
    state = step(&plan, state, passed("b"));
    assert_eq!(
        (state.step("b").attempts, state.step("b").findings.as_str()),
        (2, "")
    );
}

#[test]
fn rounds_bound_backtracks() {
    let plan = abc(2);
    let back = [(rule(FailureAction::Backtrack, Some("a"), 9), true)];
    let mut state = State::new(&plan);
    state = step(&plan, state, passed("a"));
    state = step(&plan, state, failed("b", &back));
    assert_eq!(state.round, 2);
    state = step(&plan, state, passed("a"));
    state = step(&plan, state, failed("b", &back));
    assert_eq!(reason(next(&plan, &state)), FailureReason::RoundsExhausted);
}

#[test]
fn the_first_rule_that_applies_and_has_attempts_left_is_used() {
    let plan = abc(5);
    let retry = rule(FailureAction::Retry, None, 1);
    let back = rule(FailureAction::Backtrack, Some("a"), 1);
    let table = [
        (
            vec![(retry.clone(), false), (back.clone(), true)],
            Way::Backtrack { to: "a".into() },
        ),
        (
            vec![(retry.clone(), true), (back.clone(), true)],
            Way::Retry,
        ),
        (
            vec![
                (rule(FailureAction::Fail, None, 1), true),
                (retry.clone(), true),
            ],
            Way::Fail(FailureReason::GateFailed),
        ),
        (
            vec![(retry.clone(), false)],
            Way::Fail(FailureReason::GateFailed),
        ),
        (vec![], Way::Fail(FailureReason::GateFailed)),
    ];
    let mut state = State::new(&plan);
    state = step(&plan, state, passed("a"));
    for (rules, expected) in table {
        assert_eq!(way(&plan, &state, &failed("b", &rules)), expected);
    }
    let rules = [(retry, true), (back, true)];
    state = step(&plan, state, failed("b", &rules));
    assert_eq!(
        way(&plan, &state, &failed("b", &rules)),
        Way::Backtrack { to: "a".into() }
    );
}

#[test]
fn a_wait_stops_the_line_until_it_is_resumed_and_costs_no_attempt() {
    let plan = abc(5);
    let mut state = step(&plan, State::new(&plan), passed("a"));
    state = step(&plan, state, Happened::Waits(wait("b", 1)));
    for _ in 0..2 {
        assert_eq!(next(&plan, &state), Decision::Wait(wait("b", 1)));
        let text = serde_json::to_string(&state).unwrap();
        state = serde_json::from_str(&text).unwrap();
    }
    assert_eq!(state.step("b").phase, Phase::Waiting);
    state = apply(&plan, &state, &Happened::Resumed { step: "b".into() });
    assert_eq!(
        (state.step("b").phase, state.step("b").attempts),
        (Phase::Running, 1)
    );
    state = apply(&plan, &state, &passed("b"));
    assert_eq!(next(&plan, &state), Decision::Step(2));
}

#[test]
fn a_rejected_gate_ends_the_run_as_rejected_unless_a_rule_says_otherwise() {
    let plan = abc(5);
    let state = step(&plan, State::new(&plan), passed("a"));
    let rejected = |rules: &[(FailureRule, bool)]| {
        Happened::GateFailed(Fault {
            reason: FailureReason::Rejected,
            ..fault("b", rules)
        })
    };
    let ended = step(&plan, state.clone(), rejected(&[]));
    assert_eq!(reason(next(&plan, &ended)), FailureReason::Rejected);
    let retry = [(rule(FailureAction::Retry, None, 1), true)];
    let again = step(&plan, state, rejected(&retry));
    assert_eq!(next(&plan, &again), Decision::Step(1));
    let ended = step(&plan, again, rejected(&retry));
    assert_eq!(reason(next(&plan, &ended)), FailureReason::Rejected);
}

#[test]
fn a_failed_gate_asks_as_often_as_its_rule_or_its_exhausted_rules_say() {
    let plan = abc(5);
    let mut state = State::new(&plan);
    let by_rule = failed("a", &[(rule(FailureAction::Ask, None, 1), true)]);
    let exhausted = Happened::GateFailed(Fault {
        exhausted: AfterFailure::Ask,
        ..fault("a", &[(rule(FailureAction::Retry, None, 1), true)])
    });
    assert_eq!(way(&plan, &state, &exhausted), Way::Retry);
    state = step(&plan, state, exhausted.clone());
    for asks in [&exhausted, &by_rule, &by_rule] {
        assert_eq!(way(&plan, &state, asks), Way::Ask);
        state = step(&plan, state, asks.clone());
        assert_eq!(state.failure, None);
        state = apply(&plan, &state, &Happened::Waits(wait("a", 2)));
        state = apply(&plan, &state, &Happened::Resumed { step: "a".into() });
        let fault = fault("a", &[]);
        let retry = Happened::Steered {
            fault: fault.clone(),
            way: Way::Retry,
        };
        state = apply(&plan, &state, &retry);
        assert_eq!(state.step("a").findings, fault.findings);
    }
}

#[test]
fn people_can_send_the_line_back_as_far_as_needs_and_rounds_allow() {
    let plan = abc(2);
    let mut state = State::new(&plan);
    for name in ["a", "b", "side"] {
        state = step(&plan, state, passed(name));
    }
    assert_eq!(targets(&plan, &state, "c"), ["a", "b"]);
    assert_eq!(targets(&plan, &state, "a"), [""; 0]);
    let back = |to: &str| Happened::Steered {
        fault: fault("c", &[]),
        way: Way::Backtrack { to: to.into() },
    };
    let elsewhere = apply(&plan, &state, &back("nowhere"));
    assert_eq!(reason(next(&plan, &elsewhere)), FailureReason::InvalidPlan);
    state = apply(&plan, &state, &back("b"));
    assert_eq!(next(&plan, &state), Decision::Step(1));
    assert_eq!(targets(&plan, &state, "c"), [""; 0]);
    state = apply(&plan, &state, &back("b"));
    assert_eq!(reason(next(&plan, &state)), FailureReason::RoundsExhausted);
}

fn outcome() -> impl Strategy<Value = u8> {
    0u8..11
}

/// Plays outcomes to their end; where people decide, the line stops and goes on from what was written down, if `waits`.
fn played(plan: &RunPlan, outcomes: &[u8], waits: bool) -> (State, Decision) {
    let of_people = |name: &str, rules: &[(FailureRule, bool)]| Fault {
        gate: "people".into(),
        ..fault(name, rules)
    };
    let always = |action, to| [(rule(action, to, 1000), true)];
    let mut state = State::new(plan);
    for outcome in outcomes {
        let decision = next(plan, &state);
        let Decision::Step(index) = decision else {
            return (state, decision);
        };
        let current = &plan.steps[index];
        assert!(current.needs.iter().all(|need| state.settled(need)));
        let name = current.name.clone();
        let step = name.clone();
        state = apply(plan, &state, &Happened::Started { step });
        let attempts = state.step(&name).attempts;
        if *outcome > 5 && waits {
            state = apply(plan, &state, &Happened::Waits(wait(&name, attempts)));
            for _ in 0..*outcome {
                let text = serde_json::to_string(&state).unwrap();
                state = serde_json::from_str(&text).unwrap();
                assert_eq!(next(plan, &state), Decision::Wait(wait(&name, attempts)));
            }
            let step = name.clone();
            state = apply(plan, &state, &Happened::Resumed { step });
            assert_eq!(state.step(&name).attempts, attempts);
        }
        let back = || Way::Backtrack { to: "a".into() };
        let steered = |way| Happened::Steered {
            fault: of_people(&name, &[]),
            way,
        };
        let happened = match (outcome, waits) {
            (0..=2 | 6 | 7, _) => passed(&name),
            (3, _) => failed(&name, &[(rule(FailureAction::Retry, None, 3), true)]),
            (4, _) => failed(
                &name,
                &[(rule(FailureAction::Backtrack, Some("a"), 9), true)],
            ),
            (8, true) => steered(Way::Retry),
            (8, false) => {
                Happened::GateFailed(of_people(&name, &always(FailureAction::Retry, None)))
            }
            (9, true) => steered(back()),
            (9, false) => Happened::GateFailed(of_people(
                &name,
                &always(FailureAction::Backtrack, Some("a")),
            )),
            _ => failed(&name, &[]),
        };
        state = apply(plan, &state, &happened);
        let text = serde_json::to_string(&state).unwrap();
        state = serde_json::from_str(&text).unwrap();
        assert!(state.round <= plan.options.rounds);
        assert_eq!(
            state.settled(&name),
            matches!(happened, Happened::Passed { .. }),
            "a failed gate is not success"
        );
    }
    let decision = next(plan, &state);
    (state, decision)
}

proptest! {
    /// Whatever happens: no step begins before its needs, a failed gate is not success, it ends, and a run that waited and was
    /// written down and read again ends as one that nothing stopped: no attempt is lost or made twice.
    #[test]
    fn the_line_holds_and_waits_change_nothing(outcomes in proptest::collection::vec(outcome(), 400)) {
        let plan = abc(4);
        let (mut waited, end) = played(&plan, &outcomes, true);
        let (mut unbroken, expected) = played(&plan, &outcomes, false);
        prop_assert!(!matches!(end, Decision::Step(_) | Decision::Wait(_)));
        prop_assert_eq!(end, expected);
        // Rules are not used up where people decide.
        waited.used.clear();
        unbroken.used.clear();
        prop_assert_eq!(waited, unbroken);
    }
}
