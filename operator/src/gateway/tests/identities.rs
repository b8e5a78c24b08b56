//! Claims about tokens: what they prove, and how long that is believed.

use crate::gateway::{
    Authenticator, Identity, PodIdentity, ReviewError, Reviewer, Right, auth::identity,
};
use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::UserInfo;
use rstest::rstest;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

fn user(name: &str, with_pod: bool) -> UserInfo {
    let extra = [("pod-name", "blackjack-1-x"), ("pod-uid", "pod-1")];
    let extra = extra.map(|(key, value)| {
        let key = format!("authentication.kubernetes.io/{key}");
        (key, vec![value.to_owned()])
    });
    UserInfo {
        username: Some(name.to_owned()),
        extra: with_pod.then(|| BTreeMap::from(extra)),
        ..UserInfo::default()
    }
}

#[rstest]
#[case::a_pod("system:serviceaccount:demo:default", true, true, true)]
#[case::a_token_for_somebody_else("system:serviceaccount:demo:default", true, false, false)]
#[case::a_token_without_pod("system:serviceaccount:demo:default", false, true, false)]
#[case::a_person_who_says_so("ada", true, true, false)]
fn only_a_pods_own_token_for_the_gateway_proves_a_pod(
    #[case] name: &str,
    #[case] with_pod: bool,
    #[case] for_gateway: bool,
    #[case] proven: bool,
) {
    let expected = PodIdentity {
        namespace: "demo".into(),
        name: "blackjack-1-x".into(),
        uid: "pod-1".into(),
    };
    let found = identity(user(name, with_pod), for_gateway);
    assert_eq!(found.pod, proven.then_some(expected));
    assert_eq!(found.user, name);
}

/// Accepts the token `good` and counts how often it was asked.
#[derive(Default)]
struct Counting(AtomicU32);

impl Reviewer for Counting {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let answer = match token {
            "good" => Ok(Identity::default()),
            _ => Err(ReviewError::Rejected),
        };
        Box::pin(std::future::ready(answer))
    }

    fn may<'a>(
        &'a self,
        _: &'a Identity,
        _: Right<'a>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

fn headers(value: &str) -> HeaderMap {
    let value = HeaderValue::from_str(value).unwrap();
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

#[tokio::test]
async fn a_proven_token_is_believed_for_a_while_and_a_refused_one_never() {
    let reviewer = Arc::new(Counting::default());
    let auth = Authenticator::new(reviewer.clone());
    for _ in 0..3 {
        assert!(auth.caller(&headers("Bearer good")).await.is_ok());
    }
    assert_eq!(reviewer.0.load(Ordering::Relaxed), 1);
    for _ in 0..3 {
        let refused = auth.caller(&headers("Bearer bad")).await;
        assert_eq!(refused, Err(ReviewError::Rejected));
    }
    assert_eq!(reviewer.0.load(Ordering::Relaxed), 4);
}

#[rstest]
#[case("")]
#[case("Bearer")]
#[case("Bearer ")]
#[case("Basic good")]
#[tokio::test]
async fn without_a_bearer_token_nobody_is_asked(#[case] value: &str) {
    let reviewer = Arc::new(Counting::default());
    let auth = Authenticator::new(reviewer.clone());
    let refused = auth.caller(&headers(value)).await;
    assert_eq!(refused, Err(ReviewError::NoToken));
    assert_eq!(reviewer.0.load(Ordering::Relaxed), 0);
}
