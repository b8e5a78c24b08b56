//! An attempt of a step: its actions in order, the gates between them, and the gates at its end.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sopwith_crds::{
    contract::{
        cassette::Key,
        report::{What, gate_label},
        snapshot::TreeEntry,
    },
    language::{Expression, ExpressionError, TemplateError},
    sop_definition::{
        Action, Command, FailureRule, Gate, GateKind, Loop, Prompt, Render, Step, Work,
    },
    status::{FailureReason, GateStatus, Verdict},
};

use crate::{
    action::{
        command::{self, CommandError, Rendered},
        prompt::{ended, files_schema, named_files, repair, unfenced},
    },
    context::label,
    engine::{Engine, since},
    gate::{Bench, Judgement, judge, judge_command, mismatches, short},
    llm::{Ask, LlmError, codec::ChatMessage},
    role,
    tree::{TreeError, entry},
};

/// Most answers to one question: the first and two repairs.
const TURNS: u32 = 3;
/// Characters of an answer that the trace keeps; the rest is in the files.
const MAX_SAID: usize = 2000;

/// Why an attempt did not pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Stopped {
    /// A gate failed.
    Gate {
        /// The gate, with the action it belongs to.
        gate: String,
        /// Its rules, each with whether its `when` holds.
        rules: Vec<(FailureRule, bool)>,
        /// What has to be mended.
        findings: String,
        /// For people.
        message: String,
    },
    /// The run fails.
    Failed(FailureReason, String),
    /// The launch cannot go on; another may.
    Lost(String),
}

impl From<TemplateError> for Stopped {
    fn from(error: TemplateError) -> Self {
        Self::Failed(FailureReason::InvalidPlan, error.to_string())
    }
}

impl From<TreeError> for Stopped {
    fn from(error: TreeError) -> Self {
        Self::Failed(
            FailureReason::GateFailed,
            format!("a file cannot be part of the project: {error}"),
        )
    }
}

impl From<CommandError> for Stopped {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Failed(reason, message) => Self::Failed(reason, message),
            CommandError::Lost(why) => Self::Lost(why),
        }
    }
}

impl From<LlmError> for Stopped {
    fn from(error: LlmError) -> Self {
        let reason = match &error {
            LlmError::Budget(_) => FailureReason::BudgetExhausted,
            LlmError::NoModel(..) => FailureReason::PolicyDenied,
            LlmError::Replay(_) | LlmError::Incomplete(_) | LlmError::Failed(_) => {
                FailureReason::ProviderFailed
            }
        };
        Self::Failed(reason, error.to_string())
    }
}

/// Where an attempt is.
#[derive(Clone, Copy)]
struct Spot<'a> {
    step: &'a Step,
    attempt: u32,
    findings: &'a str,
    /// `action`, in a loop `loop/action`; empty at the end of the step.
    action: &'a str,
    item: Option<(&'a str, &'a Value)>,
}

impl Spot<'_> {
    fn label(&self) -> Option<String> {
        self.item.map(|(_, item)| label(item))
    }

    fn gate(&self, gate: &Gate) -> String {
        if self.action.is_empty() {
            gate.name.clone()
        } else {
            format!("{}/{}", self.action, gate.name)
        }
    }
}

impl Engine {
    /// Does the step's actions and judges its gates.
    pub(crate) async fn attempt(
        &mut self,
        step: &Step,
        attempt: u32,
        findings: &str,
    ) -> Result<(), Stopped> {
        for action in &step.actions {
            let spot = Spot {
                step,
                attempt,
                findings,
                action: &action.name,
                item: None,
            };
            if !self.wanted(spot, action.when.as_deref())? {
                continue;
            }
            match &action.repeat {
                Some(repeat) => self.repeat(spot, action, repeat).await?,
                None => self.work(spot, &action.work).await?,
            }
            self.gates(spot, &action.gates).await?;
        }
        let spot = Spot {
            step,
            attempt,
            findings,
            action: "",
            item: None,
        };
        self.outputs_are_there(step)?;
        self.gates(spot, &step.gates).await?;
        self.frozen_are_unchanged(step)
    }

    async fn repeat(
        &mut self,
        spot: Spot<'_>,
        action: &Action,
        repeat: &Loop,
    ) -> Result<(), Stopped> {
        let name = repeat.item_name.as_deref().unwrap_or("item");
        for item in self.items(spot, repeat)? {
            for inner in &repeat.actions {
                let path = format!("{}/{}", action.name, inner.name);
                let spot = Spot {
                    action: &path,
                    item: Some((name, &item)),
                    ..spot
                };
                if self.wanted(spot, inner.when.as_deref())? {
                    self.work(spot, &inner.work).await?;
                    self.gates(spot, &inner.gates).await?;
                }
            }
            let spot = Spot {
                item: Some((name, &item)),
                ..spot
            };
            self.gates(spot, &repeat.gates).await?;
        }
        Ok(())
    }

    fn items(&self, spot: Spot<'_>, repeat: &Loop) -> Result<Vec<Value>, Stopped> {
        let wrong = |why: String| {
            Stopped::Failed(
                FailureReason::InvalidPlan,
                format!("forEach of {}/{}: {why}", spot.step.name, spot.action),
            )
        };
        let Some(text) = &repeat.for_each else {
            return Err(wrong("a loop without forEach is not supported yet".into()));
        };
        let context = self.context_of(spot);
        let value = Expression::compile(text).and_then(|expression| expression.evaluate(&context));
        match value.map_err(|error| wrong(error.to_string()))? {
            Value::Array(items) => Ok(items),
            other => Err(wrong(format!(
                "must give a list, but gives {}",
                short(&other.to_string())
            ))),
        }
    }

    async fn work(&mut self, spot: Spot<'_>, work: &Work) -> Result<(), Stopped> {
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
        loop {
            let answer = self.llm.ask(ask, &report).await?;
            let problems = match self.placed(&answer.content, ask, prompt, context)? {
                Ok(files) => return Ok(files),
                Err(problems) => problems,
            };
            if ask.key.turn == TURNS {
                let message = format!(
                    "the answer to {} is not what was asked for after {TURNS} turns: {}",
                    ask.key,
                    problems.join("; ")
                );
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
            ask.key.turn += 1;
            ask.messages
                .push(ChatMessage::new("assistant", answer.content));
            ask.messages
                .push(ChatMessage::new("user", repair(&problems)));
        }
    }

    /// Where an answer goes, or what is wrong with it.
    #[allow(
        clippy::type_complexity,
        reason = "outer: the run fails; inner: the model is asked again"
    )]
    fn placed(
        &self,
        answer: &str,
        ask: &Ask,
        prompt: &Prompt,
        context: &Value,
    ) -> Result<Result<Vec<(String, String)>, Vec<String>>, Stopped> {
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
            return Ok(named_files(text, &patterns?)
                .map(|files| {
                    files
                        .into_iter()
                        .map(|file| (file.path, file.content))
                        .collect()
                })
                .map_err(|problem| vec![problem]));
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
        Ok(Ok(vec![(path, text.to_owned())]))
    }

    fn render(
        &mut self,
        spot: Spot<'_>,
        render: &Render,
    ) -> Result<(String, Vec<String>), Stopped> {
        let context = self.context_of(spot);
        let path = self.templates.render_inline(&render.path, &context)?;
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
        let wrote = command::act(&self.benches, &self.tree, &rendered, &collect?).await?;
        let message = format!("ran {}", rendered.argv.join(" "));
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

    fn rendered(&self, command: &Command, context: &Value) -> Result<Rendered, Stopped> {
        let argv: Result<Vec<String>, _> = command
            .argv
            .iter()
            .map(|word| self.templates.render_inline(word, context))
            .collect();
        Ok(Rendered::new(command, argv?)?)
    }

    fn context_of(&self, spot: Spot<'_>) -> Value {
        self.context(spot.step, spot.attempt, spot.findings, spot.item)
    }

    fn wanted(&self, spot: Spot<'_>, when: Option<&str>) -> Result<bool, Stopped> {
        let Some(when) = when else { return Ok(true) };
        self.holds(when, &self.context_of(spot)).map_err(|error| {
            let message = format!(
                "when of {}/{} cannot be judged: {error}",
                spot.step.name, spot.action
            );
            Stopped::Failed(FailureReason::InvalidPlan, message)
        })
    }

    #[allow(clippy::unused_self, reason = "reads as a question to the engine")]
    fn holds(&self, text: &str, context: &Value) -> Result<bool, ExpressionError> {
        Expression::compile(text)?.holds(context)
    }

    /// Judges gates in order; the first that fails stops the attempt.
    async fn gates(&mut self, spot: Spot<'_>, gates: &[Gate]) -> Result<(), Stopped> {
        for gate in gates {
            if !self.wanted(spot, gate.when.as_deref())? {
                let status = GateStatus {
                    name: gate.name.clone(),
                    kind: gate.kind,
                    verdict: Verdict::Skipped,
                    ..GateStatus::default()
                };
                self.judged(spot, gate, status, String::new());
                continue;
            }
            let context = self.context_of(spot);
            let judgement = self.judge(spot, gate, &context).await?;
            let evidence =
                serde_json_canonicalizer::to_vec(&judgement.evidence).unwrap_or_default();
            self.blobs.add(evidence.into());
            self.judged(
                spot,
                gate,
                judgement.status(gate),
                judgement.findings.clone(),
            );
            if !judgement.passed {
                return Err(self.stopped(spot, gate, &judgement, &context));
            }
        }
        Ok(())
    }

    async fn judge(
        &mut self,
        spot: Spot<'_>,
        gate: &Gate,
        context: &Value,
    ) -> Result<Judgement, Stopped> {
        let (GateKind::Command, Some(asked)) = (gate.kind, &gate.command) else {
            let plan = Arc::clone(&self.plan);
            return Ok(self.tree.read(|tree| {
                judge(
                    gate,
                    Bench {
                        context,
                        places: &self.places,
                        tree,
                        schemas: &plan.schemas,
                    },
                )
            }));
        };
        let commands: Result<Vec<Rendered>, Stopped> = asked
            .run
            .iter()
            .map(|command| self.rendered(command, context))
            .collect();
        let observation = command::observe(&self.benches, &self.tree, asked, &commands?).await?;
        for report in &observation.reports {
            if let Some(bytes) = &report.bytes {
                let file = crate::tree::TreeFile {
                    bytes: bytes.clone().into(),
                    executable: false,
                };
                let kept: TreeEntry = entry(&report.path, &file);
                self.blobs.add(file.bytes);
                self.record.evidence.insert(kept.path.clone(), kept);
            }
        }
        tracing::info!(
            step = spot.step.name,
            gate = gate.name,
            programs = observation.ran.len(),
            "gate ran"
        );
        Ok(judge_command(asked, &observation, context))
    }

    /// Books a verdict.
    fn judged(&mut self, spot: Spot<'_>, gate: &Gate, mut status: GateStatus, findings: String) {
        let verdict = status.verdict;
        // A verdict's evidence is canonical; only the report has a time.
        self.record
            .gates
            .insert(format!("{}/{}", spot.step.name, gate.name), status.clone());
        let observed = status.observed.clone().unwrap_or_default();
        let said = format!(
            "{} {verdict:?}: {observed}\n{findings}",
            gate_label(gate.kind, &gate.name)
        );
        self.say(
            "sopwith",
            format!("{}/{}", spot.step.name, spot.gate(gate)),
            spot.attempt,
            said.trim_end().to_owned(),
            Vec::new(),
            (0, 0),
        );
        status.at = Some(Time(Timestamp::now()));
        self.reporter.record([What::GateJudged {
            step: spot.step.name.clone(),
            attempt: spot.attempt,
            gate: status,
            findings,
        }]);
    }

    fn stopped(
        &self,
        spot: Spot<'_>,
        gate: &Gate,
        judgement: &Judgement,
        context: &Value,
    ) -> Stopped {
        let mut rules = Vec::new();
        for rule in &gate.on_failure {
            let applies = match &rule.when {
                None => true,
                Some(when) => match self.holds(when, context) {
                    Ok(applies) => applies,
                    Err(error) => {
                        let message = format!(
                            "when of a rule of gate {} cannot be judged: {error}",
                            spot.gate(gate)
                        );
                        return Stopped::Failed(FailureReason::InvalidPlan, message);
                    }
                },
            };
            rules.push((rule.clone(), applies));
        }
        Stopped::Gate {
            gate: spot.gate(gate),
            rules,
            findings: judgement.findings.clone(),
            message: format!("gate {} failed: {}", gate.name, judgement.observed),
        }
    }

    /// A step hands over what it declares, and JSON that matches its schema.
    fn outputs_are_there(&self, step: &Step) -> Result<(), Stopped> {
        for place in self.places.iter().filter(|place| place.step == step.name) {
            let Some(path) = &place.path else { continue };
            let text = self.tree.read(|tree| tree.text(path));
            let problem = match (
                &text,
                place
                    .schema
                    .as_ref()
                    .and_then(|name| self.plan.schemas.get(name)),
            ) {
                (None, _) => Some(format!(
                    "the output {} is missing: there is no file {path}",
                    place.name
                )),
                (Some(text), Some(schema)) => {
                    let problems = mismatches(schema, text);
                    (!problems.is_empty()).then(|| {
                        format!(
                            "the output {} ({path}) does not match its schema: {}",
                            place.name,
                            problems.join("; ")
                        )
                    })
                }
                (Some(_), None) => None,
            };
            if let Some(message) = problem {
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
        }
        Ok(())
    }

    /// What an earlier step froze is as it was.
    fn frozen_are_unchanged(&self, step: &Step) -> Result<(), Stopped> {
        for (path, frozen) in self
            .record
            .machine
            .frozen
            .iter()
            .filter(|(_, frozen)| frozen.step != step.name)
        {
            let digest = self.tree.read(|tree| {
                tree.get(path)
                    .map(|file| sopwith_crds::contract::Digest::of(&file.bytes))
            });
            if digest.as_ref() != Some(&frozen.digest) {
                let message = format!(
                    "step {} changed {path}, which belongs to the frozen artifact {} of step {}",
                    step.name, frozen.artifact, frozen.step
                );
                return Err(Stopped::Failed(FailureReason::GateFailed, message));
            }
        }
        Ok(())
    }
}
