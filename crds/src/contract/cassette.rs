//! Cassettes: recorded answers of models, below the codec.
//!
//! A cassette is YAML or JSON: `{version, interactions: [...]}`. The keys of a ConfigMap are read in the order of
//! their names and their interactions put together; a key that ends with `.gz` is compressed. One made by hand leaves
//! `request.digest` out; `sopwith-runner cassette fill` writes it. Every run records its own, whatever providers it
//! asked: requests and answers are kept as the provider `replay` asks and gives them.

use super::Digest;
use serde::{Deserialize, Serialize};

/// Recorded answers.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Cassette {
    /// Version of the shape.
    pub version: u32,
    /// Requests and answers, each key once.
    pub interactions: Vec<Interaction>,
}

/// One request and its answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Interaction {
    /// Which request of a run it is.
    pub key: Key,
    /// What was asked.
    #[serde(default)]
    pub request: Request,
    /// What was answered.
    pub response: Response,
}

/// Which request of a run it is.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The step.
    pub step: String,
    /// The action; in a loop `loop/action`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// The item of a loop as text; its `path` or `name` where it is an object. Of several with the same text, the second has
    /// ` (2)` behind it, and so on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub item: String,
    /// The gate that judges, where it is no action that asks; `action` is then the one it belongs to, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gate: String,
    /// Which judge of the gate, counted from 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub judge: u32,
    /// Attempt of the step, counted from 1.
    pub attempt: u32,
    /// In a step whose role picks its actions itself: which time the attempt does this action, counted from 1; 1 where it is
    /// left out. The question which action is next has the action `react`.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub pick: u32,
    /// In a loop: how often the item was begun again in this attempt, since one of its gates failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry: u32,
    /// In a loop: the pass over the item, counted from 1 since it was begun; 1 where it is left out.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub pass: u32,
    /// Request within the action, counted from 1: repairs and tool turns follow the first.
    pub turn: u32,
}

impl Default for Key {
    fn default() -> Self {
        Self {
            step: String::new(),
            action: String::new(),
            item: String::new(),
            gate: String::new(),
            judge: 0,
            attempt: 1,
            pick: 1,
            retry: 0,
            pass: 1,
            turn: 1,
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.step)?;
        if !self.action.is_empty() {
            write!(f, "/{}", self.action)?;
        }
        if !self.item.is_empty() {
            write!(f, "[{}]", self.item)?;
        }
        if !self.gate.is_empty() {
            write!(f, " gate {} judge {}", self.gate, self.judge)?;
        }
        write!(f, " attempt {}", self.attempt)?;
        if self.pick > 1 {
            write!(f, " pick {}", self.pick)?;
        }
        if self.retry > 0 {
            write!(f, " retry {}", self.retry)?;
        }
        if self.pass > 1 {
            write!(f, " pass {}", self.pass)?;
        }
        write!(f, " turn {}", self.turn)
    }
}

/// What was asked.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Request {
    /// Digest of the canonical JSON (RFC 8785) of the request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The body, kept so that a difference can be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

/// What was answered.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Response {
    /// HTTP status. Default: 200.
    #[serde(default = "ok", skip_serializing_if = "is_ok")]
    pub status: u16,
    /// The answer's text; the bytes of the wire protocol are made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The functions that the answer calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<RecordedCall>,
    /// The words in which the model refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// Why the model stopped, as on the wire. Default: stop; with calls, `tool_calls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Tokens as the provider counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenUsage>,
    /// The body as it was on the wire (a recorded answer, an error); it wins over `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Content type of `body`. Default: `text/event-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// A call of a function in an answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct RecordedCall {
    /// What the model calls the function.
    pub name: String,
    /// Its arguments: an object, or a text that is sent as it is.
    #[serde(default)]
    pub arguments: serde_json::Value,
}

/// Tokens as the provider counted them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct TokenUsage {
    /// Tokens of the request.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// Of the request's, those that the provider had cached.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub cached_tokens: u64,
    /// Of the answer's, those of thinking.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub reasoning_tokens: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_nothing(number: &u64) -> bool {
    *number == 0
}

const fn ok() -> u16 {
    200
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(value: &u32) -> bool {
    *value == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_ok(status: &u16) -> bool {
    *status == 200
}
