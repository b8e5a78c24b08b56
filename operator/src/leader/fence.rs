//! The fence: what only the leader may do asks here first.

use super::clock;
use axum::http::{Method, Request, Response};
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

/// Whether this process is the leader, as far as that can be known without asking. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// On the lease's clock, in nanoseconds.
    valid_until: Arc<AtomicU64>,
}

/// This process is not the leader, or cannot be sure of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica is not the leader now; try again")]
pub struct NotLeader;

impl Leadership {
    /// For a process that has no rival.
    pub fn always() -> Self {
        Self {
            valid_until: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    /// Until a time on the lease's clock.
    pub(super) fn until(time: Duration) -> Self {
        Self {
            valid_until: Arc::new(AtomicU64::new(nanos(time))),
        }
    }

    /// Nothing where this process is the leader now.
    pub fn check(&self) -> Result<(), NotLeader> {
        if clock::now() < self.valid_until() {
            Ok(())
        } else {
            Err(NotLeader)
        }
    }

    pub(super) fn valid_until(&self) -> Duration {
        Duration::from_nanos(self.valid_until.load(Ordering::SeqCst))
    }

    /// The lease was renewed.
    pub(super) fn extend(&self, until: Duration) {
        self.valid_until.fetch_max(nanos(until), Ordering::SeqCst);
    }

    /// The lease is over, or about to be given back.
    pub(super) fn end(&self) {
        self.valid_until.store(0, Ordering::SeqCst);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A client that sends nothing but questions unless this process is the leader. `plain` must not try again by itself:
/// each further try is checked, too.
pub fn fenced(plain: Client, leadership: Leadership) -> Client {
    let namespace = plain.default_namespace().to_owned();
    let checked = tower::service_fn(move |request: Request<Body>| {
        let (plain, leadership) = (plain.clone(), leadership.clone());
        async move {
            if !asks_only(request.method()) {
                leadership.check()?;
            }
            let answer: Response<Body> = plain.send(request).await?;
            Ok::<_, BoxError>(answer)
        }
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .service(checked);
    Client::new(service, namespace)
}

fn asks_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
