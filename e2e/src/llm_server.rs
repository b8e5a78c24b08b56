//! A server that speaks `OpenAI`'s chat completions over TLS with server-sent events and answers from a cassette.
//!
//! It knows nothing of steps: it finds an answer by the digest of the request's body, as recorded.

use anyhow::{Context as _, Result};
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
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

/// The key that the server asks for.
pub const API_KEY: &str = "sk-e2e-7c1f0a";

/// A server at work; it stops when dropped.
pub struct LlmServer {
    /// Its address, for `baseUrl`.
    pub base_url: String,
    /// Its certificate (PEM), for `caRef`.
    pub certificate: String,
    answered: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Answers {
    by_digest: Arc<HashMap<Digest, String>>,
    answered: Arc<AtomicUsize>,
}

impl LlmServer {
    /// Serves a cassette on an address that pods can reach.
    pub async fn start(address: IpAddr, cassette: &Cassette) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![address.to_string()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let answers = Answers {
            by_digest: Arc::new(answers(cassette)?),
            answered: Arc::default(),
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
