//! A run that has no plan yet: resolve, plan, first launch.

use super::{
    apply::{self, AppliedPlan},
    controller::ReconcileError,
    launch::{Decision, deadline, decide, failed},
    look::Seen,
    plan::PreparedPlan,
    progress::{Progress, fold},
    resolve::{self, Resolved, Unplannable, Unresolved},
    stage::{LOOK_AGAIN, Stage},
    status::Standing,
};
use crate::outcome::Outcome;
use kube::{ResourceExt, runtime::controller::Action};
use sopwith_crds::{
    AgentRun, ToolPolicy,
    plan::{self as plans, PlanInputs, Rejection},
};
use std::sync::Arc;

impl Stage<'_> {
    /// A run that has no plan yet.
    pub(super) async fn unplanned(&self, run: Arc<AgentRun>) -> Result<Action, ReconcileError> {
        let nothing = Seen::nothing(Progress::default());
        let view = self.view(&run, 0, &nothing, None);
        let standing = match decide(&view) {
            Decision::End(end) => Standing::Ended(end),
            Decision::Hold => Standing::Held,
            _ => match self.plan(&run).await? {
                Ok((plan, policy)) => return self.launch_first(run, plan, &policy).await,
                Err(standing) => standing,
            },
        };
        self.write(&run, None, &standing).await?;
        let look = match &standing {
            // A procedure or policy that appears is seen.
            Standing::Waiting(pending)
                if !matches!(pending.reason, "SopNotFound" | "PolicyNotFound") =>
            {
                Some(LOOK_AGAIN)
            }
            _ => None,
        };
        Ok(self.requeue(look, [deadline(&view)]))
    }

    /// Resolve and plan; the outer error is a failure of the cluster, the inner one the run's own standing.
    pub(super) async fn plan(
        &self,
        run: &AgentRun,
    ) -> Result<Result<(AppliedPlan, Arc<ToolPolicy>), Standing>, ReconcileError> {
        let context = self.context;
        if let Err(pending) = context.admission.proves(run) {
            return Ok(Err(Standing::Waiting(pending)));
        }
        let never = |rejection: Rejection| {
            Standing::Ended(failed(rejection.reason, rejection.message, self.now))
        };
        let resolved =
            resolve::resolve(run, &context.client, &context.caches, &context.store).await;
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(Unplannable::Unresolved(Unresolved::Missing(pending))) => {
                return Ok(Err(Standing::Waiting(pending)));
            }
            Err(Unplannable::Unresolved(Unresolved::Kube(error))) => {
                return Err(ReconcileError::Resolve(error));
            }
            Err(Unplannable::Rejected(rejection)) => return Ok(Err(never(rejection))),
            Err(Unplannable::Store(error)) => return Err(error.into()),
        };
        let prepared = match build(run, &resolved) {
            Ok(prepared) => prepared,
            Err(rejection) => return Ok(Err(never(rejection))),
        };
        let applied = apply::plan(&context.client, run, prepared, &context.tls.ca_pem()).await;
        match applied {
            Ok(plan) => Ok(Ok((plan, resolved.policy))),
            Err(error) => match error.refusal("the plan") {
                Some(pending) => Ok(Err(Standing::Waiting(pending))),
                None => Err(error.into()),
            },
        }
    }

    pub(super) async fn launch_first(
        &self,
        run: Arc<AgentRun>,
        plan: AppliedPlan,
        policy: &ToolPolicy,
    ) -> Result<Action, ReconcileError> {
        let seen = Seen::nothing(fold(&plan.plan, &[]));
        let planned = Outcome::Planned {
            config_map: plan.reference.config_map.clone(),
            steps: plan.plan.steps.len(),
        };
        let run = self
            .write(
                &run,
                Some((&plan.plan, &plan.reference, 1, &seen)),
                &Standing::Going,
            )
            .await?;
        self.tell(&run, &planned).await;
        if self.context.admission.is_waived() {
            self.tell(&run, &Outcome::NotProven).await;
        }
        let made = self
            .make_job(&run, (&plan.plan, &plan.reference, 1, &seen), policy)
            .await;
        let plan = Arc::new((plan.reference, plan.plan));
        self.context.memory.planned(&self.uid, plan);
        made
    }
}

fn build(run: &AgentRun, resolved: &Resolved) -> Result<PreparedPlan, Rejection> {
    let plan = plans::build(&PlanInputs {
        run,
        sop: (&resolved.sop.name_any(), &resolved.sop.spec),
        policy: (&resolved.policy.name_any(), &resolved.policy.spec),
        idea: &resolved.idea,
        inputs: &resolved.inputs,
        templates: &resolved.templates,
        earlier: resolved.earlier.as_ref(),
        memory: &resolved.memory,
    })?;
    let compressed = plans::compress(&plan)?;
    Ok(PreparedPlan { plan, compressed })
}
