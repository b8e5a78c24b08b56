//! Each fault at each provider: what is tried again, what the error says, what is booked.

use std::time::{Duration, Instant};

use crate::{
    dialect::{ALL, Dialect},
    room::{Asked, KEY, Room, ask, ask_for_json, asked},
    server::{End, Reply, Server},
};
use sopwith_crds::status::Usage;
use sopwith_runner::llm::LlmError;

/// What the room's model costs in thousandths of a thousandth of a dollar: `(input, cached, output)`.
const COUNTED: (u64, u64, u64) = (20, 8, 10);

struct Fault {
    name: &'static str,
    replies: Vec<Reply>,
    /// The statuses that are reported.
    statuses: &'static [&'static str],
    /// What the error says, where there is no answer.
    error: Option<&'static str>,
    /// How many requests are booked as counted, how many as reserved.
    booked: (u64, u64),
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn faults(dialect: Dialect) -> Vec<Fault> {
    let good = || dialect.good();
    let fault = |name, replies, statuses, error, booked| Fault {
        name,
        replies,
        statuses,
        error,
        booked,
    };
    let key = format!("wrong key {KEY}");
    vec![
        fault("none", vec![good()], &["ok"], None, (1, 0)),
        fault(
            "401",
            vec![dialect.error(401, &key)],
            &["401"],
            Some("HTTP 401: wrong key [masked]; check the key `key` of the Secret provider"),
            (0, 0),
        ),
        fault(
            "403",
            vec![dialect.error(403, "no")],
            &["403"],
            Some("of the Secret provider"),
            (0, 0),
        ),
        fault(
            "404",
            vec![dialect.error(404, "not found")],
            &["404"],
            Some("HTTP 404: not found; "),
            (0, 0),
        ),
        fault(
            "429 with Retry-After",
            vec![dialect.error(429, "slow").with("retry-after", "0"), good()],
            &["429", "ok"],
            None,
            (1, 0),
        ),
        fault(
            "429 without Retry-After",
            vec![
                dialect.error(429, "slow"),
                dialect.error(429, "slow"),
                good(),
            ],
            &["429", "429", "ok"],
            None,
            (1, 0),
        ),
        fault(
            "429 without an end",
            vec![dialect.error(429, "slow")],
            &["429", "429", "429"],
            Some("HTTP 429: slow"),
            (0, 0),
        ),
        fault(
            "429 that asks for too long",
            vec![dialect.error(429, "slow").with("retry-after", "600")],
            &["429"],
            Some("asks to wait 600 s"),
            (0, 0),
        ),
        fault(
            "500",
            vec![dialect.error(500, "oh"), good()],
            &["500", "ok"],
            None,
            (1, 0),
        ),
        fault(
            "503 that is no JSON",
            vec![Reply::new(503, "text/html", &["<html>down</html>"])],
            &["503", "503", "503"],
            Some("<html>down</html>"),
            (0, 0),
        ),
        fault(
            "a redirect",
            vec![
                dialect
                    .error(302, "moved")
                    .with("location", "http://127.0.0.1:1/"),
            ],
            &["302"],
            Some("HTTP 302"),
            (0, 0),
        ),
        fault(
            "no first byte",
            vec![Reply::mute(), good()],
            &["timeout", "ok"],
            None,
            (1, 1),
        ),
        fault(
            "silence in the middle",
            vec![dialect.begun().ending(End::Silence), good()],
            &["timeout", "ok"],
            None,
            (1, 1),
        ),
        fault(
            "an answer without an end",
            vec![dialect.begun().ending(End::Drip), good()],
            &["timeout", "ok"],
            None,
            (1, 1),
        ),
        fault(
            "a stream cut in the middle",
            vec![dialect.begun().ending(End::Cut), good()],
            &["connection", "ok"],
            None,
            (1, 1),
        ),
        fault(
            "a stream that ends without an end mark",
            vec![dialect.begun()],
            &["connection", "connection", "connection"],
            Some("the stream ended after 3 bytes of text, without an end mark"),
            (0, 3),
        ),
        fault(
            "malformed JSON",
            vec![dialect.malformed(), good()],
            &["protocol", "ok"],
            None,
            (1, 1),
        ),
        fault(
            "an error in the middle",
            vec![dialect.broken_off(), good()],
            &["protocol", "ok"],
            None,
            (1, 1),
        ),
        fault(
            "no usage",
            vec![dialect.ended("Hello", "stop", false)],
            &["ok"],
            None,
            (0, 1),
        ),
        fault(
            "a context too long",
            vec![dialect.too_long()],
            &["400"],
            Some("larger contextWindow than the 1000 of gpt"),
            (0, 0),
        ),
    ]
}

/// What the books must show: the counted requests as counted, the others at the most they could have been.
fn check_books(used: &Usage, fault: &Fault, sent: u64, name: &str) {
    let (counted, reserved) = fault.booked;
    let (input, cached, output) = COUNTED;
    let tokens = |input: u64, output: u64| counted * input + reserved * output;
    assert_eq!(used.llm_requests, fault.statuses.len() as u64, "{name}");
    assert_eq!(used.input_tokens, tokens(input, sent), "{name}");
    assert_eq!(used.output_tokens, tokens(output, 100), "{name}");
    // Millionths of a dollar.
    let price = counted * ((input - cached) * 10 + cached * 5 + output * 30)
        + reserved * (sent * 10 + 100 * 30);
    let cost = format!("{}.{:06}", price / 1_000_000, price % 1_000_000);
    assert_eq!(used.cost, cost.parse().unwrap(), "{name}");
}

async fn play(dialect: Dialect, fault: Fault) {
    let name = format!("{dialect:?}: {}", fault.name);
    let server = Server::start(&fault.replies).await;
    let room = Room::new(vec![dialect.endpoint("e".into(), &server.address)]);
    let llm = room.llm();
    let asked = asked(&llm, ask()).await;
    assert_eq!(asked.statuses, fault.statuses, "{name}: {:?}", asked.answer);
    match fault.error {
        None => assert_eq!(asked.answer.as_deref(), Ok("Hello"), "{name}"),
        Some(words) => {
            let error = asked.answer.unwrap_err().to_string();
            assert!(error.contains(words), "{name}: {error}");
        }
    }
    let calls = server.calls();
    for call in &calls {
        assert_eq!(call.line, dialect.line(), "{name}");
        let header = dialect.header(KEY);
        assert!(call.headers.contains(&header), "{name}: {:?}", call.headers);
        assert_eq!(call.body["model"], dialect.model(), "{name}");
    }
    let sent = serde_json::to_vec(&calls[0].body).unwrap().len() as u64;
    check_books(&llm.used(), &fault, sent.min(1000), &name);
}

#[tokio::test]
async fn every_fault_at_every_provider_is_survived_or_told_and_booked() {
    let mut plays = tokio::task::JoinSet::new();
    for dialect in ALL {
        for fault in faults(dialect) {
            plays.spawn(play(dialect, fault));
        }
    }
    let count = plays.len();
    while let Some(played) = plays.join_next().await {
        if let Err(error) = played {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    assert_eq!(count, 100);
}

#[tokio::test]
async fn a_refused_schema_is_told_in_words() {
    for dialect in ALL {
        let server =
            Server::start(&[dialect.schema_refused(), dialect.ended("{}", "stop", true)]).await;
        let room = Room::new(vec![dialect.endpoint("e".into(), &server.address)]);
        let llm = room.llm();
        let asked = asked(&llm, ask_for_json()).await;
        assert_eq!(asked.answer.as_deref(), Ok("{}"), "{dialect:?}");
        assert_eq!(asked.statuses, ["400", "ok"], "{dialect:?}");
        let calls = server.calls();
        let field = if dialect == Dialect::Ollama {
            "format"
        } else {
            "response_format"
        };
        assert!(calls[0].body.get(field).is_some(), "{dialect:?}");
        assert!(calls[1].body.get(field).is_none(), "{dialect:?}");
        let words = calls[1].body["messages"][1]["content"].as_str().unwrap();
        assert!(
            words.ends_with("JSON Schema, with nothing around it:\n{\"type\":\"object\"}"),
            "{words}"
        );
        // The refusal cost nothing.
        assert_eq!(llm.used().input_tokens, 20);
    }
}

#[tokio::test]
async fn a_pause_that_the_provider_asks_for_is_kept() {
    let date = || {
        let at = k8s_openapi::jiff::Timestamp::now() + Duration::from_secs(3);
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    for (name, value, least) in [
        ("retry-after", date(), 1500),
        ("retry-after", "1".to_owned(), 1000),
        ("retry-after-ms", "700".to_owned(), 700),
    ] {
        let dialect = Dialect::Openai;
        let server = Server::start(&[
            dialect.error(429, "slow").with(name, &value),
            dialect.good(),
        ])
        .await;
        let room = Room::new(vec![dialect.endpoint("e".into(), &server.address)]);
        let begun = Instant::now();
        let asked = asked(&room.llm(), ask()).await;
        assert_eq!(asked.statuses, ["429", "ok"], "{name}: {value}");
        assert!(
            begun.elapsed() >= Duration::from_millis(least),
            "{name}: {value}"
        );
    }
}

#[tokio::test]
async fn the_next_endpoint_is_asked_in_the_policys_order_whatever_it_speaks() {
    let good = Server::start(&[Dialect::Ollama.good()]).await;
    let refusing = Server::start(&[Dialect::Groq.error(403, "no")]).await;
    // Another that wants to be left alone for longer than its successor takes.
    let busy = Server::start(&[Dialect::AzureV1
        .error(429, "busy")
        .with("retry-after", "60")])
    .await;
    let small = Server::start(&[Dialect::AzureDated.too_long()]).await;
    // Nothing listens on the port of a listener that is gone.
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let room = Room::new(vec![
        Dialect::Openai.endpoint("gone".into(), &gone),
        Dialect::Groq.endpoint("refusing".into(), &refusing.address),
        Dialect::AzureV1.endpoint("busy".into(), &busy.address),
        Dialect::AzureDated.endpoint("small".into(), &small.address),
        Dialect::Ollama.endpoint("good".into(), &good.address),
    ]);
    let llm = room.llm();
    let asked = asked(&llm, ask()).await;
    assert_eq!(asked.answer.as_deref(), Ok("Hello"));
    assert_eq!(
        asked.statuses,
        [
            "connection",
            "connection",
            "connection",
            "403",
            "429",
            "400",
            "ok"
        ]
    );
    assert_eq!(
        asked.endpoints[2..],
        ["gone", "refusing", "busy", "small", "good"]
    );
    assert_eq!((llm.used().llm_errors, llm.used().total_tokens), (6, 30));
}

#[tokio::test]
async fn a_question_that_no_window_holds_is_not_asked() {
    let server = Server::start(&[Dialect::Openai.good()]).await;
    let room = Room::new(vec![Dialect::Openai.endpoint("e".into(), &server.address)]);
    let llm = room.llm();
    let mut long = ask();
    long.messages[1].content = "word ".repeat(2000);
    let Asked {
        answer, statuses, ..
    } = asked(&llm, long).await;
    let error = answer.unwrap_err();
    assert!(
        matches!(&error, LlmError::TooLong(why) if why.contains("it was not asked")),
        "{error}"
    );
    assert!(statuses.is_empty() && server.calls().is_empty());
    assert_eq!(llm.used(), Usage::default());
}

#[tokio::test]
async fn what_ollama_left_out_without_a_word_is_seen() {
    // It counts 20 tokens of a question of over 1000 bytes, whatever the question.
    let server = Server::start(&[Dialect::Ollama.good()]).await;
    let room = Room::new(vec![Dialect::Ollama.endpoint("e".into(), &server.address)]);
    let llm = room.llm();
    let mut long = ask();
    long.messages[1].content = "word ".repeat(300);
    let asked = asked(&llm, long).await;
    assert_eq!(asked.statuses, ["truncated"]);
    let error = asked.answer.unwrap_err();
    assert!(
        matches!(&error, LlmError::TooLong(why) if why.contains("left out a part without a word")),
        "{error}"
    );
    // What it counted is paid.
    assert_eq!(llm.used().input_tokens, 20);
    let body = &server.calls()[0].body;
    assert_eq!(
        (
            &body["options"]["num_ctx"],
            &body["truncate"],
            &body["shift"]
        ),
        (&1000.into(), &false.into(), &false.into())
    );
}
