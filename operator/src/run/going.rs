//! A run with a plan: looks at its launch, decides, and carries it out.

use super::{
    apply::{self, ApplyError},
    controller::ReconcileError,
    launch::{Decision, deadline, failed, loss},
    look::Seen,
    plan::still_allowed,
    resolve::{self, Unresolved},
    stage::Stage,
    status::Standing,
    stuck::Pulse,
};
use crate::outcome::Outcome;
use kube::runtime::controller::Action;
use sopwith_crds::{
    AgentRun, AgentRunStatus,
    contract::plan::RunPlan,
    status::{FailureReason, PlanRef},
};
use std::{sync::Arc, time::Duration};

/// How soon a policy is looked at again that a cache holds in an older version.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Stage<'_> {
    /// A run with a plan: looks at its launch and decides.
    pub(super) async fn planned(
        &self,
        run: &Arc<AgentRun>,
        status: &AgentRunStatus,
        reference: &PlanRef,
    ) -> Result<Action, ReconcileError> {
        let plan = match self.known_plan(run, reference).await {
            Ok(plan) => plan,
            Err(ApplyError::Plan(lost)) => {
                let end = failed(
                    FailureReason::Internal,
                    format!("the plan is lost: {lost}"),
                    self.now,
                );
                self.write(run, None, &Standing::Ended(end)).await?;
                return Ok(Action::await_change());
            }
            Err(error) => return Err(error.into()),
        };
        let launch = status.launch.unwrap_or(0);
        let mut seen = self.look(run, &plan.1, launch, false).await?;
        let mut decision = self.decision(run, launch, &seen);
        if matches!(decision, Decision::Launch { .. }) {
            // What looks lost may only not have reached the caches yet, and neither may a Job that is still at work.
            seen = self.look(run, &plan.1, launch, true).await?;
            decision = self.decision(run, launch, &seen);
        }
        self.carry_out(run, &plan, launch, &seen, decision).await
    }

    pub(super) async fn carry_out(
        &self,
        run: &Arc<AgentRun>,
        plan: &(PlanRef, RunPlan),
        launch: u32,
        seen: &Seen,
        decision: Decision,
    ) -> Result<Action, ReconcileError> {
        let standing = match decision {
            Decision::Launch { number, .. } => return self.launch(run, plan, number, seen).await,
            Decision::MakeJob => return self.make_missing_job(run, plan, launch, seen).await,
            Decision::StopJob => {
                apply::stop(&self.context.client, run, launch, None).await?;
                Standing::Going
            }
            Decision::Restart(why) => {
                apply::stop(&self.context.client, run, launch, Some(&why)).await?;
                Standing::Going
            }
            Decision::Wait => Standing::Going,
            Decision::Hold => Standing::Held,
            Decision::Ask => Standing::Asking,
            Decision::End(end) => Standing::Ended(end),
        };
        if let Standing::Ended(end) = &standing {
            self.keep_facts(&plan.1, seen, end).await?;
        }
        let run = self
            .write(run, Some((&plan.1, &plan.0, launch, seen)), &standing)
            .await?;
        if let Standing::Ended(_) = standing {
            let status = run.status.clone().unwrap_or_default();
            return self.finished(&run, &status).await;
        }
        let order = deadline(&self.view(&run, launch, seen, None));
        let stuck = match seen.pulse {
            Pulse::Beating(until) => Some(until),
            Pulse::Idle | Pulse::Stuck(_) => None,
        };
        let expires = seen.tally.expires.filter(|at| *at > self.now);
        let moments = [order, stuck, seen.observation.look_again, expires];
        Ok(self.requeue(None, moments))
    }

    /// A further launch, with the policy as it is now.
    pub(super) async fn launch(
        &self,
        run: &Arc<AgentRun>,
        plan: &(PlanRef, RunPlan),
        number: u32,
        seen: &Seen,
    ) -> Result<Action, ReconcileError> {
        let policy = match resolve::policy(run, &self.context.client, &self.context.caches).await {
            Ok(policy) => policy,
            Err(unresolved) => {
                return self
                    .wait_for_policy(run, plan, number - 1, seen, unresolved)
                    .await;
            }
        };
        if seen.progress.waiting.is_some() {
            let tally = self.tally(run, &seen.progress, Some(&policy));
            if tally.answer.is_empty() {
                // The cache did not know yet that the policy asks for more; what it brings is looked at when it does.
                return Ok(Action::requeue(LOOK_AGAIN));
            }
        }
        let at = (&plan.1, &plan.0, number, seen);
        if let Err(rejection) = still_allowed(run, &plan.1, &policy.spec) {
            let end = failed(rejection.reason, rejection.message, self.now);
            self.write(
                run,
                Some((&plan.1, &plan.0, number - 1, seen)),
                &Standing::Ended(end),
            )
            .await?;
            return Ok(Action::await_change());
        }
        let run = self.write(run, Some(at), &Standing::Going).await?;
        if let Some(message) = loss(&seen.progress, number - 1, &seen.observation.job) {
            let launch = number - 1;
            self.tell(&run, &Outcome::LaunchLost { launch, message })
                .await;
        }
        self.make_job(&run, at, &policy).await
    }

    /// Status announced a launch, and its Job was never made or was deleted before it reported.
    pub(super) async fn make_missing_job(
        &self,
        run: &Arc<AgentRun>,
        plan: &(PlanRef, RunPlan),
        launch: u32,
        seen: &Seen,
    ) -> Result<Action, ReconcileError> {
        match resolve::policy(run, &self.context.client, &self.context.caches).await {
            Ok(policy) => {
                self.make_job(run, (&plan.1, &plan.0, launch, seen), &policy)
                    .await
            }
            Err(unresolved) => {
                self.wait_for_policy(run, plan, launch, seen, unresolved)
                    .await
            }
        }
    }

    pub(super) async fn wait_for_policy(
        &self,
        run: &Arc<AgentRun>,
        plan: &(PlanRef, RunPlan),
        launch: u32,
        seen: &Seen,
        unresolved: Unresolved,
    ) -> Result<Action, ReconcileError> {
        match unresolved {
            Unresolved::Kube(error) => Err(ReconcileError::Resolve(error)),
            Unresolved::Missing(pending) => {
                let at = (&plan.1, &plan.0, launch, seen);
                self.write(run, Some(at), &Standing::Waiting(pending))
                    .await?;
                Ok(Action::await_change())
            }
        }
    }

    pub(super) async fn known_plan(
        &self,
        run: &AgentRun,
        reference: &PlanRef,
    ) -> Result<Arc<(PlanRef, RunPlan)>, ApplyError> {
        if let Some(known) = self.context.memory.plan(&self.uid) {
            return Ok(known);
        }
        let read = apply::read_plan(&self.context.client, run, reference).await?;
        let plan = Arc::new((read.reference, read.plan));
        self.context.memory.planned(&self.uid, plan.clone());
        Ok(plan)
    }
}
