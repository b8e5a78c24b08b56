//! A proxy of ours between an operator and a real S3 server, which does to its writes what networks and busy stores do.

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How long a slow write takes.
const SLOW: Duration = Duration::from_secs(2);

/// What happens to writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// Each takes long.
    Slow,
    /// Each is answered with 503, and does not arrive.
    Refusing,
    /// Each arrives, and every second one is answered with 500, as by a gateway that did not wait for the answer.
    Deaf,
    /// Each arrives twice, and the second answer is given.
    Doubling,
}

/// The proxy at work; it stops when dropped.
pub struct S3Proxy {
    /// Where it listens.
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    weather: watch::Sender<Weather>,
    struck: watch::Sender<u32>,
    writes: AtomicU32,
}

impl S3Proxy {
    /// Starts one before the server at `upstream`.
    pub async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: reqwest::Client::builder().no_proxy().build()?,
            weather: watch::Sender::new(Weather::Fair),
            struck: watch::Sender::new(0),
            writes: AtomicU32::new(0),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared, task })
    }

    /// Changes what happens to writes from now on, and counts them anew.
    pub fn turns(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
        self.shared.struck.send_replace(0);
    }

    /// To how many writes something happened since.
    pub fn struck(&self) -> u32 {
        *self.shared.struck.borrow()
    }

    /// Waits until something happened to so many writes.
    pub async fn has_struck(&self, times: u32) {
        let mut struck = self.shared.struck.subscribe();
        // It cannot fail: `self` keeps the sender.
        let _ = struck.wait_for(|struck| *struck >= times).await;
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let weather = *shared.weather.borrow();
    let nth = shared.writes.fetch_add(1, Ordering::SeqCst);
    if head.method != Method::PUT || weather == Weather::Fair {
        return shared.forward(&head, body).await;
    }
    let struck = || shared.struck.send_modify(|struck| *struck += 1);
    match weather {
        Weather::Refusing => {
            struck();
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Weather::Slow => {
            struck();
            tokio::time::sleep(SLOW).await;
            shared.forward(&head, body).await
        }
        Weather::Doubling => {
            struck();
            shared.forward(&head, body.clone()).await;
            shared.forward(&head, body).await
        }
        Weather::Deaf if nth % 2 == 0 => {
            struck();
            shared.forward(&head, body).await;
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Weather::Deaf | Weather::Fair => shared.forward(&head, body).await,
    }
}

impl Shared {
    /// Hands a request on as it is. Its signature covers the host that it was sent to, which stays.
    async fn forward(&self, head: &Parts, body: Bytes) -> Response {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.upstream);
        let mut request = self.client.request(head.method.clone(), url);
        for (name, value) in &head.headers {
            let of_connection = [
                header::CONNECTION,
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
            ];
            if !of_connection.contains(name) {
                request = request.header(name, value);
            }
        }
        let Ok(answer) = request.body(body).send().await else {
            return StatusCode::BAD_GATEWAY.into_response();
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        for (name, value) in answer.headers() {
            if *name != header::TRANSFER_ENCODING && *name != header::CONNECTION {
                response.headers_mut().insert(name, value.clone());
            }
        }
        match answer.bytes().await {
            Ok(bytes) => {
                *response.body_mut() = Body::from(bytes);
                response
            }
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
}
