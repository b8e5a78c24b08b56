//! Looks at the newest launch of a run: in the caches, in the inbox, and where it matters in the live cluster.

use super::{
    apply::ApplyError,
    controller::ReconcileError,
    decisions::{Tally, rules, tally},
    job,
    launch::{Decision, decide},
    observe::{Observation, observe},
    progress::{LaunchEnd, Progress, fold},
    resolve::policy_name,
    stage::Stage,
    stuck::{Pulse, Signs, pulse},
};
use crate::gateway::RunLog;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams, runtime::reflector::ObjectRef};
use sopwith_crds::{
    AgentRun, LAUNCH_LABEL, RUN_LABEL, STUCK_ANNOTATION, ToolPolicy, contract::plan::RunPlan,
};
use std::{collections::BTreeSet, sync::Arc};

/// A launch as it is seen in this reconciliation.
pub(super) struct Seen {
    pub(super) progress: Progress,
    pub(super) observation: Observation,
    pub(super) log: Arc<RunLog>,
    pub(super) pulse: Pulse,
    /// How the decisions stand, under the policy as it is in the cache.
    pub(super) tally: Tally,
    /// Launches that were ended by order.
    pub(super) stopped: BTreeSet<u32>,
}

impl Seen {
    /// Nothing is seen of a run that has not been launched.
    pub(super) fn nothing(progress: Progress) -> Self {
        Self {
            progress,
            observation: Observation::default(),
            log: Arc::default(),
            pulse: Pulse::Idle,
            tally: Tally::default(),
            stopped: BTreeSet::new(),
        }
    }
}

impl Stage<'_> {
    /// Everything that is known of the newest launch; `live`: asked of the API server and the
    /// store, not of what is in memory.
    pub(super) async fn look(
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
        let log = if live {
            // Another leader may have stored the last words after this one had read.
            self.context.inbox.reload(&self.uid).await?
        } else {
            self.context.inbox.load(&self.uid).await?
        };
        let progress = fold(plan, &log.batches);
        let signs = Signs {
            progress: &progress,
            launch,
            active: observation.job.is_active(),
            listening_since: self.context.listening_since,
        };
        let pulse = pulse(plan, signs, self.now);
        let policy = ObjectRef::new(policy_name(run)).within(&run.namespace().unwrap_or_default());
        let policy = self.context.caches.policies.get(&policy);
        let tally = self.tally(run, &progress, policy.as_deref());
        Ok(Seen {
            progress,
            observation,
            log,
            pulse,
            tally,
            stopped: self.stopped(run, launch),
        })
    }

    /// How the decisions stand under a policy; without one, or without proof of who made them, none counts.
    pub(super) fn tally(
        &self,
        run: &AgentRun,
        progress: &Progress,
        policy: Option<&ToolPolicy>,
    ) -> Tally {
        let rules = rules(policy, self.context.admission.proves(run));
        tally(&run.spec, progress.waiting.as_ref(), &rules, self.now)
    }

    /// Launches whose Jobs were told to end by order of the spec, as far as their Jobs are still there.
    fn stopped(&self, run: &AgentRun, launch: u32) -> BTreeSet<u32> {
        let namespace = run.namespace().unwrap_or_default();
        let told = |number: &u32| {
            let key = ObjectRef::new(&job::name(&run.name_any(), *number)).within(&namespace);
            let job = self.context.caches.jobs.get(&key);
            job.filter(|job| owned_by(run, job.as_ref()))
                .filter(|job| !job.annotations().contains_key(STUCK_ANNOTATION))
                .and_then(|job| job.spec.as_ref()?.active_deadline_seconds)
                == Some(0)
        };
        (1..=launch).filter(told).collect()
    }

    pub(super) fn observed(&self, run: &AgentRun, launch: u32) -> Observation {
        let namespace = run.namespace().unwrap_or_default();
        let job = job::name(&run.name_any(), launch);
        let caches = &self.context.caches;
        let key = ObjectRef::new(&job).within(&namespace);
        let found = caches
            .jobs
            .get(&key)
            .filter(|job| owned_by(run, job.as_ref()));
        let pods = caches.pods.state();
        let pods: Vec<&Pod> = pods
            .iter()
            .map(AsRef::as_ref)
            .filter(|pod| found.as_deref().is_some_and(|job| owned_by(job, *pod)))
            .collect();
        let mut refusals = caches.refusals.state();
        let uid = found.as_ref().and_then(|job| job.uid());
        refusals.retain(|event| event.involved_object.uid == uid);
        refusals.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
        let refusals: Vec<_> = refusals.iter().map(AsRef::as_ref).collect();
        observe(found.as_deref(), &pods, &refusals, self.now)
    }

    pub(super) async fn observed_live(
        &self,
        run: &AgentRun,
        launch: u32,
    ) -> Result<Observation, ReconcileError> {
        let (name, namespace) = (run.name_any(), run.namespace().unwrap_or_default());
        let failed = |source| ApplyError::Kube {
            what: "look at the launch",
            source,
        };
        let jobs: Api<Job> = Api::namespaced(self.context.client.clone(), &namespace);
        let job = jobs
            .get_opt(&job::name(&name, launch))
            .await
            .map_err(failed)?;
        let pods: Api<Pod> = Api::namespaced(self.context.client.clone(), &namespace);
        let of_launch =
            ListParams::default().labels(&format!("{RUN_LABEL}={name},{LAUNCH_LABEL}={launch}"));
        let pods = pods.list(&of_launch).await.map_err(failed)?;
        let job = job.filter(|job| owned_by(run, job));
        let owned = |pod: &&Pod| job.as_ref().is_some_and(|job| owned_by(job, *pod));
        let pods: Vec<&Pod> = pods.items.iter().filter(owned).collect();
        Ok(observe(job.as_ref(), &pods, &[], self.now))
    }

    pub(super) fn decision(&self, run: &AgentRun, launch: u32, seen: &Seen) -> Decision {
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
        decide(&self.view(run, launch, seen, end.as_ref()))
    }
}

/// By UID: names and labels come again when a run is deleted and created anew.
fn owned_by(owner: &impl kube::Resource, object: &impl kube::Resource) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    owners
        .map(|reference| &reference.uid)
        .any(|uid| Some(uid) == owner.meta().uid.as_ref())
}
