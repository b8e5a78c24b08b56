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
    pub(crate) fn end(&self) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use rstest::rstest;
    use std::sync::atomic::AtomicUsize;

    /// A client that answers each request with this status and counts them.
    fn counting(
        status: StatusCode,
        during: impl Fn() + Clone + Send + 'static,
    ) -> (Client, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            count.fetch_add(1, Ordering::SeqCst);
            during();
            let answer = Response::builder().status(status).body(Body::empty());
            std::future::ready(answer.map_err(BoxError::from))
        });
        (Client::new(service, "demo"), sent)
    }

    fn request(method: &Method) -> Request<Body> {
        let request = Request::builder()
            .method(method)
            .uri("/api/v1/namespaces/demo/pods/one");
        request.body(Body::empty()).unwrap()
    }

    #[rstest]
    #[case::a_question(Method::GET, 1)]
    #[case::a_creation(Method::POST, 0)]
    #[case::a_replacement(Method::PUT, 0)]
    #[case::a_change(Method::PATCH, 0)]
    #[case::a_deletion(Method::DELETE, 0)]
    #[tokio::test]
    async fn who_is_not_the_leader_sends_questions_only(
        #[case] method: Method,
        #[case] expected: usize,
    ) {
        let (client, sent) = counting(StatusCode::OK, || ());
        let leadership = Leadership::always();
        let client = fenced(client, leadership.clone());
        client.send(request(&method)).await.unwrap();
        assert_eq!(sent.swap(0, Ordering::SeqCst), 1);
        leadership.end();
        let answer = client.send(request(&method)).await;
        assert_eq!(sent.load(Ordering::SeqCst), expected);
        assert_eq!(answer.is_ok(), expected == 1);
        if let Err(error) = answer {
            assert!(error.to_string().contains("not the leader"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_request_is_not_tried_again_after_the_lease() {
        let leadership = Leadership::always();
        let ending = leadership.clone();
        let (client, sent) = counting(StatusCode::SERVICE_UNAVAILABLE, move || ending.end());
        let answer = fenced(client, leadership)
            .send(request(&Method::PATCH))
            .await;
        assert!(answer.is_err());
        assert_eq!(sent.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_lease_holds_until_its_time_and_no_longer() {
        let now = clock::now();
        assert_eq!(Leadership::until(now).check(), Err(NotLeader));
        let leadership = Leadership::until(now + Duration::from_secs(60));
        assert_eq!(leadership.check(), Ok(()));
        leadership.extend(now);
        assert_eq!(
            leadership.check(),
            Ok(()),
            "an earlier answer that comes late takes nothing away"
        );
        leadership.end();
        assert_eq!(leadership.check(), Err(NotLeader));
    }
}
