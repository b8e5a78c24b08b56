//! Builds the pod of a launch: `inject`, the workbenches, the runner, and the volumes between them.
//!
//! Only the runner sees secrets, token and plan. A workbench shares with it the volume of its socket and nothing else.

use super::job::JobInputs;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource,
        LocalObjectReference, ObjectFieldSelector, PodSecurityContext, PodSpec,
        ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretVolumeSource,
        SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use sopwith_crds::{
    GATEWAY_AUDIENCE,
    contract::{
        Digest,
        plan::{
            BIN_DIR, CONFIG_DIR, GATEWAY_URL_VARIABLE, LAUNCH_VARIABLE, PLAN_DIGEST_VARIABLE,
            PLAN_DIR, SECRETS_DIR, SOCKETS_DIR, TOKEN_FILE, WORK_DIR, Workbench,
        },
    },
    plan::digest,
};
use std::collections::BTreeSet;

/// Name of the runner's container, whose termination message holds the last words.
pub const RUNNER: &str = "runner";
/// Name of the init container that hands out the runner's binary.
pub const INJECT: &str = "inject";
/// User and group of the runner; the group also owns the volumes.
const RUNNER_UID: i64 = 65532;
/// The users of workbenches, of which each run has one. They fit where a user namespace maps 16 bits.
const WORKBENCH_UIDS: std::ops::Range<i64> = 10_000..60_000;
/// Most processes and threads in a run's workbenches.
const MAX_PROCESSES: &str = "2048";
/// Most mebibytes that a command may leave in a workbench. Less than the size of each of its volumes, beyond which the
/// kubelet would evict the pod.
const MAX_DISK: &str = "1536";
/// The size of a volume in which commands write.
const VOLUME_SIZE: &str = "2Gi";
/// Where the kubelet reads a container's last words; anybody in the container can write to it.
const TERMINATION_LOG: &str = "/dev/termination-log";
const TOKEN_SECONDS: i64 = 3600;
/// Readable by the group that owns the volume.
const SECRET_MODE: i32 = 0o440;

/// The pod's spec. It passes the Pod Security level `restricted`.
pub fn spec(inputs: &JobInputs<'_>) -> PodSpec {
    let rules = inputs.policy.pod.clone().unwrap_or_default();
    let place = inputs.run.spec.runner.clone().unwrap_or_default();
    let mut init = vec![inject(inputs)];
    init.extend(
        inputs
            .plan
            .workbenches
            .iter()
            .map(|bench| workbench(inputs, bench)),
    );
    let pull: Vec<_> = rules
        .image_pull_secrets
        .into_iter()
        .map(|secret| LocalObjectReference { name: secret.name })
        .collect();
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(30),
        service_account_name: rules.service_account_name,
        runtime_class_name: rules.runtime_class_name,
        image_pull_secrets: Some(pull).filter(|list| !list.is_empty()),
        node_selector: Some(place.node_selector).filter(|map| !map.is_empty()),
        tolerations: Some(place.tolerations).filter(|list| !list.is_empty()),
        priority_class_name: place.priority_class_name,
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            fs_group: Some(RUNNER_UID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        init_containers: Some(init),
        containers: vec![runner(inputs)],
        volumes: Some(volumes(inputs)),
        ..PodSpec::default()
    }
}

/// Puts the runner's binary where the workbenches find it.
fn inject(inputs: &JobInputs<'_>) -> Container {
    Container {
        name: INJECT.to_owned(),
        args: Some(words(&["inject", "--to", BIN_DIR])),
        volume_mounts: Some(vec![mount("bin", BIN_DIR, false)]),
        resources: Some(resources(
            &[("cpu", "50m"), ("memory", "32Mi")],
            &[("memory", "128Mi")],
        )),
        ..own_container(inputs)
    }
}

fn workbench(inputs: &JobInputs<'_>, bench: &Workbench) -> Container {
    let wanted = inputs
        .run
        .spec
        .runner
        .as_ref()
        .and_then(|runner| runner.resources.clone());
    let default = || {
        resources(
            &[("cpu", "500m"), ("memory", "1Gi")],
            &[("cpu", "2"), ("memory", "4Gi")],
        )
    };
    Container {
        name: bench.name.clone(),
        image: Some(bench.image.clone()),
        // A native sidecar: started before the runner, ended after it.
        restart_policy: Some("Always".to_owned()),
        command: Some(words(&[
            &format!("{BIN_DIR}/runner"),
            "workbench",
            "--socket",
            &format!("{SOCKETS_DIR}/{}.sock", bench.name),
            "--root",
            WORK_DIR,
            "--scratch",
            "/tmp",
            // The containers of a pod share it.
            "--scratch",
            "/dev/shm",
            "--scratch",
            TERMINATION_LOG,
            "--max-processes",
            MAX_PROCESSES,
            "--max-disk",
            MAX_DISK,
        ])),
        volume_mounts: Some(vec![
            mount("bin", BIN_DIR, true),
            // To connect to a socket one need not write where it is; and nothing can be put in another's place.
            mount("sockets", SOCKETS_DIR, true),
            mount(&workspace(bench), WORK_DIR, false),
            mount(&scratch(bench), "/tmp", false),
        ]),
        resources: Some(wanted.unwrap_or_else(default)),
        security_context: Some(confined(workbench_uid(&inputs.plan.run.uid))),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        ..Container::default()
    }
}

fn runner(inputs: &JobInputs<'_>) -> Container {
    let folder = TOKEN_FILE
        .rsplit_once('/')
        .map_or(TOKEN_FILE, |(folder, _)| folder);
    let mut mounts = vec![
        mount("sockets", SOCKETS_DIR, false),
        mount("plan", PLAN_DIR, true),
        mount("token", folder, true),
        mount("scratch", "/tmp", false),
    ];
    let secrets = secrets(inputs);
    mounts.extend(secrets.iter().enumerate().map(|(index, name)| {
        mount(
            &format!("secret-{index}"),
            &format!("{SECRETS_DIR}/{name}"),
            true,
        )
    }));
    mounts.extend(config_maps(inputs).iter().enumerate().map(|(index, name)| {
        mount(
            &format!("config-{index}"),
            &format!("{CONFIG_DIR}/{name}"),
            true,
        )
    }));
    Container {
        name: RUNNER.to_owned(),
        args: Some(words(&["run"])),
        env: Some(vec![
            value(GATEWAY_URL_VARIABLE, &inputs.site.gateway_url),
            value(LAUNCH_VARIABLE, &inputs.launch.to_string()),
            value(PLAN_DIGEST_VARIABLE, digest(inputs.plan).as_str()),
            field("POD_NAME", "metadata.name"),
            field("POD_UID", "metadata.uid"),
            field("POD_NAMESPACE", "metadata.namespace"),
        ]),
        volume_mounts: Some(mounts),
        termination_message_policy: Some("File".to_owned()),
        resources: Some(resources(
            &[("cpu", "50m"), ("memory", "64Mi")],
            &[("memory", "512Mi")],
        )),
        ..own_container(inputs)
    }
}

/// What the containers with the runner's own image have in common.
fn own_container(inputs: &JobInputs<'_>) -> Container {
    Container {
        image: Some(inputs.site.runner_image.clone()),
        image_pull_policy: Some(inputs.site.runner_image_pull_policy.clone()),
        security_context: Some(confined(RUNNER_UID)),
        ..Container::default()
    }
}

fn volumes(inputs: &JobInputs<'_>) -> Vec<Volume> {
    let mut volumes = vec![
        empty("bin", "128Mi"),
        empty("sockets", "1Mi"),
        empty("scratch", "1Gi"),
        config_map(
            "plan",
            &super::job::plan_name(&inputs.plan.run.name, &digest(inputs.plan)),
            false,
        ),
        token(),
    ];
    for bench in &inputs.plan.workbenches {
        volumes.push(empty(&workspace(bench), VOLUME_SIZE));
        volumes.push(empty(&scratch(bench), VOLUME_SIZE));
    }
    volumes.extend(
        secrets(inputs)
            .iter()
            .enumerate()
            .map(|(index, name)| secret(index, name)),
    );
    volumes.extend(
        config_maps(inputs)
            .iter()
            .enumerate()
            .map(|(index, name)| config_map(&format!("config-{index}"), name, true)),
    );
    volumes
}

/// The Secrets that the plan wants and the policy still grants.
fn secrets(inputs: &JobInputs<'_>) -> BTreeSet<String> {
    let of = |endpoints: &[sopwith_crds::tool_policy::Endpoint]| -> BTreeSet<String> {
        let refs = endpoints
            .iter()
            .filter_map(|endpoint| endpoint.secret_ref.as_ref());
        refs.map(|secret| secret.name.clone()).collect()
    };
    let mut secrets = &of(&inputs.plan.llm) & &of(&inputs.policy.llm);
    let repository = inputs.plan.repository.as_ref();
    let granted = |name: &&String| {
        let mut entries = inputs.policy.git.iter();
        entries.any(|entry| {
            entry
                .secret_ref
                .as_ref()
                .is_some_and(|secret| secret.name == **name)
        })
    };
    let secret = repository.and_then(|repository| repository.secret.as_ref());
    secrets.extend(secret.filter(granted).cloned());
    secrets
}

/// The ConfigMaps of cassettes and certificate authorities.
fn config_maps(inputs: &JobInputs<'_>) -> BTreeSet<String> {
    let endpoints = inputs.plan.llm.iter();
    let names = endpoints.flat_map(|endpoint| {
        let cassette = endpoint
            .replay
            .as_ref()
            .map(|replay| &replay.cassette_ref.name);
        let authority = endpoint.ca_ref.as_ref().map(|authority| &authority.name);
        cassette.into_iter().chain(authority)
    });
    let repository = inputs.plan.repository.as_ref();
    let authority = repository.and_then(|repository| repository.ca_ref.as_ref());
    names
        .chain(authority.map(|authority| &authority.name))
        .cloned()
        .collect()
}

fn workspace(bench: &Workbench) -> String {
    format!("{}-tree", bench.name)
}

fn scratch(bench: &Workbench) -> String {
    format!("{}-tmp", bench.name)
}

/// The user and group of what runs in a run's workbenches: never the runner's, and hardly ever another run's, as the
/// kernel counts processes by user over the whole node.
fn workbench_uid(run: &str) -> i64 {
    let digest = Digest::of(run).to_string();
    let number = digest.bytes().fold(0_u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    let span = WORKBENCH_UIDS.end - WORKBENCH_UIDS.start;
    WORKBENCH_UIDS.start + i64::from(number) % span
}

fn confined(uid: i64) -> SecurityContext {
    SecurityContext {
        run_as_user: Some(uid),
        run_as_group: Some(uid),
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(words(&["ALL"])),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

fn empty(name: &str, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(limit.to_owned())),
            medium: None,
        }),
        ..Volume::default()
    }
}

/// Optional volumes let the pod start: the runner says what is missing, and goes on when it appears.
fn secret(index: usize, name: &str) -> Volume {
    Volume {
        name: format!("secret-{index}"),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            optional: Some(true),
            default_mode: Some(SECRET_MODE),
            items: None,
        }),
        ..Volume::default()
    }
}

fn config_map(volume: &str, name: &str, optional: bool) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.to_owned(),
            optional: optional.then_some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn token() -> Volume {
    let file = TOKEN_FILE
        .rsplit_once('/')
        .map_or(TOKEN_FILE, |(_, file)| file);
    Volume {
        name: "token".to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(SECRET_MODE),
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(ServiceAccountTokenProjection {
                    audience: Some(GATEWAY_AUDIENCE.to_owned()),
                    expiration_seconds: Some(TOKEN_SECONDS),
                    path: file.to_owned(),
                }),
                ..VolumeProjection::default()
            }]),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
    let of = |list: &[(&str, &str)]| {
        let quantities = list.iter();
        quantities
            .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
            .collect()
    };
    ResourceRequirements {
        requests: Some(of(requests)),
        limits: Some(of(limits)),
        claims: None,
    }
}

fn value(name: &str, text: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(text.to_owned()),
        ..EnvVar::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_keeps_its_user_and_runs_have_different_ones() {
        let uids: BTreeSet<i64> = (0..100)
            .map(|number| workbench_uid(&format!("5ee11ed0-0000-4000-8000-{number:012}")))
            .collect();
        assert!(uids.len() > 95, "{uids:?}");
        assert!(
            uids.iter()
                .all(|uid| WORKBENCH_UIDS.contains(uid) && *uid != RUNNER_UID)
        );
        assert_eq!(workbench_uid("a"), workbench_uid("a"));
    }
}
