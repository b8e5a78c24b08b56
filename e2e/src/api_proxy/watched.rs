//! Watches: passed on line by line, until the one at which something is to happen.

use super::{
    Body, Cut, Shared, failure,
    fault::{AtEvent, EventKey, Fault, HELD},
    reply,
};
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Response, StatusCode, body::Frame};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where the lines of a watch go.
type Lines = mpsc::Sender<Result<Bytes, Cut>>;

/// The answer to a watch: the API server's, line by line.
pub(super) fn stream(
    shared: Arc<Shared>,
    resource: String,
    answer: reqwest::Response,
) -> Response<Body> {
    let mut response = reply(&answer);
    let (lines, passed) = mpsc::channel(16);
    tokio::spawn(pass(shared, resource, answer, lines));
    let passed = stream::unfold(passed, |mut passed| async move {
        let line = passed.recv().await?;
        Some((line.map(Frame::data), passed))
    });
    *response.body_mut() = StreamBody::new(passed).boxed();
    response
}

async fn pass(shared: Arc<Shared>, resource: String, mut answer: reqwest::Response, lines: Lines) {
    if let Some(what) = shared.at_the_beginning(&resource)
        && !happens(&shared, &resource, what, Bytes::new(), &lines).await
    {
        return;
    }
    let mut read = BytesMut::new();
    loop {
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk,
            () = lines.closed() => return,
        };
        let Ok(chunk) = chunk else {
            let _ = lines.send(Err(Cut)).await;
            return;
        };
        let Some(chunk) = chunk else { return };
        read.extend_from_slice(&chunk);
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line = read.split_to(end + 1).freeze();
            let goes_on = match shared.event(&resource, &line) {
                Some(what) => happens(&shared, &resource, what, line, &lines).await,
                None => lines.send(Ok(line)).await.is_ok(),
            };
            if !goes_on {
                return;
            }
        }
    }
}

/// What is to happen at a line, in its place. False: the watch is over.
async fn happens(
    shared: &Shared,
    resource: &str,
    what: AtEvent,
    line: Bytes,
    lines: &Lines,
) -> bool {
    shared.fire();
    match what {
        AtEvent::Held => {
            tokio::time::sleep(HELD).await;
            lines.send(Ok(line)).await.is_ok()
        }
        AtEvent::Dropped => true,
        AtEvent::Expired => {
            let status = failure(StatusCode::GONE, "Expired");
            let event = format!("{}\n", json!({ "type": "ERROR", "object": status }));
            let _ = lines.send(Ok(event.into())).await;
            false
        }
        AtEvent::Cut => {
            let half = line.slice(..line.len() / 2);
            let _ = lines.send(Ok(half)).await;
            let _ = lines.send(Err(Cut)).await;
            false
        }
        AtEvent::Relisted => {
            shared.noted().expired.insert(resource.to_owned());
            let _ = lines.send(Err(Cut)).await;
            false
        }
    }
}

impl Shared {
    /// What is to happen before the first event of a watch.
    fn at_the_beginning(&self, resource: &str) -> Option<AtEvent> {
        let beginning = EventKey {
            resource: resource.to_owned(),
            nth: 0,
        };
        self.takes(&beginning)
    }

    /// Notes an event, and says what is to happen at it.
    fn event(&self, resource: &str, line: &[u8]) -> Option<AtEvent> {
        let event: Value = serde_json::from_slice(line).ok()?;
        let kind = event["type"].as_str().unwrap_or_default();
        if !matches!(kind, "ADDED" | "MODIFIED" | "DELETED") {
            return None;
        }
        let name = event["object"]["metadata"]["name"].as_str();
        let says = format!("{kind} {}", name.unwrap_or_default());
        let mut noted = self.noted();
        let nth = noted.events.entry(resource.to_owned()).or_default();
        *nth += 1;
        let key = EventKey {
            resource: resource.to_owned(),
            nth: *nth,
        };
        noted.watched.push((key.clone(), says));
        drop(noted);
        self.takes(&key)
    }

    fn takes(&self, key: &EventKey) -> Option<AtEvent> {
        let taken = self
            .noted()
            .fault
            .take_if(|fault| matches!(fault, Fault::Watch(at, _) if at == key));
        match taken {
            Some(Fault::Watch(_, what)) => Some(what),
            _ => None,
        }
    }
}
