//! What a run's models were asked and answered, kept so that the run can be played again.
//!
//! Whoever answered, it is kept as the provider `replay` asks and answers, so that a cassette does not depend on where it was
//! recorded. What is masked of it (personal data, later) has to be masked here and, before it is compared, in
//! [`super::replay`].

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use sopwith_crds::{
    contract::{
        Digest,
        cassette::{Interaction, Key, Request},
    },
    tool_policy::{Model, Provider},
};

use super::{
    Ask,
    codec::{self, Answer, Protocol, SchemaForm},
    replay::recorded,
    transport::Transport,
};

/// What was recorded since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Recording(Mutex<Vec<Interaction>>);

impl Recording {
    /// Keeps an answer. `model` is the one that the question goes to first: a replayed run asks that one.
    pub(super) fn keep(&self, ask: &Ask, model: &Model, way: &Transport, answer: &Answer) {
        let form = if ask.continues {
            SchemaForm::Words
        } else {
            SchemaForm::Field
        };
        let body = codec::question(ask, Protocol::of(Provider::Replay), model, form).body;
        let mut response = recorded(answer);
        response.content = response.content.map(|text| way.masked(&text));
        for call in &mut response.tool_calls {
            call.arguments = masked(std::mem::take(&mut call.arguments), way);
        }
        let interaction = Interaction {
            // An item is named by what a model wrote.
            key: Key {
                item: way.masked(&ask.key.item),
                ..ask.key.clone()
            },
            request: Request {
                digest: Some(Digest::of_json(&body)),
                body: Some(masked(body, way)),
            },
            response,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(interaction);
    }

    /// Takes what was recorded, in the order of the keys: parallel requests end in any order.
    pub(super) fn take(&self) -> Vec<Interaction> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut *guard);
        taken.sort_by(|one, other| one.key.cmp(&other.key));
        taken
    }
}

/// A body without the endpoint's key, should it be part of it.
fn masked(body: Value, way: &Transport) -> Value {
    match body {
        Value::String(text) => Value::String(way.masked(&text)),
        Value::Array(items) => items.into_iter().map(|item| masked(item, way)).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, masked(value, way)))
            .collect(),
        other => other,
    }
}
