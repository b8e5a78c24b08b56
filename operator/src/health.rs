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
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether the operator works. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Caches are filled, the gateway listens.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// `/healthz`, `/ready` and `/metrics`.
pub fn router(health: Health, context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/ready", get(ready).with_state(health))
        .route("/metrics", get(metrics).with_state(context))
}

async fn ready(State(health): State<Health>) -> Response {
    if health.ready.load(Ordering::Relaxed) {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "caches are not filled yet").into_response()
    }
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let runs = context.caches.runs.state();
    let budgets = budgets_used(&context, Timestamp::now());
    let text = context
        .metrics
        .text(runs.iter().map(AsRef::as_ref), budgets.into_iter());
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
