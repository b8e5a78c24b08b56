//! The runner's side of the gateway's protocol, over TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod tls;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use sopwith_crds::{
    contract::{
        Digest,
        plan::RunIdentity,
        report::{LaunchStart, Orders, Problem, ReportBatch, ReportReply, What},
    },
    status::Usage,
};
use sopwith_runner::{
    gateway::{Gateway, GatewayError, HttpGateway},
    report::{Reporter, Stop},
};
use tls::Answer;

fn json(status: u16, value: &impl serde::Serialize) -> Answer {
    Answer::new(
        status,
        "application/json",
        serde_json::to_vec(value).unwrap(),
    )
}

struct Room {
    folder: tempfile::TempDir,
    gateway: Gateway,
}

impl Room {
    fn token(&self) -> PathBuf {
        self.folder.path().join("token")
    }
}

async fn room(answer: impl Fn(tls::Call) -> Answer + Send + Sync + 'static) -> Room {
    let (address, certificate) = tls::serve(answer).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let run = RunIdentity {
        namespace: "demo".into(),
        name: "game".into(),
        uid: "u".into(),
    };
    let http = HttpGateway::new(&address, certificate.as_bytes(), &token, &run, 3).unwrap();
    Room {
        folder,
        gateway: Gateway::Http(Arc::new(http)),
    }
}

fn reporter(room: &Room, acknowledged: u64) -> Reporter {
    Reporter::new(
        room.gateway.clone(),
        acknowledged,
        Orders::default(),
        Arc::new(Usage::default),
    )
}

#[tokio::test]
async fn the_token_is_read_for_each_call_and_calls_name_run_and_launch() {
    let calls: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let room = room(move |call| {
        let second = call.head.contains("authorization: bearer second");
        seen.lock().unwrap().push((call.line.clone(), second));
        if call.line.starts_with("GET") {
            return json(
                200,
                &LaunchStart {
                    acknowledged: 4,
                    ..LaunchStart::default()
                },
            );
        }
        Answer::new(201, "text/plain", Vec::new())
    })
    .await;
    assert_eq!(room.gateway.start().await.unwrap().acknowledged, 4);
    std::fs::write(room.token(), "second").unwrap();
    let digest = Digest::of("x");
    room.gateway
        .put(&digest, Bytes::from_static(b"x"))
        .await
        .unwrap();
    let expected = [
        ("GET /v1/runs/demo/game/launches/3".to_owned(), false),
        (format!("PUT /v1/runs/demo/game/blobs/{digest}"), true),
    ];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_batch_is_handed_over_unchanged_until_it_is_stored() {
    let batches: Arc<Mutex<Vec<ReportBatch>>> = Arc::default();
    let seen = Arc::clone(&batches);
    let room = room(move |call| {
        let batch: ReportBatch = serde_json::from_slice(&call.body).unwrap();
        let acknowledged = batch.sequence;
        let mut seen = seen.lock().unwrap();
        seen.push(batch);
        match seen.len() {
            1 => json(
                503,
                &Problem {
                    reason: "Starting".into(),
                    message: "soon".into(),
                },
            ),
            2 => json(401, &Problem::default()),
            _ => json(
                200,
                &ReportReply {
                    acknowledged,
                    orders: Orders {
                        suspend: true,
                        cancel: false,
                    },
                },
            ),
        }
    })
    .await;
    let reporter = reporter(&room, 7);
    reporter.record([What::SecretsFound]);
    reporter.deliver().await.unwrap();
    let batches = batches.lock().unwrap();
    assert_eq!(batches.len(), 3);
    assert!(
        batches
            .iter()
            .all(|batch| *batch == batches[0] && batch.sequence == 8)
    );
    assert_eq!(
        (reporter.acknowledged(), reporter.stop()),
        (8, Some(Stop::Suspend))
    );
}

#[tokio::test]
async fn a_launch_that_was_taken_over_stops() {
    let room = room(|_| {
        json(
            409,
            &Problem {
                reason: "LaunchSuperseded".into(),
                message: "launch 4 is current".into(),
            },
        )
    })
    .await;
    let reporter = reporter(&room, 0);
    reporter.record([What::SecretsFound]);
    let refused = reporter.deliver().await.unwrap_err();
    assert_eq!(
        refused,
        GatewayError::Superseded("HTTP 409 LaunchSuperseded launch 4 is current".into())
    );
    assert_eq!(reporter.stop(), Some(Stop::Superseded));
}

#[tokio::test]
async fn signs_of_life_are_sent_while_nothing_happens() {
    let lives: Arc<Mutex<Vec<ReportBatch>>> = Arc::default();
    let seen = Arc::clone(&lives);
    let room = room(move |call| {
        let batch: ReportBatch = serde_json::from_slice(&call.body).unwrap();
        let cancel = {
            seen.lock().unwrap().push(batch.clone());
            seen.lock().unwrap().len() == 2
        };
        json(
            200,
            &ReportReply {
                acknowledged: batch.sequence,
                orders: Orders {
                    suspend: false,
                    cancel,
                },
            },
        )
    })
    .await;
    let reporter = reporter(&room, 5);
    tokio::select! {
        () = reporter.clone().live() => unreachable!("it runs until it is dropped"),
        stop = reporter.stopped() => assert_eq!(stop, Stop::Cancel),
    }
    let lives = lives.lock().unwrap();
    assert!(
        lives
            .iter()
            .all(|batch| batch.events.is_empty() && batch.sequence == 5)
    );
}

#[tokio::test]
async fn a_blob_is_checked_and_a_server_of_another_authority_is_not_trusted() {
    let room = room(|_| Answer::new(200, "application/octet-stream", b"forged".to_vec())).await;
    assert!(matches!(
        room.gateway.get(&Digest::of("x")).await,
        Err(GatewayError::Answer(_))
    ));
    let (address, _) = tls::serve(|_| Answer::new(200, "text/plain", Vec::new())).await;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()])
        .unwrap()
        .cert
        .pem();
    let run = RunIdentity::default();
    let http = HttpGateway::new(&address, other.as_bytes(), &room.token(), &run, 1).unwrap();
    let batch = ReportBatch {
        sequence: 1,
        ..ReportBatch::default()
    };
    assert!(matches!(
        Gateway::Http(Arc::new(http)).report(&batch).await,
        Err(GatewayError::Away(_))
    ));
}
