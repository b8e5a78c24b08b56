//! An attempt of a step: its actions in order, or as its role picks them, the gates between them, and the gates at its end.

use std::time::Duration;

use serde_json::Value;
use sopwith_crds::{
    contract::cassette::Key,
    language::{Expression, ExpressionError, TemplateError},
    sop_definition::{Action, Gate, Step},
    status::FailureReason,
};

use crate::{
    action::command::CommandError,
    engine::Engine,
    gate::approval::{Answer, Asked},
    llm::LlmError,
    sop::{Fault, Point, Wait, Way},
    tree::TreeError,
    unmet,
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
    /// Which time the attempt does the action, from 1, where the role picks its actions; none by order.
    pub(crate) pick: Option<u32>,
    /// Where it is in a loop; none outside of one.
    pub(crate) lap: Option<Lap<'a>>,
}

/// Where a loop is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lap<'a> {
    /// The item at hand; none in a loop over nothing.
    pub(crate) item: Option<Item<'a>>,
    /// How often the item was begun again.
    pub(crate) retry: u32,
    /// The pass over it since then, from 1.
    pub(crate) pass: u32,
}

/// An item of a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item<'a> {
    /// The name under which expressions and templates see it.
    pub(crate) name: &'a str,
    /// The item.
    pub(crate) value: &'a Value,
    /// How keys and messages name it.
    pub(crate) label: &'a str,
}

impl<'a> Spot<'a> {
    pub(crate) fn of_action(self, index: usize, action: &'a Action) -> Self {
        Self {
            index: Some(index),
            action: &action.name,
            ..self
        }
    }

    /// The place of one of its gates; none in a loop and between actions that a role picks, where an attempt cannot be taken up
    /// again.
    pub(crate) fn point(&self, gate: usize) -> Option<Point> {
        let in_order = self.lap.is_none() && self.pick.is_none();
        in_order.then_some(Point {
            action: self.index,
            gate,
        })
    }

    pub(crate) fn label(&self) -> Option<String> {
        let item = self.lap?.item?;
        Some(item.label.to_owned())
    }

    /// Which request of the run is the first that an action makes here.
    pub(crate) fn key(&self) -> Key {
        let first = Key::default();
        Key {
            step: self.step.name.clone(),
            action: self.action.to_owned(),
            item: self.label().unwrap_or_default(),
            attempt: self.attempt,
            pick: self.pick.unwrap_or(first.pick),
            retry: self.lap.map_or(first.retry, |lap| lap.retry),
            pass: self.lap.map_or(first.pass, |lap| lap.pass),
            ..first
        }
    }

    /// Where it is, for what failed there.
    pub(crate) fn place<'p>(&'p self, path: &'p str) -> unmet::Place<'p> {
        unmet::Place {
            step: &self.step.name,
            path,
            item: self.lap.and_then(|lap| lap.item).map(|item| item.label),
        }
    }

    /// How messages name the place: `step/action`, with the item in a loop.
    pub(crate) fn name(&self) -> String {
        let place = format!("{}/{}", self.step.name, self.action);
        match self.label() {
            Some(label) => format!("{place}[{label}]"),
            None => place,
        }
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
            pick: None,
            lap: None,
        };
        let mut point = None;
        if let Some(decided) = decided {
            self.decided(end, decided)?;
            point = Some(decided.wait.point);
        }
        match self.picking(step) {
            // Conversations are long futures; every launch would carry one in its own.
            Some(role) if point.is_none() => Box::pin(self.react(end, &role)).await?,
            // People decide only on what comes after its actions.
            Some(_) => {}
            None => Box::pin(self.in_order(end, &mut point)).await?,
        }
        self.outputs_are_there(step)?;
        let judged = point.map_or(0, |point| point.gate + 1);
        self.gates(end, &step.gates, judged).await?;
        self.frozen_are_unchanged(step)?;
        self.nothing_is_guarded()
    }

    /// Does a step's actions in order, from the gate on at which the attempt waited; the point is taken where it is in an action.
    async fn in_order(&mut self, end: Spot<'_>, point: &mut Option<Point>) -> Result<(), Stopped> {
        let actions = &end.step.actions;
        let first = point.map_or(0, |point| point.action.unwrap_or(actions.len()));
        for (index, action) in actions.iter().enumerate().skip(first) {
            let spot = end.of_action(index, action);
            if let Some(waited) = point.take_if(|_| index == first) {
                self.gates(spot, &action.gates, waited.gate + 1).await?;
                continue;
            }
            let wanted = self.wanted(spot, action.when.as_deref())?;
            // What failed is judged again, whether the action is done again or not.
            if wanted || self.has_unmet(spot) {
                self.act(spot, action, wanted).await?;
            }
        }
        Ok(())
    }

    /// Does an action where it is wanted, and has its gates judged.
    pub(crate) async fn act(
        &mut self,
        spot: Spot<'_>,
        action: &Action,
        wanted: bool,
    ) -> Result<(), Stopped> {
        let seconds = action.timeout_seconds;
        match &action.repeat {
            Some(repeat) => timed(spot, seconds, Box::pin(self.repeat(spot, repeat))).await?,
            None if wanted => timed(spot, seconds, self.work(spot, &action.work)).await?,
            None => {}
        }
        self.gates(spot, &action.gates, 0).await
    }

    pub(crate) fn context_of(&self, spot: Spot<'_>) -> Value {
        self.context(spot.step, spot.attempt, spot.findings, spot.lap)
    }

    /// Whether a gate of the action at hand failed and has not passed since.
    pub(crate) fn has_unmet(&self, spot: Spot<'_>) -> bool {
        self.record.machine.unmet.in_action(spot.place(spot.action))
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

/// Work within the seconds that an action may take.
pub(crate) async fn timed(
    spot: Spot<'_>,
    seconds: Option<u32>,
    work: impl Future<Output = Result<(), Stopped>>,
) -> Result<(), Stopped> {
    let Some(seconds) = seconds else {
        return work.await;
    };
    let most = Duration::from_secs(seconds.into());
    tokio::time::timeout(most, work).await.unwrap_or_else(|_| {
        let message = format!(
            "the action {} took longer than {seconds} s (timeoutSeconds of the action)",
            spot.name()
        );
        Err(Stopped::Failed(FailureReason::StepTimeout, message))
    })
}

/// Whether a condition holds.
pub(crate) fn holds(text: &str, context: &Value) -> Result<bool, ExpressionError> {
    Expression::compile(text)?.holds(context)
}
