//! What happened between two statuses of a run, for log, events and metrics. Pure; the caller tells it only once the later
//! status is written.

use super::progress::Progress;
use crate::outcome::Outcome;
use sopwith_crds::{
    AgentRunStatus,
    conditions::{self, RECONCILING, STEP_STUCK},
    contract::report::Next,
    status::{DecisionStatus, IdeaKind, Phase, Verdict},
};

/// Everything that happened from `previous` to `next`.
pub fn between(
    previous: &AgentRunStatus,
    next: &AgentRunStatus,
    progress: Option<&Progress>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    if let Some(progress) = progress {
        outcomes.extend(loaded(previous, progress));
        outcomes.extend(classified(previous, next, progress));
        outcomes.extend(steps(previous, progress));
    }
    outcomes.extend(delivered(previous, next));
    outcomes.extend(decisions(previous, next));
    outcomes.extend(obstacle(previous, next));
    outcomes.extend(stuck(previous, next));
    if previous.phase != next.phase {
        outcomes.extend(end(next));
    }
    outcomes
}

/// The project that the run begins with, once it is loaded: with the first snapshot.
fn loaded(previous: &AgentRunStatus, progress: &Progress) -> Option<Outcome> {
    let message = progress.loaded.clone()?;
    previous
        .snapshot
        .is_none()
        .then_some(Outcome::ProjectLoaded { message })
}

/// What an incremental run is about, and what people edited, once it is known.
fn classified(
    previous: &AgentRunStatus,
    next: &AgentRunStatus,
    progress: &Progress,
) -> Vec<Outcome> {
    let news = next.incremental.is_some() && next.incremental != previous.incremental;
    let Some(found) = progress.incremental.as_ref().filter(|_| news) else {
        return Vec::new();
    };
    let what = match found.kind {
        IdeaKind::Requirement => "a new requirement",
        IdeaKind::Bug => "a bug report",
    };
    let mut outcomes = vec![Outcome::Classified {
        message: format!(
            "the idea is {what}, written to {}: {}",
            found.path, found.reason
        ),
    }];
    if found.edited.files > 0 {
        outcomes.push(Outcome::ProjectEdited {
            message: format!(
                "edited by hand since the last run, an input of this one: {}",
                found.edited
            ),
        });
    }
    if found.derived.files > 0 {
        outcomes.push(Outcome::DerivedEdited {
            message: format!(
                "edited by hand although the system or steps write them, and no source of anything: {}; edit what they are derived from",
                found.derived
            ),
        });
    }
    outcomes
}

fn delivered(previous: &AgentRunStatus, next: &AgentRunStatus) -> Option<Outcome> {
    let pushed = |status: &AgentRunStatus| status.repository.as_ref()?.delivered.clone();
    let commit = pushed(next).filter(|_| pushed(previous).is_none())?;
    let repository = next.repository.as_ref()?;
    Some(Outcome::Delivered {
        message: format!(
            "commit {commit} is the branch {} of {}",
            repository.branch.as_deref().unwrap_or_default(),
            repository.url
        ),
    })
}

/// Attempts that ended since the snapshot that the previous status shows.
fn steps(previous: &AgentRunStatus, progress: &Progress) -> Vec<Outcome> {
    let told = match &previous.snapshot {
        None => 0,
        Some(snapshot) => progress.ended_by(snapshot),
    };
    let mut outcomes = Vec::new();
    for ended in progress.ends.iter().skip(told) {
        let end = &ended.end;
        if let Next::Wait(wait) = &end.next {
            outcomes.push(Outcome::ApprovalRequested {
                step: end.step.clone(),
                attempt: end.attempt,
                gate: wait.gate.clone(),
                question: wait.question.clone(),
            });
        } else {
            outcomes.push(Outcome::StepFinished {
                step: end.step.clone(),
                attempt: end.attempt,
                passed: end.verdict == Verdict::Passed,
                seconds: ended.seconds,
                message: end.message.clone(),
            });
        }
        outcomes.extend(ended.failed_gates.iter().map(|gate| Outcome::GateFailed {
            step: end.step.clone(),
            attempt: end.attempt,
            gate: gate.name.clone(),
            observed: gate.observed.clone().unwrap_or_default(),
        }));
        match &end.next {
            Next::Retry => outcomes.push(Outcome::Retrying {
                step: end.step.clone(),
                attempt: end.attempt + 1,
            }),
            Next::Backtrack { to } => outcomes.push(Outcome::Backtracked {
                step: end.step.clone(),
                attempt: end.attempt,
                to: to.clone(),
            }),
            Next::Proceed | Next::Wait(_) | Next::Fail => {}
        }
    }
    outcomes
}

/// Decisions that the previous status did not know, or knew otherwise.
fn decisions(previous: &AgentRunStatus, next: &AgentRunStatus) -> Vec<Outcome> {
    let known = |fate: &&DecisionStatus| {
        previous.decisions.iter().any(|before| {
            (
                &before.step,
                &before.gate,
                before.attempt,
                &before.by,
                before.counts,
            ) == (&fate.step, &fate.gate, fate.attempt, &fate.by, fate.counts)
        })
    };
    let new = next.decisions.iter().filter(|fate| !known(fate));
    new.cloned().map(Outcome::Decision).collect()
}

/// Something new stands in the way. What is on its way as it should is no news.
fn obstacle(previous: &AgentRunStatus, next: &AgentRunStatus) -> Option<Outcome> {
    let now = conditions::find(&next.conditions, RECONCILING)?;
    if matches!(now.reason.as_str(), "Starting" | "Running") {
        return None;
    }
    let before = conditions::find(&previous.conditions, RECONCILING);
    let same = before
        .is_some_and(|before| (&before.reason, &before.message) == (&now.reason, &now.message));
    (!same).then(|| Outcome::Obstacle {
        reason: now.reason.clone(),
        message: now.message.clone(),
    })
}

fn stuck(previous: &AgentRunStatus, next: &AgentRunStatus) -> Option<Outcome> {
    let now = conditions::find(&next.conditions, STEP_STUCK)?;
    (!conditions::is_true(&previous.conditions, STEP_STUCK)).then(|| Outcome::StepStuck {
        message: now.message.clone(),
    })
}

fn end(next: &AgentRunStatus) -> Option<Outcome> {
    match next.phase? {
        Phase::Succeeded => {
            let usage = next.usage.clone().unwrap_or_default();
            Some(Outcome::Succeeded {
                message: format!(
                    "{} steps, {} tokens, {} US dollars",
                    next.progress.as_deref().unwrap_or_default(),
                    usage.total_tokens,
                    usage.cost
                ),
            })
        }
        Phase::Failed | Phase::Cancelled => {
            let failure = next.failure.clone().unwrap_or_default();
            Some(Outcome::Failed {
                reason: failure.reason,
                message: failure.message,
            })
        }
        Phase::Suspended => Some(Outcome::Suspended),
        Phase::Pending | Phase::Running | Phase::Waiting => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{
        fixture::{self, Story},
        progress::fold,
        status,
    };
    use sopwith_crds::contract::{
        Digest,
        incremental::{Change, Classified, Edit, EditsTold},
        report::What,
        snapshot::Origin,
    };

    fn reasons(outcomes: &[Outcome]) -> Vec<String> {
        outcomes
            .iter()
            .map(|outcome| outcome.reason().into_owned())
            .collect()
    }

    #[test]
    fn each_ended_attempt_is_told_once() {
        let plan = fixture::plan();
        let story = Story::new()
            .started("write", 1)
            .gate("write", 1, "tests", Verdict::Failed);
        let story = story.ended("write", 1, Verdict::Failed, Next::Retry);
        let progress = fold(&plan, &story.batches());
        let none = AgentRunStatus::default();
        let shown = AgentRunStatus {
            snapshot: progress.snapshot.clone(),
            ..AgentRunStatus::default()
        };
        let first = between(&none, &shown, Some(&progress));
        assert_eq!(reasons(&first), ["StepFinished", "GateFailed", "Retrying"]);
        assert!(between(&shown, &shown, Some(&progress)).is_empty());

        let back = Next::Backtrack {
            to: "write".to_owned(),
        };
        let story = story
            .started("write", 2)
            .ended("write", 2, Verdict::Passed, Next::Proceed);
        let story = story
            .started("code", 1)
            .ended("code", 1, Verdict::Failed, back);
        let progress = fold(&plan, &story.batches());
        let told = between(&shown, &shown, Some(&progress));
        assert_eq!(
            reasons(&told),
            ["StepFinished", "StepFinished", "Backtracked"]
        );
    }

    #[test]
    fn what_a_run_begins_with_and_delivers_is_told_once() {
        let plan = fixture::plan();
        let (url, id) = ("https://host/game".to_owned(), "a".repeat(40));
        let read = What::ProjectLoaded {
            origin: Origin::Git {
                url: url.clone(),
                commit: id.clone(),
                branch: None,
            },
            files: 1,
            left_out: String::new(),
            snapshot: Digest::of("first"),
        };
        let story = Story::new().event(read);
        let shown = |story: &Story| {
            let progress = fold(&plan, &story.batches());
            let status = AgentRunStatus {
                snapshot: progress.snapshot.clone(),
                repository: progress.repository.clone(),
                ..AgentRunStatus::default()
            };
            (progress, status)
        };
        let (progress, first) = shown(&story);
        let told = between(&AgentRunStatus::default(), &first, Some(&progress));
        assert_eq!(reasons(&told), ["ProjectLoaded"]);
        assert!(told[0].note().contains(&id), "{}", told[0].note());
        let pushed = What::Delivered {
            url,
            branch: "x".to_owned(),
            commit: id,
        };
        let (progress, second) = shown(&story.event(pushed));
        let told = between(&first, &second, Some(&progress));
        assert_eq!(reasons(&told), ["Delivered"]);
        assert!(between(&second, &second, Some(&progress)).is_empty());
    }

    #[test]
    fn what_an_incremental_run_is_about_and_each_kind_of_edits_is_told_once() {
        let plan = fixture::plan();
        let edits = |path: &str| {
            EditsTold::of(&[Edit {
                path: path.to_owned(),
                change: Change::Changed,
            }])
        };
        let found = |edited, derived| What::Classified {
            found: Box::new(Classified {
                kind: IdeaKind::Bug,
                reason: "it crashes".to_owned(),
                path: "docs/bugfix.txt".to_owned(),
                edited,
                derived,
            }),
        };
        let told = |edited, derived| {
            let progress = fold(&plan, &Story::new().event(found(edited, derived)).batches());
            let next = AgentRunStatus {
                incremental: progress
                    .incremental
                    .as_ref()
                    .map(|found| status::incremental(found, 512)),
                ..AgentRunStatus::default()
            };
            assert!(between(&next, &next, Some(&progress)).is_empty());
            between(&AgentRunStatus::default(), &next, Some(&progress))
        };
        let none = EditsTold::default;
        assert_eq!(reasons(&told(none(), none())), ["Classified"]);
        let all = told(edits("game/a.py"), edits("resources/prd/a.json"));
        assert_eq!(
            reasons(&all),
            ["Classified", "ProjectEdited", "DerivedEdited"]
        );
        let notes: Vec<String> = all.iter().map(Outcome::note).collect();
        assert_eq!(
            notes[0],
            "the idea is a bug report, written to docs/bugfix.txt: it crashes"
        );
        assert!(notes[1].ends_with("game/a.py (changed)"), "{}", notes[1]);
        assert!(
            notes[2].contains("resources/prd/a.json (changed)"),
            "{}",
            notes[2]
        );
    }

    #[test]
    fn a_question_and_what_becomes_of_each_decision_is_told_once() {
        let plan = fixture::plan();
        let story = Story::new()
            .started("write", 1)
            .waits("write", 1, "sign-off");
        let progress = fold(&plan, &story.batches());
        let none = AgentRunStatus::default();
        let decision = |by: &str, counts| DecisionStatus {
            by: by.to_owned(),
            counts,
            ..DecisionStatus::default()
        };
        let asked = AgentRunStatus {
            snapshot: progress.snapshot.clone(),
            decisions: vec![decision("eve", false)],
            ..AgentRunStatus::default()
        };
        let told = between(&none, &asked, Some(&progress));
        assert_eq!(reasons(&told), ["ApprovalRequested", "DecisionIgnored"]);
        let decided = AgentRunStatus {
            decisions: vec![decision("eve", false), decision("jane", true)],
            ..asked.clone()
        };
        let told = between(&asked, &decided, Some(&progress));
        assert_eq!(reasons(&told), ["DecisionCounted"]);
        assert!(between(&decided, &decided, Some(&progress)).is_empty());
    }

    #[test]
    fn a_checkpoint_at_the_end_of_a_launch_does_not_tell_old_steps_again() {
        let plan = fixture::plan();
        let story =
            Story::new()
                .started("write", 1)
                .ended("write", 1, Verdict::Passed, Next::Proceed);
        let story = story.event(sopwith_crds::contract::report::What::LaunchEnded {
            outcome: sopwith_crds::contract::report::Outcome::Interrupted,
            snapshot: Some(sopwith_crds::contract::Digest::of("checkpoint")),
            failure: None,
        });
        let progress = fold(&plan, &story.batches());
        let shown = AgentRunStatus {
            snapshot: progress.snapshot.clone(),
            ..AgentRunStatus::default()
        };
        assert!(between(&shown, &shown, Some(&progress)).is_empty());
    }
}
