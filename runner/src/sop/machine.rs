//! Steps in the order of the plan, gates that steer, rounds that bound. Event sourced: the state is the fold of what happened.

use std::collections::{BTreeMap, BTreeSet};

use sopwith_crds::{
    contract::plan::RunPlan,
    sop_definition::{AfterFailure, FailureAction, FailureRule, Step, Workspace},
    status::{Failure, FailureReason},
};

use super::state::{Phase, State, Wait};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look at this step: skip it where its `when` is false, else attempt it.
    Step(usize),
    /// Nothing, until a person has decided on this.
    Wait(Wait),
    /// Every step is finished or skipped.
    Succeeded,
    /// The run failed.
    Failed(Failure),
}

/// A gate that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step.
    pub step: String,
    /// The gate, with the action it belongs to: `action/gate`.
    pub gate: String,
    /// Its rules, each with whether its `when` holds.
    pub rules: Vec<(FailureRule, bool)>,
    /// What follows where no rule is left.
    pub exhausted: AfterFailure,
    /// Why the run fails, where that is what follows.
    pub reason: FailureReason,
    /// What the next attempt has to mend.
    pub findings: String,
    /// For people.
    pub message: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A step's `when` was false.
    Skipped {
        /// The step.
        step: String,
    },
    /// What an earlier run left of a step is not what the step must hand over: it is done again.
    NotInherited {
        /// The step.
        step: String,
    },
    /// An attempt began.
    Started {
        /// The step.
        step: String,
    },
    /// The attempt cannot go on until a person has decided.
    Waits(Wait),
    /// A person decided, and the attempt goes on.
    Resumed {
        /// The step.
        step: String,
    },
    /// Every action and gate of the attempt passed or was waived.
    Passed {
        /// The step.
        step: String,
    },
    /// A gate failed.
    GateFailed(Fault),
    /// A person decided what follows from a gate that failed.
    Steered {
        /// The gate; its rules do not matter any more.
        fault: Fault,
        /// What follows.
        way: Way,
    },
    /// An attempt failed otherwise; the run ends.
    Failed {
        /// The step.
        step: String,
        /// Why.
        reason: FailureReason,
        /// For people.
        message: String,
    },
}

/// Where the line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The next step of the plan, or the end.
    Proceed,
    /// The same step again.
    Retry,
    /// An earlier step again.
    Backtrack {
        /// The step.
        to: String,
    },
    /// A person decides.
    Ask,
    /// The run ends.
    Fail(FailureReason),
}

/// What is to be done in this state. The first step in the plan's order that is not settled and whose needs are.
pub fn next(plan: &RunPlan, state: &State) -> Decision {
    if let Some(failure) = &state.failure {
        return Decision::Failed(failure.clone());
    }
    if let Some(wait) = &state.wait {
        return Decision::Wait(wait.clone());
    }
    let open = |step: &Step| !state.settled(&step.name);
    let ready = |step: &Step| step.needs.iter().all(|need| state.settled(need));
    if let Some(index) = plan.steps.iter().position(|step| open(step) && ready(step)) {
        return Decision::Step(index);
    }
    match plan.steps.iter().find(|step| open(step)) {
        None => Decision::Succeeded,
        Some(step) => Decision::Failed(Failure {
            reason: FailureReason::InvalidPlan,
            step: Some(step.name.clone()),
            message: format!(
                "step {} waits for steps that cannot finish: {}",
                step.name,
                step.needs.join(", ")
            ),
        }),
    }
}

/// Where the line goes after what happened.
pub fn way(plan: &RunPlan, state: &State, happened: &Happened) -> Way {
    let wanted = match happened {
        Happened::Skipped { .. }
        | Happened::NotInherited { .. }
        | Happened::Started { .. }
        | Happened::Resumed { .. }
        | Happened::Passed { .. } => Way::Proceed,
        Happened::Waits(_) => Way::Ask,
        Happened::Failed { reason, .. } => Way::Fail(*reason),
        Happened::Steered { way, .. } => way.clone(),
        Happened::GateFailed(fault) => match rule(state, fault) {
            Some((_, rule)) => match (rule.action, &rule.to) {
                (FailureAction::Retry, _) => Way::Retry,
                (FailureAction::Backtrack, Some(to)) => Way::Backtrack { to: to.clone() },
                (FailureAction::Ask, _) => Way::Ask,
                (FailureAction::Backtrack | FailureAction::Fail, _) => Way::Fail(fault.reason),
            },
            None if fault.exhausted == AfterFailure::Ask => Way::Ask,
            None => Way::Fail(fault.reason),
        },
    };
    match wanted {
        Way::Backtrack { .. } if state.round >= plan.options.rounds => {
            Way::Fail(FailureReason::RoundsExhausted)
        }
        Way::Backtrack { to } if plan.steps.iter().all(|step| step.name != to) => {
            Way::Fail(FailureReason::InvalidPlan)
        }
        way => way,
    }
}

/// The steps that a line can be sent back to from a step: those it needs, directly or through others. None where no round
/// is left.
pub fn targets(plan: &RunPlan, state: &State, from: &str) -> Vec<String> {
    if state.round >= plan.options.rounds {
        return Vec::new();
    }
    let mut needed = BTreeSet::from([from]);
    // The plan's order has needs before what needs them, so one pass from the end finds all.
    for step in plan.steps.iter().rev() {
        if needed.contains(step.name.as_str()) {
            needed.extend(step.needs.iter().map(String::as_str));
        }
    }
    let steps = plan.steps.iter().map(|step| &step.name);
    steps
        .filter(|name| *name != from && needed.contains(name.as_str()))
        .cloned()
        .collect()
}

/// The step to whose beginning the project goes back after what happened, where the rule that is used says so.
pub fn restores(plan: &RunPlan, state: &State, happened: &Happened) -> Option<String> {
    let Happened::GateFailed(fault) = happened else {
        return None;
    };
    let (_, rule) = rule(state, fault)?;
    if rule.workspace != Some(Workspace::Restore) {
        return None;
    }
    match way(plan, state, happened) {
        Way::Retry => Some(fault.step.clone()),
        Way::Backtrack { to } => Some(to),
        Way::Proceed | Way::Ask | Way::Fail(_) => None,
    }
}

/// How often each rule was used for an item of a loop, in one attempt of the step.
pub type ItemRules = BTreeMap<String, u32>;

/// Whether an item of a loop is begun again after one of its gates failed, and what becomes of the files then. Where it is
/// not, the rules that are left say where the line goes: what would only begin the item again does not apply any more.
pub fn item_again(state: &State, used: &mut ItemRules, fault: &mut Fault) -> Option<Workspace> {
    let found = first(fault, |key, rule| match rule.action {
        FailureAction::Retry => used.get(key).copied().unwrap_or(0),
        _ => state.used.get(key).copied().unwrap_or(0),
    });
    if let Some((key, rule)) = found
        && rule.action == FailureAction::Retry
    {
        let workspace = rule.workspace.unwrap_or_default();
        *used.entry(key).or_default() += 1;
        return Some(workspace);
    }
    for (rule, applies) in &mut fault.rules {
        *applies &= rule.action != FailureAction::Retry;
    }
    None
}

/// The first rule that applies and has attempts left.
fn rule<'a>(state: &State, fault: &'a Fault) -> Option<(String, &'a FailureRule)> {
    first(fault, |key, _| state.used.get(key).copied().unwrap_or(0))
}

/// The first rule that applies and was used less often than it may be. Asking and failing are not bounded.
fn first(
    fault: &Fault,
    used: impl Fn(&str, &FailureRule) -> u32,
) -> Option<(String, &FailureRule)> {
    let left = |key: &str, rule: &FailureRule| match rule.action {
        FailureAction::Ask | FailureAction::Fail => true,
        FailureAction::Retry | FailureAction::Backtrack => {
            used(key, rule) < rule.max_attempts.unwrap_or(1)
        }
    };
    fault
        .rules
        .iter()
        .enumerate()
        .map(|(index, (rule, applies))| {
            let key = format!("{}/{}#{index}", fault.step, fault.gate);
            (key, rule, *applies)
        })
        .find(|(key, rule, applies)| *applies && left(key, rule))
        .map(|(key, rule, _)| (key, rule))
}

/// The state after what happened. A gate that failed and asks is followed by [`Happened::Waits`].
#[must_use]
pub fn apply(plan: &RunPlan, state: &State, happened: &Happened) -> State {
    let mut after = state.clone();
    match happened {
        Happened::Skipped { step } => after.set(step, |step| step.phase = Phase::Skipped),
        Happened::NotInherited { step } => after.set(step, |step| step.inherited = false),
        Happened::Started { step } => {
            if !after.inherited(step) {
                after.disown(plan, step);
            }
            after.set(step, |step| {
                step.phase = Phase::Running;
                step.attempts += 1;
            });
        }
        Happened::Waits(wait) => {
            after.set(&wait.step, |step| step.phase = Phase::Waiting);
            after.wait = Some(wait.clone());
        }
        Happened::Resumed { step } => {
            after.wait = None;
            after.set(step, |step| step.phase = Phase::Running);
        }
        Happened::Passed { step } => after.set(step, |step| {
            step.phase = Phase::Finished;
            step.findings.clear();
            step.inherited = false;
        }),
        Happened::Failed {
            step,
            reason,
            message,
        } => after.fail(step, *reason, message),
        Happened::GateFailed(fault) => {
            if let Some((key, _)) = rule(state, fault) {
                *after.used.entry(key).or_default() += 1;
            }
            after.steer(plan, fault, way(plan, state, happened));
        }
        Happened::Steered { fault, .. } => after.steer(plan, fault, way(plan, state, happened)),
    }
    after
}

impl State {
    fn steer(&mut self, plan: &RunPlan, fault: &Fault, way: Way) {
        match way {
            Way::Retry => self.set(&fault.step, |step| {
                step.phase = Phase::Pending;
                step.inherited = false;
                step.findings.clone_from(&fault.findings);
            }),
            Way::Backtrack { to } => self.back(plan, &fault.step, &to, &fault.findings),
            Way::Fail(FailureReason::RoundsExhausted) => {
                let message = format!(
                    "{}; no round is left to go back ({} rounds, see spec.rounds)",
                    fault.message, plan.options.rounds
                );
                self.fail(&fault.step, FailureReason::RoundsExhausted, &message);
            }
            Way::Fail(reason) => self.fail(&fault.step, reason, &fault.message),
            // A failed gate never ends in success: who only goes on from here has not judged it.
            Way::Proceed | Way::Ask => {}
        }
    }

    /// A step is done anew: what builds on what it left before is done again, too.
    fn disown(&mut self, plan: &RunPlan, name: &str) {
        for name in again(plan, name, name) {
            self.set(&name, |step| step.inherited = false);
        }
    }

    /// A new round: the target, the step that failed and all that builds on the target are open again.
    fn back(&mut self, plan: &RunPlan, from: &str, to: &str, findings: &str) {
        self.round += 1;
        for name in again(plan, from, to) {
            self.set(&name, |step| {
                step.phase = Phase::Pending;
                step.inherited = false;
                step.findings.clear();
            });
        }
        self.set(to, |step| findings.clone_into(&mut step.findings));
    }
}

/// Steps that are open again after a backtrack.
pub(crate) fn again(plan: &RunPlan, from: &str, to: &str) -> BTreeSet<String> {
    let mut again = BTreeSet::from([from.to_owned(), to.to_owned()]);
    // The plan's order has needs before what needs them, so one pass finds all.
    for step in &plan.steps {
        if step.needs.iter().any(|need| again.contains(need)) {
            again.insert(step.name.clone());
        }
    }
    again
}
