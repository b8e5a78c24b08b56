//! The wire protocol of OpenAI's chat completions: a question as a JSON body, an answer from a stream of events.
//!
//! The body holds nothing of endpoint, address or key, so that its digest names the question alone.

use std::time::Duration;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sopwith_crds::{check::defaults, tool_policy::Model};
use sse_stream::SseByteStream;

use super::{Ask, budget::Tokens, transport::RawAnswer};

/// Most bytes of an answer's text.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Most bytes of an error that are read, and characters that are shown.
const MAX_PROBLEM_BYTES: usize = 64 << 10;
const SHOWN: usize = 500;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl ChatMessage {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.to_owned(),
            content: content.into(),
        }
    }
}

/// What a model answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub content: String,
    /// Why it stopped.
    pub finish: Option<String>,
    /// What the provider counted.
    pub usage: Option<Tokens>,
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing came for too long.
    #[error("nothing came for {} s", .0.as_secs())]
    Idle(Duration),
    /// It ended too early.
    #[error("the answer broke off: {0}")]
    Cut(String),
    /// It is not what the protocol says.
    #[error("the answer is not in the form of chat completions: {0}")]
    Form(String),
    /// The provider reported an error midway.
    #[error("the provider broke off: {0}")]
    Provider(String),
}

/// The request's body for a model.
pub fn body(ask: &Ask, model: &Model) -> Value {
    let able = |what: &str| match model.capabilities.as_slice() {
        [] => matches!(what, "jsonSchema" | "streaming"),
        named => named.iter().any(|capability| capability == what),
    };
    let most = model
        .max_output_tokens
        .unwrap_or(defaults::MAX_OUTPUT_TOKENS);
    let most = ask.max_output.map_or(most, |asked| asked.min(most));
    let mut body = Map::new();
    body.insert("model".into(), json!(model.name));
    body.insert("messages".into(), json!(ask.messages));
    if able("reasoning") {
        // Reasoning models refuse `max_tokens` and any temperature but their own.
        body.insert("max_completion_tokens".into(), json!(most));
    } else {
        body.insert("max_tokens".into(), json!(most));
        if let Some(temperature) = ask.temperature {
            body.insert("temperature".into(), json!(temperature));
        }
    }
    if let Some((name, schema)) = ask.schema.as_ref().filter(|_| able("jsonSchema")) {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": name, "schema": schema}});
        body.insert("response_format".into(), format);
    }
    if able("streaming") {
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    Value::Object(body)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Vec<Choice>,
    usage: Option<Counted>,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Part>,
    message: Option<Part>,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Part {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counted {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

/// An answer that is being put together. Pure.
#[derive(Debug, Default)]
struct Assembly {
    answer: Answer,
    done: bool,
}

impl Assembly {
    fn event(&mut self, data: &str) -> Result<(), ReadError> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|error| ReadError::Form(error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(ReadError::Provider(message_of(&error)));
        }
        // Usage comes last, in a chunk of its own; some providers repeat it growing.
        if let Some(counted) = chunk.usage {
            self.answer.usage = Some(Tokens {
                input: counted.prompt_tokens,
                cached: counted
                    .prompt_tokens_details
                    .and_then(|details| details.cached_tokens)
                    .unwrap_or(0),
                output: counted.completion_tokens,
            });
        }
        for choice in chunk.choices {
            let part = choice.delta.or(choice.message).unwrap_or_default();
            if let Some(refusal) = part.refusal.filter(|refusal| !refusal.is_empty()) {
                return Err(ReadError::Provider(format!(
                    "the model refused: {}",
                    shown(&refusal)
                )));
            }
            self.answer
                .content
                .push_str(&part.content.unwrap_or_default());
            if self.answer.content.len() > MAX_ANSWER_BYTES {
                return Err(ReadError::Form(format!(
                    "more than {MAX_ANSWER_BYTES} bytes of text"
                )));
            }
            self.answer.finish = choice.finish_reason.or(self.answer.finish.take());
        }
        Ok(())
    }

    fn end(self) -> Result<Answer, ReadError> {
        if self.answer.finish.is_none() && !self.done {
            let bytes = self.answer.content.len();
            return Err(ReadError::Cut(format!(
                "the stream ended after {bytes} bytes of text, without an end mark"
            )));
        }
        Ok(self.answer)
    }
}

/// Reads a good answer, streamed or whole.
pub async fn read(raw: RawAnswer, idle: Duration) -> Result<Answer, ReadError> {
    if !raw.content_type.starts_with("text/event-stream") {
        let text = text(raw, idle, MAX_ANSWER_BYTES * 2).await?;
        let mut assembly = Assembly::default();
        assembly.event(&text)?;
        return assembly.end();
    }
    let mut assembly = Assembly::default();
    let mut events = SseByteStream::new(raw.body);
    let mut patience = idle;
    while let Some(event) = tokio::time::timeout(patience, events.next())
        .await
        .map_err(|_| ReadError::Idle(patience))?
    {
        let event = event.map_err(|error| ReadError::Cut(error.to_string()))?;
        let Some(data) = event.data.filter(|data| !data.is_empty()) else {
            continue;
        };
        assembly.event(&data)?;
        if assembly.done {
            break;
        }
        patience = idle;
    }
    assembly.end()
}

/// What a refusing answer says, bounded.
pub async fn problem(raw: RawAnswer, idle: Duration) -> String {
    let text = text(raw, idle, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    match serde_json::from_str::<Value>(&text) {
        Ok(value) => message_of(value.get("error").unwrap_or(&value)),
        Err(_) => shown(&text),
    }
}

async fn text(raw: RawAnswer, idle: Duration, most: usize) -> Result<String, ReadError> {
    let (mut bytes, mut body) = (Vec::new(), raw.body);
    while let Some(piece) = tokio::time::timeout(idle, body.next())
        .await
        .map_err(|_| ReadError::Idle(idle))?
    {
        let piece = piece.map_err(|error| ReadError::Cut(error.to_string()))?;
        bytes.extend_from_slice(&piece[..piece.len().min(most.saturating_sub(bytes.len()))]);
        if bytes.len() == most {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn message_of(error: &Value) -> String {
    let message = error
        .get("message")
        .and_then(Value::as_str)
        .or(error.as_str());
    message.map_or_else(|| shown(&error.to_string()), shown)
}

/// A provider repeats a part of a wrong key in its error: whatever looks like one is masked.
fn shown(text: &str) -> String {
    let words = text.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if bare.starts_with("sk-") || bare.starts_with("gsk_") || bare.contains("****") {
            "[masked]"
        } else {
            word
        }
    });
    words
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::contract::{Digest, cassette::Key};

    fn ask() -> Ask {
        Ask {
            key: Key::default(),
            model: "strong".into(),
            messages: vec![
                ChatMessage::new("system", "s"),
                ChatMessage::new("user", "u"),
            ],
            temperature: Some(0.2),
            max_output: Some(9000),
            schema: Some(("prd".into(), json!({"type": "object"}))),
        }
    }

    #[test]
    fn the_body_follows_what_the_model_can_do() {
        let mut model = Model {
            name: "gpt".into(),
            ..Model::default()
        };
        assert_eq!(
            body(&ask(), &model),
            json!({
                "model": "gpt",
                "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
                "max_tokens": 4096,
                "temperature": 0.2,
                "response_format": {"type": "json_schema", "json_schema": {"name": "prd", "schema": {"type": "object"}}},
                "stream": true,
                "stream_options": {"include_usage": true},
            })
        );
        model.capabilities = vec!["reasoning".into()];
        let plain = body(&ask(), &model);
        assert_eq!(plain["max_completion_tokens"], 4096);
        for absent in ["max_tokens", "temperature", "response_format", "stream"] {
            assert!(plain.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn the_digest_is_of_the_question_alone() {
        let model = Model {
            name: "gpt".into(),
            ..Model::default()
        };
        let mut other = ask();
        other.key.attempt = 7;
        assert_eq!(
            Digest::of_json(&body(&ask(), &model)),
            Digest::of_json(&body(&other, &model))
        );
        other.messages[1].content.push('!');
        assert_ne!(
            Digest::of_json(&body(&ask(), &model)),
            Digest::of_json(&body(&other, &model))
        );
    }

    fn assemble(events: &[&str]) -> Result<Answer, ReadError> {
        let mut assembly = Assembly::default();
        for event in events {
            assembly.event(event)?;
        }
        assembly.end()
    }

    #[test]
    fn an_answer_is_put_together_from_its_pieces() {
        let answer = assemble(&[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}],"usage":null}"#,
            r#"{"choices":[{"delta":{"content":"Hel"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{"content":"lo"},"finish_reason":null}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#,
            "[DONE]",
        ]);
        let usage = Some(Tokens {
            input: 9,
            cached: 4,
            output: 2,
        });
        assert_eq!(
            answer,
            Ok(Answer {
                content: "Hello".into(),
                finish: Some("stop".into()),
                usage
            })
        );
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let piece = r#"{"choices":[{"delta":{"content":"x"}}]}"#;
        assert!(matches!(assemble(&[piece]), Err(ReadError::Cut(_))));
        assert!(matches!(assemble(&["<html>"]), Err(ReadError::Form(_))));
        let error = r#"{"error":{"message":"overloaded, key sk-abc123 is busy"}}"#;
        assert_eq!(
            assemble(&[piece, error]),
            Err(ReadError::Provider(
                "overloaded, key [masked] is busy".into()
            ))
        );
        assert_eq!(
            assemble(&[piece, "[DONE]"]).map(|answer| answer.usage),
            Ok(None)
        );
    }
}
