//! A server that speaks `OpenAI`'s chat completions over TLS with server-sent events and answers from a cassette.
//!
//! It knows nothing of steps: it finds an answer by the digest of the request's body, as recorded.

use anyhow::{Context as _, Result, bail};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use sopwith_crds::contract::{Digest, cassette::Cassette};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

/// The key that the server asks for.
pub const API_KEY: &str = "sk-e2e-7c1f0a";

/// Tokens of each question to a [`LlmServer::held_by`] server, and of each answer.
pub const ANSWER_TOKENS: (u64, u64) = (40, 3);

/// A server at work; it stops when dropped.
pub struct LlmServer {
    /// Its address, for `baseUrl`.
    pub base_url: String,
    /// Its certificate (PEM), for `caRef`.
    pub certificate: String,
    answered: Arc<AtomicUsize>,
    script: Script,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Answers {
    by_digest: Arc<HashMap<Digest, String>>,
    answered: Arc<AtomicUsize>,
    script: Script,
}

/// What a test holds back, and what it was asked. Questions are named by the last line of their last message.
#[derive(Clone)]
struct Script {
    answer: Option<Arc<str>>,
    held: Arc<watch::Sender<BTreeSet<String>>>,
    asked: Arc<watch::Sender<Vec<String>>>,
}

impl Script {
    fn new(answer: Option<&str>, held: BTreeSet<String>) -> Self {
        Self {
            answer: answer.map(Into::into),
            held: Arc::new(watch::Sender::new(held)),
            asked: Arc::new(watch::Sender::new(Vec::new())),
        }
    }
}

impl LlmServer {
    /// Serves a cassette on an address that pods can reach.
    pub async fn start(address: IpAddr, cassette: &Cassette) -> Result<Self> {
        let script = Script::new(None, BTreeSet::new());
        Self::serve(address, answers(cassette)?, script).await
    }

    /// Gives one answer to every question, but keeps those waiting whose last line is in `held`.
    pub async fn held_by(
        address: IpAddr,
        answer: &str,
        held: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let script = Script::new(Some(answer), held.into_iter().collect());
        Self::serve(address, HashMap::new(), script).await
    }

    /// Waits until a question was asked.
    pub async fn asked(&self, question: &str, seconds: u64) -> Result<()> {
        let mut asked = self.script.asked.subscribe();
        let there = asked.wait_for(|asked| asked.iter().any(|one| one == question));
        let waited = tokio::time::timeout(Duration::from_secs(seconds), there).await;
        if waited.is_ok_and(|there| there.is_ok()) {
            return Ok(());
        }
        let asked = self.script.asked.borrow().join(", ");
        bail!("\"{question}\" was not asked within {seconds} s, but: {asked}")
    }

    /// How often a question was asked.
    pub fn times(&self, question: &str) -> usize {
        let asked = self.script.asked.borrow();
        asked.iter().filter(|one| *one == question).count()
    }

    /// Answers a question that was held back, now and from now on.
    pub fn release(&self, question: &str) {
        self.script
            .held
            .send_if_modified(|held| held.remove(question));
    }

    async fn serve(
        address: IpAddr,
        by_digest: HashMap<Digest, String>,
        script: Script,
    ) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![address.to_string()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let answers = Answers {
            by_digest: Arc::new(by_digest),
            answered: Arc::default(),
            script,
        };
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .with_state(answers.clone());
        Ok(Self {
            base_url: format!("https://{address}:{port}/v1"),
            certificate: made.cert.pem(),
            answered: answers.answered,
            script: answers.script,
            task: tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), router)),
        })
    }

    /// How many requests were answered from the cassette.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for LlmServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}

fn answers(cassette: &Cassette) -> Result<HashMap<Digest, String>> {
    let mut answers = HashMap::new();
    for interaction in &cassette.interactions {
        let digest = interaction
            .request
            .digest
            .clone()
            .with_context(|| format!("{} has no digest", interaction.key))?;
        let content = interaction
            .response
            .content
            .clone()
            .with_context(|| format!("{} has no content", interaction.key))?;
        let usage = interaction.response.usage.unwrap_or_default();
        answers.insert(
            digest,
            events(&content, usage.prompt_tokens, usage.completion_tokens),
        );
    }
    Ok(answers)
}

/// The answer as the wire has it: pieces of the text, the reason to stop, the usage, and the end mark. The pieces are
/// of odd sizes and cut through lines, as a model's are.
fn events(content: &str, prompt_tokens: u64, completion_tokens: u64) -> String {
    let mut pieces: Vec<Value> = Vec::new();
    let characters: Vec<char> = content.chars().collect();
    for piece in characters.chunks(37) {
        let text: String = piece.iter().collect();
        pieces.push(json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }));
    }
    pieces.push(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }));
    pieces.push(json!({
        "choices": [],
        "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens }
    }));
    let mut text = String::new();
    for mut piece in pieces {
        piece["object"] = "chat.completion.chunk".into();
        text.push_str("data: ");
        text.push_str(&piece.to_string());
        text.push_str("\n\n");
    }
    text.push_str("data: [DONE]\n\n");
    text
}

async fn complete(State(answers): State<Answers>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |status: StatusCode, message: String| {
        (status, Json(json!({ "error": { "message": message } }))).into_response()
    };
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if authorization != Some(format!("Bearer {API_KEY}").as_str()) {
        return refused(StatusCode::UNAUTHORIZED, "a wrong key".into());
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return refused(StatusCode::BAD_REQUEST, "the body is no JSON".into());
    };
    if let Some(answer) = &answers.script.answer {
        return scripted(&answers, &request, answer).await;
    }
    let digest = Digest::of_json(&request);
    match answers.by_digest.get(&digest) {
        Some(events) => {
            answers.answered.fetch_add(1, Ordering::SeqCst);
            (
                [(header::CONTENT_TYPE, "text/event-stream")],
                events.clone(),
            )
                .into_response()
        }
        None => refused(
            StatusCode::NOT_FOUND,
            format!("no recorded request has the digest {digest}"),
        ),
    }
}

async fn scripted(answers: &Answers, request: &Value, answer: &str) -> Response {
    let messages = request["messages"].as_array();
    let last = messages.and_then(|messages| messages.last()?["content"].as_str());
    let question = last.and_then(|text| text.trim().lines().last());
    let question = question.unwrap_or_default().to_owned();
    answers
        .script
        .asked
        .send_modify(|asked| asked.push(question.clone()));
    let mut held = answers.script.held.subscribe();
    // The sender is in `answers`: it cannot be gone.
    let _ = held.wait_for(|held| !held.contains(&question)).await;
    answers.answered.fetch_add(1, Ordering::SeqCst);
    let (asked, answered) = ANSWER_TOKENS;
    (
        [(header::CONTENT_TYPE, "text/event-stream")],
        events(answer, asked, answered),
    )
        .into_response()
}
