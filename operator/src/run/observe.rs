//! What Job, pods and events of a launch say: how the Job stands, why it waits, and the runner's last words.

use super::pod::{INJECT, RUNNER};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ContainerStatus, Event, Pod, PodCondition},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use sopwith_crds::{STUCK_ANNOTATION, contract::report::LastWords};

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
    /// When to look again, where time alone changes what is seen.
    pub look_again: Option<Timestamp>,
    /// Whether it was told to end since a step of it was stuck.
    pub stuck: bool,
}

impl Observation {
    /// Whether a pod of the launch is on a node that does not answer: nobody knows whether it is at work.
    pub fn node_lost(&self) -> bool {
        matches!(&self.pending, Some(pending) if pending.reason == NODE_LOST)
    }
}

/// No node takes the pod.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// An image cannot be had.
pub const IMAGE_UNAVAILABLE: &str = "ImageUnavailable";
/// A quota of the namespace is used up.
pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
/// The namespace's Pod Security level refuses the pod.
pub const POD_SECURITY_VIOLATION: &str = "PodSecurityViolation";
/// Something else refuses the pod, or an object that it needs.
pub const POD_REJECTED: &str = "PodRejected";
/// A container cannot be started.
pub const CONTAINER_NOT_STARTED: &str = "ContainerNotStarted";
/// A Secret or a key of it is missing.
pub const MISSING_SECRET: &str = "MissingSecret";

/// A pod is on a node that does not answer.
pub const NODE_LOST: &str = "NodeLost";

/// How long after the end of its grace period a deleted pod may still be there: later, nobody is left who could end it.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// Puts together what is seen. `events` are the warnings about the Job, newest last.
pub fn observe(job: Option<&Job>, pods: &[&Pod], events: &[&Event], now: Timestamp) -> Observation {
    let state = job.map_or(JobState::Missing, |job| job_state(job, pods));
    let alive = pods.iter().find(|pod| !has_ended(pod));
    let overdue = alive.and_then(|pod| overdue(pod));
    let pending = if state.is_active() {
        match alive {
            Some(pod) if is_marked_unready(pod) || overdue.is_some_and(|at| at <= now) => {
                Some(node_lost(pod, job))
            }
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
        look_again: overdue.filter(|at| *at > now),
        stuck: job.is_some_and(|job| stuck(job).is_some()),
    }
}

fn job_state(job: &Job, pods: &[&Pod]) -> JobState {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ended = conditions
        .filter(|condition| condition.status == "True")
        .find(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"));
    match ended {
        Some(condition) => JobState::Ended {
            why: if let Some(stuck) = stuck(job) {
                stuck.clone()
            } else if condition.type_ == "Complete" {
                "its Job completed".to_owned()
            } else {
                let reason = condition.reason.as_deref().unwrap_or("no reason given");
                match pods.iter().find_map(|pod| death(pod)) {
                    Some(death) => format!("its Job failed: {reason}: {death}"),
                    None => format!("its Job failed: {reason}"),
                }
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

/// What a Job says that was told to end since a step of its launch was stuck.
fn stuck(job: &Job) -> Option<&String> {
    job.annotations().get(STUCK_ANNOTATION)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Why a pod ended, where more than its runner's word is known: the kubelet ended it, or the kernel its runner.
fn death(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    if let Some(reason) = &status.reason {
        let detail = status.message.as_deref().unwrap_or("no detail");
        return Some(format!("pod {name}: {reason}: {}", detail.trim()));
    }
    if let Some(condition) = condition(pod, "DisruptionTarget").filter(|c| c.status == "True") {
        let reason = condition.reason.as_deref().unwrap_or("disrupted");
        let detail = condition.message.as_deref().unwrap_or("no detail");
        return Some(format!("pod {name}: {reason}: {}", detail.trim()));
    }
    let init = status.init_container_statuses.iter().flatten();
    let ended = init.chain(status.container_statuses.iter().flatten());
    let ended = ended.filter_map(|c| Some((&c.name, c.state.as_ref()?.terminated.as_ref()?)));
    let (container, end) = ended.into_iter().find(|(_, end)| end.exit_code > 128)?;
    Some(format!(
        "container {container} of pod {name} was killed by signal {} ({})",
        end.exit_code - 128,
        end.reason.as_deref().unwrap_or("no reason given")
    ))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let status = pod.status.as_ref()?;
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Whether the control plane has marked the pod as not ready because its node does not answer. A kubelet gives a reason
/// when it says so itself; the node lifecycle controller (`MarkPodsNotReady`) only turns the status over. So no right to
/// read nodes is needed.
fn is_marked_unready(pod: &Pod) -> bool {
    let is = |kind: &str, status: &str| condition(pod, kind).filter(|c| c.status == status);
    let unexplained = |c: &PodCondition| c.reason.as_deref().unwrap_or_default().is_empty();
    is("Ready", "False").is_some_and(unexplained) && is("ContainersReady", "True").is_some()
}

/// From when on a pod that is being deleted should long have ended, its grace period included.
fn overdue(pod: &Pod) -> Option<Timestamp> {
    let deleted = pod.metadata.deletion_timestamp.as_ref()?;
    Some(deleted.0 + OVERDUE)
}

fn node_lost(pod: &Pod, job: Option<&Job>) -> Pending {
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("unknown");
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    Pending {
        reason: NODE_LOST,
        message: format!(
            "node \"{node}\" does not answer, so nobody knows whether pod {name} is still at work; the run goes on by \
             itself when the node is back, deleted, or tainted with node.kubernetes.io/out-of-service; once you know that \
             the pod is dead, begin the next launch with: kubectl -n {namespace} delete job {}",
            job.map(ResourceExt::name_any).unwrap_or_default()
        ),
    }
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
    Some(refusal("the pod", said))
}

/// Why an object that a run needs is not taken by the API server, by the server's own words.
pub fn refusal(object: &str, said: &str) -> Pending {
    let (reason, remedy) = if said.contains("exceeded quota") {
        (
            QUOTA_EXCEEDED,
            "wait until others end, or raise the ResourceQuota",
        )
    } else if said.contains("violates PodSecurity") {
        (
            POD_SECURITY_VIOLATION,
            "change spec.pod of the ToolPolicy, or the level of the namespace",
        )
    } else {
        (
            POD_REJECTED,
            "correct what is refused; it is tried again by itself",
        )
    };
    Pending {
        reason,
        message: format!("{object} is refused: {said}; {remedy}"),
    }
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

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

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
        assert_eq!(
            observe(Some(&job(&conditions)), &[], &[], NOW).job,
            expected
        );
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
        let seen = observe(Some(&job(&json!([]))), &[&pod], &[], NOW);
        assert_eq!(seen.pending.map(|pending| pending.reason), expected);
    }

    #[test]
    fn the_message_names_container_image_and_remedy() {
        let pod: Pod = of(json!({"status": waiting("ErrImagePull")}));
        let pending = observe(Some(&job(&json!([]))), &[&pod], &[], NOW)
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
        let seen = observe(Some(&job(&json!([]))), &[], &[&event], NOW);
        assert_eq!(seen.pending.unwrap().reason, expected);
        let pod: Pod = of(json!({"status": {"phase": "Running"}}));
        assert_eq!(
            observe(Some(&job(&json!([]))), &[&pod], &[&event], NOW).pending,
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
        let seen = observe(Some(&job(&json!([]))), &[&pod], &[], NOW)
            .last_words
            .unwrap();
        assert_eq!((seen.outcome, seen.acknowledged), (Outcome::Succeeded, 7));
        for (name, message) in [
            ("workbench-1", words.to_string()),
            ("runner", "panicked".to_owned()),
        ] {
            let pod = ended(name, message);
            assert_eq!(
                observe(Some(&job(&json!([]))), &[&pod], &[], NOW).last_words,
                None
            );
        }
    }

    fn conditions(ready: &str, reason: Option<&str>, containers: &str) -> Value {
        json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": ready, "reason": reason},
            {"type": "ContainersReady", "status": containers}]})
    }

    #[rstest]
    #[case::at_work(None, conditions("True", None, "True"), None, None)]
    #[case::not_ready_by_its_kubelet(
        None,
        conditions("False", Some("ContainersNotReady"), "False"),
        None,
        None
    )]
    #[case::waits_for_a_gate(
        None,
        conditions("False", Some("ReadinessGatesNotReady"), "True"),
        None,
        None
    )]
    #[case::marked_by_the_control_plane(
        None,
        conditions("False", None, "True"),
        Some(NODE_LOST),
        None
    )]
    #[case::being_deleted(Some(-10), conditions("True", None, "True"), None, Some(20))]
    #[case::should_be_gone(Some(-31), conditions("True", None, "True"), Some(NODE_LOST), None)]
    #[case::gone_with_its_node(Some(-31), json!({"phase": "Failed"}), None, None)]
    fn a_pod_whose_node_does_not_answer_is_told_from_one_that_ends(
        #[case] deleted: Option<i64>,
        #[case] status: Value,
        #[case] expected: Option<&str>,
        #[case] look_again: Option<i64>,
    ) {
        let mut pod: Pod = of(json!({
            "metadata": {"name": "a-1-x", "namespace": "demo"}, "spec": {"containers": [], "nodeName": "n1"}, "status": status
        }));
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        pod.metadata.deletion_timestamp =
            deleted.map(|second| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
        let mut job = job(&json!([]));
        job.metadata.name = Some("a-1".to_owned());
        let seen = observe(Some(&job), &[&pod], &[], NOW);
        assert_eq!(seen.node_lost(), expected.is_some());
        assert_eq!(seen.look_again, look_again.map(at));
        let pending = seen.pending;
        assert_eq!(pending.as_ref().map(|p| p.reason), expected);
        if let Some(pending) = pending {
            assert!(pending.message.contains("node \"n1\""), "{pending:?}");
            assert!(
                pending.message.ends_with("kubectl -n demo delete job a-1"),
                "{pending:?}"
            );
        }
    }

    #[rstest]
    #[case::evicted(
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}),
        "pod a-1-x: Evicted: The node was low on resource: memory."
    )]
    #[case::disrupted(
        json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
               "message": "Eviction API: evicting"}]}),
        "pod a-1-x: EvictionByEvictionAPI: Eviction API: evicting"
    )]
    #[case::out_of_memory(
        json!({"phase": "Failed", "containerStatuses": [{"name": "runner", "image": "", "imageID": "", "ready": false,
               "restartCount": 0, "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}),
        "container runner of pod a-1-x was killed by signal 9 (OOMKilled)"
    )]
    fn a_lost_launch_says_how_its_pod_ended(#[case] status: Value, #[case] expected: &str) {
        let pod: Pod = of(json!({"metadata": {"name": "a-1-x"}, "status": status}));
        let failed =
            json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]);
        let why = format!("its Job failed: BackoffLimitExceeded: {expected}");
        assert_eq!(
            observe(Some(&job(&failed)), &[&pod], &[], NOW).job,
            JobState::Ended { why }
        );
    }
}
