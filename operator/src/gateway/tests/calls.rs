//! Claims about the calls, over TLS, against a store in a folder.

use super::listener::Running;
use crate::{
    gateway::RunRef,
    store::{BatchKey, Put, S3Options, Store},
};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use reqwest::{Method, Response, StatusCode, header::CONTENT_LENGTH};
use sopwith_crds::{
    Money,
    contract::{
        Digest, VERSION,
        report::{
            Event, LaunchStart, MAX_BATCH_BYTES, Outcome, Problem, ReportBatch, ReportReply, What,
        },
    },
    status::Usage,
};
use std::{collections::BTreeSet, pin::pin};

pub(super) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn batch(sequence: u64, tokens: u64) -> ReportBatch {
    let event = Event {
        at: Timestamp::UNIX_EPOCH,
        what: What::RoundStarted { round: 1 },
    };
    ReportBatch {
        version: VERSION,
        sequence,
        events: vec![event],
        usage: Usage {
            total_tokens: tokens,
            cost: Money::from_nanos(tokens),
            ..Usage::default()
        },
    }
}

fn last(sequence: u64, snapshot: &Digest) -> ReportBatch {
    let mut batch = batch(sequence, 0);
    batch.events[0].what = What::LaunchEnded {
        outcome: Outcome::Suspended,
        snapshot: Some(snapshot.clone()),
        failure: None,
    };
    batch
}

impl Running {
    pub(super) async fn call(
        &self,
        method: Method,
        token: &str,
        path: &str,
        body: Vec<u8>,
    ) -> Response {
        let request = self
            .client
            .request(method, self.url(path))
            .bearer_auth(token);
        request.body(body).send().await.unwrap()
    }

    pub(super) async fn get(&self, token: &str, path: &str) -> Response {
        self.call(Method::GET, token, path, Vec::new()).await
    }

    async fn report(&self, launch: u32, batch: &ReportBatch) -> Response {
        let path = format!("launches/{launch}/reports");
        let token = format!("pod:{launch}");
        let body = serde_json::to_vec(batch).unwrap();
        self.call(Method::POST, &token, &path, body).await
    }

    async fn acknowledged(&self, launch: u32, batch: &ReportBatch) -> u64 {
        let answer = self.report(launch, batch).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json::<ReportReply>().await.unwrap().acknowledged
    }

    async fn start_of(&self, launch: u32) -> LaunchStart {
        let answer = self
            .get(&format!("pod:{launch}"), &format!("launches/{launch}"))
            .await;
        answer.json().await.unwrap()
    }

    fn tokens(&self) -> u64 {
        self.ledger
            .today("demo", "default", Timestamp::now())
            .tokens
    }
}

pub(super) async fn refused(answer: Response, status: StatusCode, reason: &str) -> String {
    let got = answer.status();
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(
        (got, problem.reason.as_str()),
        (status, reason),
        "{}",
        problem.message
    );
    problem.message
}

#[tokio::test]
async fn a_batch_is_stored_once_however_often_it_is_sent() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let mut pokes = pin!(gateway.inbox.subscribe());
    for (sequence, tokens) in [(1, 10), (1, 10), (2, 25), (1, 10), (2, 25)] {
        gateway.acknowledged(1, &batch(sequence, tokens)).await;
    }
    let sequences: Vec<u64> = gateway
        .seen
        .batches
        .lock()
        .unwrap()
        .iter()
        .map(|b| b.0)
        .collect();
    assert_eq!(sequences, [1, 2]);
    assert_eq!(gateway.inbox.log("run-1").batches.len(), 2);
    assert_eq!(gateway.inbox.log("run-1").used().total_tokens, 25);
    assert_eq!(gateway.tokens(), 25);
    assert!(gateway.inbox.last_seen("run-1").is_some());
    let run = RunRef {
        namespace: "demo".into(),
        name: "blackjack".into(),
    };
    assert_eq!(pokes.next().await, Some(run));
    assert_eq!(*gateway.seen.statuses.lock().unwrap(), [200; 5]);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    gateway.acknowledged(1, &batch(2, 25)).await;
    gateway.served.abort();
    drop(gateway);

    let again = Running::start(&folder).await;
    assert_eq!(again.start_of(1).await.acknowledged, 2);
    assert_eq!(again.acknowledged(1, &batch(2, 25)).await, 2);
    assert_eq!(again.acknowledged(1, &batch(3, 30)).await, 3);
    assert_eq!(again.seen.batches.lock().unwrap().len(), 1);
    assert_eq!(again.inbox.load("run-1").await.unwrap().batches.len(), 3);
    assert_eq!(again.tokens(), 30);
}

#[tokio::test]
async fn a_gap_says_what_is_expected_and_a_number_is_never_used_twice() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    let gap = gateway.report(1, &batch(3, 20)).await;
    let message = refused(gap, StatusCode::CONFLICT, "SequenceGap").await;
    assert!(message.contains("batch 2 is expected"), "{message}");
    let other = gateway.report(1, &batch(1, 11)).await;
    refused(other, StatusCode::CONFLICT, "SequenceConflict").await;
}

#[tokio::test]
async fn a_batch_that_another_leader_stored_meanwhile_is_no_gap() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    let key = BatchKey {
        run_uid: "run-1".into(),
        launch: 1,
        pod_uid: "1".into(),
        sequence: 2,
    };
    let stored = serde_json::to_vec(&batch(2, 25)).unwrap();
    let put = gateway.store.put_batch(&key, stored.into()).await.unwrap();
    assert_eq!(put, Put::Stored);
    assert_eq!(gateway.acknowledged(1, &batch(3, 30)).await, 3);
    let log = gateway.inbox.load("run-1").await.unwrap();
    let numbers: Vec<u64> = log.batches.iter().map(|b| b.batch.sequence).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn who_is_not_the_leader_stores_and_says_nothing() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    gateway.leadership.end();
    for answer in [
        gateway.report(1, &batch(2, 25)).await,
        gateway.get("pod:1", "launches/1").await,
        gateway
            .call(Method::PUT, "pod:1", &blob(b"x"), b"x".to_vec())
            .await,
    ] {
        refused(answer, StatusCode::SERVICE_UNAVAILABLE, "NotLeader").await;
    }
    let stored = gateway.store.batches("run-1").await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(gateway.tokens(), 10);
}

#[tokio::test]
async fn a_sign_of_life_is_noted_and_not_stored() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let mut sign = batch(0, 7);
    sign.events.clear();
    assert_eq!(gateway.acknowledged(1, &sign).await, 0);
    assert!(gateway.inbox.last_seen("run-1").is_some());
    assert!(gateway.inbox.log("run-1").batches.is_empty());
    assert!(gateway.seen.batches.lock().unwrap().is_empty());
    assert_eq!(gateway.tokens(), 7);
}

#[tokio::test]
async fn a_replaced_launch_is_booked_and_refused() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    *gateway.launches.newest.lock().unwrap() = 2;
    let late = gateway.report(1, &batch(2, 40)).await;
    refused(late, StatusCode::CONFLICT, "LaunchSuperseded").await;
    assert_eq!(gateway.tokens(), 40);
    assert_eq!(gateway.inbox.log("run-1").batches.len(), 1);
    let start = gateway.start_of(2).await;
    assert_eq!((start.acknowledged, start.spent.total_tokens), (0, 40));
    let upload = gateway
        .call(Method::PUT, "pod:1", &blob(b"x"), b"x".to_vec())
        .await;
    refused(upload, StatusCode::CONFLICT, "LaunchSuperseded").await;
}

#[tokio::test]
async fn who_cannot_be_proven_is_refused() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let nobody = gateway
        .client
        .get(gateway.url("launches/1"))
        .send()
        .await
        .unwrap();
    refused(nobody, StatusCode::UNAUTHORIZED, "Unauthenticated").await;
    let cases = [
        (
            "junk",
            "launches/1",
            StatusCode::UNAUTHORIZED,
            "Unauthenticated",
        ),
        (
            "user:ada",
            "launches/1",
            StatusCode::FORBIDDEN,
            "NotARunner",
        ),
        (
            "pod:stranger",
            "launches/1",
            StatusCode::FORBIDDEN,
            "NotOfRun",
        ),
        ("pod:1", "launches/2", StatusCode::FORBIDDEN, "WrongLaunch"),
        ("pod:1", "elsewhere", StatusCode::NOT_FOUND, "NotFound"),
        (
            "pod:1",
            "blobs/xyz",
            StatusCode::BAD_REQUEST,
            "InvalidDigest",
        ),
        ("user:eve", "snapshot", StatusCode::FORBIDDEN, "Forbidden"),
        (
            "user:ada",
            "snapshot",
            StatusCode::NOT_FOUND,
            "SnapshotNotFound",
        ),
    ];
    for (token, path, status, reason) in cases {
        refused(gateway.get(token, path).await, status, reason).await;
    }
    let url = gateway.url("snapshot").replace("blackjack", "poker");
    let other = gateway
        .client
        .get(url)
        .bearer_auth("user:ada")
        .send()
        .await
        .unwrap();
    refused(other, StatusCode::NOT_FOUND, "RunNotFound").await;
}

#[tokio::test]
async fn bodies_are_bounded_and_checked() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let post = async |body| {
        gateway
            .call(Method::POST, "pod:1", "launches/1/reports", body)
            .await
    };
    let long = post(vec![b' '; MAX_BATCH_BYTES + 1]).await;
    refused(long, StatusCode::PAYLOAD_TOO_LARGE, "TooLarge").await;
    let junk = post(b"{\"version\": \"one\"}".to_vec()).await;
    refused(junk, StatusCode::BAD_REQUEST, "InvalidBatch").await;
    let mut other = batch(1, 1);
    other.version = VERSION + 1;
    let other = gateway.report(1, &other).await;
    refused(other, StatusCode::BAD_REQUEST, "UnsupportedVersion").await;
    let wrong = gateway
        .call(Method::PUT, "pod:1", &blob(b"right"), b"wrong".to_vec())
        .await;
    refused(wrong, StatusCode::UNPROCESSABLE_ENTITY, "DigestMismatch").await;
    let there = gateway
        .call(Method::HEAD, "pod:1", &blob(b"right"), Vec::new())
        .await;
    assert_eq!(there.status(), StatusCode::NOT_FOUND);
}

pub(super) fn blob(content: &[u8]) -> String {
    format!("blobs/{}", Digest::of(content))
}

#[tokio::test]
async fn a_blob_goes_up_and_comes_back_for_the_run_and_for_those_who_may_read() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let content = vec![7; 3 * 1024 * 1024];
    let path = blob(&content);
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let put = gateway
            .call(Method::PUT, "pod:1", &path, content.clone())
            .await;
        assert_eq!(put.status(), status);
    }
    for token in ["pod:1", "pod:2", "user:ada"] {
        let head = gateway.call(Method::HEAD, token, &path, Vec::new()).await;
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()[CONTENT_LENGTH], content.len().to_string());
        let got = gateway.get(token, &path).await;
        assert_eq!(got.bytes().await.unwrap(), content);
    }
    refused(
        gateway.get("user:eve", &path).await,
        StatusCode::FORBIDDEN,
        "Forbidden",
    )
    .await;
    let put = gateway.call(Method::PUT, "user:ada", &path, content).await;
    refused(put, StatusCode::FORBIDDEN, "NotARunner").await;
}

#[tokio::test]
async fn the_newest_snapshot_is_what_the_next_launch_resumes_from() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let snapshot = b"{\"version\":1}".to_vec();
    let digest = Digest::of(&snapshot);
    gateway
        .call(Method::PUT, "pod:1", &blob(&snapshot), snapshot.clone())
        .await;
    assert_eq!(gateway.start_of(1).await.snapshot, None);
    gateway.acknowledged(1, &last(1, &digest)).await;
    refused(
        gateway.report(1, &batch(2, 1)).await,
        StatusCode::CONFLICT,
        "LaunchEnded",
    )
    .await;
    *gateway.launches.newest.lock().unwrap() = 2;
    assert_eq!(gateway.start_of(2).await.snapshot, Some(digest.clone()));
    let read = gateway.get("user:ada", "snapshot").await;
    assert_eq!(read.headers()["sopwith-digest"], digest.as_str());
    assert_eq!(read.bytes().await.unwrap(), snapshot);
}

#[tokio::test]
async fn what_a_forgotten_run_left_is_kept_until_it_is_swept() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    for _ in 0..2 {
        gateway.inbox.keep(&BTreeSet::new()).await;
    }
    let kept = gateway.inbox.load("run-1").await.unwrap();
    assert_eq!(kept.batches.len(), 1);
    let store = Store::open(
        &format!("file://{}", folder.path().display()),
        &S3Options::default(),
    )
    .unwrap();
    let runs = store.runs().await.unwrap();
    assert_eq!(
        runs.iter().map(|(uid, _)| uid.as_str()).collect::<Vec<_>>(),
        ["run-1"]
    );
    for _ in 0..2 {
        store.delete_run("run-1").await.unwrap();
    }
    assert!(!folder.path().join("runs/run-1").exists());
    // What was spent stays spent.
    assert_eq!(gateway.tokens(), 10);
}

#[tokio::test]
async fn what_a_store_could_not_take_is_taken_when_it_can_and_counts_once() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    let (runs, aside) = (folder.path().join("runs"), folder.path().join("aside"));
    for tokens in [20, 30] {
        // Nothing can be written below a file: as full as a store can be.
        std::fs::rename(&runs, &aside).unwrap();
        std::fs::write(&runs, "").unwrap();
        let refused = gateway.report(1, &batch(tokens / 10, tokens)).await;
        assert!(refused.status().is_server_error(), "{}", refused.status());
        // What was spent is spent, stored or not.
        assert_eq!(gateway.tokens(), tokens);
        std::fs::remove_file(&runs).unwrap();
        std::fs::rename(&aside, &runs).unwrap();
        let acknowledged = gateway.acknowledged(1, &batch(tokens / 10, tokens)).await;
        assert_eq!(acknowledged, tokens / 10);
        assert_eq!(gateway.tokens(), tokens);
    }
    let url = format!("file://{}", folder.path().display());
    let stored = Store::open(&url, &S3Options::default()).unwrap();
    let numbers = stored.batches("run-1").await.unwrap();
    let numbers: Vec<u64> = numbers.iter().map(|b| b.batch.sequence).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[tokio::test]
async fn shutdown_lets_go_of_idle_connections_and_takes_no_more() {
    let folder = folder();
    let mut gateway = Running::start(&folder).await;
    gateway.acknowledged(1, &batch(1, 10)).await;
    gateway.stop.take().unwrap().send(()).unwrap();
    (&mut gateway.served).await.unwrap().unwrap();
    let late = gateway
        .client
        .get(gateway.url("launches/1"))
        .bearer_auth("pod:1");
    assert!(late.send().await.is_err());
}
