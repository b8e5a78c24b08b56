//! Builds the Job of a launch: a pure function of plan, policy, run and configuration.

use super::pod;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use sopwith_crds::{
    AgentRun, LAUNCH_LABEL, RUN_LABEL, ToolPolicySpec,
    contract::{Digest, plan::RunPlan},
};
use std::collections::BTreeMap;

/// What a Job is built from.
#[derive(Clone, Copy, Debug)]
pub struct JobInputs<'a> {
    /// The run; its UID owns the Job.
    pub run: &'a AgentRun,
    /// Number of the launch, counted from 1.
    pub launch: u32,
    /// The frozen plan.
    pub plan: &'a RunPlan,
    /// The policy as it is now: what it no longer grants is not mounted.
    pub policy: &'a ToolPolicySpec,
    /// What the operator's own configuration adds.
    pub site: &'a Site,
}

/// What the operator's own configuration adds to every run's pod.
#[derive(Clone, Debug)]
pub struct Site {
    /// Image of the runner.
    pub runner_image: String,
    /// How it is pulled.
    pub runner_image_pull_policy: String,
    /// Address of the gateway, `https://service.namespace.svc:port`.
    pub gateway_url: String,
}

/// Name of the Job of a launch.
pub fn name(run: &str, launch: u32) -> String {
    format!("{run}-{launch}")
}

/// Name of the ConfigMap that holds a plan, after the plan's digest. The plan names its run's UID, so no later run of that
/// name has it: a kubelet keeps what it has read of an immutable ConfigMap. And what somebody else put there is not it.
pub fn plan_name(run: &str, digest: &Digest) -> String {
    let digits = digest.as_str().rsplit(':').next().unwrap_or_default();
    format!("{run}-plan-{}", digits.get(..10).unwrap_or(digits))
}

/// The run as the owner of what is made for it, so that it goes when the run goes.
pub fn owner(run: &AgentRun) -> Vec<OwnerReference> {
    run.controller_owner_ref(&()).into_iter().collect()
}

/// Labels of everything that is made for a run.
pub fn labels(run: &str) -> BTreeMap<String, String> {
    [
        (RUN_LABEL, run),
        ("app.kubernetes.io/name", "sopwith-run"),
        ("app.kubernetes.io/instance", run),
        ("app.kubernetes.io/part-of", "sopwith"),
        ("app.kubernetes.io/managed-by", "sopwith-operator"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// The Job of a launch. It is never retried by the Job controller: a new launch is a new Job.
pub fn job(inputs: &JobInputs<'_>) -> Job {
    let run = &inputs.plan.run;
    let mut own = labels(&run.name);
    own.insert(LAUNCH_LABEL.to_owned(), inputs.launch.to_string());
    let rules = inputs.policy.pod.clone().unwrap_or_default();
    let mut pod_labels = rules.labels;
    pod_labels.extend(own.clone());
    Job {
        metadata: ObjectMeta {
            name: Some(name(&run.name, inputs.launch)),
            namespace: Some(run.namespace.clone()),
            labels: Some(own),
            owner_references: Some(owner(inputs.run)),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            pod_replacement_policy: Some("Failed".to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(rules.annotations).filter(|a| !a.is_empty()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod::spec(inputs)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;

    #[test]
    fn the_job_of_a_launch() {
        let (run, plan, policy, site) = (
            fixture::run(),
            fixture::plan(),
            fixture::policy(),
            fixture::site(),
        );
        let job = job(&JobInputs {
            run: &run,
            launch: 2,
            plan: &plan,
            policy: &policy,
            site: &site,
        });
        insta::assert_yaml_snapshot!(job);
    }

    #[test]
    fn the_policy_cannot_take_our_labels_away() {
        let (run, plan, mut policy, site) = (
            fixture::run(),
            fixture::plan(),
            fixture::policy(),
            fixture::site(),
        );
        let labels = [
            (RUN_LABEL.to_owned(), "other".to_owned()),
            ("team".to_owned(), "a".to_owned()),
        ];
        policy.pod = Some(sopwith_crds::tool_policy::PodRules {
            labels: labels.into(),
            ..Default::default()
        });
        let job = job(&JobInputs {
            run: &run,
            launch: 1,
            plan: &plan,
            policy: &policy,
            site: &site,
        });
        let labels = job.spec.unwrap().template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels[RUN_LABEL], "blackjack");
        assert_eq!(labels["team"], "a");
    }

    #[test]
    fn the_secret_of_a_repository_is_mounted_in_the_runner_only_while_the_policy_grants_it() {
        let (run, mut plan, mut policy, site) = (
            fixture::run(),
            fixture::plan(),
            fixture::policy(),
            fixture::site(),
        );
        policy.git = vec![sopwith_crds::tool_policy::AllowedGit {
            url: "https://host/team".to_owned(),
            secret_ref: Some(sopwith_crds::agent_run::LocalRef {
                name: "team".to_owned(),
            }),
            ..Default::default()
        }];
        plan.repository = Some(sopwith_crds::contract::plan::Repository {
            url: "https://host/team/game".parse().unwrap(),
            reference: None,
            secret: Some("team".to_owned()),
            ca_ref: Some(sopwith_crds::agent_run::KeyRef {
                name: "trust".to_owned(),
                key: "ca.crt".to_owned(),
            }),
            deliver: None,
        });
        let mounted = |policy: &sopwith_crds::ToolPolicySpec| {
            let job = job(&JobInputs {
                run: &run,
                launch: 1,
                plan: &plan,
                policy,
                site: &site,
            });
            let pod = job.spec.unwrap().template.spec.unwrap();
            let paths = |containers: Vec<k8s_openapi::api::core::v1::Container>| {
                let mounts = containers
                    .into_iter()
                    .flat_map(|container| container.volume_mounts.unwrap_or_default());
                mounts.map(|mount| mount.mount_path).collect::<Vec<_>>()
            };
            (paths(pod.containers), paths(pod.init_containers.unwrap()))
        };
        let secret = "/etc/sopwith/secrets/team".to_owned();
        let (runner, others) = mounted(&policy);
        assert!(runner.contains(&secret) && !others.contains(&secret));
        assert!(runner.contains(&"/etc/sopwith/config/trust".to_owned()));
        policy.git.clear();
        assert!(!mounted(&policy).0.contains(&secret));
    }

    #[test]
    fn a_secret_that_the_policy_no_longer_grants_is_not_mounted() {
        let (run, plan, mut policy, site) = (
            fixture::run(),
            fixture::plan(),
            fixture::policy(),
            fixture::site(),
        );
        policy.llm[0].secret_ref = None;
        let job = job(&JobInputs {
            run: &run,
            launch: 1,
            plan: &plan,
            policy: &policy,
            site: &site,
        });
        let volumes = job.spec.unwrap().template.spec.unwrap().volumes.unwrap();
        assert!(volumes.iter().all(|volume| volume.secret.is_none()));
    }
}
