//! Doing an action: asking a model, running a program, rendering a template; then what was written is told.

use std::sync::Arc;

use serde_json::Value;
use sopwith_crds::{
    contract::{cassette::Key, report::What},
    sop_definition::{Command, Prompt, Render, Work},
    status::FailureReason,
};

use super::{
    command::{self, Rendered},
    prompt::{ended, files_schema, named_files, repair, unfenced},
};
use crate::{
    attempt::{Spot, Stopped},
    engine::{Engine, since},
    gate::{mismatches, short},
    llm::{Ask, codec::ChatMessage},
    ownership::{others, refusal},
    role,
};

/// Most repairs of an answer.
const REPAIRS: u32 = 2;
/// Characters of an answer that the trace keeps; the rest is in the files.
const MAX_SAID: usize = 2000;

/// Paths and texts.
type Files = Vec<(String, String)>;

impl Engine {
    pub(crate) async fn work(&mut self, spot: Spot<'_>, work: &Work) -> Result<(), Stopped> {
        // An earlier run did it.
        if self.state().inherited(&spot.step.name) {
            return Ok(());
        }
        let (message, wrote) = if let Some(prompt) = &work.prompt {
            self.prompt(spot, prompt).await?
        } else if let Some(command) = &work.command {
            self.command(spot, command).await?
        } else if let Some(render) = &work.render {
            self.render(spot, render)?
        } else {
            let message = format!(
                "the action {}/{} has nothing to do that this version supports",
                spot.step.name, spot.action
            );
            return Err(Stopped::Failed(FailureReason::InvalidPlan, message));
        };
        let by_programs = &mut self.record.machine.by_programs;
        for path in &wrote {
            if work.command.is_some() {
                by_programs.insert(path.clone());
            } else {
                by_programs.remove(path);
            }
        }
        let message = if wrote.is_empty() {
            message
        } else {
            format!("{message}: {}", wrote.join(", "))
        };
        self.reporter.record([What::ActionEnded {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            action: spot.action.to_owned(),
            item: spot.label(),
            message: short(&message),
        }]);
        Ok(())
    }

    async fn prompt(
        &mut self,
        spot: Spot<'_>,
        prompt: &Prompt,
    ) -> Result<(String, Vec<String>), Stopped> {
        let plan = Arc::clone(&self.plan);
        let role = spot
            .step
            .role
            .as_ref()
            .and_then(|name| plan.roles.iter().find(|role| role.name == *name));
        let role = role.ok_or_else(|| {
            Stopped::Failed(
                FailureReason::InvalidPlan,
                format!("step {} asks a model but has no role", spot.step.name),
            )
        })?;
        let context = self.context_of(spot);
        let system = match &prompt.system {
            Some(template) => self.templates.render(template, &context)?,
            None => role::system(role),
        };
        let user = self.templates.render(&prompt.template, &context)?;
        let shown = self
            .templates
            .undeclared_variables(&prompt.template)
            .iter()
            .any(|name| name == "findings");
        let user = role::with_findings(user, spot.findings, shown);
        let schema = match (&prompt.schema, &prompt.writes.files) {
            (Some(name), _) => plan
                .schemas
                .get(name)
                .map(|schema| (name.clone(), schema.clone())),
            (None, Some(_)) => Some(("files".to_owned(), files_schema())),
            (None, None) => None,
        };
        let mut ask = Ask {
            key: Key {
                step: spot.step.name.clone(),
                action: spot.action.to_owned(),
                item: spot.label().unwrap_or_default(),
                attempt: spot.attempt,
                turn: 1,
                ..Key::default()
            },
            model: role
                .model
                .clone()
                .unwrap_or_else(|| plan.options.model.clone()),
            messages: vec![
                ChatMessage::new("system", system),
                ChatMessage::new("user", user),
            ],
            temperature: role.temperature.as_ref().and_then(|text| text.parse().ok()),
            max_output: role.max_output_tokens,
            schema,
            continues: false,
        };
        let before = self.llm.used();
        let files = self.answered(&mut ask, prompt, &context).await?;
        let used = since(&before, &self.llm.used());
        let said = files
            .iter()
            .map(|(_, text)| text.as_str())
            .collect::<Vec<_>>()
            .join("\n");
        let said: String = said.chars().take(MAX_SAID).collect();
        let mut wrote = Vec::new();
        for (path, text) in files {
            self.tree
                .write(|tree| tree.write(&path, ended(&text).into(), false))?;
            wrote.push(path);
        }
        let cause = format!("{}/{}", spot.step.name, spot.action);
        self.say(
            &role.name,
            cause,
            spot.attempt,
            said,
            wrote.clone(),
            (used.input_tokens, used.output_tokens),
        );
        Ok((format!("{} wrote", role.name), wrote))
    }

    /// Asks until the answer is what was asked for; gives paths and texts.
    async fn answered(
        &self,
        ask: &mut Ask,
        prompt: &Prompt,
        context: &Value,
    ) -> Result<Vec<(String, String)>, Stopped> {
        let reporter = self.reporter.clone();
        let report = move |what: What| reporter.record([what]);
        let mut repairs = 0;
        loop {
            let answer = self.llm.ask(ask, &report).await?;
            let problems = match self.placed(&answer, ask, prompt, context)? {
                Ok(files) => return Ok(files),
                Err(problems) => problems,
            };
            if repairs == REPAIRS {
                let message = format!(
                    "the answer to {} is not what was asked for after {REPAIRS} repairs: {}",
                    ask.key,
                    problems.join("; ")
                );
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
            repairs += 1;
            ask.key.turn += 1;
            ask.messages.push(ChatMessage::new("assistant", answer));
            ask.messages
                .push(ChatMessage::new("user", repair(&problems)));
        }
    }

    /// Where an answer goes, or what is wrong with it and the model is told. The outer error fails the run.
    fn placed(
        &self,
        answer: &str,
        ask: &Ask,
        prompt: &Prompt,
        context: &Value,
    ) -> Result<Result<Files, Vec<String>>, Stopped> {
        if answer.trim().is_empty() {
            return Ok(Err(vec!["it is empty".to_owned()]));
        }
        let writes = &prompt.writes;
        let text = if ask.schema.is_some() || writes.path.is_some() {
            unfenced(answer)
        } else {
            answer
        };
        if let Some((_, schema)) = &ask.schema {
            let problems = mismatches(schema, text);
            if !problems.is_empty() {
                return Ok(Err(problems));
            }
        }
        if let Some(patterns) = &writes.files {
            let patterns: Result<Vec<String>, _> = patterns
                .iter()
                .map(|pattern| self.templates.render_inline(pattern, context))
                .collect();
            let files: Files = match named_files(text, &patterns?) {
                Ok(files) => files
                    .into_iter()
                    .map(|file| (file.path, file.content))
                    .collect(),
                Err(problem) => return Ok(Err(vec![problem])),
            };
            for (path, _) in &files {
                if let Some(refusal) = self.foreign(&ask.key.step, path)? {
                    return Ok(Err(vec![refusal]));
                }
            }
            return Ok(Ok(files));
        }
        let path = match (&writes.artifact, &writes.path) {
            (Some(artifact), _) => self
                .places
                .iter()
                .find(|place| place.name == *artifact)
                .and_then(|place| place.path.clone()),
            (None, Some(path)) => Some(self.templates.render_inline(path, context)?),
            (None, None) => None,
        };
        let path = path.ok_or_else(|| {
            Stopped::Failed(
                FailureReason::InvalidPlan,
                format!("the answer to {} has no place to go to", ask.key),
            )
        })?;
        // The answer cannot mend this: the path is the procedure's, or of an earlier answer.
        match self.foreign(&ask.key.step, &path)? {
            Some(refusal) => Err(Stopped::Failed(FailureReason::GateFailed, refusal)),
            None => Ok(Ok(vec![(path, text.to_owned())])),
        }
    }

    /// Why a step may not write to a path.
    fn foreign(&self, step: &str, path: &str) -> Result<Option<String>, Stopped> {
        let owners = others(path, step, &self.places)?;
        Ok((!owners.is_empty()).then(|| refusal(path, &owners)))
    }

    fn render(
        &mut self,
        spot: Spot<'_>,
        render: &Render,
    ) -> Result<(String, Vec<String>), Stopped> {
        let context = self.context_of(spot);
        let path = self.templates.render_inline(&render.path, &context)?;
        if let Some(refusal) = self.foreign(&spot.step.name, &path)? {
            return Err(Stopped::Failed(FailureReason::GateFailed, refusal));
        }
        let text = ended(&self.templates.render(&render.template, &context)?);
        self.tree
            .write(|tree| tree.write(&path, text.into(), false))?;
        let cause = format!("{}/{}", spot.step.name, spot.action);
        self.say(
            "sopwith",
            cause,
            spot.attempt,
            String::new(),
            vec![path.clone()],
            (0, 0),
        );
        Ok(("rendered".to_owned(), vec![path]))
    }

    async fn command(
        &mut self,
        spot: Spot<'_>,
        command: &Command,
    ) -> Result<(String, Vec<String>), Stopped> {
        let context = self.context_of(spot);
        let rendered = self.rendered(command, &context)?;
        let collect: Result<Vec<String>, _> = command
            .collect
            .iter()
            .map(|pattern| self.templates.render_inline(pattern, &context))
            .collect();
        let collect = command::Collect {
            patterns: &collect?,
            step: &spot.step.name,
            places: &self.places,
        };
        let taken = command::act(&self.benches, &self.tree, &rendered, collect).await?;
        let command::Taken { wrote, left } = taken;
        let mut message = format!("ran {}", rendered.argv.join(" "));
        if !left.is_empty() {
            message = format!("{message}; stayed behind: {}", left.join(", "));
        }
        let cause = format!("{}/{}", spot.step.name, spot.action);
        self.say(
            "sopwith",
            cause,
            spot.attempt,
            message.clone(),
            wrote.clone(),
            (0, 0),
        );
        Ok((message, wrote))
    }

    pub(crate) fn rendered(&self, command: &Command, context: &Value) -> Result<Rendered, Stopped> {
        let argv: Result<Vec<String>, _> = command
            .argv
            .iter()
            .map(|word| self.templates.render_inline(word, context))
            .collect();
        Ok(Rendered::new(command, argv?)?)
    }
}
