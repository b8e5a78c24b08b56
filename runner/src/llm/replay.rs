//! Answers from a cassette, below the codec: bytes of the wire protocol, chosen by key. What is done where the question
//! differs from the recorded one is the endpoint's mode.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};
use similar::TextDiff;
use sopwith_crds::{
    contract::{
        Digest,
        cassette::{Interaction, Key, RecordedCall, Request, Response, TokenUsage},
    },
    tool_policy::ReplayMode,
};

use super::codec::{Answer, Finish, FunctionCall};

pub use sopwith_crds::cassette::{CassetteError, parse};

/// Most characters of a difference that are shown.
const MAX_SHOWN: usize = 3000;
/// Characters of an answer in one event.
const PIECE: usize = 80;

/// Why a cassette does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The run ends.
    #[error("{0}")]
    Stop(String),
    /// Another endpoint is asked.
    #[error("{0}")]
    PassOn(String),
}

/// A cassette that answers.
#[derive(Debug, Default)]
pub struct Replay {
    interactions: BTreeMap<Key, Interaction>,
    /// Where questions are recorded instead of compared.
    filled: Option<Mutex<BTreeMap<Key, Request>>>,
}

impl Replay {
    /// Puts the parts of a cassette together; each is a name, for messages, and its text.
    pub fn new(parts: &[(String, String)]) -> Result<Self, CassetteError> {
        let mut interactions = BTreeMap::new();
        for (name, text) in parts {
            for interaction in parse(name, text)?.interactions {
                let key = interaction.key.clone();
                if interactions.insert(key.clone(), interaction).is_some() {
                    return Err(CassetteError::Twice {
                        name: name.clone(),
                        key: key.into(),
                    });
                }
            }
        }
        Ok(Self {
            interactions,
            filled: None,
        })
    }

    /// The same, but it takes every question that it has an answer to, and remembers it.
    #[must_use]
    pub fn filling(mut self) -> Self {
        self.filled = Some(Mutex::default());
        self
    }

    /// The questions it was asked, where it fills.
    pub fn filled(&self) -> BTreeMap<Key, Request> {
        let filled = self.filled.as_ref();
        filled
            .map(|filled| {
                filled
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
            })
            .unwrap_or_default()
    }

    /// The recorded answer to a question, or why there is none and what follows.
    ///
    /// | mode | the question is another | it is not recorded |
    /// |---|---|---|
    /// | `strict` | the run ends | the run ends |
    /// | `gatesOnly`, of an action | the recorded answer | the run ends |
    /// | `gatesOnly`, of a gate | passed on | passed on |
    /// | `recordFromDifference` | passed on | passed on |
    pub fn answer(
        &self,
        key: &Key,
        body: &Value,
        mode: ReplayMode,
    ) -> Result<&Response, Unanswered> {
        let answer = self.look_up(key, body, mode)?;
        if let Some(filled) = &self.filled {
            let request = Request {
                digest: Some(Digest::of_json(body)),
                body: Some(body.clone()),
            };
            let mut filled = filled.lock().unwrap_or_else(PoisonError::into_inner);
            filled.insert(key.clone(), request);
        }
        Ok(answer)
    }

    /// The same, before the question is asked: nothing is remembered.
    pub fn look_up(
        &self,
        key: &Key,
        body: &Value,
        mode: ReplayMode,
    ) -> Result<&Response, Unanswered> {
        let of_gate = !key.gate.is_empty();
        let unanswered = |why: String| match mode {
            ReplayMode::RecordFromDifference => Unanswered::PassOn(why),
            ReplayMode::GatesOnly if of_gate => Unanswered::PassOn(why),
            ReplayMode::GatesOnly | ReplayMode::Strict => Unanswered::Stop(why),
        };
        let Some(interaction) = self.interactions.get(key) else {
            return Err(unanswered(self.missing(key, mode)));
        };
        if self.filled.is_some() || mode == ReplayMode::GatesOnly && !of_gate {
            return Ok(&interaction.response);
        }
        let Some(recorded) = &interaction.request.digest else {
            return Err(unanswered(format!(
                "the recorded request {key} has no digest, so it cannot be compared: complete the cassette with `sopwith-runner cassette fill`"
            )));
        };
        if *recorded == Digest::of_json(body) {
            return Ok(&interaction.response);
        }
        Err(unanswered(difference(
            key,
            interaction.request.body.as_ref(),
            body,
        )))
    }

    fn missing(&self, key: &Key, mode: ReplayMode) -> String {
        let near: Vec<String> = self
            .interactions
            .keys()
            .filter(|other| other.step == key.step)
            .map(ToString::to_string)
            .collect();
        let there = if near.is_empty() {
            let steps: std::collections::BTreeSet<&str> = self
                .interactions
                .keys()
                .map(|key| key.step.as_str())
                .collect();
            format!(
                "it has none of step {}; its steps are: {}",
                key.step,
                steps.into_iter().collect::<Vec<_>>().join(", ")
            )
        } else {
            format!("of step {} it has: {}", key.step, near.join("; "))
        };
        let why = if mode == ReplayMode::GatesOnly && key.gate.is_empty() {
            ". In the mode gatesOnly recorded work is judged and no new work is done: a gate sent the line where the recorded run did not go"
        } else {
            ""
        };
        format!("the cassette has no request {key}; {there}{why}")
    }
}

/// What is kept of an answer: what every protocol can say.
pub fn recorded(answer: &Answer) -> Response {
    let finish = match &answer.finish {
        Finish::Whole | Finish::Refused(_) => None,
        Finish::Cut => Some("length".to_owned()),
        Finish::Filtered => Some("content_filter".to_owned()),
    };
    let refusal = match &answer.finish {
        Finish::Refused(words) => Some(words.clone()),
        _ => None,
    };
    Response {
        status: 200,
        content: Some(answer.content.clone()),
        tool_calls: answer.calls.iter().map(recorded_call).collect(),
        finish_reason: finish,
        refusal,
        usage: answer.usage.map(|tokens| TokenUsage {
            prompt_tokens: tokens.input,
            completion_tokens: tokens.output,
            cached_tokens: tokens.cached,
            reasoning_tokens: tokens.reasoning,
        }),
        ..Response::default()
    }
}

/// A call, its arguments as an object where that is the same to the byte: they are sent again in the next turn.
fn recorded_call(call: &FunctionCall) -> RecordedCall {
    let object = serde_json::from_str::<Value>(&call.arguments).ok();
    let same = |value: &Value| {
        serde_json::to_string(value).is_ok_and(|text| value.is_object() && text == call.arguments)
    };
    let object = object.filter(same);
    RecordedCall {
        name: call.name.clone(),
        arguments: object.unwrap_or_else(|| Value::String(call.arguments.clone())),
    }
}

/// The bytes of an answer on the wire, with their content type.
pub fn wire(response: &Response) -> (String, Vec<u8>) {
    let events = "text/event-stream".to_owned();
    if let Some(body) = &response.body {
        return (
            response.content_type.clone().unwrap_or(events),
            body.clone().into_bytes(),
        );
    }
    let mut out = String::new();
    let mut event = |value: &Value| {
        out.push_str("data: ");
        out.push_str(&value.to_string());
        out.push_str("\n\n");
    };
    let characters: Vec<char> = response
        .content
        .as_deref()
        .unwrap_or_default()
        .chars()
        .collect();
    for piece in characters.chunks(PIECE) {
        let piece: String = piece.iter().collect();
        event(
            &json!({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]}),
        );
    }
    if let Some(refusal) = &response.refusal {
        event(
            &json!({"choices": [{"index": 0, "delta": {"refusal": refusal}, "finish_reason": null}]}),
        );
    }
    for (index, call) in response.tool_calls.iter().enumerate() {
        let arguments = match &call.arguments {
            Value::String(text) => text.clone(),
            object => object.to_string(),
        };
        let function = json!({"name": call.name, "arguments": arguments});
        let call = json!({"index": index, "id": format!("call_{}", index + 1), "type": "function", "function": function});
        event(
            &json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]}),
        );
    }
    let ended = if response.tool_calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    let finish = response.finish_reason.as_deref().unwrap_or(ended);
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}));
    if let Some(usage) = response.usage {
        event(&json!({"choices": [], "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }}));
    }
    out.push_str("data: [DONE]\n\n");
    (events, out.into_bytes())
}

fn difference(key: &Key, recorded: Option<&Value>, sent: &Value) -> String {
    let head = format!("the request {key} differs from the recorded one");
    let Some(recorded) = recorded else {
        return format!(
            "{head}; the cassette keeps no body of it to compare with. Record it again where the change is meant"
        );
    };
    let (before, after) = (readable(recorded), readable(sent));
    let diff = TextDiff::from_lines(&before, &after);
    let shown = diff
        .unified_diff()
        .context_radius(1)
        .header("recorded", "sent")
        .to_string();
    let cut: String = shown.chars().take(MAX_SHOWN).collect();
    let more = if cut.len() < shown.len() {
        "\n… (more differs)"
    } else {
        ""
    };
    format!("{head}; run `sopwith-runner cassette fill` where the change is meant:\n{cut}{more}")
}

/// A body as lines that people can read: messages as text, the rest as JSON.
fn readable(body: &Value) -> String {
    let mut rest = body.clone();
    let messages = rest
        .as_object_mut()
        .and_then(|object| object.remove("messages"));
    let mut text = String::new();
    for message in messages
        .iter()
        .flat_map(|messages| messages.as_array().into_iter().flatten())
    {
        let field = |name: &str| {
            message
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        text.extend(["[", &field("role"), "]\n", &field("content"), "\n"]);
        for call in message
            .get("tool_calls")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            text.extend(["calls ", &call["function"].to_string(), "\n"]);
        }
    }
    // Canonical order first: what was read from a cassette may have another.
    let ordered: BTreeMap<String, Value> = serde_json::from_value(rest).unwrap_or_default();
    text.push_str(&serde_json::to_string_pretty(&ordered).unwrap_or_default());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASSETTE: &str = "
version: 1
interactions:
- key: {step: write, action: draft, attempt: 1, turn: 1}
  request: {digest: DIGEST, body: {model: m, messages: [{role: user, content: \"one\\ntwo\\nthree\"}]}}
  response: {content: hello}
- key: {step: write, action: draft, attempt: 2, turn: 1}
  response: {content: again}
";

    fn body(text: &str) -> Value {
        json!({"model": "m", "messages": [{"role": "user", "content": text}]})
    }

    fn replay() -> Replay {
        let text = CASSETTE.replace("DIGEST", Digest::of_json(&body("one\ntwo\nthree")).as_str());
        Replay::new(&[("c".into(), text)]).unwrap()
    }

    fn answer<'a>(replay: &'a Replay, key: &Key, body: &Value) -> Result<&'a Response, String> {
        let answer = replay.answer(key, body, ReplayMode::Strict);
        answer.map_err(|why| why.to_string())
    }

    fn key(attempt: u32) -> Key {
        Key {
            step: "write".into(),
            action: "draft".into(),
            attempt,
            turn: 1,
            ..Key::default()
        }
    }

    #[test]
    fn the_recorded_question_is_answered_and_another_shows_its_difference() {
        let replay = replay();
        assert_eq!(
            answer(&replay, &key(1), &body("one\ntwo\nthree"))
                .unwrap()
                .content
                .as_deref(),
            Some("hello")
        );
        assert_eq!(
            answer(&replay, &key(1), &body("one\n2\nthree")).unwrap_err(),
            "the request write/draft attempt 1 turn 1 differs from the recorded one; run `sopwith-runner cassette fill` where the change is meant:\n--- recorded\n+++ sent\n@@ -2,3 +2,3 @@\n one\n-two\n+2\n three\n"
        );
    }

    #[test]
    fn what_is_not_there_or_not_complete_is_named() {
        let replay = replay();
        assert_eq!(
            answer(&replay, &key(3), &body("x")).unwrap_err(),
            "the cassette has no request write/draft attempt 3 turn 1; of step write it has: write/draft attempt 1 turn 1; write/draft attempt 2 turn 1"
        );
        assert!(
            answer(&replay, &key(2), &body("x"))
                .unwrap_err()
                .contains("cassette fill")
        );
        let other = Key {
            step: "x".into(),
            ..key(1)
        };
        assert!(
            answer(&replay, &other, &body("x"))
                .unwrap_err()
                .ends_with("its steps are: write")
        );
        let twice = [
            ("a".to_owned(), CASSETTE.replace("digest: DIGEST, ", "")),
            ("b".to_owned(), CASSETTE.replace("digest: DIGEST, ", "")),
        ];
        assert!(matches!(
            Replay::new(&twice),
            Err(CassetteError::Twice { .. })
        ));
        assert!(matches!(
            parse("c", "version: 9\ninteractions: []"),
            Err(CassetteError::Version { found: 9, .. })
        ));
    }

    #[test]
    fn what_is_not_as_recorded_ends_the_run_is_overlooked_or_passed_on_as_the_mode_says() {
        use ReplayMode::{GatesOnly, RecordFromDifference, Strict};
        let text = CASSETTE
            .replace("DIGEST", Digest::of_json(&body("same")).as_str())
            .replace("attempt: 2,", "gate: g, judge: 1, attempt: 2,");
        let replay = Replay::new(&[("c".into(), text)]).unwrap();
        let gate = |attempt| Key {
            gate: "g".into(),
            judge: 1,
            ..key(attempt)
        };
        for (mode, key, asked, expected) in [
            (Strict, key(1), "same", "answered"),
            (Strict, key(1), "other", "stop"),
            (Strict, key(9), "same", "stop"),
            (Strict, gate(2), "x", "stop"),
            (GatesOnly, key(1), "same", "answered"),
            (GatesOnly, key(1), "other", "answered"),
            (GatesOnly, key(9), "same", "stop"),
            (GatesOnly, gate(2), "x", "pass on"),
            (GatesOnly, gate(9), "x", "pass on"),
            (RecordFromDifference, key(1), "same", "answered"),
            (RecordFromDifference, key(1), "other", "pass on"),
            (RecordFromDifference, key(9), "same", "pass on"),
            (RecordFromDifference, gate(2), "x", "pass on"),
        ] {
            let found = match replay.answer(&key, &body(asked), mode) {
                Ok(_) => "answered",
                Err(Unanswered::Stop(_)) => "stop",
                Err(Unanswered::PassOn(_)) => "pass on",
            };
            assert_eq!(found, expected, "{mode:?} {key} {asked}");
        }
    }

    #[test]
    fn filling_takes_every_question() {
        let replay = replay().filling();
        answer(&replay, &key(2), &body("x")).unwrap();
        let filled = replay.filled();
        assert_eq!(filled[&key(2)].digest, Some(Digest::of_json(&body("x"))));
        assert_eq!(filled.len(), 1);
    }
}
