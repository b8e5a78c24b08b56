//! Good answers, and those that are outcomes of their own.

use sopwith_crds::agent_run::KeyRef;
use sopwith_runner::llm::{LlmError, transport::missing_secrets};

use crate::{
    dialect::{ALL, Dialect},
    room::{Room, ask, ask_for_json, asked},
    server::{Reply, Server},
};

#[tokio::test]
async fn cached_and_thinking_tokens_are_counted_where_the_provider_tells() {
    for dialect in ALL {
        let server = Server::start(&[dialect.good()]).await;
        let room = Room::new(vec![dialect.endpoint("e".into(), &server.address)]);
        let asked = asked(&room.llm(), ask()).await;
        let reasoning = if dialect == Dialect::Ollama { 0 } else { 4 };
        assert_eq!(
            (asked.cached, asked.reasoning),
            (8, reasoning),
            "{dialect:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_not_waited_for_by_the_idle_time() {
    // Groq gives no stream of an answer with a schema; the idle time of 1 s must not end it, the total of 2 s does.
    let server = Server::start(&[Reply::mute()]).await;
    let mut room = Room::new(vec![Dialect::Groq.endpoint("e".into(), &server.address)]);
    room.plan.llm[0].timeout_seconds = Some(2);
    room.plan.llm[0].idle_timeout_seconds = Some(1);
    let begun = std::time::Instant::now();
    let asked = asked(&room.llm(), ask_for_json()).await;
    assert_eq!(asked.statuses, ["timeout", "timeout", "timeout"]);
    assert!(
        begun.elapsed().as_millis() >= 3 * 1900,
        "{:?}",
        begun.elapsed()
    );
    assert!(server.calls()[0].body.get("stream").is_none());
}

#[tokio::test]
async fn an_answer_cut_at_its_most_tokens_is_continued() {
    for dialect in ALL {
        let server = Server::start(&[
            dialect.ended("{'a':", "length", true),
            dialect.ended(" 1, ", "length", true),
            dialect.ended("'b': 2}", "stop", true),
        ])
        .await;
        let room = Room::new(vec![dialect.endpoint("e".into(), &server.address)]);
        let llm = room.llm();
        let asked = asked(&llm, ask_for_json()).await;
        assert_eq!(
            asked.answer.as_deref(),
            Ok("{'a': 1, 'b': 2}"),
            "{dialect:?}"
        );
        // Each part is a turn of its own, reserved and booked.
        assert_eq!((asked.ask.key.turn, llm.used().total_tokens), (3, 90));
        let last = &server.calls()[2].body;
        let said = |index: usize| last["messages"][index]["content"].as_str().unwrap();
        assert_eq!(
            (said(2), last["messages"][2]["role"].as_str()),
            ("{'a': 1, ", Some("assistant"))
        );
        assert!(
            said(3).contains("Go on exactly where it ends"),
            "{dialect:?}"
        );
        // A schema would force a whole document.
        assert!(last.get("response_format").is_none() && last.get("format").is_none());
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_again_and_again_or_before_a_word_is_none() {
    for (text, calls, words) in [
        ("more", 4, "cut at its most tokens 4 times"),
        ("", 1, "before it wrote a word"),
    ] {
        let server = Server::start(&[Dialect::Openai.ended(text, "length", true)]).await;
        let room = Room::new(vec![Dialect::Openai.endpoint("e".into(), &server.address)]);
        let asked = asked(&room.llm(), ask()).await;
        let error = asked.answer.unwrap_err();
        assert!(
            matches!(&error, LlmError::Incomplete(why) if why.contains(words) && why.contains("maxOutputTokens")),
            "{error}"
        );
        assert_eq!(server.calls().len(), calls);
    }
}

#[tokio::test]
async fn refusals_and_content_filters_are_outcomes_and_no_other_endpoint_is_tried() {
    let refused = concat!(
        "data: {\"choices\":[{\"delta\":{\"refusal\":\"I cannot do that.\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
    );
    let prompt = r#"{"error":{"message":"The response was filtered due to the prompt triggering the content management policy.","param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#;
    let table = [
        (Reply::new(200, "text/event-stream", &[refused]), "refused", LlmError::Refused("I cannot do that.".into())),
        (Dialect::AzureV1.ended("Ho", "content_filter", true), "filtered", LlmError::Filtered("gpt broke off".into())),
        (Reply::error(400, prompt), "filtered", LlmError::Filtered("The response was filtered due to the prompt triggering the content management policy.".into())),
    ];
    for (reply, status, expected) in table {
        let server = Server::start(&[reply]).await;
        let other = Server::start(&[Dialect::Openai.good()]).await;
        let room = Room::new(vec![
            Dialect::AzureV1.endpoint("first".into(), &server.address),
            Dialect::Openai.endpoint("other".into(), &other.address),
        ]);
        let asked = asked(&room.llm(), ask()).await;
        assert_eq!(asked.statuses, [status]);
        assert_eq!(asked.answer, Err(expected));
        assert!(other.calls().is_empty());
    }
}

#[tokio::test]
async fn an_endpoint_with_a_certificate_of_a_private_authority_is_checked_against_it() {
    let server = Server::start_tls(&[Dialect::Openai.good()]).await;
    let mut room = Room::new(vec![Dialect::Openai.endpoint("e".into(), &server.address)]);
    room.trust(server.certificate.as_deref().unwrap());
    assert_eq!(
        asked(&room.llm(), ask()).await.answer.as_deref(),
        Ok("Hello")
    );
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    room.trust(&stranger.cert.pem());
    let asked = asked(&room.llm(), ask()).await;
    assert_eq!(asked.statuses, ["connection", "connection", "connection"]);
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_missing_or_empty_is_named_and_one_that_comes_is_found() {
    let mut room = Room::new(vec![
        Dialect::Openai.endpoint("e".into(), "http://127.0.0.1:1"),
    ]);
    assert!(missing_secrets(&room.plan, &room.places).is_empty());
    room.plan.llm[0].secret_ref = Some(KeyRef {
        name: "other".into(),
        key: "key".into(),
    });
    let missing = missing_secrets(&room.plan, &room.places);
    assert_eq!(
        (missing[0].name.as_str(), missing[0].key.as_str()),
        ("other", "key")
    );
    let folder = room.places.secrets.join("other");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("key"), " \n").unwrap();
    assert_eq!(missing_secrets(&room.plan, &room.places).len(), 1);
    std::fs::write(folder.join("key"), "x").unwrap();
    assert!(missing_secrets(&room.plan, &room.places).is_empty());
}

#[tokio::test]
async fn a_key_that_is_replaced_is_used_for_the_next_question() {
    let server = Server::start(&[Dialect::AzureV1.good()]).await;
    let room = Room::new(vec![Dialect::AzureV1.endpoint("e".into(), &server.address)]);
    let llm = room.llm();
    asked(&llm, ask()).await.answer.unwrap();
    std::fs::write(room.places.secrets.join("provider/key"), "rotated").unwrap();
    asked(&llm, ask()).await.answer.unwrap();
    assert!(
        server.calls()[1]
            .headers
            .contains(&Dialect::AzureV1.header("rotated"))
    );
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_or_sends_the_question_on() {
    let limit = |per_minute, burst| sopwith_crds::tool_policy::RateLimit {
        per_minute,
        burst: Some(burst),
    };
    let server = Server::start(&[Dialect::Openai.good()]).await;
    let mut room = Room::new(vec![Dialect::Openai.endpoint("e".into(), &server.address)]);
    room.plan.llm[0].rate_limit = Some(limit(120, 2));
    let llm = room.llm();
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(asked(&llm, ask()).await.answer.as_deref(), Ok("Hello"));
    }
    assert!(begun.elapsed().as_millis() >= 900, "{:?}", begun.elapsed());
    // Where another endpoint has the model, a long wait is not waited.
    let other = Server::start(&[Dialect::Ollama.good()]).await;
    let mut room = Room::new(vec![
        Dialect::Openai.endpoint("first".into(), &server.address),
        Dialect::Ollama.endpoint("other".into(), &other.address),
    ]);
    room.plan.llm[0].rate_limit = Some(limit(1, 1));
    let llm = room.llm();
    let first = asked(&llm, ask()).await;
    let second = asked(&llm, ask()).await;
    assert_eq!(
        (first.endpoints, second.endpoints),
        (vec!["first".to_owned()], vec!["other".to_owned()])
    );
    assert_eq!(second.answer.as_deref(), Ok("Hello"));
}
