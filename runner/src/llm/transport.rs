//! How a request's bytes get to an endpoint and its answer's bytes back: over HTTP, or from a cassette.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use k8s_openapi::jiff::Timestamp;
use reqwest::{Certificate, Client, ClientBuilder, header, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sopwith_crds::{
    agent_run::KeyRef,
    cassette::text_of,
    contract::{
        cassette::Key,
        plan::{CONFIG_DIR, SECRETS_DIR},
    },
    tool_policy::{Endpoint, Model, Provider, ReplayMode},
};

use super::{
    address::{Auth, address, auth},
    replay::{CassetteError, Replay, Unanswered, wire},
    retry_after::retry_after,
};

/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// Where Secrets and ConfigMaps are mounted.
#[derive(Debug, Clone)]
pub struct Places {
    /// Secrets, each in a folder of its name.
    pub secrets: PathBuf,
    /// ConfigMaps, each in a folder of its name.
    pub config: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            secrets: SECRETS_DIR.into(),
            config: CONFIG_DIR.into(),
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nothing came for too long.
    #[error("no answer began within {} s", .0.as_secs())]
    Idle(Duration),
    /// The connection failed.
    #[error("{0}")]
    Connection(String),
    /// The endpoint cannot be used as it is configured.
    #[error("{0}")]
    Setup(String),
    /// A replayed request differs from the recorded one.
    #[error("{0}")]
    Difference(String),
}

impl TransportError {
    /// Whether another try can help.
    pub const fn worth_another(&self) -> bool {
        matches!(self, Self::Idle(_) | Self::Connection(_))
    }
}

/// An answer as it comes over the wire.
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// Content type, empty where there is none.
    pub content_type: String,
    /// How long the endpoint asks to wait.
    pub retry_after: Option<Duration>,
    /// Its bytes.
    pub body: BoxStream<'static, Result<Bytes, TransportError>>,
}

/// The way to an endpoint.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Over the network.
    Http(Box<Http>),
    /// From a cassette.
    Replay(Arc<Replay>),
}

impl Transport {
    /// The way to an endpoint, with certificates and cassettes from their places.
    pub fn of(endpoint: &Endpoint, places: &Places) -> Result<Self, TransportError> {
        let setup = |message: String| {
            TransportError::Setup(format!("endpoint {}: {message}", endpoint.name))
        };
        match endpoint.provider {
            Provider::Openai | Provider::Azure | Provider::Ollama | Provider::Groq => {
                Http::new(endpoint, places).map(|http| Self::Http(Box::new(http)))
            }
            Provider::Replay => {
                let named = endpoint
                    .replay
                    .as_ref()
                    .map(|replay| replay.cassette_ref.name.as_str());
                let name = named.ok_or_else(|| setup("needs the field replay".into()))?;
                let replay = cassette(&places.config.join(name))
                    .map_err(|error| setup(format!("cassette {name}: {error}")))?;
                Ok(Self::Replay(Arc::new(replay)))
            }
        }
    }

    /// A text without the endpoint's key, should it be part of it.
    pub fn masked(&self, text: &str) -> String {
        match self {
            Self::Http(http) => http.masked(text),
            Self::Replay(_) => text.to_owned(),
        }
    }

    /// Why a recorded endpoint leaves a question to the next; none where it answers, or ends the run.
    pub fn passes_on(&self, endpoint: &Endpoint, key: &Key, body: &Value) -> Option<String> {
        let Self::Replay(replay) = self else {
            return None;
        };
        match replay.look_up(key, body, mode(endpoint)) {
            Err(Unanswered::PassOn(why)) => Some(why),
            Ok(_) | Err(Unanswered::Stop(_)) => None,
        }
    }

    /// Sends a request to a model of an endpoint. `patience` is the longest time until its answer begins.
    pub async fn send(
        &self,
        key: &Key,
        (endpoint, model): (&Endpoint, &Model),
        body: &Value,
        patience: Duration,
    ) -> Result<RawAnswer, TransportError> {
        match self {
            Self::Http(http) => http.send(model, body, patience).await,
            Self::Replay(replay) => {
                let response = replay
                    .answer(key, body, mode(endpoint))
                    .map_err(|why| TransportError::Difference(why.to_string()))?;
                let (content_type, bytes) = wire(response);
                let body = stream::once(async { Ok(Bytes::from(bytes)) }).boxed();
                Ok(RawAnswer {
                    status: response.status,
                    content_type,
                    retry_after: None,
                    body,
                })
            }
        }
    }
}

fn mode(endpoint: &Endpoint) -> ReplayMode {
    let mode = endpoint.replay.as_ref().and_then(|replay| replay.mode);
    mode.unwrap_or_default()
}

/// Reads a mounted cassette: all keys of the ConfigMap in the order of their names.
fn cassette(folder: &Path) -> Result<Replay, CassetteError> {
    let unreadable = |path: &Path, error: &std::io::Error| CassetteError::Unreadable {
        name: path.display().to_string(),
        message: format!("{error}; is the ConfigMap there?"),
    };
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    // A mounted ConfigMap has its own `..data` folders beside the keys.
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| !name.to_string_lossy().starts_with(".."))
        })
        .collect();
    paths.sort();
    let mut parts = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        let name = path.file_name();
        let name = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let text = text_of(&name, &bytes)?;
        parts.push((name, text));
    }
    if parts.is_empty() {
        let message = "there is nothing in it; is the ConfigMap there?".to_owned();
        return Err(CassetteError::Unreadable {
            name: folder.display().to_string(),
            message,
        });
    }
    Replay::new(&parts)
}

/// An endpoint over HTTP.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    endpoint: Endpoint,
    key: Option<PathBuf>,
}

impl Http {
    fn new(endpoint: &Endpoint, places: &Places) -> Result<Self, TransportError> {
        let setup = |message: String| {
            TransportError::Setup(format!("endpoint {}: {message}", endpoint.name))
        };
        for model in &endpoint.models {
            address(endpoint, model).map_err(setup)?;
        }
        let mut builder = client_builder(endpoint.ca_ref.as_ref(), places).map_err(setup)?;
        let plain = |base: &String| base.starts_with("http:");
        if endpoint.ca_ref.is_none() && endpoint.base_url.as_ref().is_some_and(plain) {
            // Plain http needs no authorities, and an image may have none.
            builder = builder.tls_certs_only([]);
        }
        let client = builder
            .build()
            .map_err(|error| setup(format!("cannot set up HTTP: {}", chain(&error))))?;
        let key = endpoint
            .secret_ref
            .as_ref()
            .map(|key| file_of(&places.secrets, key));
        Ok(Self {
            client,
            endpoint: endpoint.clone(),
            key,
        })
    }

    fn masked(&self, text: &str) -> String {
        let key = self.key.as_deref().and_then(read_key);
        key.map_or_else(
            || text.to_owned(),
            |key| text.replace(key.expose_secret(), "[masked]"),
        )
    }

    async fn send(
        &self,
        model: &Model,
        body: &Value,
        patience: Duration,
    ) -> Result<RawAnswer, TransportError> {
        let url = address(&self.endpoint, model).map_err(TransportError::Setup)?;
        let mut request = self.client.post(url).json(body);
        if let Some(path) = &self.key {
            // Read for each call, so that a rotated key is used at once.
            let key = read_key(path).ok_or_else(|| {
                TransportError::Setup("the API key cannot be read from its Secret".into())
            })?;
            let (name, prefix) = match auth(self.endpoint.provider) {
                Auth::Bearer => (header::AUTHORIZATION, "Bearer "),
                Auth::ApiKey => (header::HeaderName::from_static("api-key"), ""),
            };
            let value = format!("{prefix}{}", key.expose_secret());
            let mut value = header::HeaderValue::from_str(&value).map_err(|_| {
                TransportError::Setup("the API key has characters that a header cannot have".into())
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let answer = tokio::time::timeout(patience, request.send())
            .await
            .map_err(|_| TransportError::Idle(patience))?
            .map_err(|error| connection(&error.without_url()))?;
        let retry_after = retry_after(answer.headers(), Timestamp::now());
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        Ok(RawAnswer {
            status: answer.status().as_u16(),
            content_type,
            retry_after,
            body: answer
                .bytes_stream()
                .map(|piece| piece.map_err(|error| connection(&error.without_url())))
                .boxed(),
        })
    }
}

/// An HTTP client for what is spoken to with a secret, checked against these authorities or the public ones.
pub(crate) fn client_builder(
    authorities: Option<&KeyRef>,
    places: &Places,
) -> Result<ClientBuilder, String> {
    // A redirect would carry the secret elsewhere; a proxy of the environment is nobody's decision.
    let builder = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(Policy::none())
        .no_proxy();
    let Some(ca) = authorities else {
        return Ok(builder);
    };
    let pem = std::fs::read(file_of(&places.config, ca))
        .map_err(|error| format!("caRef {}/{}: {error}", ca.name, ca.key))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| {
        format!(
            "caRef {}/{} holds no certificates: {error}",
            ca.name, ca.key
        )
    })?;
    Ok(builder.tls_certs_only(certificates))
}

fn connection(error: &reqwest::Error) -> TransportError {
    TransportError::Connection(chain(error))
}

/// An error with its causes; reqwest's own text stops at the first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn file_of(folder: &Path, reference: &KeyRef) -> PathBuf {
    folder.join(&reference.name).join(&reference.key)
}

fn read_key(path: &Path) -> Option<SecretString> {
    let text = std::fs::read_to_string(path).ok()?;
    let key = text.trim();
    (!key.is_empty()).then(|| SecretString::from(key))
}

/// Secrets and keys that endpoints need and that are not there or empty, each once.
pub fn missing_secrets(endpoints: &[Endpoint], places: &Places) -> Vec<KeyRef> {
    let mut missing: Vec<KeyRef> = Vec::new();
    for reference in endpoints
        .iter()
        .filter_map(|endpoint| endpoint.secret_ref.as_ref())
    {
        if read_key(&file_of(&places.secrets, reference)).is_none() && !missing.contains(reference)
        {
            missing.push(reference.clone());
        }
    }
    missing
}
