//! What Job, pods and events of a launch say: how the Job stands, why it waits, and the runner's last words.

use super::pod::{INJECT, RUNNER};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStatus, Event, Pod},
};
use sopwith_crds::contract::report::LastWords;

/// How the Job of a launch stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// It is not there.
    #[default]
    Missing,
    /// It has not ended.
    Active {
        /// Whether it was told to end.
        stopping: bool,
    },
    /// It ended, whatever its outcome; all its pods have ended.
    Ended {
        /// Why, for people.
        why: String,
    },
}

impl JobState {
    /// Whether pods of it may still be at work.
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }
}

/// Why a launch does not get to work. The reasons are API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `CamelCase` word for machines.
    pub reason: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// What is seen of a launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// The Job.
    pub job: JobState,
    /// Why it does not get to work, where something stands in its way.
    pub pending: Option<Pending>,
    /// What the runner wrote at its end.
    pub last_words: Option<LastWords>,
}

/// No node takes the pod.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// An image cannot be had.
pub const IMAGE_UNAVAILABLE: &str = "ImageUnavailable";
/// A quota of the namespace is used up.
pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
/// The namespace's Pod Security level refuses the pod.
pub const POD_SECURITY_VIOLATION: &str = "PodSecurityViolation";
/// Something else refuses the pod.
pub const POD_REJECTED: &str = "PodRejected";
/// A container cannot be started.
pub const CONTAINER_NOT_STARTED: &str = "ContainerNotStarted";
/// A Secret or a key of it is missing.
pub const MISSING_SECRET: &str = "MissingSecret";

/// Puts together what is seen. `events` are the warnings about the Job, newest last.
pub fn observe(job: Option<&Job>, pods: &[&Pod], events: &[&Event]) -> Observation {
    let state = job.map_or(JobState::Missing, job_state);
    let alive = pods.iter().find(|pod| !has_ended(pod));
    let pending = if state.is_active() {
        match alive {
            Some(pod) => pod_pending(pod),
            None if pods.is_empty() => refused(events),
            None => None,
        }
    } else {
        None
    };
    Observation {
        job: state,
        pending,
        last_words: pods.iter().find_map(|pod| last_words(pod)),
    }
}

fn job_state(job: &Job) -> JobState {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ended = conditions
        .filter(|condition| condition.status == "True")
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
    match ended {
        Some(condition) => JobState::Ended {
            why: if condition.type_ == "Complete" {
                "its Job completed".to_owned()
            } else {
                format!(
                    "its Job failed: {}",
                    condition.reason.as_deref().unwrap_or("no reason given")
                )
            },
        },
        None => JobState::Active {
            stopping: job
                .spec
                .as_ref()
                .and_then(|spec| spec.active_deadline_seconds)
                == Some(0),
        },
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn pod_pending(pod: &Pod) -> Option<Pending> {
    let status = pod.status.as_ref()?;
    let unschedulable = status.conditions.iter().flatten().find(|c| {
        c.type_ == "PodScheduled"
            && c.status == "False"
            && c.reason.as_deref() == Some(UNSCHEDULABLE)
    });
    if let Some(condition) = unschedulable {
        return Some(Pending {
            reason: UNSCHEDULABLE,
            message: format!(
                "no node takes the pod: {}; free resources, or change spec.runner of a new run",
                condition
                    .message
                    .as_deref()
                    .unwrap_or("the scheduler gave no reason")
            ),
        });
    }
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
        .find_map(container_pending)
}

fn container_pending(container: &ContainerStatus) -> Option<Pending> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let detail = waiting
        .message
        .as_deref()
        .unwrap_or("the kubelet gave no detail");
    match reason {
        "ImagePullBackOff"
        | "ErrImagePull"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => Some(Pending {
            reason: IMAGE_UNAVAILABLE,
            message: format!(
                "image \"{}\" of container {} cannot be had ({reason}): {detail}; {}",
                container.image,
                container.name,
                if container.name == RUNNER || container.name == INJECT {
                    "correct the operator's --runner-image, or make it available to the nodes"
                } else {
                    "correct the image in the SopDefinition, or make it available to the nodes"
                }
            ),
        }),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "CrashLoopBackOff" => Some(Pending {
            reason: CONTAINER_NOT_STARTED,
            message: format!(
                "container {} with image \"{}\" does not start ({reason}): {detail}",
                container.name, container.image
            ),
        }),
        _ => None,
    }
}

/// The Job controller says in an event why it could not make the pod, and nowhere else.
fn refused(events: &[&Event]) -> Option<Pending> {
    let event = events
        .iter()
        .rev()
        .find(|event| event.reason.as_deref() == Some("FailedCreate"))?;
    let said = event.message.as_deref().unwrap_or("no reason given");
    let (reason, remedy) = if said.contains("exceeded quota") {
        (
            QUOTA_EXCEEDED,
            "wait until other pods end, or raise the ResourceQuota",
        )
    } else if said.contains("violates PodSecurity") {
        (
            POD_SECURITY_VIOLATION,
            "change spec.pod of the ToolPolicy, or the level of the namespace",
        )
    } else {
        (
            POD_REJECTED,
            "correct what is refused; the Job tries again by itself",
        )
    };
    Some(Pending {
        reason,
        message: format!("the pod is refused: {said}; {remedy}"),
    })
}

fn last_words(pod: &Pod) -> Option<LastWords> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let runner = statuses.iter().find(|container| container.name == RUNNER)?;
    let terminated = runner.state.as_ref()?.terminated.as_ref()?;
    serde_json::from_str(terminated.message.as_deref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use sopwith_crds::contract::report::Outcome;

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn job(conditions: &Value) -> Job {
        of(json!({"spec": {"template": {}}, "status": {"conditions": conditions}}))
    }

    fn waiting(reason: &str) -> Value {
        json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "workbench-1", "image": "nowhere/python:3", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": reason, "message": "not found"}}}]})
    }

    #[rstest]
    #[case::fresh(json!([]), JobState::Active { stopping: false })]
    #[case::complete(json!([{"type": "Complete", "status": "True"}]), JobState::Ended { why: "its Job completed".into() })]
    #[case::about_to_fail(json!([{"type": "FailureTarget", "status": "True"}]), JobState::Active { stopping: false })]
    #[case::failed(
        json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]),
        JobState::Ended { why: "its Job failed: BackoffLimitExceeded".into() }
    )]
    fn a_job_has_ended_only_when_it_says_so(#[case] conditions: Value, #[case] expected: JobState) {
        assert_eq!(observe(Some(&job(&conditions)), &[], &[]).job, expected);
    }

    #[rstest]
    #[case::image(waiting("ErrImagePull"), Some(IMAGE_UNAVAILABLE))]
    #[case::image_later(waiting("ImagePullBackOff"), Some(IMAGE_UNAVAILABLE))]
    #[case::image_name(waiting("InvalidImageName"), Some(IMAGE_UNAVAILABLE))]
    #[case::ordinary(waiting("PodInitializing"), None)]
    #[case::creating(waiting("ContainerCreating"), None)]
    #[case::crash(waiting("CrashLoopBackOff"), Some(CONTAINER_NOT_STARTED))]
    #[case::no_node(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
               "message": "0/1 nodes are available: 1 Insufficient cpu."}]}),
        Some(UNSCHEDULABLE)
    )]
    #[case::gated(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        None
    )]
    fn a_waiting_pod_has_a_typed_reason(#[case] status: Value, #[case] expected: Option<&str>) {
        let pod: Pod = of(json!({"status": status}));
        let seen = observe(Some(&job(&json!([]))), &[&pod], &[]);
        assert_eq!(seen.pending.map(|pending| pending.reason), expected);
    }

    #[test]
    fn the_message_names_container_image_and_remedy() {
        let pod: Pod = of(json!({"status": waiting("ErrImagePull")}));
        let pending = observe(Some(&job(&json!([]))), &[&pod], &[])
            .pending
            .unwrap();
        assert_eq!(
            pending.message,
            "image \"nowhere/python:3\" of container workbench-1 cannot be had (ErrImagePull): not found; correct the image \
             in the SopDefinition, or make it available to the nodes"
        );
    }

    #[rstest]
    #[case(
        "pods \"a-1-x\" is forbidden: exceeded quota: compute, requested: cpu=1",
        QUOTA_EXCEEDED
    )]
    #[case(
        "pods \"a-1-x\" is forbidden: violates PodSecurity \"restricted:latest\": x",
        POD_SECURITY_VIOLATION
    )]
    #[case("admission webhook \"x\" denied the request", POD_REJECTED)]
    fn a_refused_pod_has_a_typed_reason(#[case] message: &str, #[case] expected: &str) {
        let event: Event = of(
            json!({"metadata": {}, "involvedObject": {}, "reason": "FailedCreate", "message": message}),
        );
        let seen = observe(Some(&job(&json!([]))), &[], &[&event]);
        assert_eq!(seen.pending.unwrap().reason, expected);
        let pod: Pod = of(json!({"status": {"phase": "Running"}}));
        assert_eq!(
            observe(Some(&job(&json!([]))), &[&pod], &[&event]).pending,
            None
        );
    }

    #[test]
    fn last_words_are_read_from_the_runner_only() {
        let words = json!({"version": 1, "outcome": "Succeeded", "acknowledged": 7,
            "usage": sopwith_crds::status::Usage::default()});
        let ended = |name: &str, message: String| -> Pod {
            of(
                json!({"status": {"phase": "Succeeded", "containerStatuses": [
                {"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                 "state": {"terminated": {"exitCode": 0, "message": message}}}]}}),
            )
        };
        let pod = ended("runner", words.to_string());
        let seen = observe(Some(&job(&json!([]))), &[&pod], &[])
            .last_words
            .unwrap();
        assert_eq!((seen.outcome, seen.acknowledged), (Outcome::Succeeded, 7));
        for (name, message) in [
            ("workbench-1", words.to_string()),
            ("runner", "panicked".to_owned()),
        ] {
            let pod = ended(name, message);
            assert_eq!(
                observe(Some(&job(&json!([]))), &[&pod], &[]).last_words,
                None
            );
        }
    }
}
