//! One setter for conditions, and their names. The time comes in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The run reached an end, whatever it was.
pub const FINISHED: &str = "Finished";
/// The run's outcome: Unknown until its end.
pub const SUCCEEDED: &str = "Succeeded";
/// kstatus: the object is as wanted.
pub const READY: &str = "Ready";
/// kstatus: the object is on its way.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: the object cannot get on by itself.
pub const STALLED: &str = "Stalled";
/// A gate waits for a person.
pub const AWAITING_APPROVAL: &str = "AwaitingApproval";
/// A step left no trace for too long.
pub const STEP_STUCK: &str = "StepStuck";
/// A budget is spent.
pub const BUDGET_EXHAUSTED: &str = "BudgetExhausted";
/// Suspended by its spec.
pub const SUSPENDED: &str = "Suspended";
/// A policy's endpoints and secrets answered.
pub const REACHABLE: &str = "Reachable";

/// What a condition says, without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// One of the names above.
    pub kind: &'static str,
    /// `Some(true)`, `Some(false)`, or `None` for Unknown.
    pub status: Option<bool>,
    /// `CamelCase` word for machines.
    pub reason: String,
    /// Sentence for people.
    pub message: String,
}

impl Said {
    /// A condition that holds.
    pub fn yes(kind: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: Some(true),
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// A condition that does not hold.
    pub fn no(kind: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: Some(false),
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// A condition nobody can tell yet.
    pub fn unknown(
        kind: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status: None,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn status_text(&self) -> &'static str {
        match self.status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// Replaces all conditions by what is said now. A condition whose status did not change keeps its
/// transition time; one that is no longer said goes away.
pub fn set(
    previous: &[Condition],
    said: Vec<Said>,
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    said.into_iter()
        .map(|said| {
            let kept = previous
                .iter()
                .find(|c| c.type_ == said.kind && c.status == said.status_text())
                .map(|c| c.last_transition_time.clone());
            Condition {
                type_: said.kind.to_owned(),
                status: said.status_text().to_owned(),
                reason: said.reason,
                message: truncated(said.message),
                observed_generation: generation,
                last_transition_time: kept.unwrap_or_else(|| now.clone()),
            }
        })
        .collect()
}

/// The condition of that type, where there is one.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Whether the condition of that type is True.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}

/// Messages are cut well below the API's 32 KiB, so that many conditions stay small.
fn truncated(message: String) -> String {
    const MOST: usize = 2048;
    if message.len() <= MOST {
        return message;
    }
    let end = (0..=MOST)
        .rev()
        .find(|i| message.is_char_boundary(*i))
        .unwrap_or(0);
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = set(
            &[],
            vec![Said::unknown(SUCCEEDED, "Running", "at work")],
            Some(1),
            &at(1),
        );
        let same = set(
            &first,
            vec![Said::unknown(SUCCEEDED, "Running", "step two")],
            Some(1),
            &at(2),
        );
        assert_eq!(same[0].last_transition_time, at(1));
        assert_eq!(same[0].message, "step two");
        let changed = set(
            &same,
            vec![Said::yes(SUCCEEDED, "Succeeded", "done")],
            Some(1),
            &at(3),
        );
        assert_eq!(changed[0].last_transition_time, at(3));
    }

    #[test]
    fn what_is_no_longer_said_goes_away() {
        let first = set(
            &[],
            vec![
                Said::yes(STEP_STUCK, "NoTrace", "x"),
                Said::yes(READY, "Ok", "x"),
            ],
            None,
            &at(1),
        );
        let second = set(&first, vec![Said::yes(READY, "Ok", "x")], None, &at(2));
        assert!(find(&second, STEP_STUCK).is_none());
        assert!(is_true(&second, READY));
    }
}
