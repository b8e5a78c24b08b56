//! A run at its end: its pod must go, its memory is freed, and it may be deleted in time.

use super::{apply, controller::ReconcileError, observe::JobState, stage::Stage};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{ResourceExt, runtime::controller::Action};
use sopwith_crds::{AgentRun, AgentRunStatus, status::FailureReason};
use std::sync::Arc;

/// How long the pod of a finished run may take to end by itself.
const LINGER: SignedDuration = SignedDuration::from_secs(45);

impl Stage<'_> {
    /// A run at its end: its pod must go, its memory is freed, and it may be deleted in time.
    pub(super) async fn finished(
        &self,
        run: &AgentRun,
        status: &AgentRunStatus,
    ) -> Result<Action, ReconcileError> {
        if status.observed_generation != run.metadata.generation {
            let next = AgentRunStatus {
                observed_generation: run.metadata.generation,
                ..status.clone()
            };
            let written = apply::status(&self.context.client, run, &next).await?;
            self.context.memory.wrote(&self.uid, Arc::new(written));
        }
        let finished = status.finished_at.as_ref().map_or(self.now, |time| time.0);
        let launch = status.launch.unwrap_or(0);
        let active = self.observed(run, launch).job;
        let linger = finished + LINGER;
        if active == (JobState::Active { stopping: false }) {
            let unasked = status
                .failure
                .as_ref()
                .is_some_and(|f| f.reason == FailureReason::StartDeadlineExceeded);
            if unasked || linger <= self.now {
                apply::stop(&self.context.client, run, launch, None).await?;
            }
        } else if !active.is_active() && self.context.memory.put_aside(&self.uid) {
            self.context.inbox.evict(&self.uid).await;
        }
        let delete_at = delete_at(run, finished);
        if delete_at.is_some_and(|at| at <= self.now) {
            apply::delete(&self.context.client, run).await?;
            return Ok(Action::await_change());
        }
        // Once it was told to end, its end is what brings us back.
        let linger = Some(linger).filter(|at| *at > self.now && active.is_active());
        Ok(self.requeue(None, [delete_at, linger]))
    }
}

/// When a finished run is deleted: never where a GitOps tool tracks it, which would create and pay for it again.
fn delete_at(run: &AgentRun, finished: Timestamp) -> Option<Timestamp> {
    const TRACKED: [&str; 3] = [
        "argocd.argoproj.io/tracking-id",
        "kustomize.toolkit.fluxcd.io/name",
        "helm.toolkit.fluxcd.io/name",
    ];
    let tracked = TRACKED
        .iter()
        .any(|key| run.annotations().contains_key(*key) || run.labels().contains_key(*key));
    let seconds = run.spec.ttl_seconds_after_finished.filter(|_| !tracked)?;
    Some(finished + SignedDuration::from_secs(i64::from(seconds)))
}
