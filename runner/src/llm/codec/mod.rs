//! Wire protocols: a question as a JSON body, an answer from bytes. One module a protocol.
//!
//! A body holds nothing of endpoint, address or key, so that its digest names the question alone.

mod chat;
mod ollama;
pub mod problem;
mod stream;

use std::time::Duration;

use serde_json::{Value, json};
use sopwith_crds::tool_policy::{Model, Provider};

use super::{Ask, budget::Tokens};
pub use stream::{problem, read};

/// Most bytes of an answer's text.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// One message of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text.
    pub content: String,
    /// Of an assistant, the functions it calls.
    pub calls: Vec<FunctionCall>,
    /// Of a tool, the call whose result it is.
    pub answers: Option<FunctionCall>,
}

impl ChatMessage {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.to_owned(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// What an assistant said together with the functions it calls.
    pub fn calling(content: impl Into<String>, calls: Vec<FunctionCall>) -> Self {
        Self {
            calls,
            ..Self::new("assistant", content)
        }
    }

    /// The result of a call.
    pub fn result(call: FunctionCall, content: impl Into<String>) -> Self {
        Self {
            answers: Some(call),
            ..Self::new("tool", content)
        }
    }
}

/// A function that a model may call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Function {
    /// Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
}

/// A call of a function, as a model wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FunctionCall {
    /// By what its result is told apart from others in the conversation.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments: JSON, if the model wrote what it was asked for.
    pub arguments: String,
}

impl FunctionCall {
    /// Its arguments; an error is why they are none. Nothing at all stands for no arguments.
    pub fn object(&self) -> Result<Value, String> {
        if self.arguments.trim().is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        match serde_json::from_str(&self.arguments) {
            Ok(arguments @ Value::Object(_)) => Ok(arguments),
            Ok(_) => Err("the arguments are no JSON object".to_owned()),
            Err(error) => Err(format!("the arguments are not JSON: {error}")),
        }
    }
}

/// What can be called with a question.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Callable {
    /// The functions.
    pub functions: Vec<Function>,
    /// Whether they may no longer be called: they are told because the conversation speaks of them.
    pub over: bool,
}

/// How an answer ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Finish {
    /// The model was done.
    #[default]
    Whole,
    /// It had its most tokens: more was to come.
    Cut,
    /// The provider's content filter withheld it, or its rest.
    Filtered,
    /// The model refused, in these words.
    Refused(String),
}

/// What a model answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub content: String,
    /// The functions it calls, in order.
    pub calls: Vec<FunctionCall>,
    /// How it ended.
    pub finish: Finish,
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
    #[error("the answer is not in the form of the protocol: {0}")]
    Form(String),
    /// The provider reported an error midway.
    #[error("the provider broke off: {0}")]
    Provider(String),
}

/// Which protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Chat completions as `OpenAI` has them; Azure and Groq differ in single fields. Recorded answers are in it too.
    Chat(Provider),
    /// Ollama's own: its chat completions take no `num_ctx`.
    Ollama,
}

impl Protocol {
    /// The protocol of a provider.
    pub const fn of(provider: Provider) -> Self {
        match provider {
            Provider::Ollama => Self::Ollama,
            Provider::Openai | Provider::Azure | Provider::Groq | Provider::Replay => {
                Self::Chat(provider)
            }
        }
    }
}

/// How a model is told which schema its answer must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaForm {
    /// In the protocol's field for it, where the model can.
    Field,
    /// In words, at the end of the first user message.
    Words,
}

/// A question as it goes over the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The body.
    pub body: Value,
    /// Most tokens of the answer.
    pub most_output: u64,
    /// Whether the answer is asked for in pieces.
    pub streamed: bool,
    /// Whether the schema stands in the protocol's field for it.
    pub schema_in_field: bool,
}

impl Question {
    /// Bytes of the body: more than it has tokens, whatever the tokenizer.
    pub fn bytes(&self) -> u64 {
        serde_json::to_vec(&self.body).map_or(u64::MAX, |bytes| bytes.len() as u64)
    }
}

/// The question to a model.
pub fn question(ask: &Ask, protocol: Protocol, model: &Model, form: SchemaForm) -> Question {
    let most = model.most_output();
    let most_output = ask.max_output.map_or(most, |asked| asked.min(most));
    // A schema in its field would hold every word to it, so that servers that hold models to grammars let none be called.
    let callable = ask.callable.functions.is_empty();
    let in_field = form == SchemaForm::Field && model.can("jsonSchema") && callable;
    let mut messages = ask.messages.clone();
    if let Some((_, schema)) = ask.schema.as_ref().filter(|_| !in_field)
        && let Some(first) = messages.iter_mut().find(|message| message.role == "user")
    {
        first.content = format!(
            "{}\n\nAnswer with one JSON document that matches this JSON Schema, with nothing around it:\n{schema}",
            first.content.trim_end()
        );
    }
    let asked = Asked {
        messages: &messages,
        temperature: ask.temperature.filter(|_| !model.can("reasoning")),
        most_output,
        schema: ask.schema.as_ref().filter(|_| in_field),
        reasoning: model.can("reasoning"),
        streamed: model.can("streaming"),
        callable: &ask.callable,
    };
    match protocol {
        Protocol::Chat(provider) => chat::question(&asked, provider, model),
        Protocol::Ollama => ollama::question(&asked, model),
    }
}

/// What a protocol has to say in its own words.
struct Asked<'a> {
    messages: &'a [ChatMessage],
    temperature: Option<f64>,
    most_output: u32,
    schema: Option<&'a (String, Value)>,
    reasoning: bool,
    streamed: bool,
    callable: &'a Callable,
}

/// An answer that is being put together. Pure.
trait Assembly {
    /// Takes the next event or line.
    fn event(&mut self, data: &str) -> Result<(), ReadError>;
    /// Whether nothing more is to come.
    fn done(&self) -> bool;
    /// The answer, or why it is none.
    fn end(self: Box<Self>) -> Result<Answer, ReadError>;
}

fn assembly(protocol: Protocol) -> Box<dyn Assembly + Send> {
    match protocol {
        Protocol::Chat(_) => Box::<chat::ChatAssembly>::default(),
        Protocol::Ollama => Box::<ollama::OllamaAssembly>::default(),
    }
}

/// Adds to an answer's text, which has its bound.
fn push(content: &mut String, text: &str) -> Result<(), ReadError> {
    content.push_str(text);
    if content.len() > MAX_ANSWER_BYTES {
        return Err(ReadError::Form(format!(
            "more than {MAX_ANSWER_BYTES} bytes of text"
        )));
    }
    Ok(())
}

/// Most calls of functions in an answer.
const MAX_CALLS: usize = 64;

/// The functions that are told with a question, in the form that all protocols share.
fn told(functions: &[Function]) -> Value {
    let told = functions.iter().map(|function| {
        let Function {
            name,
            description,
            parameters,
        } = function;
        json!({"type": "function", "function": {"name": name, "description": description, "parameters": parameters}})
    });
    told.collect()
}

/// Adds a call to an answer, which has its bound.
fn push_call(calls: &mut Vec<FunctionCall>, call: FunctionCall) -> Result<(), ReadError> {
    if calls.len() == MAX_CALLS {
        return Err(ReadError::Form(format!(
            "more than {MAX_CALLS} calls of functions"
        )));
    }
    calls.push(call);
    Ok(())
}

/// An answer that was counted but has a count of nothing was not counted.
fn counted(tokens: Tokens) -> Option<Tokens> {
    (tokens.input > 0).then_some(tokens)
}

fn cut_off(content: &str) -> ReadError {
    ReadError::Cut(format!(
        "the stream ended after {} bytes of text, without an end mark",
        content.len()
    ))
}

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod tests;
