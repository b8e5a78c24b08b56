//! Health and metrics over plain HTTP, for probes and Prometheus.

use crate::{kinds::Context, policy::budgets_used};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use k8s_openapi::jiff::Timestamp;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// Whether the operator works. Clones share it.
#[derive(Clone, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
    works: Arc<OnceLock<Arc<Context>>>,
}

impl Health {
    /// A follower is ready when it could take over; the leader when its caches are filled and the gateway listens.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// This replica is the leader and measures what it does. A process begins that once.
    pub fn works(&self, context: Arc<Context>) {
        // A second time cannot come: the process ends with its lease.
        let _ = self.works.set(context);
    }
}

/// `/healthz`, `/ready` and `/metrics`. A follower has no metrics: they would count what the leader counts.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    if health.ready.load(Ordering::Relaxed) {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the artifact store does not answer, or the caches are not filled yet; the log says more").into_response()
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const NOTHING: &str = "# EOF\n";
    let Some(context) = health.works.get() else {
        return ([(header::CONTENT_TYPE, TYPE)], NOTHING).into_response();
    };
    let runs = context.caches.runs.state();
    let budgets = budgets_used(context, Timestamp::now());
    let text = context
        .metrics
        .text(runs.iter().map(AsRef::as_ref), budgets.into_iter());
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
