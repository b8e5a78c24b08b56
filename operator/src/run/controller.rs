//! The controller of runs: resolve → plan → launch → apply → status.

use super::{
    apply::{self, AppliedPlan, ApplyError, Made},
    job::{self, JobInputs, Site},
    launch::{Decision, View, deadline, decide, failed},
    memory::Memory,
    observe::{Observation, Pending, observe},
    plan::still_allowed,
    progress::{LaunchEnd, Progress, fold},
    resolve::{self, Resolved, Unresolved},
    status::{Launched, Standing, status, worth_writing},
    stuck::{Pulse, pulse},
    transition,
};
use crate::{
    caches::Caches,
    gateway::{GatewayTls, Inbox, RunLog},
    metrics::Metrics,
    outcome::{self, Outcome},
    store::StoreError,
};
use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{controller::Action, events::Recorder, reflector::ObjectRef},
};
use sopwith_crds::{
    AgentRun, AgentRunStatus, LAUNCH_LABEL, RUN_LABEL,
    contract::plan::RunPlan,
    plan::{self as plans, PlanInputs, Rejection},
    status::{FailureReason, Phase, PlanRef},
};
use std::{sync::Arc, time::Duration};

/// How soon something is looked at again that cannot be watched: a ConfigMap of the user, a name that is taken.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How soon a failed reconciliation is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How soon a run is read again that has changed meanwhile.
const READ_AGAIN: Duration = Duration::from_millis(200);
/// How long the pod of a finished run may take to end by itself.
const LINGER: SignedDuration = SignedDuration::from_secs(45);

/// What the controller works with.
pub struct Context {
    /// Speaks to the API server.
    pub client: Client,
    /// What is watched.
    pub caches: Caches,
    /// What runners report.
    pub inbox: Inbox,
    /// The gateway's certificate authority goes into each plan.
    pub tls: GatewayTls,
    /// What the operator's own configuration adds to pods.
    pub site: Site,
    /// Records Events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Remembers.
    pub memory: Memory,
    /// Tells the other controllers that a run changed its phase.
    pub changed: tokio::sync::watch::Sender<u64>,
}

/// A reconciliation failed and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A write or read of the API server.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// What a run names could not be read.
    #[error("read what the run names: {0}")]
    Resolve(kube::Error),
    /// The artifact store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Resolve(_) => "Kubernetes",
            Self::Store(_) => "Store",
        }
    }
}

/// What to do after a failure: conflicts are ordinary, all else is counted and logged.
pub fn on_error(run: &AgentRun, error: &ReconcileError, context: &Context) -> Action {
    if matches!(error, ReconcileError::Apply(apply) if apply.is_conflict()) {
        tracing::debug!(
            run = run.name_any(),
            "the run changed meanwhile and is read again"
        );
        return Action::requeue(READ_AGAIN);
    }
    let (name, namespace) = (run.name_any(), run.namespace());
    tracing::warn!(run = name, namespace, %error, "a reconciliation failed and is tried again");
    context.metrics.reconcile_failed("AgentRun", error.reason());
    Action::requeue(TRY_AGAIN)
}

/// Brings a run one step further.
pub async fn reconcile(
    cached: Arc<AgentRun>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let uid = cached.uid().unwrap_or_default();
    let run = context.memory.newest(&uid, cached);
    if run.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let stage = Stage {
        now: Timestamp::now(),
        uid,
        context: &context,
    };
    let status = run.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    match &status.plan {
        _ if phase.is_final() => stage.finished(&run, &status).await,
        None => stage.unplanned(run).await,
        Some(reference) => stage.planned(&run, &status, reference).await,
    }
}

/// One reconciliation.
struct Stage<'a> {
    now: Timestamp,
    uid: String,
    context: &'a Context,
}

/// A launch as it is seen in this reconciliation.
struct Seen {
    progress: Progress,
    observation: Observation,
    log: Arc<RunLog>,
    pulse: Pulse,
}

impl Stage<'_> {
    /// A run that has no plan yet.
    async fn unplanned(&self, run: Arc<AgentRun>) -> Result<Action, ReconcileError> {
        let (none, observation) = (Progress::default(), Observation::default());
        let view = self.view(&run, 0, &none, &observation, None);
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
            Standing::Waiting(pending)
                if matches!(pending.reason, "ConfigMapNotFound" | "NameTaken") =>
            {
                Some(LOOK_AGAIN)
            }
            _ => None,
        };
        Ok(self.requeue(look, [deadline(&view)]))
    }

    /// Resolve and plan; the outer error is a failure of the cluster, the inner one the run's own standing.
    async fn plan(
        &self,
        run: &AgentRun,
    ) -> Result<Result<(AppliedPlan, Arc<sopwith_crds::ToolPolicy>), Standing>, ReconcileError>
    {
        let context = self.context;
        let resolved = match resolve::resolve(run, &context.client, &context.caches).await {
            Ok(resolved) => resolved,
            Err(Unresolved::Missing(pending)) => return Ok(Err(Standing::Waiting(pending))),
            Err(Unresolved::Kube(error)) => return Err(ReconcileError::Resolve(error)),
        };
        let compressed = match build(run, &resolved) {
            Ok(compressed) => compressed,
            Err(rejection) => {
                return Ok(Err(Standing::Ended(failed(
                    rejection.reason,
                    rejection.message,
                    self.now,
                ))));
            }
        };
        let applied = apply::plan(&context.client, run, compressed, &context.tls.ca_pem()).await;
        match applied {
            Ok(plan) => Ok(Ok((plan, resolved.policy))),
            Err(error @ ApplyError::NameTaken { .. }) => {
                Ok(Err(Standing::Waiting(name_taken(&error))))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn launch_first(
        &self,
        run: Arc<AgentRun>,
        plan: AppliedPlan,
        policy: &sopwith_crds::ToolPolicy,
    ) -> Result<Action, ReconcileError> {
        let seen = Seen {
            progress: fold(&plan.plan, &[]),
            observation: Observation::default(),
            log: Arc::default(),
            pulse: Pulse::Idle,
        };
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
        self.make_job(&run, &plan.plan, policy, 1).await?;
        let plan = Arc::new((plan.reference, plan.plan));
        self.context.memory.planned(&self.uid, plan);
        Ok(self.requeue(None, [start_by(&run)]))
    }

    /// A run with a plan: looks at its launch and decides.
    async fn planned(
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
        if matches!(decision, Decision::Launch { lost: true, .. }) {
            // What looks lost may only not have reached the caches yet.
            seen = self.look(run, &plan.1, launch, true).await?;
            decision = self.decision(run, launch, &seen);
        }
        self.carry_out(run, &plan, launch, &seen, decision).await
    }

    async fn carry_out(
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
                apply::stop(&self.context.client, run, launch).await?;
                Standing::Going
            }
            Decision::Wait => Standing::Going,
            Decision::Hold => Standing::Held,
            Decision::Ask => Standing::Asking,
            Decision::End(end) => Standing::Ended(end),
        };
        let run = self
            .write(run, Some((&plan.1, &plan.0, launch, seen)), &standing)
            .await?;
        if let Standing::Ended(_) = standing {
            let status = run.status.clone().unwrap_or_default();
            return self.finished(&run, &status).await;
        }
        let order = deadline(&self.view(&run, launch, &seen.progress, &seen.observation, None));
        let stuck = match seen.pulse {
            Pulse::Beating(until) => Some(until),
            Pulse::Idle | Pulse::Stuck(_) => None,
        };
        Ok(self.requeue(None, [order, stuck]))
    }

    /// A further launch, with the policy as it is now.
    async fn launch(
        &self,
        run: &Arc<AgentRun>,
        plan: &(PlanRef, RunPlan),
        number: u32,
        seen: &Seen,
    ) -> Result<Action, ReconcileError> {
        let policy = match resolve::policy(run, &self.context.caches) {
            Ok(policy) => policy,
            Err(unresolved) => {
                return self
                    .wait_for_policy(run, plan, number - 1, seen, unresolved)
                    .await;
            }
        };
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
        self.make_job(&run, &plan.1, &policy, number).await?;
        Ok(Action::await_change())
    }

    /// Status announced a launch, and its Job was never made or was deleted before it reported.
    async fn make_missing_job(
        &self,
        run: &Arc<AgentRun>,
        plan: &(PlanRef, RunPlan),
        launch: u32,
        seen: &Seen,
    ) -> Result<Action, ReconcileError> {
        match resolve::policy(run, &self.context.caches) {
            Ok(policy) => {
                self.make_job(run, &plan.1, &policy, launch).await?;
                Ok(self.requeue(None, [start_by(run)]))
            }
            Err(unresolved) => {
                self.wait_for_policy(run, plan, launch, seen, unresolved)
                    .await
            }
        }
    }

    async fn wait_for_policy(
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

    async fn make_job(
        &self,
        run: &AgentRun,
        plan: &RunPlan,
        policy: &sopwith_crds::ToolPolicy,
        launch: u32,
    ) -> Result<(), ReconcileError> {
        let inputs = JobInputs {
            run,
            launch,
            plan,
            policy: &policy.spec,
            site: &self.context.site,
        };
        if apply::job(&self.context.client, &inputs).await? == Made::Now {
            let job = job::name(&plan.run.name, launch);
            self.tell(run, &Outcome::Launched { launch, job }).await;
        }
        Ok(())
    }

    /// A run at its end: its pod must go, its memory is freed, and it may be deleted in time.
    async fn finished(
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
        if active == (super::observe::JobState::Active { stopping: false }) {
            let unasked = status
                .failure
                .as_ref()
                .is_some_and(|f| f.reason == FailureReason::StartDeadlineExceeded);
            if unasked || linger <= self.now {
                apply::stop(&self.context.client, run, launch).await?;
            }
        } else if !active.is_active() && self.context.memory.put_aside(&self.uid) {
            self.context.inbox.evict(&self.uid).await;
        }
        let delete_at = delete_at(run, finished);
        if delete_at.is_some_and(|at| at <= self.now) {
            apply::delete(&self.context.client, run).await?;
            return Ok(Action::await_change());
        }
        let linger = Some(linger).filter(|_| active.is_active());
        Ok(self.requeue(None, [delete_at, linger]))
    }

    async fn known_plan(
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

    /// Everything that is known of the newest launch; `live`: asked of the API server, not the caches.
    async fn look(
        &self,
        run: &AgentRun,
        plan: &RunPlan,
        launch: u32,
        live: bool,
    ) -> Result<Seen, ReconcileError> {
        let observation = if live {
            self.observed_live(run, launch).await?
        } else {
            self.observed(run, launch)
        };
        // Read after the observation: what a runner said before its pod ended is in the log by then.
        let log = self.context.inbox.load(&self.uid).await?;
        let progress = fold(plan, &log.batches);
        let pulse = pulse(plan, &progress, observation.job.is_active(), self.now);
        Ok(Seen {
            progress,
            observation,
            log,
            pulse,
        })
    }

    fn observed(&self, run: &AgentRun, launch: u32) -> Observation {
        let (name, namespace) = (run.name_any(), run.namespace().unwrap_or_default());
        let job = job::name(&name, launch);
        let caches = &self.context.caches;
        let key = ObjectRef::new(&job).within(&namespace);
        let found = caches
            .jobs
            .get(&key)
            .filter(|job| owned_by(run, job.as_ref()));
        let number = launch.to_string();
        let pods = caches.pods.state();
        let pods: Vec<&Pod> = pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| pod.namespace().as_deref() == Some(namespace.as_str()))
            .filter(|pod| {
                pod.labels().get(RUN_LABEL) == Some(&name)
                    && pod.labels().get(LAUNCH_LABEL) == Some(&number)
            })
            .collect();
        let mut refusals = caches.refusals.state();
        let uid = found.as_ref().and_then(|job| job.uid());
        refusals.retain(|event| event.involved_object.uid == uid);
        refusals.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let refusals: Vec<_> = refusals.iter().map(AsRef::as_ref).collect();
        observe(found.as_deref(), &pods, &refusals)
    }

    async fn observed_live(
        &self,
        run: &AgentRun,
        launch: u32,
    ) -> Result<Observation, ReconcileError> {
        let (name, namespace) = (run.name_any(), run.namespace().unwrap_or_default());
        let failed = |source| ApplyError::Kube {
            what: "look at the launch",
            source,
        };
        let jobs: Api<k8s_openapi::api::batch::v1::Job> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let job = jobs
            .get_opt(&job::name(&name, launch))
            .await
            .map_err(failed)?;
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &namespace);
        let of_launch =
            ListParams::default().labels(&format!("{RUN_LABEL}={name},{LAUNCH_LABEL}={launch}"));
        let pods = pods.list(&of_launch).await.map_err(failed)?;
        let pods: Vec<&Pod> = pods.items.iter().collect();
        Ok(observe(
            job.as_ref().filter(|job| owned_by(run, *job)),
            &pods,
            &[],
        ))
    }

    fn decision(&self, run: &AgentRun, launch: u32, seen: &Seen) -> Decision {
        let reported = seen
            .progress
            .launches
            .get(&launch)
            .and_then(|launch| launch.end.clone());
        let end = reported.or_else(|| {
            seen.observation.last_words.as_ref().map(|words| LaunchEnd {
                outcome: words.outcome,
                failure: words.failure.clone(),
                at: None,
            })
        });
        decide(&self.view(run, launch, &seen.progress, &seen.observation, end.as_ref()))
    }

    fn view<'v>(
        &self,
        run: &AgentRun,
        launch: u32,
        progress: &'v Progress,
        observation: &'v Observation,
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
            job: &observation.job,
            end,
            progress,
            start_by: start_by(run),
            ordered_at: self
                .context
                .memory
                .ordered_at(&self.uid, suspend || cancel, self.now),
            now: self.now,
        }
    }

    /// Writes the status where that says something new, and tells what happened once it is written.
    async fn write(
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

    async fn tell(&self, run: &AgentRun, outcome: &Outcome) {
        outcome::tell(run, outcome, &self.context.recorder, &self.context.metrics).await;
    }

    /// At the earliest of these moments, or after `look`; else when something changes.
    fn requeue<const N: usize>(
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

fn build(run: &AgentRun, resolved: &Resolved) -> Result<Vec<u8>, Rejection> {
    let plan = plans::build(&PlanInputs {
        run,
        sop: (&resolved.sop.name_any(), &resolved.sop.spec),
        policy: (&resolved.policy.name_any(), &resolved.policy.spec),
        idea: &resolved.idea,
        inputs: &resolved.inputs,
        templates: &resolved.templates,
    })?;
    plans::compress(&plan)
}

fn name_taken(error: &ApplyError) -> Pending {
    Pending {
        reason: "NameTaken",
        message: error.to_string(),
    }
}

fn start_by(run: &AgentRun) -> Option<Timestamp> {
    let seconds = run.spec.start_deadline_seconds?;
    let created = run.metadata.creation_timestamp.as_ref()?;
    Some(created.0 + SignedDuration::from_secs(i64::from(seconds)))
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

fn owned_by<K: kube::Resource>(run: &AgentRun, object: &K) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners
        .map(|owner| &owner.uid)
        .any(|uid| Some(uid) == run.metadata.uid.as_ref())
}

/// Runs that wait for something a procedure or policy may bring.
pub fn waiting(run: &AgentRun) -> bool {
    let status = run.status.as_ref();
    let phase = status.and_then(|status| status.phase).unwrap_or_default();
    phase == Phase::Pending
}
