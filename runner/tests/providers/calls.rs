//! Calls of functions over HTTP, in each provider's protocol.

use serde_json::json;
use sopwith_runner::llm::{
    Ask, LlmError, Said,
    codec::{Callable, ChatMessage, Function},
};

use crate::{
    dialect::{ALL, Dialect},
    room::{Room, ask, asked},
    server::Server,
};

fn ask_with_functions() -> Ask {
    Ask {
        callable: Callable {
            functions: vec![Function {
                name: "read_file".into(),
                description: "Reads a file.".into(),
                parameters: json!({"type": "object", "properties": {"path": {"type": "string"}}}),
            }],
            over: false,
        },
        ..ask()
    }
}

#[tokio::test]
async fn a_function_is_called_and_its_result_told() {
    for dialect in ALL {
        let server = Server::start(&[dialect.calls(), dialect.good()]).await;
        let room = Room::new(vec![dialect.endpoint("e".into(), &server.address)]);
        let llm = room.llm();
        let mut ask = ask_with_functions();
        let said = llm.converse(&mut ask, &|_| {}).await.unwrap();
        let calls = said.calls.clone();
        assert_eq!(calls.len(), 1, "{dialect:?}");
        assert_eq!(
            (
                calls[0].id.as_str(),
                calls[0].name.as_str(),
                calls[0].object()
            ),
            ("call_1_1", "read_file", Ok(json!({"path": "a.py"}))),
            "{dialect:?}"
        );
        ask.messages
            .push(ChatMessage::calling(said.text, said.calls));
        ask.messages
            .push(ChatMessage::result(calls[0].clone(), "x = 1"));
        ask.key.turn += 1;
        let said = llm.converse(&mut ask, &|_| {}).await.unwrap();
        let hello = Said {
            text: "Hello".into(),
            calls: Vec::new(),
        };
        assert_eq!(said, hello, "{dialect:?}");
        let body = &server.calls()[1].body;
        assert_eq!(
            body["tools"][0]["function"]["name"], "read_file",
            "{dialect:?}"
        );
        let result = &body["messages"][3];
        assert_eq!(
            (&result["role"], &result["content"]),
            (&json!("tool"), &json!("x = 1"))
        );
        let (field, named) = match dialect {
            Dialect::Ollama => ("tool_name", "read_file"),
            _ => ("tool_call_id", "call_1_1"),
        };
        assert_eq!(result[field], named, "{dialect:?}");
        // Each turn is reserved and booked.
        assert_eq!((llm.used().llm_requests, llm.used().total_tokens), (2, 60));
    }
}

#[tokio::test]
async fn a_model_that_calls_no_functions_is_not_asked_where_there_are_some() {
    let (plain, able) = (
        Server::start(&[Dialect::Openai.good()]).await,
        Server::start(&[Dialect::Groq.calls()]).await,
    );
    let mut room = Room::new(vec![
        Dialect::Openai.endpoint("plain".into(), &plain.address),
        Dialect::Groq.endpoint("able".into(), &able.address),
    ]);
    room.plan.llm[0].models[0].capabilities = vec!["streaming".into()];
    let said = room
        .llm()
        .converse(&mut ask_with_functions(), &|_| {})
        .await
        .unwrap();
    assert_eq!(said.calls.len(), 1);
    assert!(plain.calls().is_empty());
    assert_eq!(
        asked(&room.llm(), ask()).await.answer.as_deref(),
        Ok("Hello")
    );
}

#[tokio::test]
async fn a_call_that_the_provider_could_not_read_is_asked_for_again_and_a_model_without_calls_is_told()
 {
    let failed = r#"{"error":{"message":"Failed to call a function.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"<function"}}"#;
    let server = Server::start(&[
        crate::server::Reply::error(400, failed),
        Dialect::Groq.calls(),
    ])
    .await;
    let room = Room::new(vec![Dialect::Groq.endpoint("e".into(), &server.address)]);
    let asked = asked(&room.llm(), ask_with_functions()).await;
    assert_eq!(asked.statuses, ["400", "ok"]);
    let server = Server::start(&[Dialect::Ollama.error(400, "gemma does not support tools")]).await;
    let room = Room::new(vec![Dialect::Ollama.endpoint("e".into(), &server.address)]);
    let asked = crate::room::asked(&room.llm(), ask_with_functions()).await;
    assert_eq!(asked.statuses, ["400"]);
    let error = asked.answer.unwrap_err();
    assert!(
        matches!(&error, LlmError::Failed(why) if why.contains("name what gpt can do in its capabilities, without tools")),
        "{error}"
    );
}
