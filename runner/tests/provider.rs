//! Models over HTTP: the wire protocol, what is tried again, what is booked, and what never leaks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{sync::Mutex, time::Duration};

use sopwith_crds::{
    Money,
    agent_run::KeyRef,
    contract::{cassette::Key, plan::RunPlan, report::What},
    status::Usage,
    tool_policy::{Endpoint, Model},
};
use sopwith_runner::llm::{
    Ask, Llm, LlmError, Pace,
    codec::ChatMessage,
    transport::{Places, Transport, missing_secrets},
};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_partial_json, header, method, path},
};

const KEY: &str = "sk-very-secret-key";

struct Room {
    plan: RunPlan,
    places: Places,
    _folder: tempfile::TempDir,
}

/// A plan with an endpoint for each address.
fn room(addresses: &[String]) -> Room {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("provider")).unwrap();
    std::fs::write(folder.path().join("provider/key"), format!("{KEY}\n")).unwrap();
    let price = |text: &str| text.parse::<Money>().ok();
    let endpoint = |(index, address): (usize, &String)| Endpoint {
        name: format!("e{index}"),
        base_url: Some(format!("{address}/v1")),
        secret_ref: Some(KeyRef {
            name: "provider".into(),
            key: "key".into(),
        }),
        timeout_seconds: Some(2),
        idle_timeout_seconds: Some(1),
        models: vec![Model {
            name: "gpt".into(),
            aliases: vec!["strong".into()],
            context_window: Some(1000),
            max_output_tokens: Some(100),
            input_per_million: price("10"),
            output_per_million: price("30"),
            ..Model::default()
        }],
        ..Endpoint::default()
    };
    let mut plan = RunPlan {
        llm: addresses.iter().enumerate().map(endpoint).collect(),
        ..RunPlan::default()
    };
    plan.options.investment = "1".parse().unwrap();
    let places = Places {
        secrets: folder.path().to_owned(),
        config: folder.path().to_owned(),
    };
    Room {
        plan,
        places,
        _folder: folder,
    }
}

impl Room {
    fn llm(&self) -> Llm {
        let transports = self
            .plan
            .llm
            .iter()
            .map(|endpoint| Transport::of(endpoint, &self.places).unwrap())
            .collect();
        let pace = Pace {
            first: Duration::from_millis(1),
            most: Duration::from_millis(5),
            tries: 3,
        };
        Llm::new(&self.plan, transports, Usage::default()).with_pace(pace)
    }
}

fn ask() -> Ask {
    Ask {
        key: Key::default(),
        model: "strong".into(),
        messages: vec![ChatMessage::new("user", "hello")],
        temperature: None,
        max_output: None,
        schema: None,
    }
}

/// Asks; gives the answer and the statuses that were reported.
async fn asked(llm: &Llm) -> (Result<String, LlmError>, Vec<String>) {
    let told: Mutex<Vec<What>> = Mutex::default();
    let answer = llm
        .ask(&ask(), &|what| told.lock().unwrap().push(what))
        .await;
    let told = told.into_inner().unwrap();
    assert!(
        !format!("{told:?} {answer:?}").contains(KEY),
        "the key leaked"
    );
    let statuses = told.into_iter().filter_map(|what| {
        if let What::LlmRequest { status, .. } = what {
            Some(status)
        } else {
            None
        }
    });
    (answer.map(|answer| answer.content), statuses.collect())
}

fn events(text: &str) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_raw(text.to_owned(), "text/event-stream")
}

const GOOD: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n: comment\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"},\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":10}}\n\ndata: [DONE]\n\n";
const NO_USAGE: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const CUT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\n";

/// A server that gives these answers in turn, the last one from then on.
async fn server(answers: &[ResponseTemplate]) -> MockServer {
    let server = MockServer::start().await;
    for (index, answer) in answers.iter().enumerate() {
        let mock = Mock::given(method("POST"))
            .and(path("/v1/chat/completions"))
            .respond_with(answer.clone());
        let mock = if index + 1 < answers.len() {
            mock.up_to_n_times(1)
        } else {
            mock
        };
        mock.with_priority(u8::try_from(index + 1).unwrap())
            .mount(&server)
            .await;
    }
    server
}

#[tokio::test]
async fn an_answer_is_streamed_with_the_key_and_booked_as_counted() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/v1/chat/completions"))
        .and(header("authorization", format!("Bearer {KEY}").as_str()))
        .and(body_partial_json(
            serde_json::json!({"model": "gpt", "stream": true, "max_tokens": 100}),
        ))
        .respond_with(events(GOOD))
        .mount(&server)
        .await;
    let room = room(&[server.uri()]);
    let llm = room.llm();
    assert_eq!(asked(&llm).await, (Ok("Hello".into()), vec!["ok".into()]));
    // 20 × 10 + 10 × 30 millionths.
    assert_eq!(
        (llm.used().total_tokens, llm.used().cost),
        (30, "0.0005".parse().unwrap())
    );
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let whole = ResponseTemplate::new(200).set_body_json(serde_json::json!({"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}));
    let again = ResponseTemplate::new(429).insert_header("retry-after", "0");
    let slow = events(GOOD).set_delay(Duration::from_millis(1500));
    let table: [(Vec<ResponseTemplate>, Option<&str>, &[&str]); 9] = [
        (
            vec![again.clone(), ResponseTemplate::new(500), events(GOOD)],
            Some("Hello"),
            &["429", "500", "ok"],
        ),
        (
            vec![events(CUT), events(GOOD)],
            Some("Hello"),
            &["connection", "ok"],
        ),
        (vec![slow, events(GOOD)], Some("Hello"), &["timeout", "ok"]),
        (
            vec![events("data: <html>\n\n"), events(GOOD)],
            Some("Hello"),
            &["protocol", "ok"],
        ),
        (vec![whole], Some("Hello"), &["ok"]),
        (vec![again], None, &["429", "429", "429"]),
        (
            vec![ResponseTemplate::new(401).set_body_json(
                serde_json::json!({"error": {"message": format!("Incorrect API key: {KEY}")}}),
            )],
            None,
            &["401"],
        ),
        (
            vec![ResponseTemplate::new(302).insert_header("location", "http://elsewhere/")],
            None,
            &["302"],
        ),
        (
            vec![ResponseTemplate::new(503)],
            None,
            &["503", "503", "503"],
        ),
    ];
    for (answers, expected, statuses) in table {
        let server = server(&answers).await;
        let (answer, told) = asked(&room(&[server.uri()]).llm()).await;
        assert_eq!(told, statuses);
        assert_eq!(answer.ok().as_deref(), expected);
    }
}

#[tokio::test]
async fn a_pause_that_the_provider_asks_for_is_kept() {
    let server = server(&[
        ResponseTemplate::new(429).insert_header("retry-after", "1"),
        events(GOOD),
    ])
    .await;
    let begun = std::time::Instant::now();
    assert!(asked(&room(&[server.uri()]).llm()).await.0.is_ok());
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn an_answer_without_usage_or_without_end_is_booked_as_reserved_and_a_refusal_as_nothing() {
    for (answer, requests, tokens) in [
        (events(NO_USAGE), 1, true),
        (events(CUT), 3, true),
        (ResponseTemplate::new(500), 3, false),
    ] {
        let server = server(&[answer]).await;
        let room = room(&[server.uri()]);
        let llm = room.llm();
        let _ = asked(&llm).await;
        let used = llm.used();
        assert_eq!(used.llm_requests, requests);
        assert_eq!(used.output_tokens, if tokens { 100 * requests } else { 0 });
        assert_eq!(used.input_tokens > 0, tokens);
    }
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_the_first_does_not_answer() {
    let good = server(&[events(GOOD)]).await;
    // Nothing listens on the port of a server that is gone.
    let gone = { server(&[events(GOOD)]).await.uri() };
    let unauthorized = server(&[ResponseTemplate::new(403)]).await;
    let room = room(&[gone, unauthorized.uri(), good.uri()]);
    let llm = room.llm();
    let (answer, told) = asked(&llm).await;
    assert_eq!(answer, Ok("Hello".into()));
    assert_eq!(told.last().map(String::as_str), Some("ok"));
    assert!(
        told.contains(&"403".to_owned()) && told.len() > 2,
        "{told:?}"
    );
}

#[tokio::test]
async fn an_answer_cut_at_its_most_tokens_is_no_answer() {
    let server = server(&[events(&GOOD.replace("\"stop\"", "\"length\""))]).await;
    let (answer, told) = asked(&room(&[server.uri()]).llm()).await;
    assert!(matches!(answer, Err(LlmError::Incomplete(why)) if why.contains("maxOutputTokens")));
    assert_eq!(told, ["ok"]);
}

#[tokio::test]
async fn a_key_that_is_missing_or_empty_is_named_and_one_that_comes_is_found() {
    let mut room = room(&["http://127.0.0.1:1".into()]);
    assert!(missing_secrets(&room.plan.llm, &room.places).is_empty());
    room.plan.llm[0].secret_ref = Some(KeyRef {
        name: "other".into(),
        key: "key".into(),
    });
    let missing = missing_secrets(&room.plan.llm, &room.places);
    assert_eq!(
        (missing[0].name.as_str(), missing[0].key.as_str()),
        ("other", "key")
    );
    let folder = room.places.secrets.join("other");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("key"), " \n").unwrap();
    assert_eq!(missing_secrets(&room.plan.llm, &room.places).len(), 1);
    std::fs::write(folder.join("key"), "x").unwrap();
    assert!(missing_secrets(&room.plan.llm, &room.places).is_empty());
}
