//! The earlier run that a run begins with: whether what it left can be taken, and from which of its snapshots.

use super::observe::Pending;
use crate::store::StoredBatch;
use sopwith_crds::{
    AgentRun, AgentRunSpec,
    contract::{Digest, plan::RunPlan, report::What},
    plan::{Earlier, EarlierState, Rejection},
    status::{FailureReason, Usage, Verdict},
};
use std::sync::Arc;

/// The earlier run is not there.
pub const RUN_NOT_FOUND: &str = "RunNotFound";
/// The earlier run is still at work.
pub const RUN_NOT_FINISHED: &str = "RunNotFinished";
/// The earlier run has not finished the step yet.
pub const STEP_NOT_FINISHED: &str = "StepNotFinished";
/// The uploaded project is not there.
pub const UPLOAD_NOT_FOUND: &str = "UploadNotFound";

/// Why an earlier run cannot be begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Not yet.
    Pending(Pending),
    /// Never.
    Rejected(Rejection),
}

/// The field that names an earlier run whose project is taken over.
pub const SOURCE: &str = "spec.project.source.run";
/// The field that names an earlier run whose state is taken over.
pub const RECOVER: &str = "spec.recoverFrom";

/// Says that what an earlier run left cannot be had any more, or never was there.
pub fn unavailable(field: &str, message: &str) -> NotTaken {
    NotTaken::Rejected(Rejection {
        reason: FailureReason::ProjectUnavailable,
        message: format!("run:{field}: {message}"),
    })
}

/// The snapshot of a run whose project another one takes over.
pub fn last_snapshot(earlier: &AgentRun) -> Result<Digest, NotTaken> {
    let name = earlier.metadata.name.as_deref().unwrap_or_default();
    let status = earlier.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    if !phase.is_final() {
        return Err(NotTaken::Pending(Pending {
            reason: RUN_NOT_FINISHED,
            message: format!(
                "AgentRun \"{name}\", whose project this run begins with ({SOURCE}), has not ended yet: it is {phase}"
            ),
        }));
    }
    let snapshot = status.snapshot.and_then(|digest| digest.parse().ok());
    snapshot.ok_or_else(|| {
        let message = format!(
            "AgentRun \"{name}\" left no project: it ended as {phase} before its first step had; name another run"
        );
        unavailable(SOURCE, &message)
    })
}

/// A run that recovers works on the same project, in the same way: what it takes over was made from it.
pub fn agrees(run: &AgentRunSpec, earlier: &AgentRunSpec) -> Result<(), NotTaken> {
    let source = |spec: &AgentRunSpec| spec.project.as_ref().and_then(|p| p.source.clone());
    let refuse = |field: &str, message: &str| {
        Err(NotTaken::Rejected(Rejection {
            reason: FailureReason::InvalidPlan,
            message: format!("run:{field}: {message}"),
        }))
    };
    if source(run).is_some() && source(run) != source(earlier) {
        return refuse(
            "spec.project.source",
            "is another than that of the run in spec.recoverFrom, whose project is taken over; leave it out, or write the same",
        );
    }
    let incremental = |spec: &AgentRunSpec| spec.incremental.unwrap_or(false);
    if incremental(run) != incremental(earlier) {
        return refuse(
            "spec.incremental",
            "is another than that of the run in spec.recoverFrom; write the same",
        );
    }
    Ok(())
}

/// The step after which a run's state is taken over, and the newest snapshot that was taken then.
pub fn finished_step(
    earlier: &AgentRun,
    plan: &RunPlan,
    batches: &[StoredBatch],
    wanted: Option<&str>,
) -> Result<(String, Digest), NotTaken> {
    let name = earlier.metadata.name.as_deref().unwrap_or_default();
    let phase = earlier.status.as_ref().and_then(|status| status.phase);
    let ended = phase.is_some_and(sopwith_crds::status::Phase::is_final);
    let steps = || {
        let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_str()).collect();
        names.join(", ")
    };
    if let Some(step) = wanted
        && plan.steps.iter().all(|known| known.name != step)
    {
        let message = format!(
            "AgentRun \"{name}\" has no step {step}; it has: {}",
            steps()
        );
        return Err(unavailable(RECOVER, &message));
    }
    let pending = |reason, what: &str| {
        let message = format!("AgentRun \"{name}\" ({RECOVER}) {what}");
        Err(NotTaken::Pending(Pending { reason, message }))
    };
    if wanted.is_none() && !ended {
        return pending(
            RUN_NOT_FINISHED,
            "has not ended yet; name a step that it has finished, or wait",
        );
    }
    let finished = finished(batches);
    let found = finished
        .iter()
        .rev()
        .find(|(step, _)| wanted.is_none_or(|wanted| wanted == *step));
    match (found, wanted) {
        (Some((step, snapshot)), _) => Ok(((*step).to_owned(), (*snapshot).clone())),
        (None, Some(step)) if !ended => pending(
            STEP_NOT_FINISHED,
            &format!("has not finished step {step} yet"),
        ),
        (None, _) => {
            let mut names: Vec<&str> = finished.iter().map(|(step, _)| *step).collect();
            names.dedup();
            let what = wanted.map_or("any step".to_owned(), |step| format!("step {step}"));
            let there = if names.is_empty() {
                "it finished none".to_owned()
            } else {
                format!("it finished: {}", names.join(", "))
            };
            let message = format!("AgentRun \"{name}\" ended without finishing {what}; {there}");
            Err(unavailable(RECOVER, &message))
        }
    }
}

/// Every step that a run finished or took over, each with the snapshot that has it, in order.
fn finished(batches: &[StoredBatch]) -> Vec<(&str, &Digest)> {
    let mut recovered = None;
    let mut finished = Vec::new();
    for event in batches.iter().flat_map(|stored| &stored.batch.events) {
        match &event.what {
            What::Recovered { snapshot, .. } => recovered = Some(snapshot),
            What::StepInherited { step, .. } => {
                finished.extend(recovered.map(|snapshot| (step.as_str(), snapshot)));
            }
            What::StepEnded { end } if end.verdict == Verdict::Passed => {
                finished.push((end.step.as_str(), &end.snapshot));
            }
            _ => {}
        }
    }
    finished
}

/// An earlier run as the plan needs it.
pub fn taken(
    earlier: &AgentRun,
    plan: RunPlan,
    snapshot: Digest,
    state: Option<(String, Usage)>,
) -> Earlier {
    Earlier {
        name: earlier.metadata.name.clone().unwrap_or_default(),
        uid: earlier.metadata.uid.clone().unwrap_or_default(),
        snapshot,
        project_name: plan.options.project_name.clone(),
        state: state.map(|(step, usage)| EarlierState {
            step,
            usage,
            plan: Arc::new(plan),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture::{self, Story};
    use rstest::rstest;
    use sopwith_crds::{
        AgentRunStatus,
        agent_run::{Project, ProjectSource},
        contract::report::Next,
        status::Phase,
    };

    fn in_phase(phase: Phase) -> AgentRun {
        let mut run = fixture::run();
        run.status = Some(AgentRunStatus {
            phase: Some(phase),
            ..AgentRunStatus::default()
        });
        run
    }

    /// Two steps passed, the second sent the line back and the first passed again; then the second failed.
    fn story() -> Story {
        let back = Next::Backtrack {
            to: "write".to_owned(),
        };
        Story::new()
            .started("write", 1)
            .ended("write", 1, Verdict::Passed, Next::Proceed)
            .started("code", 1)
            .ended("code", 1, Verdict::Failed, back)
            .started("write", 2)
            .ended("write", 2, Verdict::Passed, Next::Proceed)
            .started("code", 2)
            .ended("code", 2, Verdict::Failed, Next::Fail)
    }

    fn at_step(
        earlier: &AgentRun,
        story: &Story,
        wanted: Option<&str>,
    ) -> Result<(String, Digest), String> {
        let batches: Vec<StoredBatch> = story
            .batches()
            .iter()
            .map(|batch| batch.as_ref().clone())
            .collect();
        let found = finished_step(earlier, &fixture::plan(), &batches, wanted);
        found.map_err(|not_taken| match not_taken {
            NotTaken::Pending(pending) => format!("{}: {}", pending.reason, pending.message),
            NotTaken::Rejected(rejection) => rejection.to_string(),
        })
    }

    #[rstest]
    #[case::the_last(Phase::Failed, None, Ok("write"))]
    #[case::by_name(Phase::Failed, Some("write"), Ok("write"))]
    #[case::while_it_is_at_work(Phase::Running, Some("write"), Ok("write"))]
    #[case::the_last_of_one_at_work(
        Phase::Running,
        None,
        Err("RunNotFinished: AgentRun \"blackjack\" (spec.recoverFrom) has not ended yet")
    )]
    #[case::not_yet(
        Phase::Waiting,
        Some("code"),
        Err(
            "StepNotFinished: AgentRun \"blackjack\" (spec.recoverFrom) has not finished step code yet"
        )
    )]
    #[case::never(
        Phase::Failed,
        Some("code"),
        Err("ended without finishing step code; it finished: write")
    )]
    #[case::unknown(
        Phase::Running,
        Some("paint"),
        Err("has no step paint; it has: write, code, test")
    )]
    fn a_state_is_taken_over_at_a_step_that_was_finished(
        #[case] phase: Phase,
        #[case] wanted: Option<&str>,
        #[case] expected: Result<&str, &str>,
    ) {
        match (at_step(&in_phase(phase), &story(), wanted), expected) {
            (Ok((step, snapshot)), Ok(expected)) => {
                assert_eq!(step, expected);
                // The newer of its two ends.
                assert_eq!(snapshot, Digest::of("write/2/5"));
            }
            (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_run_took_over_itself_can_be_taken_over_from_it() {
        let recovered = Digest::of("recovered");
        let story = Story::new()
            .event(What::Recovered {
                run: "first".to_owned(),
                step: "write".to_owned(),
                snapshot: recovered.clone(),
            })
            .event(What::StepInherited {
                step: "write".to_owned(),
                attempts: 2,
                artifacts: None,
                gates: Vec::new(),
            });
        let earlier = in_phase(Phase::Failed);
        for wanted in [None, Some("write")] {
            let found = at_step(&earlier, &story, wanted);
            assert_eq!(found, Ok(("write".to_owned(), recovered.clone())));
        }
        let none = at_step(&earlier, &Story::new(), None).unwrap_err();
        assert!(
            none.contains("ended without finishing any step; it finished none"),
            "{none}"
        );
    }

    #[rstest]
    #[case::nothing_said(None, None, false, None)]
    #[case::the_same(Some("a"), Some("a"), false, None)]
    #[case::left_out(None, Some("a"), false, None)]
    #[case::another(Some("b"), Some("a"), false, Some("spec.project.source"))]
    #[case::from_none(Some("b"), None, false, Some("spec.project.source"))]
    #[case::otherwise(None, None, true, Some("spec.incremental"))]
    fn a_run_recovers_on_the_same_project(
        #[case] own: Option<&str>,
        #[case] theirs: Option<&str>,
        #[case] incremental: bool,
        #[case] refused: Option<&str>,
    ) {
        let spec = |source: Option<&str>| AgentRunSpec {
            project: source.map(|run| Project {
                source: Some(ProjectSource {
                    run: Some(run.to_owned()),
                    ..ProjectSource::default()
                }),
                ..Project::default()
            }),
            ..fixture::run().spec
        };
        let run = AgentRunSpec {
            incremental: incremental.then_some(true),
            ..spec(own)
        };
        match (agrees(&run, &spec(theirs)), refused) {
            (Ok(()), None) => {}
            (Err(NotTaken::Rejected(rejection)), Some(field)) => {
                let begins = format!("run:{field}: is another than");
                assert!(rejection.message.starts_with(&begins), "{rejection}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[rstest]
    #[case::at_work(Phase::Running, true, Err("RunNotFinished"))]
    #[case::waits(Phase::Waiting, true, Err("RunNotFinished"))]
    #[case::succeeded(Phase::Succeeded, true, Ok(()))]
    #[case::failed_later(Phase::Failed, true, Ok(()))]
    #[case::failed_at_once(Phase::Failed, false, Err("left no project: it ended as Failed"))]
    fn what_a_run_left_is_taken_when_it_has_ended_and_there_is_something(
        #[case] phase: Phase,
        #[case] snapshot: bool,
        #[case] expected: Result<(), &str>,
    ) {
        let mut earlier = fixture::run();
        let left = Digest::of("left");
        earlier.status = Some(AgentRunStatus {
            phase: Some(phase),
            snapshot: snapshot.then(|| left.to_string()),
            ..AgentRunStatus::default()
        });
        match (last_snapshot(&earlier), expected) {
            (Ok(found), Ok(())) => assert_eq!(found, left),
            (Err(NotTaken::Pending(pending)), Err(words)) => assert_eq!(pending.reason, words),
            (Err(NotTaken::Rejected(rejection)), Err(words)) => {
                assert!(rejection.message.contains(words), "{rejection}");
            }
            other => panic!("{other:?}"),
        }
    }
}
