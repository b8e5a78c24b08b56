//! Claims about the proxy, with a small server in the API server's place.

use super::{
    ApiProxy,
    call::{Call, Count},
    fault::{AtEvent, AtWrite, EventKey, Fault},
};
use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Method, StatusCode},
    response::IntoResponse,
    routing::any,
};
use futures::{FutureExt as _, stream};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};
use tokio::net::TcpListener;

const PODS: &str = "/api/v1/namespaces/team/pods";
const WATCH: &str = "/api/v1/namespaces/team/pods?watch=true";

/// Counts writes, and answers watches with three events.
async fn upstream() -> Result<(String, Arc<AtomicU32>)> {
    let written = Arc::new(AtomicU32::new(0));
    let answer = |State(written): State<Arc<AtomicU32>>, method: Method, uri: axum::http::Uri| async move {
        if method == Method::POST {
            written.fetch_add(1, Ordering::SeqCst);
        }
        if uri.query().is_some() {
            let events = ["a", "b", "c"].map(|name| {
                Ok::<_, Infallible>(format!(
                    "{{\"type\":\"ADDED\",\"object\":{{\"metadata\":{{\"name\":\"{name}\"}}}}}}\n"
                ))
            });
            return Body::from_stream(stream::iter(events)).into_response();
        }
        StatusCode::CREATED.into_response()
    };
    let router = Router::new()
        .fallback(any(answer))
        .with_state(written.clone());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((format!("http://{address}"), written))
}

/// What a caller saw, how often the API server was written to, and how often the operator was killed.
struct Seen {
    answers: Vec<Option<u16>>,
    written: u32,
    killed: u32,
    fired: bool,
}

async fn two_writes(fault: Option<Fault>) -> Result<Seen> {
    let (server, written) = upstream().await?;
    let proxy = proxy(&server, fault).await?;
    let killed = Arc::new(AtomicU32::new(0));
    let kills = killed.clone();
    proxy.kills_with(Arc::new(move || {
        kills.fetch_add(1, Ordering::SeqCst);
        async {}.boxed()
    }))?;
    let client = reqwest::Client::new();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = client.post(format!("{}{PODS}", proxy.url)).body("{}");
        let answer = request.send().await;
        answers.push(answer.ok().map(|answer| answer.status().as_u16()));
    }
    Ok(Seen {
        answers,
        written: written.load(Ordering::SeqCst),
        killed: killed.load(Ordering::SeqCst),
        fired: proxy.has_fired(),
    })
}

async fn proxy(server: &str, fault: Option<Fault>) -> Result<ApiProxy> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ApiProxy::start(&kube::Config::new(server.parse()?), fault).await
}

#[tokio::test]
async fn a_write_is_kept_from_the_server_or_its_answer_from_the_caller() -> Result<()> {
    let mut count = Count::default();
    let key = count.next(&Call::read("POST", PODS, "", b"{}"));
    for (what, written, killed) in [
        (AtWrite::KilledBefore, 1, 1),
        (AtWrite::KilledAfter, 2, 1),
        (AtWrite::AnswerLost, 2, 0),
    ] {
        let seen = two_writes(Some(Fault::Write(key.clone(), what))).await?;
        assert_eq!(seen.answers, [None, Some(201)], "{what:?}");
        assert_eq!((seen.written, seen.killed), (written, killed), "{what:?}");
        assert!(seen.fired, "{what:?}");
    }
    let seen = two_writes(None).await?;
    assert_eq!(seen.answers, [Some(201), Some(201)]);
    assert_eq!((seen.written, seen.killed, seen.fired), (2, 0, false));
    Ok(())
}

/// The names of the objects that a watch brought, `410` for its end by expiry, `cut` for a broken connection.
async fn watched(url: &str) -> Result<Vec<String>> {
    let answer = reqwest::get(format!("{url}{WATCH}")).await?;
    if answer.status() == StatusCode::GONE {
        return Ok(vec!["refused".into()]);
    }
    let mut answer = answer;
    let (mut text, mut cut) = (String::new(), false);
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => text.push_str(std::str::from_utf8(&chunk)?),
            Ok(None) => break,
            Err(_) => {
                cut = true;
                break;
            }
        }
    }
    let mut saw = Vec::new();
    for line in text.lines() {
        let Ok(event) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let name = event["object"]["metadata"]["name"].as_str();
        let code = event["object"]["code"]
            .as_u64()
            .map(|code| code.to_string());
        saw.push(name.map(str::to_owned).or(code).context("neither")?);
    }
    if cut {
        saw.push("cut".into());
    }
    Ok(saw)
}

#[tokio::test]
async fn a_watch_loses_expires_or_breaks_at_the_event_that_was_named() -> Result<()> {
    let second = EventKey {
        resource: "pods".into(),
        nth: 2,
    };
    for (what, first, again) in [
        (AtEvent::Held, "a b c", "a b c"),
        (AtEvent::Dropped, "a c", "a b c"),
        (AtEvent::Expired, "a 410", "a b c"),
        (AtEvent::Cut, "a cut", "a b c"),
        (AtEvent::Relisted, "a cut", "refused"),
    ] {
        let (server, _) = upstream().await?;
        let proxy = proxy(&server, Some(Fault::Watch(second.clone(), what))).await?;
        assert_eq!(watched(&proxy.url).await?.join(" "), first, "{what:?}");
        assert_eq!(watched(&proxy.url).await?.join(" "), again, "{what:?}");
        assert!(proxy.has_fired(), "{what:?}");
    }
    Ok(())
}
