//! An attempt of a step: its actions in order, the gates between them, and the gates at its end.

use serde_json::Value;
use sopwith_crds::{
    language::{Expression, ExpressionError, TemplateError},
    sop_definition::{Action, FailureRule, Gate, Loop, Step},
    status::FailureReason,
};

use crate::{
    action::command::CommandError, context::label, engine::Engine, gate::short, llm::LlmError,
    tree::TreeError,
};

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
        Self::Failed(error.reason(), error.to_string())
    }
}

/// Where an attempt is.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) step: &'a Step,
    pub(crate) attempt: u32,
    pub(crate) findings: &'a str,
    /// `action`, in a loop `loop/action`; empty at the end of the step.
    pub(crate) action: &'a str,
    pub(crate) item: Option<(&'a str, &'a Value)>,
}

impl Spot<'_> {
    pub(crate) fn label(&self) -> Option<String> {
        self.item.map(|(_, item)| label(item))
    }

    pub(crate) fn gate(&self, gate: &Gate) -> String {
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

    pub(crate) fn context_of(&self, spot: Spot<'_>) -> Value {
        self.context(spot.step, spot.attempt, spot.findings, spot.item)
    }

    pub(crate) fn wanted(&self, spot: Spot<'_>, when: Option<&str>) -> Result<bool, Stopped> {
        let Some(when) = when else { return Ok(true) };
        holds(when, &self.context_of(spot)).map_err(|error| {
            let message = format!(
                "when of {}/{} cannot be judged: {error}",
                spot.step.name, spot.action
            );
            Stopped::Failed(FailureReason::InvalidPlan, message)
        })
    }
}

/// Whether a condition holds.
pub(crate) fn holds(text: &str, context: &Value) -> Result<bool, ExpressionError> {
    Expression::compile(text)?.holds(context)
}
