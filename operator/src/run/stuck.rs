//! Decides whether a step is stuck: at work, and without a trace for longer than it may be.

use super::progress::Progress;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sopwith_crds::{check::defaults, contract::plan::RunPlan, sop_definition::OnStuck};

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
    /// What happens then.
    pub then: OnStuck,
}

impl Stuck {
    /// What is known of it, for people.
    pub fn told(&self) -> String {
        format!(
            "step \"{}\" (attempt {}) left no trace for more than {} s: the last one was at {:.0}",
            self.step, self.attempt, self.after_seconds, self.since
        )
    }
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

/// What a pulse rests on.
#[derive(Clone, Copy, Debug)]
pub struct Signs<'a> {
    /// What was reported.
    pub progress: &'a Progress,
    /// The newest launch.
    pub launch: u32,
    /// Whether its Job is active; time without one does not count.
    pub active: bool,
    /// Since when this process takes reports: what was not heard before cannot be told from what was not said.
    pub listening_since: Timestamp,
}

/// Takes the pulse of a run.
pub fn pulse(plan: &RunPlan, signs: Signs<'_>, now: Timestamp) -> Pulse {
    let progress = signs.progress;
    // A launch that has not said a word has begun no step; what was at work in the one before it is not at work now.
    let working = signs.active && progress.launches.contains_key(&signs.launch);
    let (Some(current), Some(since), true) = (&progress.current, progress.last_trace, working)
    else {
        return Pulse::Idle;
    };
    let step = plan.steps.iter().find(|step| step.name == current.step);
    let after = step
        .and_then(|step| step.stuck_after_seconds)
        .unwrap_or(defaults::STUCK_AFTER_SECONDS);
    let heard = since.max(signs.listening_since);
    let from = heard + SignedDuration::from_secs(i64::from(after));
    if now < from {
        return Pulse::Beating(from);
    }
    Pulse::Stuck(Stuck {
        step: current.step.clone(),
        attempt: current.attempt,
        since,
        after_seconds: after,
        then: step.and_then(|step| step.on_stuck).unwrap_or_default(),
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

    fn signs(progress: &Progress) -> Signs<'_> {
        Signs {
            progress,
            launch: 1,
            active: true,
            listening_since: fixture::at(0),
        }
    }

    #[rstest]
    #[case::fresh(5, 1, true, 0, "beating")]
    #[case::one_second_before(30, 1, true, 0, "beating")]
    #[case::at_the_bound(31, 1, true, 0, "stuck")]
    #[case::no_pod(31, 1, false, 0, "idle")]
    #[case::a_launch_that_has_not_said_a_word(31, 2, true, 0, "idle")]
    #[case::nobody_listened_for_a_while(31, 1, true, 20, "beating")]
    #[case::nobody_listened_until_long_ago(50, 1, true, 20, "stuck")]
    fn a_step_is_stuck_after_its_own_bound(
        #[case] after: i64,
        #[case] launch: u32,
        #[case] active: bool,
        #[case] listening_since: i64,
        #[case] expected: &str,
    ) {
        // `write` may be 30 seconds without a trace; its last one is at second 1.
        let plan = fixture::plan();
        let progress = fold(&plan, &Story::new().started("write", 1).batches());
        let signs = Signs {
            launch,
            active,
            listening_since: fixture::at(listening_since),
            ..signs(&progress)
        };
        let seen = match pulse(&plan, signs, fixture::at(after)) {
            Pulse::Idle => "idle",
            Pulse::Beating(from) => {
                assert_eq!(from, fixture::at(listening_since.max(1) + 30));
                "beating"
            }
            Pulse::Stuck(stuck) => {
                assert_eq!((stuck.step.as_str(), stuck.after_seconds), ("write", 30));
                assert_eq!(stuck.since, fixture::at(1));
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
            pulse(&plan, signs(&progress), fixture::at(62)),
            Pulse::Beating(_)
        ));
    }
}
