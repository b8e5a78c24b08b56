//! Ollama's chat: lines of JSON.
//!
//! The server loads a model with the window that a request names (`num_ctx`) and, by default, drops without a word what
//! does not fit into it. `truncate` and `shift` ask it to refuse instead; servers from before they came ignore them, so
//! what was counted is looked at too.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sopwith_crds::tool_policy::Model;

use super::{
    Answer, Asked, Assembly, ChatMessage, Finish, FunctionCall, Question, ReadError, counted,
    cut_off, problem::message_of, push, push_call, told,
};
use crate::llm::budget::Tokens;

pub(super) fn question(asked: &Asked<'_>, model: &Model) -> Question {
    let mut options = Map::new();
    options.insert("num_ctx".into(), json!(model.window()));
    options.insert("num_predict".into(), json!(asked.most_output));
    if let Some(temperature) = asked.temperature {
        options.insert("temperature".into(), json!(temperature));
    }
    let mut body = Map::new();
    body.insert("model".into(), json!(model.name));
    body.insert(
        "messages".into(),
        asked.messages.iter().map(message).collect(),
    );
    body.insert("options".into(), Value::Object(options));
    body.insert("stream".into(), json!(asked.streamed));
    body.insert("truncate".into(), json!(false));
    body.insert("shift".into(), json!(false));
    if asked.reasoning {
        body.insert("think".into(), json!(true));
    }
    // There is no word for functions that may not be called: they are not told.
    if !asked.callable.functions.is_empty() && !asked.callable.over {
        body.insert("tools".into(), told(&asked.callable.functions));
    }
    if let Some((_, schema)) = asked.schema {
        body.insert("format".into(), schema.clone());
    }
    Question {
        body: Value::Object(body),
        most_output: asked.most_output.into(),
        streamed: asked.streamed,
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
            let arguments = call.object().unwrap_or_else(|_| json!({}));
            json!({"function": {"name": call.name, "arguments": arguments}})
        });
        said["tool_calls"] = calls.collect();
    }
    if let Some(call) = answers {
        said["tool_name"] = json!(call.name);
    }
    said
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    message: Option<Message>,
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: u64,
    prompt_eval_cached_count: u64,
    eval_count: u64,
    error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

/// A call comes whole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    function: Called,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Called {
    name: String,
    arguments: Value,
}

#[derive(Debug, Default)]
pub(super) struct OllamaAssembly {
    answer: Answer,
    done: bool,
}

impl Assembly for OllamaAssembly {
    fn event(&mut self, data: &str) -> Result<(), ReadError> {
        let line: Line =
            serde_json::from_str(data).map_err(|error| ReadError::Form(error.to_string()))?;
        if let Some(error) = line.error {
            return Err(ReadError::Provider(message_of(&error)));
        }
        let message = line.message.unwrap_or_default();
        push(
            &mut self.answer.content,
            &message.content.unwrap_or_default(),
        )?;
        for call in message.tool_calls.into_iter().flatten() {
            let call = FunctionCall {
                name: call.function.name,
                arguments: call.function.arguments.to_string(),
                ..FunctionCall::default()
            };
            push_call(&mut self.answer.calls, call)?;
        }
        if !line.done {
            return Ok(());
        }
        self.done = true;
        // A count of the answer says nothing of its thinking, which is part of it.
        self.answer.usage = counted(Tokens {
            input: line.prompt_eval_count,
            cached: line.prompt_eval_cached_count,
            output: line.eval_count,
            reasoning: 0,
        });
        match line.done_reason.as_deref() {
            Some("length") => self.answer.finish = Finish::Cut,
            // The model was loaded or let go: nothing was asked of it.
            Some(reason @ ("load" | "unload")) => {
                return Err(ReadError::Form(format!(
                    "the server answered \"{reason}\" instead"
                )));
            }
            // The connection to the model was lost.
            Some("") => return Err(cut_off(&self.answer.content)),
            _ => {}
        }
        Ok(())
    }

    fn done(&self) -> bool {
        self.done
    }

    fn end(self: Box<Self>) -> Result<Answer, ReadError> {
        if self.done {
            Ok(self.answer)
        } else {
            Err(cut_off(&self.answer.content))
        }
    }
}
