//! Steps in the order of the plan, gates that steer, rounds that bound. Event sourced: the state is the fold of what happened.

use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{plan::RunPlan, report::Next},
    sop_definition::{FailureAction, FailureRule, Step},
    status::{Failure, FailureReason},
};
use std::collections::{BTreeMap, BTreeSet};

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Not yet its turn, or again.
    #[default]
    Pending,
    /// An attempt is under way.
    Running,
    /// Its gates passed.
    Finished,
    /// Its `when` was false.
    Skipped,
}

/// A step's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub phase: Phase,
    /// Attempts so far, over all rounds.
    pub attempts: u32,
    /// What the next attempt has to mend; canonical text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub findings: String,
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Passes forward, counted from 1.
    pub round: u32,
    /// Steps by name.
    pub steps: BTreeMap<String, StepState>,
    /// How often each rule was used, by `step/gate#index`.
    #[serde(default)]
    pub used: BTreeMap<String, u32>,
    /// Why the run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl State {
    /// The state of a run that has not begun.
    pub fn new(plan: &RunPlan) -> Self {
        let steps = plan
            .steps
            .iter()
            .map(|step| (step.name.clone(), StepState::default()));
        Self {
            round: 1,
            steps: steps.collect(),
            ..Self::default()
        }
    }

    /// A step's state.
    pub fn step(&self, name: &str) -> StepState {
        self.steps.get(name).cloned().unwrap_or_default()
    }

    fn settled(&self, name: &str) -> bool {
        matches!(self.step(name).phase, Phase::Finished | Phase::Skipped)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look at this step: skip it where its `when` is false, else attempt it.
    Step(usize),
    /// Every step is finished or skipped.
    Succeeded,
    /// The run failed.
    Failed(Failure),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A step's `when` was false.
    Skipped {
        /// The step.
        step: String,
    },
    /// An attempt began.
    Started {
        /// The step.
        step: String,
    },
    /// Every action and gate of the attempt passed.
    Passed {
        /// The step.
        step: String,
    },
    /// A gate failed.
    GateFailed {
        /// The step.
        step: String,
        /// The gate, with the action it belongs to: `action/gate`.
        gate: String,
        /// Its rules, each with whether its `when` holds.
        rules: Vec<(FailureRule, bool)>,
        /// What the next attempt has to mend.
        findings: String,
        /// For people.
        message: String,
    },
    /// An attempt failed otherwise; the run ends.
    Failed {
        /// The step.
        step: String,
        /// Why.
        reason: FailureReason,
        /// For people.
        message: String,
    },
}

/// What is to be done in this state. The first step in the plan's order that is not settled and whose needs are.
pub fn next(plan: &RunPlan, state: &State) -> Decision {
    if let Some(failure) = &state.failure {
        return Decision::Failed(failure.clone());
    }
    let open = |step: &Step| !state.settled(&step.name);
    let ready = |step: &Step| step.needs.iter().all(|need| state.settled(need));
    if let Some(index) = plan.steps.iter().position(|step| open(step) && ready(step)) {
        return Decision::Step(index);
    }
    match plan.steps.iter().find(|step| open(step)) {
        None => Decision::Succeeded,
        Some(step) => Decision::Failed(Failure {
            reason: FailureReason::InvalidPlan,
            step: Some(step.name.clone()),
            message: format!(
                "step {} waits for steps that cannot finish: {}",
                step.name,
                step.needs.join(", ")
            ),
        }),
    }
}

/// What follows from what happened, for the report.
pub fn follows(plan: &RunPlan, state: &State, happened: &Happened) -> Next {
    match happened {
        Happened::Skipped { .. } | Happened::Started { .. } | Happened::Passed { .. } => {
            Next::Proceed
        }
        Happened::Failed { .. } => Next::Fail,
        Happened::GateFailed {
            step, gate, rules, ..
        } => match rule(state, step, gate, rules) {
            Some((_, rule)) => match (rule.action, &rule.to) {
                (FailureAction::Retry, _) => Next::Retry,
                (FailureAction::Backtrack, Some(to)) if state.round < plan.options.rounds => {
                    Next::Backtrack { to: to.clone() }
                }
                (FailureAction::Backtrack | FailureAction::Fail | FailureAction::Ask, _) => {
                    Next::Fail
                }
            },
            None => Next::Fail,
        },
    }
}

/// The first rule that applies and has attempts left.
fn rule<'a>(
    state: &State,
    step: &str,
    gate: &str,
    rules: &'a [(FailureRule, bool)],
) -> Option<(String, &'a FailureRule)> {
    rules
        .iter()
        .enumerate()
        .map(|(index, (rule, applies))| (format!("{step}/{gate}#{index}"), rule, *applies))
        .find(|(key, rule, applies)| {
            *applies && state.used.get(key).copied().unwrap_or(0) < rule.max_attempts.unwrap_or(1)
        })
        .map(|(key, rule, _)| (key, rule))
}

/// The state after what happened.
#[must_use]
pub fn apply(plan: &RunPlan, state: &State, happened: &Happened) -> State {
    let mut after = state.clone();
    match happened {
        Happened::Skipped { step } => after.set(step, |step| step.phase = Phase::Skipped),
        Happened::Started { step } => after.set(step, |step| {
            step.phase = Phase::Running;
            step.attempts += 1;
        }),
        Happened::Passed { step } => after.set(step, |step| {
            step.phase = Phase::Finished;
            step.findings.clear();
        }),
        Happened::Failed {
            step,
            reason,
            message,
        } => {
            after.fail(step, *reason, message);
        }
        Happened::GateFailed {
            step,
            gate,
            rules,
            findings,
            message,
        } => {
            let chosen = rule(state, step, gate, rules);
            if let Some((key, _)) = &chosen {
                *after.used.entry(key.clone()).or_default() += 1;
            }
            match follows(plan, state, happened) {
                Next::Retry => after.set(step, |step| {
                    step.phase = Phase::Pending;
                    step.findings.clone_from(findings);
                }),
                Next::Backtrack { to } => after.back(plan, step, &to, findings),
                Next::Proceed | Next::Wait | Next::Fail => {
                    let spent = matches!(&chosen, Some((_, rule)) if rule.action == FailureAction::Backtrack);
                    if spent {
                        let rounds = plan.options.rounds;
                        let message = format!(
                            "{message}; no round is left to go back ({rounds} rounds, see spec.rounds)"
                        );
                        after.fail(step, FailureReason::RoundsExhausted, &message);
                    } else {
                        after.fail(step, FailureReason::GateFailed, message);
                    }
                }
            }
        }
    }
    after
}

impl State {
    fn set(&mut self, name: &str, change: impl FnOnce(&mut StepState)) {
        change(self.steps.entry(name.to_owned()).or_default());
    }

    fn fail(&mut self, step: &str, reason: FailureReason, message: &str) {
        self.set(step, |step| step.phase = Phase::Pending);
        self.failure = Some(Failure {
            reason,
            step: Some(step.to_owned()),
            message: message.to_owned(),
        });
    }

    /// A new round: the target, the step that failed and all that builds on the target are open again.
    fn back(&mut self, plan: &RunPlan, from: &str, to: &str, findings: &str) {
        self.round += 1;
        for name in again(plan, from, to) {
            self.set(&name, |step| {
                step.phase = Phase::Pending;
                step.findings.clear();
            });
        }
        findings.clone_into(&mut self.steps.entry(to.to_owned()).or_default().findings);
    }
}

/// Steps that are open again after a backtrack.
fn again(plan: &RunPlan, from: &str, to: &str) -> BTreeSet<String> {
    let mut again = BTreeSet::from([from.to_owned(), to.to_owned()]);
    // The plan's order has needs before what needs them, so one pass finds all.
    for step in &plan.steps {
        if step.needs.iter().any(|need| again.contains(need)) {
            again.insert(step.name.clone());
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sopwith_crds::contract::plan::RunOptions;

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

    fn failed(step: &str, rules: &[(FailureRule, bool)]) -> Happened {
        Happened::GateFailed {
            step: step.into(),
            gate: "g".into(),
            rules: rules.to_vec(),
            findings: "one test fails".into(),
            message: "gate g failed".into(),
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "reads better in tables")]
    fn step(plan: &RunPlan, mut state: State, happened: Happened) -> State {
        let name = match &happened {
            Happened::Passed { step } | Happened::GateFailed { step, .. } => step.clone(),
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
                Next::Backtrack { to: "a".into() },
            ),
            (
                vec![(retry.clone(), true), (back.clone(), true)],
                Next::Retry,
            ),
            (
                vec![
                    (rule(FailureAction::Fail, None, 1), true),
                    (retry.clone(), true),
                ],
                Next::Fail,
            ),
            (vec![(retry.clone(), false)], Next::Fail),
            (vec![], Next::Fail),
        ];
        let mut state = State::new(&plan);
        state = step(&plan, state, passed("a"));
        for (rules, expected) in table {
            assert_eq!(follows(&plan, &state, &failed("b", &rules)), expected);
        }
        let rules = [(retry, true), (back, true)];
        state = step(&plan, state, failed("b", &rules));
        assert_eq!(
            follows(&plan, &state, &failed("b", &rules)),
            Next::Backtrack { to: "a".into() }
        );
    }

    fn outcome() -> impl Strategy<Value = u8> {
        0u8..6
    }

    proptest! {
        /// Whatever happens: no step begins before its needs, a failed gate is not success, it ends, and a state that was
        /// written and read again goes on the same.
        #[test]
        fn the_line_holds(outcomes in proptest::collection::vec(outcome(), 400)) {
            let plan = abc(4);
            let mut state = State::new(&plan);
            let mut last_failed = None;
            let mut ended = false;
            for outcome in outcomes {
                let text = serde_json::to_string(&state).unwrap();
                state = serde_json::from_str(&text).unwrap();
                let index = match next(&plan, &state) {
                    Decision::Step(index) => index,
                    Decision::Succeeded => {
                        prop_assert_eq!(&last_failed, &None);
                        ended = true;
                        break;
                    }
                    Decision::Failed(_) => { ended = true; break; }
                };
                let current = &plan.steps[index];
                for need in &current.needs {
                    prop_assert!(state.settled(need));
                }
                let name = current.name.clone();
                let happened = match outcome {
                    0..=2 => passed(&name),
                    3 => failed(&name, &[(rule(FailureAction::Retry, None, 3), true)]),
                    4 => failed(&name, &[(rule(FailureAction::Backtrack, Some("a"), 9), true)]),
                    _ => failed(&name, &[]),
                };
                let is_pass = matches!(happened, Happened::Passed { .. });
                state = step(&plan, state, happened);
                prop_assert!(state.round <= plan.options.rounds);
                if is_pass && last_failed.as_ref() == Some(&name) {
                    last_failed = None;
                } else if !is_pass {
                    last_failed = Some(name);
                }
            }
            prop_assert!(ended);
        }
    }
}
