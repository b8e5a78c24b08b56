//! Calling tools: for a role in a conversation, and as an action of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};
use sopwith_crds::{
    check::defaults,
    contract::{
        report::{ToolStatus, What},
        snapshot::SYSTEM,
    },
    sop_definition::{Role, ToolCall},
    status::FailureReason,
    tool_policy::{Builtin, called, granted},
};

use super::{command::Collect, prompt::ended};
use crate::{
    attempt::{Spot, Stopped},
    engine::Engine,
    gate::mismatches_of,
    llm::{
        Ask, Said,
        codec::{ChatMessage, FunctionCall},
        window::Window,
    },
    tool::{
        Called, Known, Offer, Record, ToolError,
        builtin::{self, Writer},
        command, known, make_room, most_of, offer, shortened,
    },
};

/// Characters of arguments and result that the trace keeps.
const MAX_SAID: usize = 2000;
/// Most bytes of a result that an action takes.
const MOST_OF_ACTION: usize = 1 << 20;
/// The name under which a call of what there is not is counted: a model's own words are no label.
const UNKNOWN: &str = "unknown";

impl From<ToolError> for Stopped {
    fn from(error: ToolError) -> Self {
        Self::Failed(error.reason, error.to_string())
    }
}

/// A conversation of a role that may call tools.
#[derive(Debug)]
pub(crate) struct Session {
    offer: Offer,
    /// Turns that are left, the present one included.
    turns: u32,
    most: u32,
    /// Most bytes of a result.
    bytes: usize,
    window: Window,
    /// Paths that were written.
    pub(crate) wrote: Vec<String>,
}

impl Session {
    /// Whether there is anything to call.
    pub(crate) fn calls(&self) -> bool {
        !self.offer.is_empty()
    }

    /// Says with a question what can be called. In the last turn nothing can.
    pub(crate) fn prepare(&self, ask: &mut Ask) {
        ask.callable.functions = self.offer.functions();
        ask.callable.over = !ask.callable.functions.is_empty() && self.turns <= 1;
        if self.calls() {
            make_room(&mut ask.messages, &self.window);
        }
    }
}

impl Engine {
    /// Begins a conversation of a role.
    pub(crate) fn session(&self, role: &Role, ask: &Ask) -> Result<Session, Stopped> {
        let offer = offer(&granted(&self.plan.tools, &role.tools))?;
        let most = if offer.is_empty() {
            1
        } else {
            role.max_turns.unwrap_or(defaults::TURNS_WITH_TOOLS)
        };
        let window = self.llm.smallest_window(&ask.model, ask.max_output);
        Ok(Session {
            offer,
            turns: most,
            most,
            bytes: most_of(&window),
            window,
            wrote: Vec::new(),
        })
    }

    /// Makes the calls of an answer, in order, and puts it and their results into the conversation.
    pub(crate) async fn answer_calls(
        &self,
        spot: Spot<'_>,
        session: &mut Session,
        ask: &mut Ask,
        said: Said,
    ) -> Result<(), Stopped> {
        if session.turns <= 1 {
            let message = format!(
                "the answer to {} calls tools in the last of its {} turns: raise maxTurns of the role, or ask for less",
                ask.key, session.most
            );
            return Err(Stopped::Failed(FailureReason::GateFailed, message));
        }
        session.turns -= 1;
        ask.messages
            .push(ChatMessage::calling(said.text, said.calls.clone()));
        for call in said.calls {
            let called = self.called(spot, session, &call).await?;
            for path in called.wrote {
                if !session.wrote.contains(&path) {
                    session.wrote.push(path);
                }
            }
            let told = match called.status {
                ToolStatus::Ok => called.told,
                _ => format!("error: {}", called.told),
            };
            ask.messages
                .push(ChatMessage::result(call, shortened(told, session.bytes)));
        }
        if session.turns == 1 {
            ask.messages.push(ChatMessage::new(
                "user",
                "You can call no more tools. Answer now, whole.",
            ));
        }
        ask.key.turn += 1;
        Ok(())
    }

    /// Makes a call of a role.
    async fn called(
        &self,
        spot: Spot<'_>,
        session: &mut Session,
        call: &FunctionCall,
    ) -> Result<Called, Stopped> {
        let sender = spot.step.role.as_deref().unwrap_or_default();
        let Some(known) = session.offer.find(&call.name).cloned() else {
            let why = format!(
                "there is no tool {:?} for you; you can call: {}",
                call.name,
                session.offer.names()
            );
            let called = Called::not(ToolStatus::Denied, why);
            self.tell(
                spot,
                sender,
                None,
                (&call.name, &call.arguments),
                &called,
                0.0,
            );
            return Ok(called);
        };
        let begun = Instant::now();
        let called = match call.object() {
            Err(why) => Called::not(ToolStatus::Invalid, why),
            Ok(arguments) if known.tool.builtin == Some(Builtin::SearchTools) => {
                match invalid(&known, &arguments) {
                    Some(called) => called,
                    None => Called::ok(
                        session.offer.search(
                            arguments
                                .get("query")
                                .and_then(Value::as_str)
                                .unwrap_or_default(),
                        ),
                    ),
                }
            }
            Ok(arguments) => self.invoke(spot, &known, &arguments, session.bytes).await?,
        };
        let seconds = begun.elapsed().as_secs_f64();
        let asked = (known.label(), &*call.arguments);
        self.tell(
            spot,
            sender,
            Some(&known),
            (&asked.0, asked.1),
            &called,
            seconds,
        );
        Ok(called)
    }

    /// Does an action that calls a tool.
    pub(crate) async fn tool(
        &mut self,
        spot: Spot<'_>,
        call: &ToolCall,
    ) -> Result<(String, Vec<String>), Stopped> {
        let plan = Arc::clone(&self.plan);
        let denied = |why: &str| {
            let message = format!(
                "{}/{} calls tool {}: {why}",
                spot.step.name, spot.action, call.name
            );
            Stopped::Failed(FailureReason::PolicyDenied, message)
        };
        let (tool, function) = called(&plan.tools, &call.name)
            .ok_or_else(|| denied("the policy does not allow it"))?;
        let role = spot.step.role.as_ref();
        let role = role.and_then(|name| plan.roles.iter().find(|role| role.name == *name));
        if let Some(role) = role {
            let granted = granted(&plan.tools, &role.tools);
            let mut named = granted
                .iter()
                .filter(|granted| granted.tool.name == tool.name);
            if !named.any(|granted| function.is_none_or(|name| granted.functions.contains(&name))) {
                return Err(denied(&format!("role {} is not granted it", role.name)));
            }
        }
        let known = known(tool, function)?;
        let context = self.context_of(spot);
        let arguments = self.arguments(&known, call, &context)?;
        let begun = Instant::now();
        let called = match invalid(&known, &arguments) {
            Some(called) => called,
            None => {
                self.invoke(spot, &known, &arguments, MOST_OF_ACTION)
                    .await?
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        let sender = role.map_or(SYSTEM, |role| &role.name);
        let asked = (&*call.name, &*arguments.to_string());
        self.tell(spot, sender, Some(&known), asked, &called, seconds);
        if called.status != ToolStatus::Ok {
            let reason = match called.status {
                ToolStatus::Denied => FailureReason::PolicyDenied,
                ToolStatus::Timeout => FailureReason::StepTimeout,
                _ => FailureReason::GateFailed,
            };
            let message = format!(
                "tool {} failed ({}): {}",
                call.name,
                called.status.as_str(),
                called.told
            );
            return Err(Stopped::Failed(reason, message.trim_end().to_owned()));
        }
        let mut wrote = called.wrote;
        let by_program = known.is_program();
        if let Some(path) = &call.path {
            let path = self.templates.render_inline(path, &context)?;
            self.may_write(&spot.step.name, &path)?;
            let text = ended(&shortened(called.told, MOST_OF_ACTION));
            self.put(&path, text)?;
            wrote.push(path);
        }
        self.record.machine.wrote(&wrote, by_program);
        let message = format!("called {}", call.name);
        self.acted(spot, sender, message.clone(), wrote.clone(), (0, 0));
        Ok((message, wrote))
    }

    /// The rendered arguments of an action. What the schema wants to be no string is read as JSON.
    fn arguments(&self, known: &Known, call: &ToolCall, context: &Value) -> Result<Value, Stopped> {
        let mut arguments = Map::new();
        for (name, template) in &call.arguments {
            let text = self.templates.render_inline(template, context)?;
            arguments.insert(name.clone(), typed(&known.told.parameters, name, text));
        }
        Ok(Value::Object(arguments))
    }

    /// Calls a tool whose arguments are an object.
    async fn invoke(
        &self,
        spot: Spot<'_>,
        known: &Known,
        arguments: &Value,
        most: usize,
    ) -> Result<Called, Stopped> {
        if let Some(called) = invalid(known, arguments) {
            return Ok(called);
        }
        let tool = &known.tool;
        let seconds = tool
            .timeout_seconds
            .unwrap_or(defaults::TOOL_TIMEOUT_SECONDS);
        let timeout = Duration::from_secs(seconds.into());
        if let Err(why) = self.tools.limits.admit(&tool.name, timeout).await {
            return Ok(Called::not(ToolStatus::Denied, why));
        }
        if let Some(command) = &tool.command {
            let collect = Collect {
                patterns: &command.collect,
                step: &spot.step.name,
                places: &self.places,
                guard: &self.guard,
            };
            let given = (arguments, timeout);
            return Ok(command::run(&self.benches, &self.tree, command, given, collect).await?);
        }
        match tool.builtin {
            Some(builtin) => Ok(self.builtin(spot, builtin, arguments, most).await),
            None => Ok(Called::not(
                ToolStatus::Failed,
                "the tool is of no kind that this version supports",
            )),
        }
    }

    async fn builtin(
        &self,
        spot: Spot<'_>,
        builtin: Builtin,
        arguments: &Value,
        most: usize,
    ) -> Called {
        let failed = |why: String| Called::not(ToolStatus::Failed, why);
        if builtin::writes(builtin) {
            let writer = Writer {
                step: &spot.step.name,
                places: &self.places,
                frozen: &self.record.machine.frozen,
                guard: &self.guard,
            };
            let changed = self
                .tree
                .write(|tree| builtin::change(builtin, arguments, tree, writer));
            return changed.map_or_else(failed, |changed| Called {
                wrote: changed.wrote,
                ..Called::ok(changed.told)
            });
        }
        // A search over a big project would hold up everything else on this thread.
        let (tree, arguments) = (self.tree.read(Clone::clone), arguments.clone());
        let looked = tokio::task::spawn_blocking(move || {
            builtin::look(builtin, &arguments, &tree, most - most / 8)
        });
        match looked.await {
            Ok(looked) => looked.map_or_else(failed, Called::ok),
            Err(error) => failed(error.to_string()),
        }
    }

    /// Books, reports and records a call.
    fn tell(
        &self,
        spot: Spot<'_>,
        sender: &str,
        known: Option<&Known>,
        (name, arguments): (&str, &str),
        called: &Called,
        seconds: f64,
    ) {
        let failed = called.status != ToolStatus::Ok;
        self.llm.tool_called(failed);
        self.reporter.record([What::ToolCall {
            step: spot.step.name.clone(),
            tool: known.map_or(UNKNOWN, |known| &known.tool.name).to_owned(),
            function: known.and_then(|known| known.function.clone()),
            critical: known.is_some_and(|known| known.tool.critical == Some(true)),
            status: called.status,
            seconds,
        }]);
        let content = format!("{arguments}\n{}\n{}", called.status.as_str(), called.told);
        self.tools.book.add(Record {
            at: Timestamp::now(),
            sender: sender.to_owned(),
            cause: format!("{}/{}", spot.step.name, spot.action),
            attempt: spot.attempt,
            tool: name.to_owned(),
            content: shortened(content, MAX_SAID),
            wrote: called.wrote.clone(),
            by_program: known.is_some_and(Known::is_program),
        });
    }
}

/// A call whose arguments do not match the tool's schema.
fn invalid(known: &Known, arguments: &Value) -> Option<Called> {
    let problems = mismatches_of(&known.told.parameters, arguments);
    (!problems.is_empty()).then(|| {
        let why = format!(
            "the arguments do not match the tool's schema: {}",
            problems.join("; ")
        );
        Called::not(ToolStatus::Invalid, why)
    })
}

/// A rendered argument as the schema wants it.
fn typed(schema: &Value, name: &str, text: String) -> Value {
    let types = schema.get("properties").and_then(|all| all.get(name));
    let types = types.and_then(|property| property.get("type"));
    let string = match types {
        None => true,
        Some(Value::Array(types)) => types.iter().any(|kind| kind == "string"),
        Some(kind) => kind == "string",
    };
    if string {
        return Value::String(text);
    }
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rendered_arguments_are_what_the_schema_wants() {
        let schema = json!({"properties": {
            "text": {"type": "string"}, "count": {"type": "integer"}, "flag": {"type": "boolean"},
            "list": {"type": "array"}, "either": {"type": ["string", "null"]}, "any": {},
        }});
        for (name, text, expected) in [
            ("text", "12", json!("12")),
            ("count", "12", json!(12)),
            ("count", "twelve", json!("twelve")),
            ("flag", "true", json!(true)),
            ("list", "[1, 2]", json!([1, 2])),
            ("either", "null", json!("null")),
            ("any", "1", json!("1")),
            ("other", "1", json!("1")),
        ] {
            assert_eq!(typed(&schema, name, text.to_owned()), expected, "{name}");
        }
    }
}
