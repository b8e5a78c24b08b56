//! Tables for what is decided without IO: sequence numbers, bindings, renewals.

use crate::gateway::{
    LaunchBinding, Refusal, bind,
    certificate::{Bundle, Facts, Need, make, need},
    sequence::{NotTaken, Sender, Take, take},
};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::{SignedDuration, Timestamp},
};
use rstest::rstest;
use sopwith_crds::{
    AgentRun, AgentRunSpec, AgentRunStatus, LAUNCH_LABEL, RUN_LABEL,
    contract::{
        VERSION,
        report::{Event, Orders, ReportBatch, What},
    },
};

fn batch(sequence: u64, events: usize) -> ReportBatch {
    let event = Event {
        at: Timestamp::UNIX_EPOCH,
        what: What::SecretsFound,
    };
    ReportBatch {
        version: VERSION,
        sequence,
        events: vec![event; events],
        ..ReportBatch::default()
    }
}

#[rstest]
#[case::first(0, 1, Ok(Take::Store))]
#[case::next(4, 5, Ok(Take::Store))]
#[case::sent_again(4, 4, Ok(Take::Compare))]
#[case::sent_long_ago(4, 1, Ok(Take::Compare))]
#[case::gap(4, 6, Err(NotTaken::SequenceGap { got: 6, expected: 5 }))]
#[case::gap_at_the_start(0, 2, Err(NotTaken::SequenceGap { got: 2, expected: 1 }))]
#[case::numbers_begin_at_one(0, 0, Err(NotTaken::SequenceGap { got: 0, expected: 1 }))]
fn batches_are_taken_in_order(
    #[case] acknowledged: u64,
    #[case] sequence: u64,
    #[case] expected: Result<Take, NotTaken>,
) {
    let sender = Sender {
        current: true,
        acknowledged,
        ended: false,
    };
    assert_eq!(take(&batch(sequence, 1), 3, sender), expected);
    // A sign of life is never stored, whatever its number.
    assert_eq!(take(&batch(sequence, 0), 3, sender), Ok(Take::Alive));
}

#[test]
fn an_older_launch_is_told_to_stop() {
    let sender = Sender {
        current: false,
        acknowledged: 4,
        ended: false,
    };
    for batch in [batch(5, 1), batch(4, 1), batch(4, 0)] {
        assert_eq!(take(&batch, 3, sender), Err(NotTaken::LaunchSuperseded(3)));
    }
}

#[test]
fn nothing_follows_a_last_word_but_the_same_again() {
    let sender = Sender {
        current: true,
        acknowledged: 4,
        ended: true,
    };
    assert_eq!(take(&batch(4, 1), 3, sender), Ok(Take::Compare));
    assert_eq!(take(&batch(5, 1), 3, sender), Err(NotTaken::LaunchEnded(4)));
}

#[test]
fn another_version_is_refused() {
    let sender = Sender {
        current: true,
        acknowledged: 0,
        ended: false,
    };
    let mut other = batch(1, 1);
    other.version = VERSION + 1;
    assert_eq!(
        take(&other, 1, sender),
        Err(NotTaken::UnsupportedVersion(VERSION + 1))
    );
}

fn meta(name: &str, uid: &str, owner: Option<(&str, &str)>, launch: &str) -> ObjectMeta {
    let owner = owner.map(|(kind, uid)| OwnerReference {
        kind: kind.into(),
        uid: uid.into(),
        controller: Some(true),
        ..OwnerReference::default()
    });
    let labels = [(RUN_LABEL, "blackjack"), (LAUNCH_LABEL, launch)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("demo".into()),
        uid: Some(uid.into()),
        owner_references: owner.map(|o| vec![o]),
        labels: Some(labels.into()),
        ..ObjectMeta::default()
    }
}

fn objects() -> (AgentRun, Job, Pod) {
    let mut run = AgentRun::new("blackjack", AgentRunSpec::default());
    run.metadata.uid = Some("run-1".into());
    run.spec.sop_ref.name = "software-company".into();
    run.spec.cancel = Some(true);
    run.status = Some(AgentRunStatus {
        launch: Some(2),
        ..AgentRunStatus::default()
    });
    let job = Job {
        metadata: meta("blackjack-2", "job-2", Some(("AgentRun", "run-1")), "2"),
        ..Job::default()
    };
    let pod = Pod {
        metadata: meta("blackjack-2-x", "pod-2", Some(("Job", "job-2")), "2"),
        ..Pod::default()
    };
    (run, job, pod)
}

#[test]
fn a_pod_speaks_for_the_run_that_owns_its_job() {
    let (run, job, pod) = objects();
    let expected = LaunchBinding {
        run_uid: "run-1".into(),
        launch: 2,
        current: true,
        policy: "default".into(),
        sop: "software-company".into(),
        orders: Orders {
            suspend: false,
            cancel: true,
        },
        ..LaunchBinding::default()
    };
    assert_eq!(bind(&run, &job, &pod), Ok(expected));
}

#[rstest]
#[case::older(Some(3), false)]
#[case::newest(Some(2), true)]
#[case::ahead_of_a_stale_cache(Some(1), true)]
#[case::before_any_status(None, true)]
fn a_launch_is_current_until_a_newer_one_began(#[case] newest: Option<u32>, #[case] current: bool) {
    let (mut run, job, pod) = objects();
    run.status.as_mut().unwrap().launch = newest;
    assert_eq!(bind(&run, &job, &pod).unwrap().current, current);
}

#[rstest]
#[case::another_run_of_the_same_name(|run: &mut AgentRun, _: &mut Job, _: &mut Pod| run.metadata.uid = Some("run-0".into()))]
#[case::a_job_of_somebody_else(|_: &mut AgentRun, job: &mut Job, _: &mut Pod| job.metadata.owner_references = None)]
#[case::a_pod_of_another_job(|_: &mut AgentRun, job: &mut Job, _: &mut Pod| job.metadata.uid = Some("job-9".into()))]
#[case::a_pod_without_owner(|_: &mut AgentRun, _: &mut Job, pod: &mut Pod| pod.metadata.owner_references = None)]
#[case::a_pod_of_another_run(|_: &mut AgentRun, _: &mut Job, pod: &mut Pod| pod.metadata.labels = None)]
#[case::a_job_without_labels(|_: &mut AgentRun, job: &mut Job, _: &mut Pod| job.metadata.labels = None)]
#[case::a_job_without_launch(|_: &mut AgentRun, job: &mut Job, _: &mut Pod| drop(job.metadata.labels.as_mut().unwrap().remove(LAUNCH_LABEL)))]
#[case::a_job_that_only_says_its_launch(|_: &mut AgentRun, job: &mut Job, _: &mut Pod| drop(job.metadata.labels.as_mut().unwrap().remove(RUN_LABEL)))]
#[case::a_job_of_another_name(|_: &mut AgentRun, job: &mut Job, _: &mut Pod| job.metadata.name = Some("mine".into()))]
fn a_pod_of_something_else_is_refused(#[case] change: fn(&mut AgentRun, &mut Job, &mut Pod)) {
    let (mut run, mut job, mut pod) = objects();
    change(&mut run, &mut job, &mut pod);
    let refused = bind(&run, &job, &pod).unwrap_err();
    assert!(matches!(refused, Refusal::NotOfRun { .. }), "{refused}");
}

const DAY: i64 = 86_400;

fn facts(from: i64, to: i64, names: &[&str]) -> Facts {
    let day = |day: i64| Timestamp::from_second(day * DAY).unwrap();
    Facts {
        not_before: day(from),
        not_after: day(to),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
    }
}

#[rstest]
#[case::nothing_there(None, None, 0, Need::Both)]
#[case::fresh(Some((0, 3650)), Some((0, 300, "a")), 0, Need::Nothing)]
#[case::a_third_left(Some((0, 3650)), Some((0, 300, "a")), 199, Need::Nothing)]
#[case::less_than_a_third_left(Some((0, 3650)), Some((0, 300, "a")), 200, Need::Leaf)]
#[case::expired(Some((0, 3650)), Some((0, 300, "a")), 301, Need::Leaf)]
#[case::no_leaf(Some((0, 3650)), None, 0, Need::Leaf)]
#[case::other_name(Some((0, 3650)), Some((0, 300, "b")), 0, Need::Leaf)]
#[case::not_valid_yet(Some((0, 3650)), Some((5, 300, "a")), 0, Need::Leaf)]
#[case::outlives_its_authority(Some((0, 200)), Some((0, 300, "a")), 0, Need::Leaf)]
#[case::old_authority(Some((0, 300)), Some((0, 300, "a")), 200, Need::Both)]
#[case::no_authority(None, Some((0, 300, "a")), 0, Need::Both)]
fn certificates_are_renewed_in_time(
    #[case] ca: Option<(i64, i64)>,
    #[case] leaf: Option<(i64, i64, &str)>,
    #[case] today: i64,
    #[case] expected: Need,
) {
    let ca = ca.map(|(from, to)| facts(from, to, &[]));
    let leaf = leaf.map(|(from, to, name)| facts(from, to, &[name]));
    let now = Timestamp::from_second(today * DAY).unwrap();
    assert_eq!(
        need(ca.as_ref(), leaf.as_ref(), &["a".to_owned()], now),
        expected
    );
}

#[test]
fn what_is_made_needs_nothing_more_and_a_new_leaf_keeps_the_authority() {
    let now = Timestamp::from_second(20_000 * DAY).unwrap();
    let names = ["g.ns.svc".to_owned(), "g.ns.svc.cluster.local".to_owned()];
    let first = make(&Bundle::default(), Need::Both, &names, now).unwrap();
    let (ca, leaf) = (
        Facts::read(&first.ca_cert).unwrap(),
        Facts::read(&first.cert).unwrap(),
    );
    assert_eq!(leaf.names, names);
    assert_eq!(need(Some(&ca), Some(&leaf), &names, now), Need::Nothing);

    let later = leaf.renew_at() + SignedDuration::from_secs(1);
    assert_eq!(need(Some(&ca), Some(&leaf), &names, later), Need::Leaf);
    let second = make(&first, Need::Leaf, &names, later).unwrap();
    assert!(second.ca_cert == first.ca_cert && second.cert != first.cert);
    let leaf = Facts::read(&second.cert).unwrap();
    assert_eq!(need(Some(&ca), Some(&leaf), &names, later), Need::Nothing);
}
