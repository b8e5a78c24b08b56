//! Calls of functions in each wire protocol.

use serde_json::json;

use super::{
    tests::{AZURE, EVENTS, GROQ, JSON, LINES, OPENAI, answer, ask, model},
    *,
};

fn call(id: &str, name: &str, arguments: &str) -> FunctionCall {
    FunctionCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    }
}

/// A conversation in which a function was called, and one with what is no JSON.
fn conversation() -> Ask {
    let (read, bad) = (
        call("call_1_1", "read", "{\"path\": \"a\"}"),
        call("call_1_2", "read", "{\"path\": "),
    );
    let mut ask = ask();
    ask.messages
        .push(ChatMessage::calling("", vec![read.clone(), bad.clone()]));
    ask.messages.push(ChatMessage::result(read, "text"));
    ask.messages.push(ChatMessage::result(bad, "no JSON"));
    ask.callable.functions = vec![Function {
        name: "read".into(),
        description: "Reads.".into(),
        parameters: json!({"type": "object"}),
    }];
    ask
}

fn body(ask: &Ask, protocol: Protocol) -> Value {
    question(ask, protocol, &model(&[]), SchemaForm::Field).body
}

const TOLD: &str = r#"[{"type":"function","function":{"name":"read","description":"Reads.","parameters":{"type":"object"}}}]"#;

#[test]
fn functions_and_results_are_told_in_the_chat_protocol() {
    for protocol in [OPENAI, AZURE, GROQ] {
        let body = body(&conversation(), protocol);
        assert_eq!(body["tools"], serde_json::from_str::<Value>(TOLD).unwrap());
        assert_eq!(body["stream"], true);
        assert!(body.get("response_format").is_none() && body.get("tool_choice").is_none());
        assert!(
            body["messages"][1]["content"]
                .as_str()
                .unwrap()
                .contains("JSON Schema")
        );
        assert_eq!(
            body["messages"].as_array().unwrap()[2..],
            [
                json!({"role": "assistant", "content": null, "tool_calls": [
                    {"id": "call_1_1", "type": "function", "function": {"name": "read", "arguments": "{\"path\": \"a\"}"}},
                    {"id": "call_1_2", "type": "function", "function": {"name": "read", "arguments": "{}"}},
                ]}),
                json!({"role": "tool", "content": "text", "tool_call_id": "call_1_1"}),
                json!({"role": "tool", "content": "no JSON", "tool_call_id": "call_1_2"}),
            ]
        );
    }
    let mut over = conversation();
    over.callable.over = true;
    let over = body(&over, OPENAI);
    assert_eq!(over["tool_choice"], "none");
    assert_eq!(over["tools"], serde_json::from_str::<Value>(TOLD).unwrap());
}

#[test]
fn functions_and_results_are_told_in_ollamas_protocol() {
    let told = body(&conversation(), Protocol::Ollama);
    assert_eq!(told["tools"], serde_json::from_str::<Value>(TOLD).unwrap());
    assert!(told.get("format").is_none());
    assert_eq!(
        told["messages"].as_array().unwrap()[2..],
        [
            json!({"role": "assistant", "content": "", "tool_calls": [
                {"function": {"name": "read", "arguments": {"path": "a"}}},
                {"function": {"name": "read", "arguments": {}}},
            ]}),
            json!({"role": "tool", "content": "text", "tool_name": "read"}),
            json!({"role": "tool", "content": "no JSON", "tool_name": "read"}),
        ]
    );
    let mut over = conversation();
    over.callable.over = true;
    assert!(body(&over, Protocol::Ollama).get("tools").is_none());
}

/// A name; protocol, content type and bytes; the text and the calls as they come from the wire.
type Sample = (
    &'static str,
    (Protocol, &'static str, &'static str),
    (&'static str, Vec<FunctionCall>),
);

#[allow(clippy::too_many_lines, reason = "a table")]
fn samples() -> Vec<Sample> {
    vec![
        (
            "openai, two calls streamed in pieces",
            (
                OPENAI,
                EVENTS,
                concat!(
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"call_DdmO9pD3xa9XTPNJ32zg2hcA\",\"type\":\"function\",\"function\":{\"name\":\"read\",\"arguments\":\"\"}}],\"refusal\":null},\"finish_reason\":null}],\"usage\":null}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"path\\\":\"}}]},\"finish_reason\":null}]}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\"ä\\\"}\"}}]},\"finish_reason\":null}]}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_2\",\"type\":\"function\",\"function\":{\"name\":\"list\",\"arguments\":\"\"}}]},\"finish_reason\":null}]}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{}\"}}]},\"finish_reason\":null}]}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
                    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":71,\"completion_tokens\":17,\"total_tokens\":88}}\n\ndata: [DONE]\n\n"
                ),
            ),
            (
                "",
                vec![
                    call("call_DdmO9pD3xa9XTPNJ32zg2hcA", "read", "{\"path\":\"ä\"}"),
                    call("call_2", "list", "{}"),
                ],
            ),
        ),
        (
            "azure, whole, with a word before",
            (
                AZURE,
                JSON,
                r#"{"choices":[{"content_filter_results":{},"finish_reason":"tool_calls","index":0,"message":{"content":"Let me look.","role":"assistant","tool_calls":[{"function":{"arguments":"{\"path\": \"a\"}","name":"read"},"id":"call_1","type":"function"},{"function":{"arguments":"{\"path\": \"b\"}","name":"read"},"id":"call_2","type":"function"}]}}],"usage":{"completion_tokens":9,"prompt_tokens":8,"total_tokens":17}}"#,
            ),
            (
                "Let me look.",
                vec![
                    call("call_1", "read", "{\"path\": \"a\"}"),
                    call("call_2", "read", "{\"path\": \"b\"}"),
                ],
            ),
        ),
        (
            "groq, streamed, each call in one piece",
            (
                GROQ,
                EVENTS,
                concat!(
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null}],\"x_groq\":{\"id\":\"req_1\"}}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"id\":\"call_d5wg\",\"type\":\"function\",\"function\":{\"name\":\"read\",\"arguments\":\"{\\\"path\\\":\\\"a\\\"}\"},\"index\":0}]},\"finish_reason\":null}]}\n\n",
                    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}],\"x_groq\":{\"id\":\"req_1\",\"usage\":{\"prompt_tokens\":36,\"completion_tokens\":5}}}\n\ndata: [DONE]\n\n"
                ),
            ),
            ("", vec![call("call_d5wg", "read", "{\"path\":\"a\"}")]),
        ),
        (
            "a server that leaves the index out",
            (
                OPENAI,
                EVENTS,
                concat!(
                    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"x\",\"function\":{\"name\":\"read\",\"arguments\":\"{\"}}]}}]}\n\n",
                    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"}\"}}]}}]}\n\n",
                    "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"y\",\"function\":{\"name\":\"list\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n"
                ),
            ),
            ("", vec![call("x", "read", "{}"), call("y", "list", "{}")]),
        ),
        (
            "ollama, streamed",
            (
                Protocol::Ollama,
                LINES,
                concat!(
                    "{\"model\":\"q\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n",
                    "{\"model\":\"q\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"index\":0,\"name\":\"read\",\"arguments\":{\"path\":\"ä\"}}}]},\"done\":false}\n",
                    "{\"model\":\"q\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"index\":1,\"name\":\"list\",\"arguments\":{}}}]},\"done\":false}\n",
                    "{\"model\":\"q\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":26,\"eval_count\":7}\n"
                ),
            ),
            (
                "",
                vec![call("", "read", "{\"path\":\"ä\"}"), call("", "list", "{}")],
            ),
        ),
    ]
}

#[tokio::test]
async fn calls_are_put_together_from_the_bytes_of_each_protocol() {
    for (name, (protocol, kind, wire), (content, calls)) in samples() {
        let read = answer(protocol, kind, wire).await.unwrap();
        assert_eq!(
            (read.content.as_str(), &read.calls),
            (content, &calls),
            "{name}"
        );
        assert_eq!(read.finish, Finish::Whole, "{name}");
    }
}

#[tokio::test]
async fn an_answer_has_a_bounded_number_of_calls() {
    let calls = |count| {
        let call = json!({"id": "c", "function": {"name": "f", "arguments": "{}"}});
        let message = json!({"content": null, "tool_calls": vec![call; count]});
        json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).to_string()
    };
    let most = answer(OPENAI, JSON, &calls(MAX_CALLS)).await.unwrap();
    assert_eq!(most.calls.len(), MAX_CALLS);
    let error = answer(OPENAI, JSON, &calls(MAX_CALLS + 1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("more than 64 calls"), "{error}");
}

#[test]
fn arguments_are_an_object_or_it_is_told_why_not() {
    for (arguments, expected) in [
        ("{\"a\": 1}", Ok(json!({"a": 1}))),
        ("", Ok(json!({}))),
        ("[1]", Err("the arguments are no JSON object")),
        ("{\"a\": ", Err("the arguments are not JSON: EOF")),
    ] {
        let read = call("", "f", arguments).object();
        match expected {
            Ok(value) => assert_eq!(read, Ok(value)),
            Err(words) => assert!(read.unwrap_err().starts_with(words), "{arguments}"),
        }
    }
}
