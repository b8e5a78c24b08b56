//! Which decisions count, and whether they are enough. Pure: the same run, policy and moment give the same tally.

use super::{observe::Pending, progress::Waiting};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use sopwith_crds::{
    agent_run::{AgentRunSpec, Decision, DecisionVerdict},
    sop_definition::GateKind,
    status::DecisionStatus,
    tool_policy::{Approvals, ToolPolicy},
};

/// Most decisions whose fate a status shows.
pub const MOST_SHOWN: usize = 32;
/// Bytes of a message about one decision.
const MAX_MESSAGE: usize = 160;

/// How the decisions on a wait stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What became of each decision of the run.
    pub fates: Vec<DecisionStatus>,
    /// The decisions that the next launch is told; empty until they are enough.
    pub answer: Vec<Decision>,
    /// Of those who let the line go on, how many did, and how many it takes.
    pub votes: (usize, usize),
    /// When the question counts as rejected.
    pub expires: Option<Timestamp>,
}

/// How a policy counts the decisions of a run, where the names in it are proven; else why none counts.
pub fn rules(policy: Option<&ToolPolicy>, proof: Result<(), Pending>) -> Result<Approvals, String> {
    proof.map_err(|pending| format!("{}: {}", pending.reason, pending.message))?;
    let policy = policy.ok_or("the policy that says how approvals count is not there")?;
    Ok(policy.spec.approvals.clone().unwrap_or_default())
}

/// Counts the decisions of a run. `rules`: how its policy counts now, or why nothing counts.
pub fn tally(
    spec: &AgentRunSpec,
    waiting: Option<&Waiting>,
    rules: &Result<Approvals, String>,
    now: Timestamp,
) -> Tally {
    let approvals = rules.as_ref().ok();
    let Some(waiting) = waiting else {
        let fates = spec.decisions.iter();
        return Tally {
            fates: fates.map(|d| fate(d, Err(NOT_WAITING.into()))).collect(),
            ..Tally::default()
        };
    };
    let judged: Vec<(&Decision, Result<(), String>)> = spec
        .decisions
        .iter()
        .map(|decision| (decision, counts(spec, waiting, rules, decision)))
        .collect();
    let counted = || {
        let good = judged.iter().filter(|(_, counts)| counts.is_ok());
        good.map(|(decision, _)| *decision)
    };
    let (lets, stops): (Vec<&Decision>, Vec<&Decision>) =
        counted().partition(|decision| lets_on(decision.verdict));
    let wanted = approvals.and_then(|approvals| approvals.count).unwrap_or(1) as usize;
    let expires = approvals
        .and_then(|approvals| approvals.expires_after_seconds)
        .map(|seconds| waiting.since + SignedDuration::from_secs(i64::from(seconds)));
    let answer = if !stops.is_empty() {
        stops.into_iter().cloned().collect()
    } else if lets.len() >= wanted {
        lets.iter().map(|decision| (*decision).clone()).collect()
    } else if expires.is_some_and(|at| at <= now) {
        vec![expired(spec, waiting, approvals)]
    } else {
        Vec::new()
    };
    let sum = format!("{} of {wanted}", lets.len());
    let fates = judged
        .iter()
        .map(|(decision, counts)| fate(decision, counts.clone().map(|()| sum.clone())));
    Tally {
        fates: fates.collect(),
        answer,
        votes: (lets.len(), wanted),
        expires,
    }
}

/// What status shows, in the order of the spec: what is known of decisions on earlier gates stays, what is new or concerns the
/// present wait is told.
pub fn shown(
    previous: &[DecisionStatus],
    tally: &Tally,
    waiting: Option<&Waiting>,
) -> Vec<DecisionStatus> {
    let present = |fate: &DecisionStatus| {
        waiting.is_some_and(|waiting| {
            (&waiting.step, &waiting.wait.gate, waiting.attempt)
                == (&fate.step, &fate.gate, fate.attempt)
        })
    };
    let surplus = tally.fates.len().saturating_sub(MOST_SHOWN);
    let newest = tally.fates.iter().skip(surplus);
    newest
        .map(|fate| {
            let known = previous.iter().find(|known| same(fate, known));
            known.filter(|_| !present(fate)).unwrap_or(fate).clone()
        })
        .collect()
}

fn same(one: &DecisionStatus, other: &DecisionStatus) -> bool {
    (&one.step, &one.gate, one.attempt, &one.by)
        == (&other.step, &other.gate, other.attempt, &other.by)
}

const NOT_WAITING: &str = "no gate of the run waits for a decision now";

/// Whether a verdict lets the line go on past the gate.
const fn lets_on(verdict: DecisionVerdict) -> bool {
    matches!(verdict, DecisionVerdict::Approve | DecisionVerdict::Proceed)
}

fn counts(
    spec: &AgentRunSpec,
    waiting: &Waiting,
    rules: &Result<Approvals, String>,
    decision: &Decision,
) -> Result<(), String> {
    let Waiting {
        step,
        attempt,
        wait,
        ..
    } = waiting;
    if (&decision.step, &decision.gate) != (step, &wait.gate) {
        return Err(format!("gate {} of step {step} waits", wait.gate));
    }
    if decision.attempt != *attempt {
        return Err(format!("the gate waits in attempt {attempt}"));
    }
    if decision.subject != wait.subject.as_str() {
        return Err(format!("what is decided on is {}", wait.subject));
    }
    if !wait.options.contains(&decision.verdict) {
        let options: Vec<String> = wait.options.iter().map(|o| format!("{o:?}")).collect();
        return Err(format!("the gate takes {}", options.join(", ")));
    }
    if decision.verdict == DecisionVerdict::Backtrack
        && !decision
            .to
            .as_ref()
            .is_some_and(|to| wait.back.contains(to))
    {
        return Err(format!("the line can go back to {}", wait.back.join(", ")));
    }
    let approvals = rules.as_ref().map_err(String::clone)?;
    if approvals.separation_of_duties == Some(true) && lets_on(decision.verdict) {
        match &spec.requested_by {
            None => {
                return Err(
                    "spec.requestedBy is not set, and the policy separates who requests from who approves".to_owned(),
                );
            }
            Some(requester) if *requester == decision.by => {
                return Err(
                    "who requested the run may not approve it (separationOfDuties)".to_owned(),
                );
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn fate(decision: &Decision, counts: Result<String, String>) -> DecisionStatus {
    let (counts, mut message) = match counts {
        Ok(message) if lets_on(decision.verdict) => (true, message),
        Ok(_) => (true, "takes effect".to_owned()),
        Err(why) => (false, why),
    };
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE)
            .rev()
            .find(|i| message.is_char_boundary(*i));
        message.truncate(end.unwrap_or(0));
    }
    DecisionStatus {
        step: decision.step.clone(),
        gate: decision.gate.clone(),
        attempt: decision.attempt,
        by: decision.by.clone(),
        verdict: decision.verdict,
        counts,
        message,
    }
}

/// What nobody answered in time counts as rejected.
fn expired(spec: &AgentRunSpec, waiting: &Waiting, approvals: Option<&Approvals>) -> Decision {
    let seconds = approvals.and_then(|approvals| approvals.expires_after_seconds);
    let policy = spec.tool_policy_ref.as_ref().map(|policy| &policy.name);
    Decision {
        step: waiting.step.clone(),
        gate: waiting.wait.gate.clone(),
        attempt: waiting.attempt,
        subject: waiting.wait.subject.to_string(),
        verdict: DecisionVerdict::Reject,
        to: None,
        by: format!(
            "ToolPolicy {}",
            policy.map_or(sopwith_crds::DEFAULT_POLICY, String::as_str)
        ),
        reason: Some(format!(
            "nobody decided within {} s (spec.approvals.expiresAfterSeconds)",
            seconds.unwrap_or_default()
        )),
        at: None,
    }
}

/// What a person has to do, with the command that does it.
pub fn instructions(namespace: &str, run: &str, waiting: &Waiting, tally: &Tally) -> String {
    let Waiting {
        step,
        attempt,
        wait,
        ..
    } = waiting;
    let first = wait
        .options
        .first()
        .map_or_else(String::new, |option| format!("{option:?}"));
    let others: Vec<String> = wait
        .options
        .iter()
        .skip(1)
        .map(|option| match option {
            DecisionVerdict::Backtrack => {
                format!("Backtrack with \"to\" as one of {}", wait.back.join(", "))
            }
            option => format!("{option:?}"),
        })
        .collect();
    let asked = if wait.kind == GateKind::Approval {
        "asks"
    } else {
        "asks what follows"
    };
    let until = tally
        .expires
        .map(|at| format!(", until {at:.0}"))
        .unwrap_or_default();
    let (votes, wanted) = tally.votes;
    format!(
        "gate {} of step {step}, attempt {attempt} {asked}: {} ({votes} of {wanted} have said {first}{until}). Look at it with: \
         kubectl sop pull {run} -n {namespace} --out review. Then decide, {first} or, in its place, {}: \
         kubectl patch ar {run} -n {namespace} --type json -p '[{{\"op\":\"add\",\"path\":\"/spec/decisions/-\",\"value\":\
         {{\"step\":\"{step}\",\"gate\":\"{}\",\"attempt\":{attempt},\"subject\":\"{}\",\"verdict\":\"{first}\",\
         \"by\":\"'\"$(kubectl auth whoami -o jsonpath='{{.status.userInfo.username}}')\"'\"}}}}]'",
        wait.gate,
        wait.question.replace('\n', " "),
        others.join(", "),
        wait.gate,
        wait.subject,
    )
}

#[cfg(test)]
#[path = "decisions_tests.rs"]
mod tests;
