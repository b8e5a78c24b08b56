//! An attempt of a step: its actions in order, the gates between them, and the gates at its end.

use serde_json::Value;
use sopwith_crds::{
    language::{Expression, ExpressionError, TemplateError},
    sop_definition::{Action, Gate, Loop, Step},
    status::FailureReason,
};

use crate::{
    action::command::CommandError,
    context::label,
    engine::Engine,
    gate::{
        approval::{Answer, Asked},
        short,
    },
    llm::LlmError,
    sop::{Fault, Point, Wait, Way},
    tree::TreeError,
};

/// Why an attempt did not pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Stopped {
    /// A gate failed.
    Gate {
        /// Which, and what may follow.
        fault: Box<Fault>,
        /// What a person is asked, where that follows.
        asked: Option<Box<Asked>>,
    },
    /// A gate that only people judge.
    Asks(Box<Asked>),
    /// A person decided what follows from a gate that failed.
    Steered(Box<Fault>, Way),
    /// The run fails.
    Failed(FailureReason, String),
    /// The launch cannot go on; another may.
    Lost(String),
}

impl Stopped {
    /// A fault of ours.
    pub(crate) fn internal(error: &impl std::fmt::Display) -> Self {
        Self::Failed(FailureReason::Internal, error.to_string())
    }
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

/// A wait and what a person decided.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) wait: Wait,
    pub(crate) answer: Answer,
}

/// Where an attempt is.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) step: &'a Step,
    /// Number of the action; none at the end of the step.
    pub(crate) index: Option<usize>,
    pub(crate) attempt: u32,
    pub(crate) findings: &'a str,
    /// `action`, in a loop `loop/action`; empty at the end of the step.
    pub(crate) action: &'a str,
    pub(crate) item: Option<(&'a str, &'a Value)>,
}

impl<'a> Spot<'a> {
    pub(crate) fn of_action(self, index: usize, action: &'a Action) -> Self {
        Self {
            index: Some(index),
            action: &action.name,
            ..self
        }
    }

    /// The place of one of its gates; none in a loop, where an attempt cannot be taken up again.
    pub(crate) fn point(&self, gate: usize) -> Option<Point> {
        self.item.is_none().then_some(Point {
            action: self.index,
            gate,
        })
    }

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
    /// Does the step's actions and judges its gates; after a decision, those that follow the gate that waited.
    pub(crate) async fn attempt(
        &mut self,
        step: &Step,
        attempt: u32,
        findings: &str,
        decided: Option<&Decided>,
    ) -> Result<(), Stopped> {
        let end = Spot {
            step,
            attempt,
            findings,
            index: None,
            action: "",
            item: None,
        };
        let mut point = None;
        if let Some(decided) = decided {
            self.decided(end, decided)?;
            point = Some(decided.wait.point);
        }
        let first = point.map_or(0, |point| point.action.unwrap_or(step.actions.len()));
        for (index, action) in step.actions.iter().enumerate().skip(first) {
            let spot = end.of_action(index, action);
            let judged = point
                .take_if(|_| index == first)
                .map(|point| point.gate + 1);
            if judged.is_none() {
                if !self.wanted(spot, action.when.as_deref())? {
                    continue;
                }
                match &action.repeat {
                    Some(repeat) => self.repeat(spot, action, repeat).await?,
                    None => self.work(spot, &action.work).await?,
                }
            }
            self.gates(spot, &action.gates, judged.unwrap_or(0)).await?;
        }
        self.outputs_are_there(step)?;
        let judged = point.map_or(0, |point| point.gate + 1);
        self.gates(end, &step.gates, judged).await?;
        self.frozen_are_unchanged(step)?;
        self.nothing_is_guarded()
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
                    self.gates(spot, &inner.gates, 0).await?;
                }
            }
            let spot = Spot {
                item: Some((name, &item)),
                ..spot
            };
            self.gates(spot, &repeat.gates, 0).await?;
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
