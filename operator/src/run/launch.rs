//! Decides what a run needs next: a launch, an end, or patience.

use super::{
    observe::JobState,
    progress::{LaunchEnd, LaunchSeen, Progress},
    stuck::{Pulse, Stuck},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sopwith_crds::{
    contract::report::Outcome,
    sop_definition::OnStuck,
    status::{Failure, FailureReason, Phase},
};
use std::collections::BTreeSet;

/// How long a runner has to obey an order before its Job is ended.
pub const OBEY_SECONDS: i64 = 45;
/// How many launches in a row may be lost without a newly finished step.
pub const MAX_FRUITLESS: u32 = 3;

/// What the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The spec asks for a pause.
    pub suspend: bool,
    /// The spec asks for the end.
    pub cancel: bool,
    /// Number of the newest launch; 0 before the first.
    pub launch: u32,
    /// Its Job.
    pub job: &'a JobState,
    /// Whether its pod is, or was when it was last seen, on a node that does not answer.
    pub node_lost: bool,
    /// How it ended, by its report or its last words.
    pub end: Option<&'a LaunchEnd>,
    /// What was reported.
    pub progress: &'a Progress,
    /// Whether a step is stuck.
    pub pulse: &'a Pulse,
    /// Whether a gate waits for a person, and what was decided is not enough yet.
    pub asks: bool,
    /// Launches that were ended by order before their runners could obey.
    pub stopped: &'a BTreeSet<u32>,
    /// Whether the newest launch was ended since a step of it was stuck.
    pub restarted: bool,
    /// By when the first step must have started.
    pub start_by: Option<Timestamp>,
    /// Since when the order to pause or end stands.
    pub ordered_at: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

/// What a run needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is at work or on its way.
    Wait,
    /// A new launch, with this number. What is lost is checked against the live cluster first.
    Launch {
        /// Number of the launch.
        number: u32,
        /// Why the one before it ended, where it was lost.
        lost: bool,
    },
    /// The Job of the newest launch, which status announced and nobody made.
    MakeJob,
    /// The Job of the newest launch has to be ended: the runner does not obey.
    StopJob,
    /// The Job of the newest launch has to be ended, and a new one goes on: a step of it is stuck. Says so for people.
    Restart(String),
    /// Suspended.
    Hold,
    /// Waits for a person or a budget.
    Ask,
    /// The run is at its end.
    End(End),
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Succeeded, Failed or Cancelled.
    pub phase: Phase,
    /// Why, unless it succeeded.
    pub failure: Option<Failure>,
    /// When.
    pub at: Timestamp,
}

/// Decides what the run needs next.
pub fn decide(view: &View<'_>) -> Decision {
    if view.launch == 0 {
        return before_the_first(view);
    }
    match view.end {
        Some(end) => after(view, end),
        None => during(view),
    }
}

/// The next moment at which a decision may change by time alone.
pub fn deadline(view: &View<'_>) -> Option<Timestamp> {
    let start = view.start_by.filter(|_| view.progress.started_at.is_none());
    let obey = view.ordered_at.map(obey_by);
    [start, obey]
        .into_iter()
        .flatten()
        .filter(|at| *at > view.now)
        .min()
}

/// A failure without a step.
pub fn failed(reason: FailureReason, message: impl Into<String>, at: Timestamp) -> End {
    End {
        phase: ended_as(reason),
        failure: Some(Failure {
            reason,
            step: None,
            message: message.into(),
        }),
        at,
    }
}

/// A person who decides at a gate can cancel, too.
const fn ended_as(reason: FailureReason) -> Phase {
    match reason {
        FailureReason::Cancelled => Phase::Cancelled,
        _ => Phase::Failed,
    }
}

fn before_the_first(view: &View<'_>) -> Decision {
    if view.cancel {
        cancelled(view.now)
    } else if let Some(end) = too_late(view) {
        Decision::End(end)
    } else if view.suspend {
        Decision::Hold
    } else {
        Decision::Launch {
            number: 1,
            lost: false,
        }
    }
}

fn during(view: &View<'_>) -> Decision {
    let reported = view.progress.launches.contains_key(&view.launch);
    match view.job {
        JobState::Missing if reported => gone(view, "its Job was deleted"),
        JobState::Missing if view.cancel => cancelled(view.now),
        JobState::Missing if view.suspend => Decision::Hold,
        JobState::Missing => Decision::MakeJob,
        JobState::Ended { why } => gone(view, why),
        JobState::Active { stopping } => {
            if let Some(end) = too_late(view) {
                return Decision::End(end);
            }
            // Nobody is there yet who could obey.
            let disobeyed = !reported || view.ordered_at.is_some_and(|at| obey_by(at) <= view.now);
            let ordered = view.cancel || view.suspend;
            if ordered && disobeyed && !stopping {
                Decision::StopJob
            } else if view.cancel && view.node_lost {
                // Its Job may never say that it has ended; what its runner still says is refused from now on.
                cancelled(view.now)
            } else if let (Pulse::Stuck(stuck), false, false) = (view.pulse, ordered, *stopping) {
                given_up(stuck, view.now)
            } else {
                Decision::Wait
            }
        }
    }
}

/// What follows for a step that left no trace for too long.
fn given_up(stuck: &Stuck, now: Timestamp) -> Decision {
    match stuck.then {
        OnStuck::Alert => Decision::Wait,
        OnStuck::Restart => Decision::Restart(format!("{} (onStuck: Restart)", stuck.told())),
        // What its runner still says is refused from now on.
        OnStuck::Cancel => Decision::End(End {
            phase: Phase::Cancelled,
            failure: Some(Failure {
                reason: FailureReason::Cancelled,
                step: Some(stuck.step.clone()),
                message: format!("{} (onStuck: Cancel)", stuck.told()),
            }),
            at: now,
        }),
    }
}

fn after(view: &View<'_>, end: &LaunchEnd) -> Decision {
    let at = end.at.unwrap_or(view.now);
    match end.outcome {
        Outcome::Succeeded => Decision::End(End {
            phase: Phase::Succeeded,
            failure: None,
            at,
        }),
        Outcome::Failed => {
            let failure = end.failure.clone().unwrap_or_else(|| Failure {
                message: "the runner failed without a reason".to_owned(),
                ..Failure::default()
            });
            Decision::End(End {
                phase: ended_as(failure.reason),
                failure: Some(failure),
                at,
            })
        }
        Outcome::Cancelled => cancelled(at),
        _ if view.cancel => cancelled(at),
        Outcome::Waiting | Outcome::Suspended | Outcome::Interrupted if view.suspend => {
            Decision::Hold
        }
        _ if view.asks => Decision::Ask,
        Outcome::Waiting if view.job.is_active() => Decision::Ask,
        Outcome::Waiting => again(view, "what was decided did not count when it began", false),
        // A launch begins only when the Job of the one before it has ended.
        Outcome::Suspended if view.job.is_active() => Decision::Hold,
        Outcome::Interrupted if view.job.is_active() => Decision::Wait,
        Outcome::Suspended => Decision::Launch {
            number: view.launch + 1,
            lost: false,
        },
        Outcome::Interrupted => match view.job {
            // Why it was ended says more than that it was.
            JobState::Ended { why } if view.restarted => again(view, why, true),
            _ => again(view, "the runner was interrupted", false),
        },
    }
}

/// Why the newest launch is followed by another that nobody asked for, for people.
pub fn loss(progress: &Progress, launch: u32, job: &JobState) -> Option<String> {
    let seen = progress.launches.get(&launch);
    let said = seen.and_then(|seen| seen.end.as_ref());
    if said.is_some_and(|end| end.outcome != Outcome::Interrupted) {
        return None;
    }
    let why = match job {
        JobState::Missing => "its Job was deleted",
        JobState::Ended { why } => why,
        JobState::Active { .. } => return None,
    };
    Some(format!(
        "launch {launch} was lost: {why}; the run goes on after its last finished step"
    ))
}

/// The launch ended without a word.
fn gone(view: &View<'_>, why: &str) -> Decision {
    if view.cancel {
        cancelled(view.now)
    } else if view.suspend {
        Decision::Hold
    } else if view.asks {
        Decision::Ask
    } else {
        again(view, why, true)
    }
}

fn again(view: &View<'_>, why: &str, lost: bool) -> Decision {
    let fruitless = fruitless(view);
    if fruitless < MAX_FRUITLESS {
        return Decision::Launch {
            number: view.launch + 1,
            lost,
        };
    }
    Decision::End(failed(
        if view.node_lost {
            FailureReason::NodeLost
        } else {
            FailureReason::RunnerLost
        },
        format!(
            "{fruitless} launches in a row ended without a newly finished step, the last because {why}; look at the pods of \
             Job launches {} to {} and at their nodes",
            view.launch + 1 - fruitless,
            view.launch
        ),
        view.now,
    ))
}

/// Launches in a row, up to the newest, in which no step ended; those that were ended by order do not count.
fn fruitless(view: &View<'_>) -> u32 {
    let none = LaunchSeen::default();
    let seen = |number| view.progress.launches.get(&number).unwrap_or(&none);
    let mut count = 0;
    for number in (1..=view.launch).rev() {
        if seen(number).step_ends > 0 {
            break;
        }
        let paused = seen(number)
            .end
            .as_ref()
            .is_some_and(|end| end.outcome == Outcome::Suspended);
        count += u32::from(!paused && !view.stopped.contains(&number));
    }
    count
}

fn too_late(view: &View<'_>) -> Option<End> {
    let by = view.start_by?;
    let late = by <= view.now && view.progress.started_at.is_none();
    late.then(|| {
        failed(
            FailureReason::StartDeadlineExceeded,
            "the first step did not start within spec.startDeadlineSeconds; the conditions of the run and the events of its \
             pod say what it waited for",
            view.now,
        )
    })
}

fn cancelled(at: Timestamp) -> Decision {
    Decision::End(failed(
        FailureReason::Cancelled,
        "cancelled by spec.cancel",
        at,
    ))
}

fn obey_by(ordered: Timestamp) -> Timestamp {
    ordered + SignedDuration::from_secs(OBEY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended() -> JobState {
        JobState::Ended {
            why: "its Job completed".to_owned(),
        }
    }

    static NONE: BTreeSet<u32> = BTreeSet::new();

    const ACTIVE: JobState = JobState::Active { stopping: false };

    fn outcome(outcome: Outcome) -> LaunchEnd {
        LaunchEnd {
            outcome,
            failure: None,
            at: Some(at(50)),
        }
    }

    fn seen(launches: &[(u32, u32)]) -> Progress {
        let launches = launches.iter().map(|(number, step_ends)| {
            let seen = LaunchSeen {
                begun: *step_ends > 0,
                step_ends: *step_ends,
                end: None,
            };
            (*number, seen)
        });
        Progress {
            launches: launches.collect(),
            ..Progress::default()
        }
    }

    fn view<'a>(
        launch: u32,
        job: &'a JobState,
        end: Option<&'a LaunchEnd>,
        progress: &'a Progress,
    ) -> View<'a> {
        View {
            suspend: false,
            cancel: false,
            launch,
            job,
            node_lost: false,
            end,
            progress,
            pulse: &Pulse::Idle,
            asks: false,
            stopped: &NONE,
            restarted: false,
            start_by: None,
            ordered_at: None,
            now: at(100),
        }
    }

    fn kind(decision: &Decision) -> String {
        match decision {
            Decision::Launch { number, lost } => {
                format!("launch {number}{}", if *lost { " lost" } else { "" })
            }
            Decision::End(end) => {
                format!(
                    "{} {:?}",
                    end.phase,
                    end.failure.as_ref().map(|failure| failure.reason)
                )
            }
            other => format!("{other:?}"),
        }
    }

    #[rstest]
    #[case::fresh(false, false, "launch 1")]
    #[case::suspended(true, false, "Hold")]
    #[case::cancelled(false, true, "Cancelled Some(Cancelled)")]
    #[case::both(true, true, "Cancelled Some(Cancelled)")]
    fn before_the_first_launch(
        #[case] suspend: bool,
        #[case] cancel: bool,
        #[case] expected: &str,
    ) {
        let progress = Progress::default();
        let view = View {
            suspend,
            cancel,
            ..view(0, &JobState::Missing, None, &progress)
        };
        assert_eq!(kind(&decide(&view)), expected);
    }

    #[rstest]
    #[case::announced_but_not_made(JobState::Missing, &[], "MakeJob")]
    #[case::deleted_after_it_reported(JobState::Missing, &[(1, 1)], "launch 2 lost")]
    #[case::at_work(ACTIVE, &[(1, 1)], "Wait")]
    #[case::lost(ended(), &[(1, 1)], "launch 2 lost")]
    #[case::lost_before_a_word(ended(), &[], "launch 2 lost")]
    fn a_launch_without_a_last_word(
        #[case] job: JobState,
        #[case] launches: &[(u32, u32)],
        #[case] expected: &str,
    ) {
        let progress = seen(launches);
        assert_eq!(kind(&decide(&view(1, &job, None, &progress))), expected);
    }

    #[rstest]
    #[case(Outcome::Succeeded, ACTIVE, "Succeeded None")]
    #[case(Outcome::Failed, ACTIVE, "Failed Some(Internal)")]
    #[case(Outcome::Cancelled, ACTIVE, "Cancelled Some(Cancelled)")]
    #[case(Outcome::Suspended, ACTIVE, "Hold")]
    #[case(Outcome::Suspended, ended(), "launch 2")]
    #[case(Outcome::Interrupted, ACTIVE, "Wait")]
    #[case(Outcome::Interrupted, ended(), "launch 2")]
    #[case(Outcome::Waiting, ACTIVE, "Ask")]
    #[case(Outcome::Waiting, ended(), "launch 2")]
    fn a_launch_with_a_last_word(
        #[case] last: Outcome,
        #[case] job: JobState,
        #[case] expected: &str,
    ) {
        let (progress, end) = (seen(&[(1, 1)]), outcome(last));
        assert_eq!(
            kind(&decide(&view(1, &job, Some(&end), &progress))),
            expected
        );
    }

    #[rstest]
    #[case::waits(Some(Outcome::Waiting), false, false, "Ask")]
    #[case::suspended(Some(Outcome::Waiting), true, false, "Hold")]
    #[case::cancelled(Some(Outcome::Waiting), true, true, "Cancelled Some(Cancelled)")]
    #[case::lost_while_it_ended(None, false, false, "Ask")]
    #[case::interrupted_while_it_ended(Some(Outcome::Interrupted), false, false, "Ask")]
    #[case::resumed(Some(Outcome::Suspended), false, false, "Ask")]
    fn a_run_that_waits_for_a_person_has_no_launch(
        #[case] last: Option<Outcome>,
        #[case] suspend: bool,
        #[case] cancel: bool,
        #[case] expected: &str,
    ) {
        let (progress, end, job) = (seen(&[(1, 1)]), last.map(outcome), ended());
        let view = View {
            asks: true,
            suspend,
            cancel,
            ..view(1, &job, end.as_ref(), &progress)
        };
        assert_eq!(kind(&decide(&view)), expected);
    }

    #[test]
    fn launches_that_were_ended_by_order_before_they_reported_are_not_losses() {
        let (progress, job, stopped) = (seen(&[]), ended(), BTreeSet::from([1, 2, 3]));
        let view = View {
            stopped: &stopped,
            ..view(4, &job, None, &progress)
        };
        assert_eq!(kind(&decide(&view)), "launch 5 lost");
    }

    #[test]
    fn launches_that_find_again_and_again_that_nothing_counts_are_bounded() {
        let (progress, end, job) = (
            seen(&[(1, 1), (2, 0), (3, 0), (4, 0)]),
            outcome(Outcome::Waiting),
            ended(),
        );
        let decision = decide(&view(4, &job, Some(&end), &progress));
        assert_eq!(kind(&decision), "Failed Some(RunnerLost)");
    }

    #[test]
    fn who_cancels_at_a_gate_cancels_the_run() {
        let (progress, job) = (seen(&[(1, 1)]), ended());
        let end = LaunchEnd {
            failure: Some(Failure {
                reason: FailureReason::Cancelled,
                ..Failure::default()
            }),
            ..outcome(Outcome::Failed)
        };
        let decision = decide(&view(1, &job, Some(&end), &progress));
        assert_eq!(kind(&decision), "Cancelled Some(Cancelled)");
    }

    #[test]
    fn a_suspended_run_is_launched_again_only_when_it_is_resumed() {
        let (progress, end, job) = (seen(&[(1, 1)]), outcome(Outcome::Suspended), ended());
        let view = View {
            suspend: true,
            ..view(1, &job, Some(&end), &progress)
        };
        assert_eq!(decide(&view), Decision::Hold);
    }

    #[rstest]
    #[case::time_to_obey(60, &[(1, 0)], false, "Wait")]
    #[case::disobeyed(55, &[(1, 0)], false, "StopJob")]
    #[case::told_already(55, &[(1, 0)], true, "Wait")]
    #[case::nobody_there(99, &[], false, "StopJob")]
    fn a_runner_that_does_not_obey_is_ended(
        #[case] ordered: i64,
        #[case] launches: &[(u32, u32)],
        #[case] stopping: bool,
        #[case] expected: &str,
    ) {
        let (progress, job) = (seen(launches), JobState::Active { stopping });
        let view = View {
            cancel: true,
            ordered_at: Some(at(ordered)),
            ..view(1, &job, None, &progress)
        };
        assert_eq!(kind(&decide(&view)), expected);
        if expected == "Wait" && !stopping {
            assert_eq!(deadline(&view), Some(at(ordered + OBEY_SECONDS)));
        }
    }

    #[rstest]
    #[case::nobody_knows(false, false, "Wait")]
    #[case::cancelled(true, false, "StopJob")]
    #[case::cancelled_and_told(true, true, "Cancelled Some(Cancelled)")]
    fn a_launch_on_a_dead_node_is_waited_for_unless_it_is_cancelled(
        #[case] cancel: bool,
        #[case] stopping: bool,
        #[case] expected: &str,
    ) {
        let (progress, job) = (seen(&[(1, 1)]), JobState::Active { stopping });
        let view = View {
            cancel,
            ordered_at: Some(at(0)),
            node_lost: true,
            ..view(1, &job, None, &progress)
        };
        assert_eq!(kind(&decide(&view)), expected);
    }

    #[test]
    fn launches_that_nodes_took_away_are_bounded_too_and_blamed_on_them() {
        let (progress, job) = (seen(&[(1, 0), (2, 0), (3, 0)]), ended());
        let view = View {
            node_lost: true,
            ..view(3, &job, None, &progress)
        };
        assert_eq!(kind(&decide(&view)), "Failed Some(NodeLost)");
    }

    #[rstest]
    #[case::without_a_word(None, ended(), true)]
    #[case::interrupted(Some(Outcome::Interrupted), ended(), true)]
    #[case::its_job_was_deleted(None, JobState::Missing, true)]
    #[case::suspended(Some(Outcome::Suspended), ended(), false)]
    #[case::waited(Some(Outcome::Waiting), ended(), false)]
    fn only_launches_that_nobody_asked_to_end_are_told_as_lost(
        #[case] said: Option<Outcome>,
        #[case] job: JobState,
        #[case] lost: bool,
    ) {
        let mut progress = seen(&[(1, 1)]);
        for launch in progress.launches.values_mut() {
            launch.end = said.map(outcome);
        }
        assert_eq!(loss(&progress, 1, &job).is_some(), lost);
    }

    fn stuck(then: OnStuck) -> Pulse {
        Pulse::Stuck(Stuck {
            step: "write".to_owned(),
            attempt: 2,
            since: at(40),
            after_seconds: 30,
            then,
        })
    }

    const TRACELESS: &str = "step \"write\" (attempt 2) left no trace for more than 30 s: the last one was at 1970-01-01T00:00:40Z";

    #[rstest]
    #[case::alerts(OnStuck::Alert, false, false, false, "Wait")]
    #[case::begins_anew(OnStuck::Restart, false, false, false, "Restart")]
    #[case::told_already(OnStuck::Restart, false, false, true, "Wait")]
    #[case::suspended_meanwhile(OnStuck::Restart, true, false, false, "Wait")]
    #[case::cancelled_meanwhile(OnStuck::Restart, false, true, false, "Wait")]
    #[case::ends(OnStuck::Cancel, false, false, false, "Cancelled Some(Cancelled)")]
    #[case::suspended_before_it_ends(OnStuck::Cancel, true, false, false, "Wait")]
    #[case::cancelled_before_it_ends(OnStuck::Cancel, false, true, false, "Wait")]
    fn a_stuck_step_is_given_up_as_the_procedure_says(
        #[case] then: OnStuck,
        #[case] suspend: bool,
        #[case] cancel: bool,
        #[case] stopping: bool,
        #[case] expected: &str,
    ) {
        let (progress, job) = (seen(&[(1, 0)]), JobState::Active { stopping });
        let pulse = stuck(then);
        let view = View {
            pulse: &pulse,
            suspend,
            cancel,
            // The runner still has time to obey an order.
            ordered_at: (suspend || cancel).then(|| at(90)),
            ..view(1, &job, None, &progress)
        };
        let decision = decide(&view);
        match &decision {
            Decision::Restart(why) => {
                assert_eq!(*why, format!("{TRACELESS} (onStuck: Restart)"));
                assert_eq!(expected, "Restart");
            }
            Decision::End(end) => {
                let failure = end.failure.as_ref().unwrap();
                assert_eq!(failure.message, format!("{TRACELESS} (onStuck: Cancel)"));
                assert_eq!(failure.step.as_deref(), Some("write"));
                assert_eq!(kind(&decision), expected);
            }
            other => assert_eq!(kind(other), expected),
        }
        assert_eq!(decide(&view), decision, "it can be decided again and again");
    }

    #[rstest]
    #[case::without_a_word(1, &[(1, 0)], None, "launch 2 lost")]
    #[case::interrupted(1, &[(1, 0)], Some(Outcome::Interrupted), "launch 2 lost")]
    #[case::it_got_on_before(3, &[(1, 0), (2, 1), (3, 0)], None, "launch 4 lost")]
    #[case::third_in_a_row(3, &[(1, 0), (2, 0), (3, 0)], None, "Failed Some(RunnerLost)")]
    #[case::third_interrupted(3, &[(1, 0), (2, 0), (3, 0)], Some(Outcome::Interrupted), "Failed Some(RunnerLost)")]
    fn launches_that_were_stuck_are_losses_like_others(
        #[case] launch: u32,
        #[case] launches: &[(u32, u32)],
        #[case] last: Option<Outcome>,
        #[case] expected: &str,
    ) {
        let why = format!("{TRACELESS} (onStuck: Restart)");
        let job = JobState::Ended { why: why.clone() };
        let (progress, end) = (seen(launches), last.map(outcome));
        let view = View {
            restarted: true,
            ..view(launch, &job, end.as_ref(), &progress)
        };
        let decision = decide(&view);
        assert_eq!(kind(&decision), expected);
        if let Decision::End(end) = decision {
            let message = end.failure.unwrap().message;
            assert!(message.contains(&why), "{message}");
        }
    }

    #[rstest]
    #[case::first_loss(1, &[(1, 0)], "launch 2 lost")]
    #[case::third_in_a_row(3, &[(1, 0), (2, 0), (3, 0)], "Failed Some(RunnerLost)")]
    #[case::never_reported(3, &[], "Failed Some(RunnerLost)")]
    #[case::a_step_ended_between(3, &[(1, 0), (2, 1), (3, 0)], "launch 4 lost")]
    fn losses_without_progress_are_bounded(
        #[case] launch: u32,
        #[case] launches: &[(u32, u32)],
        #[case] expected: &str,
    ) {
        let (progress, job) = (seen(launches), ended());
        assert_eq!(
            kind(&decide(&view(launch, &job, None, &progress))),
            expected
        );
    }

    #[rstest]
    #[case::in_time(101, None, "Wait")]
    #[case::too_late(100, None, "Failed Some(StartDeadlineExceeded)")]
    #[case::started(100, Some(at(90)), "Wait")]
    fn the_first_step_must_start_in_time(
        #[case] by: i64,
        #[case] started_at: Option<Timestamp>,
        #[case] expected: &str,
    ) {
        let progress = Progress {
            started_at,
            ..seen(&[(1, 0)])
        };
        let view = View {
            start_by: Some(at(by)),
            ..view(1, &ACTIVE, None, &progress)
        };
        assert_eq!(kind(&decide(&view)), expected);
    }
}
