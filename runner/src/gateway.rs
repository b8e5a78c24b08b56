//! The runner's side of the gateway: reports and blobs over TLS, or in memory for a run on this machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use reqwest::{
    Certificate, Client, Method, RequestBuilder, Response, StatusCode, redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use sopwith_crds::{
    contract::{
        Digest,
        delta::Reading,
        plan::RunIdentity,
        report::{
            Event, LaunchStart, MAX_BLOB_BYTES, Orders, Problem, ReportBatch, ReportReply, What,
        },
        snapshot::Snapshot,
    },
    status::Verdict,
};

use crate::llm::transport::chain;

/// Longest time of one call.
const CALL: Duration = Duration::from_secs(30);
/// Longest time that blobs and the start are tried again.
const PATIENCE: Duration = Duration::from_secs(600);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Another launch has taken over, or the batches do not follow each other: this launch must stop.
    #[error("the gateway says that this launch is over: {0}")]
    Superseded(String),
    /// The gateway refused the call; the same call will be refused again.
    #[error("the gateway refused: {0}")]
    Refused(String),
    /// The gateway cannot be reached now.
    #[error("the gateway cannot be reached: {0}")]
    Away(String),
    /// What came is not what was asked for.
    #[error("the gateway's answer is wrong: {0}")]
    Answer(String),
    /// The runner cannot make calls.
    #[error("{0}")]
    Setup(String),
}

/// The gateway.
#[derive(Debug, Clone)]
pub enum Gateway {
    /// In the operator.
    Http(Arc<HttpGateway>),
    /// In memory.
    Local(LocalGateway),
}

impl Gateway {
    /// What the launch begins with.
    pub async fn start(&self) -> Result<LaunchStart, GatewayError> {
        match self {
            Self::Http(http) => patiently(|| http.start()).await,
            Self::Local(local) => Ok(local.start()),
        }
    }

    /// Hands over a batch, once.
    pub async fn report(&self, batch: &ReportBatch) -> Result<ReportReply, GatewayError> {
        match self {
            Self::Http(http) => http.report(batch).await,
            Self::Local(local) => Ok(local.report(batch)),
        }
    }

    /// Stores a blob.
    pub async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), GatewayError> {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(GatewayError::Refused(format!(
                "a blob of {} bytes; {MAX_BLOB_BYTES} are the most",
                bytes.len()
            )));
        }
        match self {
            Self::Http(http) => patiently(|| http.put(digest, bytes.clone())).await,
            Self::Local(local) => {
                local.lock().blobs.insert(digest.clone(), bytes);
                Ok(())
            }
        }
    }

    /// Fetches a blob and checks it.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, GatewayError> {
        self.fetch("blobs", digest).await
    }

    /// Fetches the uploaded project that the run names, and checks it.
    pub async fn upload(&self, digest: &Digest) -> Result<Bytes, GatewayError> {
        self.fetch("uploads", digest).await
    }

    async fn fetch(&self, kind: &str, digest: &Digest) -> Result<Bytes, GatewayError> {
        let bytes = match self {
            Self::Http(http) => patiently(|| http.get(kind, digest)).await?,
            Self::Local(local) => {
                let found = local.lock().blobs.get(digest).cloned();
                found.ok_or_else(|| {
                    GatewayError::Refused(format!("there is no {digest} among the {kind}"))
                })?
            }
        };
        if Digest::of(&bytes) == *digest {
            return Ok(bytes);
        }
        Err(GatewayError::Answer(format!(
            "what came as {digest} has another digest"
        )))
    }
}

/// Tries again for as long as the gateway is away.
async fn patiently<T, F: Future<Output = Result<T, GatewayError>>>(
    call: impl FnMut() -> F,
) -> Result<T, GatewayError> {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(5))
        .with_total_delay(Some(PATIENCE))
        .without_max_times();
    call.retry(pauses)
        .when(|error| matches!(error, GatewayError::Away(_)))
        .notify(
            |error, pause| tracing::warn!(%error, seconds = pause.as_secs_f32(), "gateway away"),
        )
        .await
}

/// The gateway in the operator.
#[derive(Debug)]
pub struct HttpGateway {
    client: Client,
    base: String,
    launch: u32,
    token: PathBuf,
}

impl HttpGateway {
    /// The gateway at `url`, checked against the plan's certificate authority (PEM). The token is read for each call.
    pub fn new(
        url: &str,
        ca: &[u8],
        token: &Path,
        run: &RunIdentity,
        launch: u32,
    ) -> Result<Self, GatewayError> {
        let setup = |error: &reqwest::Error| {
            GatewayError::Setup(format!(
                "cannot set up calls to the gateway: {}",
                chain(error)
            ))
        };
        let certificates = Certificate::from_pem_bundle(ca).map_err(|error| setup(&error))?;
        let client = Client::builder()
            .tls_certs_only(certificates)
            .https_only(true)
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL)
            .build()
            .map_err(|error| setup(&error))?;
        let base = format!(
            "{}/v1/runs/{}/{}",
            url.trim_end_matches('/'),
            run.namespace,
            run.name
        );
        Ok(Self {
            client,
            base,
            launch,
            token: token.to_owned(),
        })
    }

    async fn start(&self) -> Result<LaunchStart, GatewayError> {
        let answer = self
            .call(self.request(Method::GET, &format!("launches/{}", self.launch))?)
            .await?;
        json(answer).await
    }

    async fn report(&self, batch: &ReportBatch) -> Result<ReportReply, GatewayError> {
        let request = self.request(Method::POST, &format!("launches/{}/reports", self.launch))?;
        json(self.call(request.json(batch)).await?).await
    }

    async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<(), GatewayError> {
        let request = self.request(Method::PUT, &format!("blobs/{digest}"))?;
        self.call(request.body(bytes)).await.map(|_| ())
    }

    async fn get(&self, kind: &str, digest: &Digest) -> Result<Bytes, GatewayError> {
        let answer = self
            .call(self.request(Method::GET, &format!("{kind}/{digest}"))?)
            .await?;
        if answer
            .content_length()
            .is_some_and(|length| length > MAX_BLOB_BYTES as u64)
        {
            return Err(GatewayError::Answer(format!(
                "the blob {digest} is larger than a blob may be"
            )));
        }
        answer
            .bytes()
            .await
            .map_err(|error| away(&error.without_url()))
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, GatewayError> {
        // The kubelet renews the token in place.
        let token = std::fs::read_to_string(&self.token)
            .map(|token| SecretString::from(token.trim()))
            .map_err(|error| {
                GatewayError::Away(format!("no token in {}: {error}", self.token.display()))
            })?;
        Ok(self
            .client
            .request(method, format!("{}/{path}", self.base))
            .bearer_auth(token.expose_secret()))
    }

    async fn call(&self, request: RequestBuilder) -> Result<Response, GatewayError> {
        let answer = request
            .send()
            .await
            .map_err(|error| away(&error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Problem = answer.json().await.unwrap_or_default();
        let text = format!(
            "HTTP {} {} {}",
            status.as_u16(),
            problem.reason,
            problem.message
        )
        .trim_end()
        .to_owned();
        Err(match status {
            StatusCode::CONFLICT => GatewayError::Superseded(text),
            // A token that is just being renewed, or an operator that has not seen the pod yet, passes.
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS => GatewayError::Away(text),
            status if status.is_client_error() => GatewayError::Refused(text),
            _ => GatewayError::Away(text),
        })
    }
}

async fn json<T: serde::de::DeserializeOwned>(answer: Response) -> Result<T, GatewayError> {
    let bytes = answer
        .bytes()
        .await
        .map_err(|error| away(&error.without_url()))?;
    serde_json::from_slice(&bytes).map_err(|error| GatewayError::Answer(error.to_string()))
}

fn away(error: &reqwest::Error) -> GatewayError {
    GatewayError::Away(chain(error))
}

/// A gateway in memory: for runs on this machine and for tests.
#[derive(Debug, Clone, Default)]
pub struct LocalGateway(Arc<Mutex<LocalState>>);

#[derive(Debug, Default)]
struct LocalState {
    blobs: BTreeMap<Digest, Bytes>,
    batches: Vec<ReportBatch>,
    start: LaunchStart,
    orders: Orders,
    finished: Vec<(String, Digest)>,
    recovered: Option<Digest>,
}

impl LocalState {
    /// Notes which steps are finished, and with which snapshot.
    fn note(&mut self, what: &What) {
        match what {
            What::Recovered { snapshot, .. } => self.recovered = Some(snapshot.clone()),
            What::StepInherited { step, .. } => {
                let snapshot = self.recovered.iter().cloned();
                self.finished.extend(snapshot.map(|at| (step.clone(), at)));
            }
            What::StepEnded { end } if end.verdict == Verdict::Passed => {
                self.finished.push((end.step.clone(), end.snapshot.clone()));
            }
            _ => {}
        }
    }
}

impl LocalGateway {
    /// The next launch of the same run begins with this.
    pub fn next_launch(&self, start: LaunchStart) {
        let mut state = self.lock();
        state.start = start;
        state.batches.clear();
        state.orders = Orders::default();
    }

    /// Gives orders from now on.
    pub fn order(&self, orders: Orders) {
        self.lock().orders = orders;
    }

    /// All events of the launch.
    pub fn events(&self) -> Vec<Event> {
        self.lock()
            .batches
            .iter()
            .flat_map(|batch| batch.events.clone())
            .collect()
    }

    /// The batches of the launch, signs of life left out.
    pub fn batches(&self) -> Vec<ReportBatch> {
        self.lock().batches.clone()
    }

    /// Takes a blob or an upload.
    pub fn keep(&self, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        self.lock().blobs.insert(digest.clone(), bytes);
        digest
    }

    /// All blobs.
    pub fn blobs(&self) -> Vec<(Digest, Bytes)> {
        let state = self.lock();
        let blobs = state.blobs.iter();
        blobs
            .map(|(digest, bytes)| (digest.clone(), bytes.clone()))
            .collect()
    }

    /// Every step that was finished, over all launches, with its snapshot.
    pub fn finished(&self) -> Vec<(String, Digest)> {
        self.lock().finished.clone()
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> Option<Bytes> {
        self.lock().blobs.get(digest).cloned()
    }

    /// A snapshot.
    pub fn snapshot(&self, digest: &Digest) -> Option<Snapshot> {
        let mut reading = Reading::default();
        let mut next = Some(digest.clone());
        while let Some(part) = next {
            next = reading.take(&part, &self.blob(&part)?).ok()?;
        }
        Some(reading.whole())
    }

    fn start(&self) -> LaunchStart {
        self.lock().start.clone()
    }

    fn report(&self, batch: &ReportBatch) -> ReportReply {
        let mut state = self.lock();
        let known = state
            .batches
            .iter()
            .any(|other| other.sequence == batch.sequence);
        if !batch.events.is_empty() && !known {
            batch
                .events
                .iter()
                .for_each(|event| state.note(&event.what));
            state.batches.push(batch.clone());
        }
        ReportReply {
            acknowledged: batch.sequence,
            orders: state.orders,
        }
    }

    fn lock(&self) -> MutexGuard<'_, LocalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
