//! What the gateway answers.

use super::{
    Authenticator, BatchContext, Binding, Identity, Inbox, LaunchBinding, Observer, Right, RunLog,
    RunRef,
    answer::{Failure, json},
    sequence::{NotTaken, Sender, Take, take},
    uploads,
};
use crate::{
    leader::Leadership,
    ledger::{Amount, Ledger, Origin, date_of},
    run::progress,
    store::{BatchKey, BlobWriter, Pieces, Put, RunMeta, Store, StoredBatch},
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::contract::{
    Digest,
    report::{LaunchStart, MAX_BATCH_BYTES, ReportBatch, ReportReply},
};
use std::{sync::Arc, time::Duration};

/// Longest time for a request, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The same where a project is uploaded.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Header of a snapshot: its digest.
const DIGEST_HEADER: &str = "sopwith-digest";

/// What the gateway works with. Clones share it.
#[derive(Clone)]
pub struct Gateway {
    /// Knows callers.
    pub auth: Authenticator,
    /// Knows for which run a pod speaks.
    pub binding: Arc<dyn Binding>,
    /// Says whether it may still answer.
    pub leadership: Leadership,
    /// Keeps what comes.
    pub store: Store,
    /// Shows it to the controllers.
    pub inbox: Inbox,
    /// Books what was used.
    pub ledger: Ledger,
    /// Counts.
    pub observer: Arc<dyn Observer>,
}

/// The gateway's calls, as `sopwith_crds::contract::report` describes them, and `GET …/snapshot` for people.
pub fn router(gateway: Gateway) -> Router {
    let run = "/v1/runs/{namespace}/{name}";
    Router::new()
        .route(&format!("{run}/launches/{{launch}}"), get(start))
        .route(
            &format!("{run}/launches/{{launch}}/reports"),
            axum::routing::post(report),
        )
        .route(
            &format!("{run}/blobs/{{digest}}"),
            get(get_blob).head(head_blob).put(put_blob),
        )
        .route(&format!("{run}/snapshot"), get(snapshot))
        .route(&format!("{run}/uploads/{{digest}}"), get(uploads::get))
        .route(
            "/v1/namespaces/{namespace}/uploads/{digest}",
            axum::routing::put(uploads::put),
        )
        .fallback(|| async { Failure::not_found("NotFound", "no such call") })
        .layer(middleware::from_fn_with_state(gateway.clone(), watch))
        .with_state(gateway)
}

/// Bounds the time of a request and counts its answer. Who is not the leader says nothing: neither before it has done what
/// was asked, nor after, when another leader may have read the store already.
async fn watch(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let leads = || gateway.leadership.check();
    // A project comes from wherever somebody works.
    let within = if path.starts_with("/v1/namespaces/") {
        UPLOAD_TIMEOUT
    } else {
        REQUEST_TIMEOUT
    };
    let answer = match tokio::time::timeout(within, async {
        leads()?;
        let answer = next.run(request).await;
        leads().map(|()| answer)
    })
    .await
    {
        Ok(Ok(answer)) => answer,
        Ok(Err(not_leader)) => Failure::from(not_leader).into_response(),
        Err(_) => Failure::timeout(within).into_response(),
    };
    let status = answer.status();
    gateway.observer.on_request(status.as_u16());
    if status.is_server_error() {
        tracing::warn!(%method, %path, %status, "request failed");
    } else {
        tracing::debug!(%method, %path, %status, "request answered");
    }
    answer
}

/// A runner, proven to belong to the run.
pub(super) struct Runner {
    pub(super) run: RunRef,
    pod_uid: String,
    pub(super) binding: LaunchBinding,
}

/// Whose blobs are read.
struct Reads {
    run_uid: String,
    /// The earlier run that this one begins with, where its own runner reads.
    earlier: Option<String>,
}

impl Runner {
    pub(super) fn current(self) -> Result<Self, Failure> {
        if self.binding.current {
            return Ok(self);
        }
        Err(NotTaken::LaunchSuperseded(self.binding.launch).into())
    }

    fn context(&self) -> BatchContext {
        BatchContext {
            namespace: self.run.namespace.clone(),
            environment: self.binding.environment,
            sop: self.binding.sop.clone(),
            policy: self.binding.policy.clone(),
        }
    }

    fn at(self, launch: &str) -> Result<Self, Failure> {
        if launch.parse() == Ok(self.binding.launch) {
            return Ok(self);
        }
        let own = self.binding.launch;
        Err(Failure::forbidden(
            "WrongLaunch",
            format!("the pod belongs to launch {own}, not {launch}"),
        ))
    }
}

impl Gateway {
    pub(super) async fn runner(&self, headers: &HeaderMap, run: RunRef) -> Result<Runner, Failure> {
        let who = self.auth.caller(headers).await?;
        self.bind(&who, run).await
    }

    async fn bind(&self, who: &Identity, run: RunRef) -> Result<Runner, Failure> {
        let pod = who.pod.as_ref().filter(|p| p.namespace == run.namespace);
        let Some(pod) = pod else {
            return Err(Failure::forbidden(
                "NotARunner",
                format!(
                    "the token of {} names no pod of namespace {}: only the run's own pod can do this",
                    who.user, run.namespace
                ),
            ));
        };
        let binding = self
            .binding
            .launch_of(&run.namespace, &run.name, &pod.name, &pod.uid)
            .await?;
        Ok(Runner {
            run,
            pod_uid: pod.uid.clone(),
            binding,
        })
    }

    /// What is read of a run, by its own pods and by people who may read its dossier.
    async fn reader(&self, headers: &HeaderMap, run: RunRef) -> Result<Reads, Failure> {
        let who = self.auth.caller(headers).await?;
        if who.pod.is_some()
            && let Ok(runner) = self.bind(&who, run.clone()).await
        {
            return Ok(Reads {
                run_uid: runner.binding.run_uid,
                earlier: runner.binding.earlier.filter(|_| runner.binding.current),
            });
        }
        let RunRef { namespace, name } = &run;
        let read = Right::Read {
            namespace,
            run: name,
        };
        if !self.auth.may(&who, read).await? {
            return Err(Failure::forbidden(
                "Forbidden",
                format!(
                    "{} cannot get agentruns/dossier \"{name}\" in namespace {namespace}: ask for a role that allows it",
                    who.user
                ),
            ));
        }
        Ok(Reads {
            run_uid: self.binding.run(namespace, name).await?.uid,
            earlier: None,
        })
    }

    /// Whether there is a blob, and its size. What a run reads of the one that it begins with is its own from then on: its
    /// evidence stays whole when the other's is gone.
    async fn blob(&self, reads: &Reads, digest: &Digest) -> Result<Option<u64>, Failure> {
        let uid = &reads.run_uid;
        let there = self.store.has_blob(uid, digest).await?;
        let (None, Some(earlier)) = (there, &reads.earlier) else {
            return Ok(there);
        };
        if self.store.adopt_blob(earlier, uid, digest).await? {
            return Ok(self.store.has_blob(uid, digest).await?);
        }
        Ok(None)
    }
}

type InRun<T> = Path<(String, String, T)>;

async fn start(
    State(gateway): State<Gateway>,
    Path((namespace, name, launch)): InRun<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let run = RunRef { namespace, name };
    let runner = gateway
        .runner(&headers, run)
        .await?
        .at(&launch)?
        .current()?;
    let log = gateway.inbox.load(&runner.binding.run_uid).await?;
    let launch = runner.binding.launch;
    let decisions = match progress::waiting(&log.batches) {
        Some(waiting) => {
            let (run, uid) = (&runner.run, &runner.binding.run_uid);
            let binding = &gateway.binding;
            binding
                .decided(run, uid, &waiting, Timestamp::now())
                .await?
        }
        None => Vec::new(),
    };
    Ok(json(&LaunchStart {
        snapshot: log.snapshot(),
        acknowledged: log.acknowledged(launch, &runner.pod_uid),
        spent: log.used_before(launch, &runner.pod_uid),
        tool_calls: log.called_before(launch, &runner.pod_uid),
        orders: runner.binding.orders,
        decisions,
    }))
}

async fn report(
    State(gateway): State<Gateway>,
    Path((namespace, name, launch)): InRun<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let run = RunRef { namespace, name };
    let runner = gateway.runner(&headers, run).await?.at(&launch)?;
    let bytes = to_bytes(body, MAX_BATCH_BYTES)
        .await
        .map_err(|e| Failure::body(&e, MAX_BATCH_BYTES))?;
    let batch = serde_json::from_slice(&bytes).map_err(|e| Failure::invalid_batch(&e))?;
    // A caller that hangs up must not leave a batch half taken.
    let taking = tokio::spawn(async move { gateway.take_batch(runner, batch, bytes).await });
    let reply = taking.await.map_err(|_| Failure::internal())??;
    Ok(json(&reply))
}

impl Gateway {
    /// Books, stores and shows a batch. All of it can be repeated.
    async fn take_batch(
        &self,
        runner: Runner,
        batch: ReportBatch,
        bytes: Bytes,
    ) -> Result<ReportReply, Failure> {
        let now = Timestamp::now();
        let (launch, pod) = (runner.binding.launch, runner.pod_uid.as_str());
        let turn = self.inbox.turn(&runner.binding.run_uid).await;
        let mut log = turn.load().await?;
        let known = |log: &RunLog| Sender {
            current: runner.binding.current,
            acknowledged: log.acknowledged(launch, pod),
            ended: log.ended(launch, pod),
        };
        let mut sender = known(&log);
        let mut taken = take(&batch, launch, sender);
        if matches!(taken, Err(NotTaken::SequenceGap { .. })) {
            // What is missing may have been stored by another leader after this one had read.
            log = turn.reload().await?;
            sender = known(&log);
            taken = take(&batch, launch, sender);
        }
        if !matches!(taken, Err(NotTaken::UnsupportedVersion(_))) {
            // Before anything else, and whether or not the batch is taken: money that was spent was spent.
            self.book(&runner, &batch, &log, now).await?;
            turn.seen(launch, pod, &batch.usage, now);
        }
        let orders = runner.binding.orders;
        let acknowledged = match taken? {
            Take::Alive => sender.acknowledged,
            Take::Compare => {
                self.put(&runner, &batch, bytes).await?;
                sender.acknowledged
            }
            Take::Store => {
                self.put(&runner, &batch, bytes).await?;
                self.observer.on_batch(&runner.context(), &batch);
                let sequence = batch.sequence;
                let stored = StoredBatch {
                    launch,
                    pod_uid: runner.pod_uid,
                    received_at: now,
                    batch,
                };
                turn.stored(runner.run, stored);
                sequence
            }
        };
        Ok(ReportReply {
            acknowledged,
            orders,
        })
    }

    async fn book(
        &self,
        runner: &Runner,
        batch: &ReportBatch,
        log: &RunLog,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let origin = Origin {
            run_uid: runner.binding.run_uid.clone(),
            launch: runner.binding.launch,
            pod_uid: runner.pod_uid.clone(),
        };
        let before = used_before_today(&log.batches, &origin, now);
        let (namespace, policy) = (&runner.run.namespace, &runner.binding.policy);
        let booked = self
            .ledger
            .book(namespace, policy, &origin, &batch.usage, before, now);
        Ok(booked.await?)
    }

    async fn put(&self, runner: &Runner, batch: &ReportBatch, bytes: Bytes) -> Result<(), Failure> {
        let run_uid = runner.binding.run_uid.clone();
        if batch.sequence == 1 {
            let meta = RunMeta {
                namespace: runner.run.namespace.clone(),
                name: runner.run.name.clone(),
                uid: run_uid.clone(),
            };
            self.store.put_meta(&meta).await?;
        }
        let key = BatchKey {
            run_uid,
            launch: runner.binding.launch,
            pod_uid: runner.pod_uid.clone(),
            sequence: batch.sequence,
        };
        match self.store.put_batch(&key, bytes).await? {
            Put::Stored | Put::Already => Ok(()),
            Put::Conflict => Err(NotTaken::SequenceConflict(batch.sequence).into()),
        }
    }
}

/// What a pod had reported before the day of `now` began.
fn used_before_today(batches: &[Arc<StoredBatch>], origin: &Origin, now: Timestamp) -> Amount {
    let today = date_of(now);
    batches
        .iter()
        .filter(|b| b.launch == origin.launch && b.pod_uid == origin.pod_uid)
        .filter(|b| date_of(b.received_at) < today)
        .map(|b| Amount::of(&b.batch.usage))
        .fold(Amount::default(), Amount::max)
}

async fn head_blob(
    State(gateway): State<Gateway>,
    Path((namespace, name, digest)): InRun<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let digest = parse(&digest)?;
    let reads = gateway.reader(&headers, RunRef { namespace, name }).await?;
    let size = gateway.blob(&reads, &digest).await?;
    let size = size.ok_or_else(|| Failure::blob_not_found(&digest))?;
    Ok(([(header::CONTENT_LENGTH, HeaderValue::from(size))], ()).into_response())
}

async fn get_blob(
    State(gateway): State<Gateway>,
    Path((namespace, name, digest)): InRun<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let digest = parse(&digest)?;
    let reads = gateway.reader(&headers, RunRef { namespace, name }).await?;
    if reads.earlier.is_some() {
        gateway.blob(&reads, &digest).await?;
    }
    let found = gateway.store.stream_blob(&reads.run_uid, &digest).await?;
    Ok(bytes(
        found.ok_or_else(|| Failure::blob_not_found(&digest))?,
    ))
}

/// Bytes in pieces, with their length.
pub(super) fn bytes((size, pieces): (u64, Pieces)) -> Response {
    let headers = [
        (header::CONTENT_LENGTH, HeaderValue::from(size)),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

async fn put_blob(
    State(gateway): State<Gateway>,
    Path((namespace, name, digest)): InRun<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Failure> {
    let digest = parse(&digest)?;
    let run = RunRef { namespace, name };
    let runner = gateway.runner(&headers, run).await?.current()?;
    let uid = &runner.binding.run_uid;
    let there = gateway.store.has_blob(uid, &digest).await?.is_some();
    take_body(gateway.store.blob_writer(uid, &digest)?, body).await?;
    Ok(taken(there))
}

/// The status of something that is stored now, and was or was not before.
pub(super) const fn taken(there: bool) -> StatusCode {
    if there {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    }
}

/// Stores a body as it comes.
pub(super) async fn take_body(mut writer: BlobWriter, body: Body) -> Result<(), Failure> {
    let mut pieces = body.into_data_stream();
    while let Some(piece) = pieces.next().await {
        let written = match piece {
            Ok(piece) => writer.write(piece).await.map_err(Failure::from),
            Err(e) => Err(Failure::broken_body(&e)),
        };
        if let Err(failure) = written {
            writer.abort().await;
            return Err(failure);
        }
    }
    Ok(writer.finish().await?)
}

/// The newest snapshot of a run, its digest in a header.
async fn snapshot(
    State(gateway): State<Gateway>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let run = RunRef { namespace, name };
    let uid = gateway.reader(&headers, run.clone()).await?.run_uid;
    let reported = gateway.inbox.load(&uid).await?.snapshot();
    let digest = match reported {
        Some(digest) => Some(digest),
        None => {
            gateway
                .binding
                .run(&run.namespace, &run.name)
                .await?
                .snapshot
        }
    };
    let digest = digest.ok_or_else(|| {
        Failure::not_found(
            "SnapshotNotFound",
            "the run has no snapshot yet: the first is made when its first step ends",
        )
    })?;
    let found = gateway.store.get_blob(&uid, &digest).await?;
    let bytes = found.ok_or_else(|| Failure::blob_not_found(&digest))?;
    let digest = HeaderValue::from_str(digest.as_str()).map_err(|_| Failure::internal())?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        ),
        (header::HeaderName::from_static(DIGEST_HEADER), digest),
    ];
    Ok((headers, bytes).into_response())
}

pub(super) fn parse(digest: &str) -> Result<Digest, Failure> {
    digest
        .parse()
        .map_err(|e: sopwith_crds::contract::ParseDigestError| Failure::invalid_digest(&e))
}
