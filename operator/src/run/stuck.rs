//! Decides whether a step is stuck: at work, and without a trace for longer than it may be.

use super::progress::Progress;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sopwith_crds::{check::defaults, contract::plan::RunPlan};

/// A step that left no trace for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The step.
    pub step: String,
    /// Its attempt.
    pub attempt: u32,
    /// When it left its last trace.
    pub since: Timestamp,
    /// Seconds it may be without one.
    pub after_seconds: u32,
}

/// Whether and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// No step is at work.
    Idle,
    /// A step is at work and counts as stuck from this moment on, unless it leaves a trace.
    Beating(Timestamp),
    /// A step is stuck.
    Stuck(Stuck),
}

/// Takes the pulse of a run. `working`: its Job is active; time without one does not count.
pub fn pulse(plan: &RunPlan, progress: &Progress, working: bool, now: Timestamp) -> Pulse {
    let (Some(current), Some(since), true) = (&progress.current, progress.last_trace, working)
    else {
        return Pulse::Idle;
    };
    let step = plan.steps.iter().find(|step| step.name == current.step);
    let after = step
        .and_then(|step| step.stuck_after_seconds)
        .unwrap_or(defaults::STUCK_AFTER_SECONDS);
    let from = since + SignedDuration::from_secs(i64::from(after));
    if now < from {
        return Pulse::Beating(from);
    }
    Pulse::Stuck(Stuck {
        step: current.step.clone(),
        attempt: current.attempt,
        since,
        after_seconds: after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{
        fixture::{self, Story},
        progress::fold,
    };
    use rstest::rstest;

    #[rstest]
    #[case::fresh(5, true, "beating")]
    #[case::one_second_before(30, true, "beating")]
    #[case::at_the_bound(31, true, "stuck")]
    #[case::no_pod(31, false, "idle")]
    fn a_step_is_stuck_after_its_own_bound(
        #[case] after: i64,
        #[case] working: bool,
        #[case] expected: &str,
    ) {
        // `write` may be 30 seconds without a trace; its last one is at second 1.
        let plan = fixture::plan();
        let progress = fold(&plan, &Story::new().started("write", 1).batches());
        let now = fixture::at(after);
        let seen = match pulse(&plan, &progress, working, now) {
            Pulse::Idle => "idle",
            Pulse::Beating(from) => {
                assert_eq!(from, fixture::at(31));
                "beating"
            }
            Pulse::Stuck(stuck) => {
                assert_eq!((stuck.step.as_str(), stuck.after_seconds), ("write", 30));
                "stuck"
            }
        };
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_trace_frees_a_stuck_step() {
        let plan = fixture::plan();
        let story = Story::new()
            .started("write", 1)
            .pause(60)
            .action("write", 1);
        let progress = fold(&plan, &story.batches());
        assert!(matches!(
            pulse(&plan, &progress, true, fixture::at(62)),
            Pulse::Beating(_)
        ));
    }
}
