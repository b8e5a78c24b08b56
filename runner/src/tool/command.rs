//! Programs in a workbench as tools.
//!
//! The program is the policy's, its arguments are the model's: each is one word, whatever is in it, and no shell reads it.

use serde_json::{Map, Value, json};
use sopwith_crds::{contract::report::ToolStatus, language::Templates, tool_policy::ToolCommand};
use std::time::Duration;

use super::Called;
use crate::{
    action::command::{Benches, Collect, CommandError, Rendered, call},
    context::SharedTree,
    gate::described,
    workbench::Exit,
};

/// Runs the program of a tool. An error is that of the workbench, not of the program.
pub(crate) async fn run(
    benches: &Benches,
    tree: &SharedTree,
    command: &ToolCommand,
    (arguments, timeout): (&Value, Duration),
    collect: Collect<'_>,
) -> Result<Called, CommandError> {
    let argv = match words(command, arguments) {
        Ok(argv) => argv,
        Err(why) => return Ok(Called::not(ToolStatus::Invalid, why)),
    };
    let rendered = Rendered {
        argv,
        image: command.image.clone(),
        cwd: String::new(),
        timeout,
    };
    let stdin = serde_json::to_vec(arguments).unwrap_or_default();
    let (ran, taken) = match call(benches, tree, &rendered, stdin, collect).await {
        Ok(ran) => ran,
        Err(CommandError::Failed(_, why)) => return Ok(Called::not(ToolStatus::Failed, why)),
        Err(lost) => return Err(lost),
    };
    let mut told = match ran.exit {
        Exit::Code(0) => ran.output,
        _ => format!("{}\n{}", described(&ran), ran.output),
    };
    if !taken.left.is_empty() {
        told = format!("{told}\nstayed behind: {}", taken.left.join(", "));
    }
    if told.trim().is_empty() {
        "done, without a word".clone_into(&mut told);
    }
    Ok(Called {
        status: match ran.exit {
            Exit::Code(0) => ToolStatus::Ok,
            Exit::TimedOut => ToolStatus::Timeout,
            _ => ToolStatus::Failed,
        },
        told,
        wrote: taken.wrote,
    })
}

/// The words of the command. A template that gives nothing gives no word.
fn words(command: &ToolCommand, arguments: &Value) -> Result<Vec<String>, String> {
    let templates = Templates::empty();
    let context = json!({ "arguments": filled(command.schema.as_ref(), arguments) });
    let mut words = Vec::new();
    for word in &command.argv {
        let rendered = templates
            .render_inline(word, &context)
            .map_err(|error| error.message)?;
        if rendered.contains('\0') {
            return Err(
                "an argument has a NUL character, which no program can be given".to_owned(),
            );
        }
        if !rendered.is_empty() || word.is_empty() {
            words.push(rendered);
        }
    }
    Ok(words)
}

/// The arguments, with those that the schema has and that were not given: its defaults, else empty texts.
fn filled(schema: Option<&Value>, arguments: &Value) -> Map<String, Value> {
    let properties = schema.and_then(|schema| schema.get("properties"));
    let mut all: Map<String, Value> = properties
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let default = property.get("default").cloned();
            (name.clone(), default.unwrap_or_else(|| json!("")))
        })
        .collect();
    all.extend(arguments.as_object().cloned().unwrap_or_default());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_one_word_whatever_is_in_it() {
        let command = ToolCommand {
            argv: [
                "grep",
                "{% if arguments.deep %}-r{% endif %}",
                "--",
                "{{ arguments.text }}",
                "{{ arguments.in }}",
            ]
            .map(str::to_owned)
            .to_vec(),
            schema: Some(json!({"properties": {"deep": {}, "text": {}, "in": {"default": "."}}})),
            ..ToolCommand::default()
        };
        let rendered = |arguments: Value| words(&command, &arguments);
        assert_eq!(
            rendered(json!({"deep": true, "text": "a; rm -rf / $(x) 'b'"})).unwrap(),
            ["grep", "-r", "--", "a; rm -rf / $(x) 'b'", "."]
        );
        assert_eq!(
            rendered(json!({"deep": false, "text": "x", "in": "src"})).unwrap(),
            ["grep", "--", "x", "src"]
        );
        assert_eq!(
            rendered(json!({"text": "-x"})).unwrap(),
            ["grep", "--", "-x", "."]
        );
        assert_eq!(rendered(json!({})).unwrap(), ["grep", "--", "."]);
        assert!(
            rendered(json!({"deep": false, "text": "a\0b"}))
                .unwrap_err()
                .contains("NUL")
        );
    }
}
