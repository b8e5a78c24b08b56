//! The entries of a run's trail: what the machine's transitions leave, and what of an earlier run's is taken over. Pure.

use sopwith_crds::contract::trail::{Entry, Passage, Then};

use crate::sop::{Happened, Phase, State, Way};

/// The entry of a transition, where it is one; `state` is the one before it.
pub fn entry(state: &State, happened: &Happened, way: &Way) -> Option<Entry> {
    let then = || match way {
        Way::Retry => Then::Retry,
        Way::Backtrack { to } => Then::Back(to.clone()),
        Way::Ask => Then::Ask,
        Way::Proceed | Way::Fail(_) => Then::Fail,
    };
    let (step, what) = match happened {
        Happened::NotInherited { .. } => return None,
        Happened::Skipped { step } => (step, Passage::Skipped),
        Happened::Started { step } => (step, Passage::Began),
        Happened::Waits(wait) => (
            &wait.step,
            Passage::Waits {
                gate: wait.gate.clone(),
            },
        ),
        Happened::Resumed { step } => (step, Passage::GoesOn),
        Happened::Passed { step } => (step, Passage::Passed),
        Happened::GateFailed(fault) | Happened::Steered { fault, .. } => (
            &fault.step,
            Passage::Failed {
                gate: Some(fault.gate.clone()),
                then: then(),
            },
        ),
        Happened::Failed { step, .. } => (
            step,
            Passage::Failed {
                gate: None,
                then: Then::Fail,
            },
        ),
    };
    let before = state.step(step).attempts;
    Some(Entry {
        step: step.clone(),
        attempt: before + u32::from(what == Passage::Began),
        round: state.round,
        what,
    })
}

/// Of the trail of an earlier run what a run that takes over its state begins with: the last attempts of the steps that are
/// settled, in its first round. Pure.
pub fn taken_over(trail: Vec<Entry>, state: &State) -> Vec<Entry> {
    let settled = |entry: &Entry| {
        let step = state.step(&entry.step);
        matches!(step.phase, Phase::Finished | Phase::Skipped) && entry.attempt == step.attempts
    };
    let kept = |entry: Entry| {
        let what = match entry.what {
            Passage::Began => Passage::TakenOver,
            Passage::Waits { .. } | Passage::GoesOn | Passage::Failed { .. } => return None,
            what => what,
        };
        Some(Entry {
            what,
            round: state.round,
            ..entry
        })
    };
    trail.into_iter().filter(settled).filter_map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::{
        contract::plan::RunPlan,
        sop_definition::{GateKind, Step},
        status::Verdict,
    };

    fn entry(step: &str, attempt: u32, round: u32, what: Passage) -> Entry {
        Entry {
            step: step.to_owned(),
            attempt,
            round,
            what,
        }
    }

    fn judged() -> Passage {
        Passage::Judged {
            gate: "g".to_owned(),
            kind: GateKind::Expression,
            verdict: Verdict::Passed,
            trust: None,
            by: None,
        }
    }

    #[test]
    fn a_trail_is_taken_over_as_the_last_attempts_of_what_was_settled() {
        let named = |name: &str| Step {
            name: name.to_owned(),
            ..Step::default()
        };
        let plan = RunPlan {
            steps: vec![named("a"), named("b"), named("c")],
            ..RunPlan::default()
        };
        let mut state = State::new(&plan);
        for (step, phase, attempts) in [
            ("a", Phase::Finished, 2),
            ("b", Phase::Pending, 0),
            ("c", Phase::Skipped, 0),
        ] {
            let before = state.steps.get_mut(step).unwrap();
            (before.phase, before.attempts) = (phase, attempts);
        }
        let gate = || "g".to_owned();
        let trail = vec![
            entry("a", 1, 1, Passage::Began),
            entry("a", 1, 1, Passage::Passed),
            entry("b", 1, 1, Passage::Began),
            entry(
                "b",
                1,
                1,
                Passage::Failed {
                    gate: Some(gate()),
                    then: Then::Back("a".to_owned()),
                },
            ),
            entry("c", 0, 1, Passage::Skipped),
            entry("a", 2, 2, Passage::Began),
            entry("a", 2, 2, Passage::Waits { gate: gate() }),
            entry("a", 2, 2, Passage::GoesOn),
            entry("a", 2, 2, judged()),
            entry("a", 2, 2, Passage::Passed),
        ];
        assert_eq!(
            taken_over(trail, &state),
            [
                entry("c", 0, 1, Passage::Skipped),
                entry("a", 2, 1, Passage::TakenOver),
                entry("a", 2, 1, judged()),
                entry("a", 2, 1, Passage::Passed),
            ]
        );
    }
}
