//! What every stage of a reconciliation of a run has in common: its moment, its writes, its next turn.

use super::{
    apply::{self, Made},
    controller::{Context, ReconcileError},
    job::{self, JobInputs},
    launch::View,
    look::Seen,
    observe::NODE_LOST,
    progress::LaunchEnd,
    status::{Launched, Standing, status, worth_writing},
    transition,
};
use crate::outcome::{self, Outcome};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use sopwith_crds::{AgentRun, ToolPolicy, conditions, contract::plan::RunPlan, status::PlanRef};
use std::{sync::Arc, time::Duration};

/// How soon something is looked at again that cannot be watched: a ConfigMap of the user, a name that is taken, a quota.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// One reconciliation.
pub(super) struct Stage<'a> {
    pub(super) now: Timestamp,
    pub(super) uid: String,
    pub(super) context: &'a Context,
}

impl Stage<'_> {
    /// Makes the Job of a launch that status has announced. Where the API server does not take it, the run says why, and it is
    /// tried again.
    pub(super) async fn make_job(
        &self,
        run: &Arc<AgentRun>,
        at: (&RunPlan, &PlanRef, u32, &Seen),
        policy: &ToolPolicy,
    ) -> Result<Action, ReconcileError> {
        let (plan, _, launch, _) = at;
        let inputs = JobInputs {
            run,
            launch,
            plan,
            policy: &policy.spec,
            site: &self.context.site,
        };
        match apply::job(&self.context.client, &inputs).await {
            Ok(Made::Now) => {
                let job = job::name(&plan.run.name, launch);
                self.tell(run, &Outcome::Launched { launch, job }).await;
            }
            Ok(Made::Before) => {}
            Err(error) => {
                let Some(pending) = error.refusal("the Job") else {
                    return Err(error.into());
                };
                let standing = Standing::Waiting(pending);
                self.write(run, Some(at), &standing).await?;
                return Ok(self.requeue(Some(LOOK_AGAIN), [start_by(run)]));
            }
        }
        Ok(self.requeue(None, [start_by(run)]))
    }

    pub(super) fn view<'v>(
        &self,
        run: &AgentRun,
        launch: u32,
        seen: &'v Seen,
        end: Option<&'v LaunchEnd>,
    ) -> View<'v> {
        let (suspend, cancel) = (
            run.spec.suspend == Some(true),
            run.spec.cancel == Some(true),
        );
        View {
            suspend,
            cancel,
            launch,
            job: &seen.observation.job,
            node_lost: seen.observation.node_lost() || said_node_lost(run),
            end,
            progress: &seen.progress,
            pulse: &seen.pulse,
            asks: seen.progress.waiting.is_some() && seen.tally.answer.is_empty(),
            stopped: &seen.stopped,
            restarted: seen.observation.stuck,
            start_by: start_by(run),
            ordered_at: self
                .context
                .memory
                .ordered_at(&self.uid, suspend || cancel, self.now),
            now: self.now,
        }
    }

    /// Writes the status where that says something new, and tells what happened once it is written.
    pub(super) async fn write(
        &self,
        run: &Arc<AgentRun>,
        at: Option<(&RunPlan, &PlanRef, u32, &Seen)>,
        standing: &Standing,
    ) -> Result<Arc<AgentRun>, ReconcileError> {
        let previous = run.status.clone().unwrap_or_default();
        let usage = at.map(|(.., seen)| seen.log.used()).unwrap_or_default();
        let launched = at.map(|(plan, reference, launch, seen)| Launched {
            plan,
            reference,
            launch,
            progress: &seen.progress,
            usage: &usage,
            observation: &seen.observation,
            pulse: &seen.pulse,
            tally: &seen.tally,
        });
        let next = status(run, &previous, launched.as_ref(), standing, self.now);
        if !worth_writing(&previous, &next) {
            return Ok(run.clone());
        }
        let written = Arc::new(apply::status(&self.context.client, run, &next).await?);
        self.context.memory.wrote(&self.uid, written.clone());
        for outcome in transition::between(&previous, &next, at.map(|(.., seen)| &seen.progress)) {
            self.tell(run, &outcome).await;
        }
        if previous.phase != next.phase {
            self.context
                .changed
                .send_modify(|count| *count = count.wrapping_add(1));
        }
        Ok(written)
    }

    pub(super) async fn tell(&self, run: &AgentRun, outcome: &Outcome) {
        outcome::tell(run, outcome, &self.context.recorder, &self.context.metrics).await;
    }

    /// At the earliest of these moments, or after `look`; else when something changes.
    pub(super) fn requeue<const N: usize>(
        &self,
        look: Option<Duration>,
        moments: [Option<Timestamp>; N],
    ) -> Action {
        let until =
            |at: Timestamp| Duration::try_from(at.duration_since(self.now)).unwrap_or_default();
        let moments = moments.into_iter().flatten().map(until);
        match moments.chain(look).min() {
            // Timers may fire a little early; a moment later is never too early.
            Some(wait) => Action::requeue(wait + Duration::from_millis(20)),
            None => Action::await_change(),
        }
    }
}

/// A pod that went with its node leaves no trace but what was said of it.
fn said_node_lost(run: &AgentRun) -> bool {
    let said = run
        .status
        .as_ref()
        .and_then(|status| conditions::find(&status.conditions, conditions::RECONCILING));
    said.is_some_and(|condition| condition.reason == NODE_LOST)
}

pub(super) fn start_by(run: &AgentRun) -> Option<Timestamp> {
    let seconds = run.spec.start_deadline_seconds?;
    let created = run.metadata.creation_timestamp.as_ref()?;
    Some(created.0 + SignedDuration::from_secs(i64::from(seconds)))
}
