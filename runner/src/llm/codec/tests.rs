use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::json;
use sopwith_crds::contract::{Digest, cassette::Key};

use super::*;
use crate::llm::transport::RawAnswer;

pub(super) const OPENAI: Protocol = Protocol::Chat(Provider::Openai);
pub(super) const AZURE: Protocol = Protocol::Chat(Provider::Azure);
pub(super) const GROQ: Protocol = Protocol::Chat(Provider::Groq);

pub(super) fn ask() -> Ask {
    Ask {
        key: Key::default(),
        model: "strong".into(),
        messages: vec![
            ChatMessage::new("system", "s"),
            ChatMessage::new("user", "u"),
        ],
        temperature: Some(0.2),
        max_output: Some(9000),
        schema: Some(("prd 1".into(), json!({"type": "object"}))),
        ..Ask::default()
    }
}

pub(super) fn model(capabilities: &[&str]) -> Model {
    Model {
        name: "gpt".into(),
        deployment: Some("ours".into()),
        context_window: Some(8192),
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        ..Model::default()
    }
}

fn body(protocol: Protocol, model: &Model) -> Value {
    question(&ask(), protocol, model, SchemaForm::Field).body
}

const WORDS: &str = "u\n\nAnswer with one JSON document that matches this JSON Schema, with nothing around it:\n{\"type\":\"object\"}";

#[test]
fn a_question_to_openai_follows_what_the_model_can_do() {
    assert_eq!(
        body(OPENAI, &model(&[])),
        json!({
            "model": "gpt",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "max_tokens": 4096,
            "temperature": 0.2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "prd_1", "schema": {"type": "object"}}},
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
    assert_eq!(
        body(OPENAI, &model(&["reasoning"])),
        json!({
            "model": "gpt",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": WORDS}],
            "max_completion_tokens": 4096,
        })
    );
}

#[test]
fn azure_has_the_deployment_and_groq_no_stream_of_what_has_a_schema() {
    assert_eq!(body(AZURE, &model(&[]))["model"], "ours");
    let groq = body(GROQ, &model(&[]));
    assert_eq!(groq["model"], "gpt");
    assert_eq!(groq["max_completion_tokens"], 4096);
    assert_eq!(groq["temperature"], 0.2);
    assert!(groq.get("stream").is_none() && groq.get("response_format").is_some());
    let words = body(GROQ, &model(&["streaming"]));
    assert!(words["stream"] == true && words.get("response_format").is_none());
}

#[test]
fn ollama_is_told_its_window_and_not_to_leave_out_anything() {
    assert_eq!(
        body(Protocol::Ollama, &model(&[])),
        json!({
            "model": "gpt",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "options": {"num_ctx": 8192, "num_predict": 4096, "temperature": 0.2},
            "format": {"type": "object"},
            "stream": true,
            "truncate": false,
            "shift": false,
        })
    );
    let thinking = body(Protocol::Ollama, &model(&["reasoning"]));
    assert_eq!(thinking["think"], true);
    assert_eq!(thinking["stream"], false);
    assert_eq!(thinking["messages"][1]["content"], WORDS);
}

#[test]
fn the_digest_is_of_the_question_alone() {
    let digest =
        |ask: &Ask| Digest::of_json(&question(ask, OPENAI, &model(&[]), SchemaForm::Field).body);
    let mut other = ask();
    other.key.attempt = 7;
    assert_eq!(digest(&ask()), digest(&other));
    other.messages[1].content.push('!');
    assert_ne!(digest(&ask()), digest(&other));
}

pub(super) const EVENTS: &str = "text/event-stream; charset=utf-8";
pub(super) const LINES: &str = "application/x-ndjson";
pub(super) const JSON: &str = "application/json";

/// Reads bytes that come a few at a time.
pub(super) async fn answer(
    protocol: Protocol,
    kind: &str,
    wire: &str,
) -> Result<Answer, ReadError> {
    let pieces: Vec<_> = wire
        .as_bytes()
        .chunks((wire.len() >> 10).max(5))
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let raw = RawAnswer {
        status: 200,
        content_type: kind.into(),
        retry_after: None,
        body: stream::iter(pieces).boxed(),
    };
    read(raw, protocol, Duration::from_secs(5)).await
}

fn tokens(input: u64, cached: u64, output: u64, reasoning: u64) -> Tokens {
    Tokens {
        input,
        cached,
        output,
        reasoning,
    }
}

/// A name; protocol, content type and bytes; the text, its end and its count.
type Sample = (
    &'static str,
    (Protocol, &'static str, &'static str),
    (&'static str, Finish, Option<Tokens>),
);

/// Answers in the bytes of each protocol, one of each kind.
#[allow(clippy::too_many_lines, reason = "a table")]
fn samples() -> Vec<Sample> {
    use Finish::{Cut, Filtered, Refused, Whole};
    vec![
        (
            "openai, streamed",
            (
                OPENAI,
                EVENTS,
                concat!(
                    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"finish_reason\":null}],\"usage\":null}\n\n",
                    ": keep alive\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé\"},\"finish_reason\":null}],\"usage\":null}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"llo\"},\"finish_reason\":null}],\"usage\":null}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
                    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2006,\"completion_tokens\":300,\"total_tokens\":2306,\"prompt_tokens_details\":{\"cached_tokens\":1920,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":256,\"accepted_prediction_tokens\":0}}}\n\n",
                    "data: [DONE]\n\n"
                ),
            ),
            ("Héllo", Whole, Some(tokens(2006, 1920, 300, 256))),
        ),
        (
            "openai, whole",
            (
                OPENAI,
                JSON,
                r#"{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#,
            ),
            ("Hi", Whole, Some(tokens(9, 0, 2, 0))),
        ),
        (
            "openai, refused",
            (
                OPENAI,
                EVENTS,
                concat!(
                    "data: {\"choices\":[{\"delta\":{\"refusal\":\"I can't \"}}]}\n\n",
                    "data: {\"choices\":[{\"delta\":{\"refusal\":\"do that.\"}}]}\n\n",
                    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
                ),
            ),
            ("", Refused("I can't do that.".into()), None),
        ),
        (
            "openai, cut",
            (
                OPENAI,
                JSON,
                r#"{"choices":[{"message":{"content":"Hal"},"finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#,
            ),
            ("Hal", Cut, Some(tokens(9, 0, 1, 0))),
        ),
        (
            "no usage",
            (
                OPENAI,
                EVENTS,
                "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n",
            ),
            ("x", Whole, None),
        ),
        (
            "a count of nothing",
            (
                OPENAI,
                JSON,
                r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
            ),
            ("x", Whole, None),
        ),
        (
            "azure, streamed, its filter's results first",
            (
                AZURE,
                EVENTS,
                concat!(
                    "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0,\"content_filter_results\":{\"hate\":{\"filtered\":false,\"severity\":\"safe\"}}}]}\n\n",
                    "data: {\"choices\":[{\"content_filter_results\":{},\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null,\"index\":0}],\"usage\":null}\n\n",
                    "data: {\"choices\":[{\"content_filter_results\":{},\"delta\":{},\"finish_reason\":\"stop\",\"index\":0}]}\n\n",
                    "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2,\"prompt_tokens\":8,\"total_tokens\":10}}\n\ndata: [DONE]\n\n"
                ),
            ),
            ("Hi", Whole, Some(tokens(8, 0, 2, 0))),
        ),
        (
            "azure, filtered midway",
            (
                AZURE,
                EVENTS,
                concat!(
                    "data: {\"choices\":[{\"delta\":{\"content\":\"How to\"}}]}\n\n",
                    "data: {\"choices\":[{\"content_filter_results\":{\"violence\":{\"filtered\":true,\"severity\":\"high\"}},\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\ndata: [DONE]\n\n"
                ),
            ),
            ("How to", Filtered, None),
        ),
        (
            "groq, streamed, usage in its own field",
            (
                GROQ,
                EVENTS,
                concat!(
                    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"x_groq\":{\"id\":\"req_1\"}}\n\n",
                    "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n",
                    "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"req_1\",\"usage\":{\"queue_time\":0.1,\"prompt_tokens\":36,\"prompt_time\":0.001,\"completion_tokens\":5,\"total_tokens\":41,\"completion_tokens_details\":{\"reasoning_tokens\":3}}}}\n\ndata: [DONE]\n\n"
                ),
            ),
            ("Hi", Whole, Some(tokens(36, 0, 5, 3))),
        ),
        (
            "ollama, streamed",
            (
                Protocol::Ollama,
                LINES,
                concat!(
                    "{\"model\":\"l\",\"created_at\":\"2026-01-01T00:00:00Z\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n",
                    "{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"Hé\"},\"done\":false}\n",
                    "{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"llo\"},\"done\":false}\n",
                    "{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":1,\"prompt_eval_count\":26,\"prompt_eval_cached_count\":20,\"eval_count\":7}\n"
                ),
            ),
            ("Héllo", Whole, Some(tokens(26, 20, 7, 0))),
        ),
        (
            "ollama, streamed, no line end",
            (
                Protocol::Ollama,
                LINES,
                concat!(
                    "{\"message\":{\"content\":\"x\"},\"done\":false}\n",
                    "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"length\",\"prompt_eval_count\":2,\"eval_count\":1}"
                ),
            ),
            ("x", Cut, Some(tokens(2, 0, 1, 0))),
        ),
        (
            "ollama, whole",
            (
                Protocol::Ollama,
                "application/json; charset=utf-8",
                r#"{"model":"l","message":{"role":"assistant","content":"Hi"},"done_reason":"stop","done":true,"prompt_eval_count":11,"eval_count":2}"#,
            ),
            ("Hi", Whole, Some(tokens(11, 0, 2, 0))),
        ),
        (
            "ollama, no count",
            (
                Protocol::Ollama,
                JSON,
                r#"{"message":{"content":"Hi"},"done":true}"#,
            ),
            ("Hi", Whole, None),
        ),
        (
            "litellm, streamed",
            (
                OPENAI,
                EVENTS,
                concat!(
                    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795488873,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hel\"}}]}\n\n",
                    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795488873,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\n",
                    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795488873,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
                    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1795488873,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{}}],\"usage\":{\"completion_tokens\":4,\"prompt_tokens\":8,\"total_tokens\":12,\"completion_tokens_details\":{\"reasoning_tokens\":0,\"text_tokens\":4},\"cost\":0.00006}}\n\n",
                    "data: [DONE]\n\n"
                ),
            ),
            ("Hello", Whole, Some(tokens(8, 0, 4, 0))),
        ),
    ]
}

#[tokio::test]
async fn answers_are_put_together_from_the_bytes_of_each_protocol() {
    for (name, (protocol, kind, wire), (content, finish, usage)) in samples() {
        let expected = Answer {
            content: content.into(),
            finish,
            usage,
            ..Answer::default()
        };
        assert_eq!(answer(protocol, kind, wire).await, Ok(expected), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let piece = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let line = "{\"message\":{\"content\":\"x\"},\"done\":false}\n";
    let table: [(&str, Protocol, &str, String, &str); 10] = [
        (
            "cut",
            OPENAI,
            EVENTS,
            piece.into(),
            "broke off: the stream ended after 1 bytes",
        ),
        (
            "nothing",
            OPENAI,
            EVENTS,
            String::new(),
            "broke off: the stream ended after 0 bytes",
        ),
        (
            "no JSON",
            OPENAI,
            EVENTS,
            "data: <html>\n\n".into(),
            "form of the protocol: expected value",
        ),
        (
            "half JSON",
            OPENAI,
            JSON,
            "{\"choices\":[".into(),
            "form of the protocol: EOF",
        ),
        (
            "error midway",
            OPENAI,
            EVENTS,
            format!(
                "{piece}data: {{\"error\":{{\"message\":\"overloaded, key sk-abc123 is busy\"}}}}\n\n"
            ),
            "provider broke off: overloaded, key [masked] is busy",
        ),
        (
            "groq's error midway",
            GROQ,
            EVENTS,
            format!("{piece}data: {{\"x_groq\":{{\"error\":\"over capacity\"}}}}\n\n"),
            "provider broke off: over capacity",
        ),
        (
            "ollama, cut",
            Protocol::Ollama,
            LINES,
            line.into(),
            "broke off: the stream ended after 1 bytes",
        ),
        (
            "ollama, cut in a line",
            Protocol::Ollama,
            LINES,
            format!("{line}{{\"mess"),
            "broke off: the stream ended after 1 bytes",
        ),
        (
            "ollama's error midway",
            Protocol::Ollama,
            LINES,
            format!("{line}{{\"error\":\"an error was encountered while running the model\"}}\n"),
            "provider broke off: an error was encountered",
        ),
        (
            "ollama, loaded only",
            Protocol::Ollama,
            JSON,
            "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"load\"}".into(),
            "answered \"load\" instead",
        ),
    ];
    for (name, protocol, kind, wire, expected) in table {
        let error = answer(protocol, kind, &wire).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[tokio::test]
async fn an_answer_has_its_bounds() {
    let long = "x".repeat(MAX_ANSWER_BYTES + 1);
    let wire = json!({"choices": [{"message": {"content": long}, "finish_reason": "stop"}]});
    let error = answer(OPENAI, JSON, &wire.to_string()).await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    let line = "y".repeat(MAX_ANSWER_BYTES * 2 + 1);
    let error = answer(Protocol::Ollama, LINES, &line).await.unwrap_err();
    assert!(error.to_string().contains("a line of more than"), "{error}");
}
