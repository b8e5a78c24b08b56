//! Doing an action: asking a model, running a program, rendering a template; then what was written is told.

use std::sync::Arc;

use serde_json::Value;
use sopwith_crds::{
    contract::{report::What, snapshot::SYSTEM},
    sop_definition::{Command, Prompt, Render, Work},
    status::FailureReason,
};

use super::{
    command::{self, Rendered},
    draft::{self, Draft, Told},
    form::Form,
    prompt::{ended, named_files},
    repairs::Repairs,
    spent::Spent,
    tool::Session,
};
use crate::{
    attempt::{Spot, Stopped},
    engine::Engine,
    gate::short,
    llm::{Ask, LlmError},
    messages::remembered,
    ownership::{others, refusal},
    recall,
};

/// Characters of an answer that the trace keeps; the rest is in the files.
const MAX_SAID: usize = 2000;

/// Paths and texts.
type Files = Vec<(String, String)>;

/// What an action asks a model for.
#[derive(Clone, Copy)]
struct Question<'a> {
    draft: &'a Draft,
    form: &'a Form,
    prompt: &'a Prompt,
    context: &'a Value,
}

impl Engine {
    pub(crate) async fn work(&mut self, spot: Spot<'_>, work: &Work) -> Result<(), Stopped> {
        // An earlier run did it.
        if self.state().inherited(&spot.step.name) {
            return Ok(());
        }
        self.tree.take_read();
        let mut by_tools = Vec::new();
        let (message, wrote) = if let Some(prompt) = &work.prompt {
            // Conversations are long futures; every launch would carry one in its own.
            let (message, wrote, also) = Box::pin(self.prompt(spot, prompt)).await?;
            by_tools = also;
            (message, wrote)
        } else if let Some(command) = &work.command {
            self.command(spot, command).await?
        } else if let Some(render) = &work.render {
            self.render(spot, render)?
        } else if let Some(call) = &work.tool {
            Box::pin(self.tool(spot, call)).await?
        } else {
            let message = format!(
                "the action {}/{} has nothing to do that this version supports",
                spot.step.name, spot.action
            );
            return Err(Stopped::Failed(FailureReason::InvalidPlan, message));
        };
        if work.tool.is_none() {
            let by_program = work.command.is_some();
            self.record.machine.wrote(&wrote, by_program);
        }
        self.made(spot, work, wrote.iter().chain(&by_tools));
        if !wrote.is_empty() {
            self.worked_on(spot);
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

    /// What it did, for people; the paths that the answer wrote, and those that tools did.
    async fn prompt(
        &mut self,
        spot: Spot<'_>,
        prompt: &Prompt,
    ) -> Result<(String, Vec<String>, Vec<String>), Stopped> {
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
        let remembers = role.memory.is_some();
        let messages = remembers.then(|| remembered(&self.record.messages, role));
        let form = Form::of(&plan, prompt);
        let recalled = recall::of_step(&plan, spot.step, spot.findings);
        let told = Told {
            form: form.words(),
            recalled: &recalled,
            messages: &messages.unwrap_or_default(),
            findings: spot.findings,
        };
        let draft = Draft::new(&self.templates, prompt, role, &context, &told)?;
        let mut ask = Ask {
            key: spot.key(),
            model: role
                .model
                .clone()
                .unwrap_or_else(|| plan.options.model.clone()),
            messages: Vec::new(),
            temperature: role.temperature.as_ref().and_then(|text| text.parse().ok()),
            max_output: role.max_output_tokens,
            schema: form.schema(),
            ..Ask::default()
        };
        let spent = Spent::default();
        let mut session = self.session(role, &ask)?;
        let shortened = self.fit(&mut ask, &draft)?;
        let question = Question {
            draft: &draft,
            form: &form,
            prompt,
            context: &context,
        };
        let files = self
            .answered(spot, &mut session, &mut ask, question, &spent)
            .await?;
        let said = files
            .iter()
            .map(|(_, text)| text.as_str())
            .collect::<Vec<_>>()
            .join("\n");
        let said = kept(&said);
        let mut wrote = Vec::new();
        for (path, text) in files {
            self.put(&path, ended(&text))?;
            wrote.push(path);
        }
        self.acted(spot, &role.name, said, wrote.clone(), spent.tokens());
        let mut message = role.name.clone();
        if !session.wrote.is_empty() {
            message = format!(
                "{message} changed {} with tools and",
                session.wrote.join(", ")
            );
        }
        message += " wrote";
        if !shortened.is_empty() {
            message = format!(
                "{message} (shortened for its window: {})",
                shortened.join(", ")
            );
        }
        Ok((message, wrote, session.wrote))
    }

    /// Puts a question so that it fits into its model's window with what was said since; gives the values that were shortened.
    pub(super) fn fit(&self, ask: &mut Ask, draft: &Draft) -> Result<Vec<String>, Stopped> {
        let first = ask.messages.len().min(draft::MESSAGES);
        let since = ask.messages.split_off(first);
        let window = self.llm.largest_window(&ask.model, ask.max_output);
        let schema = ask
            .schema
            .iter()
            .map(|(_, schema)| schema.to_string().len());
        let said = since.iter().map(|message| message.content.len());
        let fitted = draft
            .fitted(&window, schema.chain(said).sum())
            .map_err(|why| LlmError::TooLong(format!("{}: {why}", ask.key)))?;
        if !fitted.shortened.is_empty() {
            tracing::warn!(key = %ask.key, %window, values = ?fitted.shortened, "values were shortened to fit");
        }
        ask.messages = fitted.messages;
        ask.messages.extend(since);
        Ok(fitted.shortened)
    }

    /// Asks until the answer is what was asked for; gives paths and texts. Calls of tools are made on the way.
    async fn answered(
        &self,
        spot: Spot<'_>,
        session: &mut Session,
        ask: &mut Ask,
        question: Question<'_>,
        spent: &Spent,
    ) -> Result<Files, Stopped> {
        let Question {
            draft,
            form,
            prompt,
            context,
        } = question;
        let reporter = self.reporter.clone();
        let report = move |what: What| {
            spent.count(&what);
            reporter.record([what]);
        };
        let mut repairs = Repairs::default();
        loop {
            session.prepare(ask);
            let said = self.llm.converse(ask, &report).await?;
            if !said.calls.is_empty() {
                self.answer_calls(spot, session, ask, said).await?;
                continue;
            }
            let answer = said.text;
            let placed = match form.read(&answer) {
                Ok(text) => self.placed(&text, ask, prompt, context)?,
                Err(problems) => Err(problems),
            };
            let problems = match placed {
                Ok(files) => return Ok(files),
                Err(problems) => problems,
            };
            let key = ask.key.clone();
            repairs.again(ask, answer, &problems).map_err(|why| {
                let message = format!("the answer to {key} {why}");
                Stopped::Failed(FailureReason::GateFailed, message)
            })?;
            // What tools said makes room by itself.
            if !session.calls() {
                self.fit(ask, draft)?;
            }
        }
    }

    /// Where what an answer says goes, or what is wrong with that and the model is told. The outer error fails the run.
    fn placed(
        &self,
        text: &str,
        ask: &Ask,
        prompt: &Prompt,
        context: &Value,
    ) -> Result<Result<Files, Vec<String>>, Stopped> {
        let writes = &prompt.writes;
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
            let lost = files.iter().filter_map(|(path, _)| self.lost(path, ask));
            let lost: Vec<String> = lost.collect();
            return Ok(if lost.is_empty() {
                Ok(files)
            } else {
                Err(lost)
            });
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
        self.may_write(&ask.key.step, &path)?;
        match self.lost(&path, ask) {
            None => Ok(Ok(vec![(path, text.to_owned())])),
            // It can read the file first.
            Some(lost) if !ask.callable.functions.is_empty() && !ask.callable.over => {
                Ok(Err(vec![lost]))
            }
            Some(lost) => {
                let message = format!(
                    "{lost}; {} can do neither: show it the file with file(path) in the template, or grant its role read_file",
                    ask.key
                );
                Err(Stopped::Failed(FailureReason::GateFailed, message))
            }
        }
    }

    /// An error where a step may not write to a path that the procedure names.
    pub(crate) fn may_write(&self, step: &str, path: &str) -> Result<(), Stopped> {
        let reason = if self.guard.is_denied(path) {
            FailureReason::PolicyDenied
        } else {
            FailureReason::GateFailed
        };
        match self.foreign(step, path)? {
            Some(refusal) => Err(Stopped::Failed(reason, refusal)),
            None => Ok(()),
        }
    }

    /// Why a step may not write to a path.
    pub(crate) fn foreign(&self, step: &str, path: &str) -> Result<Option<String>, Stopped> {
        let owners = others(path, step, &self.places)?;
        let foreign = (!owners.is_empty()).then(|| refusal(path, &owners));
        Ok(foreign.or_else(|| self.guard.refusal(path)))
    }

    fn render(
        &mut self,
        spot: Spot<'_>,
        render: &Render,
    ) -> Result<(String, Vec<String>), Stopped> {
        let context = self.context_of(spot);
        let path = self.templates.render_inline(&render.path, &context)?;
        self.may_write(&spot.step.name, &path)?;
        let text = ended(&self.templates.render(&render.template, &context)?);
        self.put(&path, text)?;
        self.acted(spot, SYSTEM, String::new(), vec![path.clone()], (0, 0));
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
            guard: &self.guard,
        };
        let taken = command::act(&self.benches, &self.tree, &rendered, collect).await?;
        let command::Taken { wrote, left } = taken;
        let mut message = format!("ran {}", rendered.argv.join(" "));
        if !left.is_empty() {
            message = format!("{message}; stayed behind: {}", left.join(", "));
        }
        self.acted(spot, SYSTEM, message.clone(), wrote.clone(), (0, 0));
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

/// As much of an answer as the trace keeps.
fn kept(said: &str) -> String {
    let length = said.chars().count();
    if length <= MAX_SAID {
        return said.to_owned();
    }
    let kept: String = said.chars().take(MAX_SAID).collect();
    format!(
        "{kept}\n[… {} characters more in what it wrote]",
        length - MAX_SAID
    )
}
