//! Chat completions: `OpenAI`'s, with what Azure and Groq have of their own.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sopwith_crds::tool_policy::{Model, Provider};

use super::{
    Answer, Asked, Assembly, ChatMessage, Finish, FunctionCall, Question, ReadError, counted,
    cut_off, problem::message_of, push, push_call, told,
};
use crate::llm::{address::deployment, budget::Tokens};

/// Most characters of a schema's name that the protocol takes.
const MAX_NAME: usize = 64;

pub(super) fn question(asked: &Asked<'_>, provider: Provider, model: &Model) -> Question {
    // Groq refuses a stream of an answer that has a schema.
    let streamed = asked.streamed && !(provider == Provider::Groq && asked.schema.is_some());
    let name = match provider {
        Provider::Azure => deployment(model),
        _ => &model.name,
    };
    let mut body = Map::new();
    body.insert("model".into(), json!(name));
    body.insert(
        "messages".into(),
        asked.messages.iter().map(message).collect(),
    );
    // Reasoning models refuse `max_tokens` and any temperature but their own; Groq has taken it out of use.
    let most = if asked.reasoning || provider == Provider::Groq {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body.insert(most.into(), json!(asked.most_output));
    if let Some(temperature) = asked.temperature {
        body.insert("temperature".into(), json!(temperature));
    }
    if let Some((name, schema)) = asked.schema {
        let format =
            json!({"type": "json_schema", "json_schema": {"name": plain(name), "schema": schema}});
        body.insert("response_format".into(), format);
    }
    if !asked.callable.functions.is_empty() {
        body.insert("tools".into(), told(&asked.callable.functions));
    }
    if asked.callable.over {
        body.insert("tool_choice".into(), json!("none"));
    }
    if streamed {
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    Question {
        body: Value::Object(body),
        most_output: asked.most_output.into(),
        streamed,
        schema_in_field: asked.schema.is_some(),
    }
}

fn message(message: &ChatMessage) -> Value {
    let ChatMessage {
        role,
        content,
        calls,
        answers,
    } = message;
    let mut said = json!({"role": role, "content": content});
    if !calls.is_empty() {
        let calls = calls.iter().map(|call| {
            // Servers read what they wrote themselves, and stumble where it is no JSON.
            let arguments = match call.object() {
                Ok(_) if !call.arguments.trim().is_empty() => call.arguments.as_str(),
                _ => "{}",
            };
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        });
        said["tool_calls"] = calls.collect();
        if content.is_empty() {
            said["content"] = Value::Null;
        }
    }
    if let Some(call) = answers {
        said["tool_call_id"] = json!(call.id);
    }
    said
}

/// A schema's name in the characters that the protocol takes.
fn plain(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let plain = name.chars().map(|c| if fits(c) { c } else { '_' });
    plain.take(MAX_NAME).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Chunk {
    choices: Vec<Choice>,
    usage: Option<Counted>,
    error: Option<Value>,
    x_groq: Option<Groq>,
}

/// Groq reports usage, and errors in the middle of a stream, in a field of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Groq {
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
    tool_calls: Option<Vec<CallPart>>,
}

/// A call, or a piece of one that is streamed: the first piece has its name, all of them a piece of its arguments.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallPart {
    index: Option<u64>,
    id: Option<String>,
    function: Option<FunctionPart>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counted {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Counted {
    fn tokens(&self) -> Option<Tokens> {
        let cached = self.prompt_tokens_details.as_ref();
        let reasoning = self.completion_tokens_details.as_ref();
        counted(Tokens {
            input: self.prompt_tokens,
            cached: cached
                .and_then(|details| details.cached_tokens)
                .unwrap_or(0),
            output: self.completion_tokens,
            reasoning: reasoning
                .and_then(|details| details.reasoning_tokens)
                .unwrap_or(0),
        })
    }
}

#[derive(Debug, Default)]
pub(super) struct ChatAssembly {
    answer: Answer,
    /// The indices of the answer's calls on the wire.
    indices: Vec<Option<u64>>,
    refusal: String,
    finished: bool,
    done: bool,
}

impl ChatAssembly {
    fn choice(&mut self, choice: Choice) -> Result<(), ReadError> {
        let part = choice.delta.or(choice.message).unwrap_or_default();
        push(&mut self.refusal, &part.refusal.unwrap_or_default())?;
        push(&mut self.answer.content, &part.content.unwrap_or_default())?;
        for call in part.tool_calls.into_iter().flatten() {
            self.call(call)?;
        }
        if let Some(reason) = choice.finish_reason {
            self.finished = true;
            self.answer.finish = match reason.as_str() {
                "length" => Finish::Cut,
                "content_filter" => Finish::Filtered,
                _ => Finish::Whole,
            };
        }
        Ok(())
    }
}

impl ChatAssembly {
    /// Takes a call or a piece of one. Some servers leave the index out: then an id, or a name, begins another call.
    fn call(&mut self, part: CallPart) -> Result<(), ReadError> {
        let FunctionPart { name, arguments } = part.function.unwrap_or_default();
        let begins = part.id.is_some() || name.is_some();
        let known = match part.index {
            Some(_) => self.indices.iter().position(|index| *index == part.index),
            None if begins => None,
            None => self.indices.len().checked_sub(1),
        };
        let at = if let Some(at) = known {
            at
        } else {
            self.indices.push(part.index);
            push_call(&mut self.answer.calls, FunctionCall::default())?;
            self.answer.calls.len() - 1
        };
        let call = &mut self.answer.calls[at];
        if let Some(id) = part.id.filter(|_| call.id.is_empty()) {
            call.id = id;
        }
        if let Some(name) = name.filter(|_| call.name.is_empty()) {
            call.name = name;
        }
        push(&mut call.arguments, &arguments.unwrap_or_default())
    }
}

impl Assembly for ChatAssembly {
    fn event(&mut self, data: &str) -> Result<(), ReadError> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk =
            serde_json::from_str(data).map_err(|error| ReadError::Form(error.to_string()))?;
        let groq = chunk.x_groq.unwrap_or_default();
        if let Some(error) = chunk.error.or(groq.error) {
            return Err(ReadError::Provider(message_of(&error)));
        }
        // Usage comes last, in a chunk of its own; some providers repeat it growing.
        let usage = chunk.usage.or(groq.usage);
        self.answer.usage = usage
            .and_then(|usage| usage.tokens())
            .or(self.answer.usage.take());
        chunk
            .choices
            .into_iter()
            .try_for_each(|choice| self.choice(choice))
    }

    fn done(&self) -> bool {
        self.done
    }

    fn end(self: Box<Self>) -> Result<Answer, ReadError> {
        if !self.finished && !self.done {
            return Err(cut_off(&self.answer.content));
        }
        let mut answer = self.answer;
        if !self.refusal.is_empty() {
            answer.finish = Finish::Refused(self.refusal);
        }
        Ok(answer)
    }
}
