//! A proxy of ours between an operator and the real API server: it notes every call, and does one fault when told to.

pub mod call;
pub mod fault;
#[cfg(test)]
mod tests;
mod watched;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use call::{Call, Count, Key};
use fault::{AtRead, AtWrite, EventKey, Fault, SLOW};
use futures::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, task::JoinSet};

/// Kills the operator, and returns when it is dead.
pub type Kill = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The connection breaks instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Cut;

type Body = BoxBody<Bytes, Cut>;

/// The proxy at work; it stops when dropped.
pub struct ApiProxy {
    /// Where it listens, as `http://127.0.0.1:…`.
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: reqwest::Client,
    server: String,
    kill: OnceLock<Kill>,
    noted: Mutex<Noted>,
    fired: watch::Sender<bool>,
}

/// A call that came by.
#[derive(Clone, Debug)]
pub struct NotedCall {
    /// Which.
    pub key: Key,
    /// What its body says, for people.
    pub says: String,
    /// HTTP status of the answer; 0 where none came.
    pub status: u16,
}

#[derive(Default)]
struct Noted {
    count: Count,
    calls: Vec<NotedCall>,
    events: HashMap<String, u32>,
    watched: Vec<(EventKey, String)>,
    fault: Option<Fault>,
    expired: HashSet<String>,
}

impl ApiProxy {
    /// A proxy before the API server of this configuration. Callers bring their own token.
    pub async fn start(config: &kube::Config, fault: Option<Fault>) -> Result<Self> {
        let mut roots = Vec::new();
        for der in config.root_cert.iter().flatten() {
            roots.push(reqwest::Certificate::from_der(der)?);
        }
        let upstream = reqwest::Client::builder()
            .tls_certs_only(roots)
            .no_proxy()
            .build()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            upstream,
            server: config.cluster_url.to_string().trim_end_matches('/').into(),
            kill: OnceLock::new(),
            noted: Mutex::new(Noted {
                fault,
                ..Noted::default()
            }),
            fired: watch::Sender::new(false),
        });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { url, shared, task })
    }

    /// How the operator is killed.
    pub fn kills_with(&self, kill: Kill) -> Result<()> {
        let set = self.shared.kill.set(kill);
        set.ok().context("the proxy knows its operator already")
    }

    /// Every call so far but watches, in the order in which they came.
    pub fn calls(&self) -> Vec<NotedCall> {
        self.shared.noted().calls.clone()
    }

    /// Every event of a watch so far, with what it says, in the order in which they came.
    pub fn watched(&self) -> Vec<(EventKey, String)> {
        self.shared.noted().watched.clone()
    }

    /// Whether the fault has happened.
    pub fn has_fired(&self) -> bool {
        *self.shared.fired.borrow()
    }

    /// Waits until the fault has happened.
    pub async fn fired(&self) {
        let mut fired = self.shared.fired.subscribe();
        // It cannot fail: `self` keeps the sender.
        let _ = fired.wait_for(|fired| *fired).await;
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(shared.clone(), request));
            // A connection that ends in an error is what the proxy is for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    let call = Call::read(head.method.as_str(), path, query, &body);
    if call.verb == "watch" {
        if shared.noted().expired.remove(&call.resource) {
            return Ok(refusal(StatusCode::GONE, "Expired"));
        }
        let answer = shared.forward(&head, body).await?;
        return Ok(watched::stream(shared, call.resource, answer));
    }
    let (place, fault) = shared.note(&call);
    match fault {
        Some(Fault::Write(_, AtWrite::KilledBefore)) => {
            shared.kill().await;
            return Err(Cut);
        }
        Some(Fault::Read(_, AtRead::Refused)) => {
            shared.fire();
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(refusal(status, "InternalError"));
        }
        Some(Fault::Read(_, AtRead::Lost)) => {
            shared.fire();
            return Err(Cut);
        }
        Some(Fault::Read(_, AtRead::Slow)) => {
            shared.fire();
            tokio::time::sleep(SLOW).await;
        }
        _ => {}
    }
    let answer = shared.forward(&head, body).await?;
    let mut response = reply(&answer);
    let bytes = answer.bytes().await.map_err(|_| Cut)?;
    shared.noted().calls[place].status = response.status().as_u16();
    match fault {
        Some(Fault::Write(_, AtWrite::KilledAfter)) => {
            shared.kill().await;
            return Err(Cut);
        }
        Some(Fault::Write(_, AtWrite::AnswerLost)) => {
            shared.fire();
            return Err(Cut);
        }
        _ => {}
    }
    *response.body_mut() = whole(bytes);
    Ok(response)
}

impl Shared {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call: its place among the calls, and the fault that is to happen at it.
    fn note(&self, call: &Call) -> (usize, Option<Fault>) {
        let mut noted = self.noted();
        let key = noted.count.next(call);
        noted.calls.push(NotedCall {
            key: key.clone(),
            says: call.says.clone(),
            status: 0,
        });
        let fault = noted.fault.take_if(|fault| match fault {
            Fault::Write(at, _) | Fault::Read(at, _) => *at == key,
            Fault::Watch(..) => false,
        });
        (noted.calls.len() - 1, fault)
    }

    /// Kills the operator. The connection goes with it, and with the connection whatever is done for it: so this is done beside.
    async fn kill(self: &Arc<Self>) {
        let shared = self.clone();
        let killing = tokio::spawn(async move {
            if let Some(kill) = shared.kill.get() {
                kill().await;
            }
            shared.fire();
        });
        let _ = killing.await;
    }

    fn fire(&self) {
        self.fired.send_replace(true);
    }

    async fn forward(
        &self,
        head: &hyper::http::request::Parts,
        body: Bytes,
    ) -> Result<reqwest::Response, Cut> {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = self
            .upstream
            .request(head.method.clone(), format!("{}{path}", self.server));
        for (name, value) in &head.headers {
            let of_connection = [
                header::HOST,
                header::CONNECTION,
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
                header::ACCEPT_ENCODING,
            ];
            if !of_connection.contains(name) {
                request = request.header(name, value);
            }
        }
        request.body(body).send().await.map_err(|_| Cut)
    }
}

/// The head of an answer, to be given a body.
fn reply(answer: &reqwest::Response) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = answer.status();
    if let Some(kind) = answer.headers().get(header::CONTENT_TYPE) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

/// A refusal as the API server words it.
fn refusal(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = Response::new(whole(failure(status, reason).to_string().into()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn failure(status: StatusCode, reason: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "code": status.as_u16(), "message": format!("{reason}: by order of a test"),
    })
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
