//! The earlier run that a run begins with: whether what it left can be taken, and from which of its snapshots.

use super::observe::Pending;
use sopwith_crds::{
    AgentRun,
    contract::{Digest, plan::RunPlan},
    plan::{Earlier, Rejection},
    status::FailureReason,
};

/// The earlier run is not there.
pub const RUN_NOT_FOUND: &str = "RunNotFound";
/// The earlier run is still at work.
pub const RUN_NOT_FINISHED: &str = "RunNotFinished";
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

/// Says that what an earlier run left cannot be had any more, or never was there.
pub fn unavailable(field: &str, message: &str) -> NotTaken {
    NotTaken::Rejected(Rejection {
        reason: FailureReason::ProjectUnavailable,
        message: format!("run:{field}: {message}"),
    })
}

/// The snapshot of a run whose project another one takes over.
pub fn last_snapshot(earlier: &AgentRun) -> Result<Digest, NotTaken> {
    const FIELD: &str = "spec.project.source.run";
    let name = earlier.metadata.name.as_deref().unwrap_or_default();
    let status = earlier.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    if !phase.is_final() {
        return Err(NotTaken::Pending(Pending {
            reason: RUN_NOT_FINISHED,
            message: format!(
                "AgentRun \"{name}\", whose project this run begins with ({FIELD}), has not ended yet: it is {phase}"
            ),
        }));
    }
    let snapshot = status.snapshot.and_then(|digest| digest.parse().ok());
    snapshot.ok_or_else(|| {
        let message = format!(
            "AgentRun \"{name}\" left no project: it ended as {phase} before its first step had; name another run"
        );
        unavailable(FIELD, &message)
    })
}

/// An earlier run as the plan needs it.
pub fn taken(earlier: &AgentRun, plan: &RunPlan, snapshot: Digest) -> Earlier {
    Earlier {
        name: earlier.metadata.name.clone().unwrap_or_default(),
        uid: earlier.metadata.uid.clone().unwrap_or_default(),
        snapshot,
        project_name: plan.options.project_name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use rstest::rstest;
    use sopwith_crds::{AgentRunStatus, status::Phase};

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
