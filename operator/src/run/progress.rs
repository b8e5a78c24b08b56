//! Folds what runners reported into how far a run has come. A pure function of plan and stored batches.

use crate::store::StoredBatch;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use sopwith_crds::{
    contract::{
        incremental::Classified,
        plan::RunPlan,
        report::{Next, Outcome, StepEnd, Wait, What},
        snapshot::Origin,
    },
    sop_definition::Step,
    status::{
        ArtifactsRef, Failure, GateStatus, RepositoryStatus, StepPhase, StepStatus, Tokens, Verdict,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The steps in the order of the plan, each with its latest attempt.
    pub steps: Vec<StepStatus>,
    /// Every ended attempt, in order.
    pub ends: Vec<Ended>,
    /// The attempt at work.
    pub current: Option<Current>,
    /// The gate at which the newest snapshot waits for a person. It stands until the attempt that went on has ended.
    pub waiting: Option<Waiting>,
    /// The pass forward; 0 before the first.
    pub round: u32,
    /// When the first step started.
    pub started_at: Option<Timestamp>,
    /// Digest of the newest snapshot.
    pub snapshot: Option<String>,
    /// The project that the run began with, for people.
    pub loaded: Option<String>,
    /// What an incremental run is about, once it is known.
    pub incremental: Option<Classified>,
    /// The repository that the run works on, as far as it is known.
    pub repository: Option<RepositoryStatus>,
    /// Secrets and keys that the newest launch misses.
    pub missing_secrets: BTreeSet<(String, String)>,
    /// What is known of each launch that reported.
    pub launches: BTreeMap<u32, LaunchSeen>,
    /// When, by our clock, the newest batch with an event in it came.
    pub last_trace: Option<Timestamp>,
    /// Each snapshot in order, with the number of attempts that had ended by then.
    pub(super) marks: Vec<(String, usize)>,
}

/// An attempt of a step at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The step.
    pub step: String,
    /// Counted from 1.
    pub attempt: u32,
    /// When it started, by the runner's clock.
    pub started_at: Timestamp,
}

/// An attempt of a step that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The step.
    pub step: String,
    /// Its attempt.
    pub attempt: u32,
    /// The gate, and what can be decided.
    pub wait: Wait,
    /// Since when, by our clock.
    pub since: Timestamp,
}

/// The gate at which a run waits, by what it reported.
pub fn waiting(batches: &[Arc<StoredBatch>]) -> Option<Waiting> {
    let newest = batches.iter().rev().find_map(|stored| {
        let events = stored.batch.events.iter().rev();
        let mut ends = events.filter_map(|event| match &event.what {
            What::StepEnded { end } => Some(end),
            _ => None,
        });
        ends.next().map(|end| (end, stored.received_at))
    });
    let (end, since) = newest?;
    waits(end, since)
}

fn waits(end: &StepEnd, since: Timestamp) -> Option<Waiting> {
    let Next::Wait(wait) = &end.next else {
        return None;
    };
    Some(Waiting {
        step: end.step.clone(),
        attempt: end.attempt,
        wait: wait.as_ref().clone(),
        since,
    })
}

/// An ended attempt of a step, or one that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How it ended.
    pub end: StepEnd,
    /// Seconds from its start to its end.
    pub seconds: f64,
    /// The gates that failed.
    pub failed_gates: Vec<GateStatus>,
}

/// What is known of a launch that reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchSeen {
    /// Whether it has begun an attempt of a step.
    pub begun: bool,
    /// How many attempts of steps ended in it.
    pub step_ends: u32,
    /// Its own last event.
    pub end: Option<LaunchEnd>,
}

/// How a launch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchEnd {
    /// How.
    pub outcome: Outcome,
    /// Where the outcome is `Failed`.
    pub failure: Option<Failure>,
    /// When; none where only the last words are known.
    pub at: Option<Timestamp>,
}

/// Folds all stored batches of a run.
pub fn fold(plan: &RunPlan, batches: &[Arc<StoredBatch>]) -> Progress {
    let steps = plan.steps.iter().map(|step| StepStatus {
        name: step.name.clone(),
        role: step.role.clone(),
        ..StepStatus::default()
    });
    let mut progress = Progress {
        steps: steps.collect(),
        ..Progress::default()
    };
    progress.waiting = waiting(batches);
    for stored in batches {
        for event in &stored.batch.events {
            progress.apply(plan, stored.launch, event.at, &event.what);
        }
        if !stored.batch.events.is_empty() {
            progress.last_trace = progress.last_trace.max(Some(stored.received_at));
        }
    }
    progress
}

impl Progress {
    /// Finished or skipped steps of all steps.
    pub fn done(&self) -> usize {
        let done =
            |step: &&StepStatus| matches!(step.phase, StepPhase::Succeeded | StepPhase::Skipped);
        self.steps.iter().filter(done).count()
    }

    /// How many attempts had ended when this snapshot was taken; all, where it is not known.
    pub fn ended_by(&self, snapshot: &str) -> usize {
        let mark = self
            .marks
            .iter()
            .rev()
            .find(|(digest, _)| digest == snapshot);
        mark.map_or(self.ends.len(), |(_, ended)| *ended)
    }

    fn mark(&mut self, snapshot: String) {
        self.marks.push((snapshot.clone(), self.ends.len()));
        self.snapshot = Some(snapshot);
    }

    fn apply(&mut self, plan: &RunPlan, launch: u32, at: Timestamp, what: &What) {
        let seen = self.launches.entry(launch).or_default();
        match what {
            What::LaunchStarted { .. } => {
                self.missing_secrets.clear();
                self.interrupt();
            }
            What::SecretMissing { secret, key } => {
                self.missing_secrets.insert((secret.clone(), key.clone()));
            }
            What::SecretsFound => self.missing_secrets.clear(),
            What::ProjectLoaded {
                origin,
                files,
                left_out,
                snapshot,
            } => {
                self.mark(snapshot.to_string());
                self.loaded = Some(loaded(origin, *files, left_out));
                if let Origin::Git { url, commit, .. } = origin {
                    let repository = self.repository.get_or_insert_default();
                    repository.url.clone_from(url);
                    repository.commit = Some(commit.clone()).filter(|commit| !commit.is_empty());
                }
            }
            What::Classified { found } => self.incremental = Some((**found).clone()),
            What::Recovered { snapshot, .. } => self.mark(snapshot.to_string()),
            What::Delivered {
                url,
                branch,
                commit,
            } => {
                let repository = self.repository.get_or_insert_default();
                repository.url.clone_from(url);
                repository.branch = Some(branch.clone());
                repository.delivered = Some(commit.clone());
            }
            What::StepInherited {
                step,
                attempts,
                artifacts,
                gates,
            } => self.inherit(plan, step, *attempts, artifacts.as_ref(), gates),
            What::RoundStarted { round } => self.round = *round,
            What::StepStarted { step, attempt } => {
                seen.begun = true;
                self.start(step, *attempt, at);
            }
            What::StepResumed { step, attempt } => {
                seen.begun = true;
                self.resume(step, *attempt, at);
            }
            What::StepSkipped { step, message } => {
                if let Some(step) = self.step(step) {
                    step.phase = StepPhase::Skipped;
                    step.message = Some(message.clone());
                    step.finished_at = Some(Time(at));
                }
            }
            What::GateJudged { step, gate, .. } => {
                if let Some(step) = self.step(step) {
                    step.gates.retain(|known| known.name != gate.name);
                    step.gates.push(gate.clone());
                }
            }
            What::StepEnded { end } => {
                seen.step_ends += 1;
                self.end(plan, end, at);
            }
            What::LaunchEnded {
                outcome,
                snapshot,
                failure,
            } => {
                seen.end = Some(LaunchEnd {
                    outcome: *outcome,
                    failure: failure.clone(),
                    at: Some(at),
                });
                if let Some(snapshot) = snapshot {
                    self.mark(snapshot.to_string());
                }
                self.close(*outcome, failure.as_ref(), at);
            }
            What::ActionEnded { .. }
            | What::LlmRequest { .. }
            | What::RequestDiffers { .. }
            | What::ToolCall { .. } => {}
        }
    }

    /// A step that an earlier run finished. What it used was booked there.
    fn inherit(
        &mut self,
        plan: &RunPlan,
        name: &str,
        attempts: u32,
        artifacts: Option<&ArtifactsRef>,
        gates: &[GateStatus],
    ) {
        let from = plan.recover.as_ref().map_or("", |from| from.run.as_str());
        if let Some(step) = self.step(name) {
            step.phase = StepPhase::Succeeded;
            step.attempts = attempts;
            step.message = Some(format!("taken over from AgentRun {from}"));
            step.artifacts = artifacts.cloned();
            step.gates = gates.to_vec();
        }
    }

    fn start(&mut self, name: &str, attempt: u32, at: Timestamp) {
        self.started_at = self.started_at.or(Some(at));
        self.current = Some(Current {
            step: name.to_owned(),
            attempt,
            started_at: at,
        });
        self.round = self.round.max(1);
        if let Some(step) = self.step(name) {
            step.phase = StepPhase::Running;
            step.attempts = attempt;
            step.started_at = Some(Time(at));
            step.finished_at = None;
            step.message = None;
            step.gates.clear();
        }
    }

    fn resume(&mut self, name: &str, attempt: u32, at: Timestamp) {
        self.current = Some(Current {
            step: name.to_owned(),
            attempt,
            started_at: at,
        });
        if let Some(step) = self.step(name) {
            step.phase = StepPhase::Running;
            step.finished_at = None;
            step.message = None;
        }
    }

    fn end(&mut self, plan: &RunPlan, end: &StepEnd, at: Timestamp) {
        let started = self
            .current
            .take()
            .filter(|current| current.step == end.step);
        let started = started.map_or(at, |current| current.started_at);
        let mut failed_gates = Vec::new();
        if let Some(step) = self.step(&end.step) {
            let failed = step
                .gates
                .iter()
                .filter(|gate| gate.verdict == Verdict::Failed);
            failed_gates = failed.cloned().collect();
            record(step, end, at);
        }
        self.ends.push(Ended {
            end: end.clone(),
            seconds: at.duration_since(started).as_secs_f64().max(0.0),
            failed_gates,
        });
        self.mark(end.snapshot.to_string());
        if let Next::Backtrack { to } = &end.next {
            // It passed its own gates; whoever asks why it is done again finds the answer here.
            if let Some(target) = self.step(to) {
                target.previous_failure =
                    Some(format!("sent back by step {}: {}", end.step, end.message));
            }
            for name in dependents(&plan.steps, to) {
                if let Some(step) = self.step(name) {
                    step.phase = StepPhase::Pending;
                }
            }
        }
    }

    /// At the end of a launch no step is at work; one that failed the run says so.
    fn close(&mut self, outcome: Outcome, failure: Option<&Failure>, at: Timestamp) {
        self.interrupt();
        let failed = failure.filter(|_| outcome == Outcome::Failed);
        let Some((failure, name)) = failed.and_then(|f| Some((f, f.step.as_deref()?))) else {
            return;
        };
        if let Some(step) = self
            .step(name)
            .filter(|step| step.phase != StepPhase::Failed)
        {
            step.phase = StepPhase::Failed;
            step.finished_at = step.finished_at.clone().or(Some(Time(at)));
            step.message = step
                .message
                .take()
                .or_else(|| Some(failure.message.clone()));
        }
    }

    /// The attempt at work, if any, is not at work any more and will be begun again.
    fn interrupt(&mut self) {
        let waits = self.waiting.as_ref().map(|waiting| waiting.step.clone());
        if let Some(current) = self.current.take()
            && let Some(step) = self.step(&current.step)
            && step.phase == StepPhase::Running
        {
            let resumed = waits.as_ref() == Some(&current.step);
            step.phase = if resumed {
                StepPhase::Waiting
            } else {
                StepPhase::Pending
            };
        }
    }

    fn step(&mut self, name: &str) -> Option<&mut StepStatus> {
        self.steps.iter_mut().find(|step| step.name == name)
    }
}

/// What a run begins with, for people.
fn loaded(origin: &Origin, files: u32, left_out: &str) -> String {
    let rest = if left_out.is_empty() {
        String::new()
    } else {
        format!("; not part of the project: {left_out}")
    };
    format!("{files} files from {origin}{rest}")
}

fn record(step: &mut StepStatus, end: &StepEnd, at: Timestamp) {
    let tokens = step.tokens.unwrap_or_default();
    step.tokens = Some(Tokens {
        input: tokens.input + end.usage.input_tokens,
        output: tokens.output + end.usage.output_tokens,
    });
    step.cost = Some(step.cost.unwrap_or_default() + end.usage.cost);
    step.commit.clone_from(&end.commit);
    step.artifacts.clone_from(&end.artifacts);
    step.message = Some(end.message.clone());
    step.phase = match (&end.next, end.verdict) {
        (Next::Wait(_), _) => StepPhase::Waiting,
        (_, Verdict::Passed) | (Next::Proceed, _) => StepPhase::Succeeded,
        (Next::Retry | Next::Backtrack { .. }, _) => StepPhase::Pending,
        (Next::Fail, _) => StepPhase::Failed,
    };
    if step.phase != StepPhase::Waiting {
        step.finished_at = Some(Time(at));
    }
    if matches!(step.phase, StepPhase::Pending | StepPhase::Failed) {
        step.previous_failure = Some(end.message.clone());
    }
}

/// A step and all that need it, directly or through others.
fn dependents<'a>(steps: &'a [Step], from: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::from([from]);
    // Steps are in the order in which they run: one pass sees every need before what needs it.
    for step in steps {
        if step.needs.iter().any(|need| found.contains(need.as_str())) {
            found.insert(&step.name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture::{self, Story};
    use sopwith_crds::contract::Digest;

    #[test]
    fn a_step_that_an_earlier_run_finished_is_done_with_its_gates_and_costs_nothing_here() {
        let gate = GateStatus {
            name: "tests".to_owned(),
            verdict: Verdict::Passed,
            ..GateStatus::default()
        };
        let story = Story::new()
            .event(What::Recovered {
                run: "first".to_owned(),
                step: "write".to_owned(),
                snapshot: sopwith_crds::contract::Digest::of("recovered"),
            })
            .event(What::StepInherited {
                step: "write".to_owned(),
                attempts: 2,
                artifacts: None,
                gates: vec![gate.clone()],
            });
        let plan = RunPlan {
            recover: Some(fixture::recover()),
            ..fixture::plan()
        };
        let progress = fold(&plan, &story.batches());
        let step = &progress.steps[0];
        assert_eq!((step.phase, step.attempts), (StepPhase::Succeeded, 2));
        assert_eq!(
            step.message.as_deref(),
            Some("taken over from AgentRun first")
        );
        assert_eq!(
            (&step.gates[..], step.cost, step.tokens),
            (&[gate][..], None, None)
        );
        assert_eq!((progress.done(), progress.started_at), (1, None));
        let snapshot = sopwith_crds::contract::Digest::of("recovered").to_string();
        assert_eq!(progress.snapshot, Some(snapshot));
    }

    #[test]
    fn nothing_reported_is_nothing_done() {
        let progress = fold(&fixture::plan(), &[]);
        assert_eq!(progress.done(), 0);
        assert_eq!(progress.steps.len(), 3);
        assert_eq!(progress.started_at, None);
    }

    #[test]
    fn a_failed_attempt_is_kept_as_the_earlier_failure() {
        let story =
            Story::new()
                .started("write", 1)
                .ended("write", 1, Verdict::Failed, Next::Retry);
        let story = story
            .started("write", 2)
            .ended("write", 2, Verdict::Passed, Next::Proceed);
        let progress = fold(&fixture::plan(), &story.batches());
        let step = &progress.steps[0];
        assert_eq!((step.phase, step.attempts), (StepPhase::Succeeded, 2));
        assert_eq!(
            step.previous_failure.as_deref(),
            Some("write attempt 1 Failed")
        );
        assert_eq!(
            step.tokens,
            Some(Tokens {
                input: 200,
                output: 20
            })
        );
        assert_eq!(progress.ends.len(), 2);
        assert!((progress.ends[1].seconds - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_backtrack_reopens_the_target_and_what_needs_it() {
        let story =
            Story::new()
                .started("write", 1)
                .ended("write", 1, Verdict::Passed, Next::Proceed);
        let story = story
            .started("code", 1)
            .ended("code", 1, Verdict::Passed, Next::Proceed);
        let back = Next::Backtrack {
            to: "code".to_owned(),
        };
        let story = story
            .started("test", 1)
            .ended("test", 1, Verdict::Failed, back)
            .started("code", 2);
        let progress = fold(&fixture::plan(), &story.batches());
        let phases: Vec<_> = progress.steps.iter().map(|step| step.phase).collect();
        assert_eq!(
            phases,
            [StepPhase::Succeeded, StepPhase::Running, StepPhase::Pending]
        );
        assert_eq!(progress.done(), 1);
        let why = progress.steps[1].previous_failure.as_deref();
        assert!(
            why.is_some_and(|why| why.starts_with("sent back by step test: ")),
            "{why:?}"
        );
    }

    #[test]
    fn a_new_launch_takes_the_interrupted_step_up_again() {
        let story = Story::new().started("write", 1).launch(2);
        let progress = fold(&fixture::plan(), &story.batches());
        assert_eq!(progress.steps[0].phase, StepPhase::Pending);
        assert_eq!(progress.current, None);
    }

    #[test]
    fn a_wait_keeps_the_attempt_and_its_gates_until_it_has_ended() {
        let phase = |story: &Story| {
            let progress = fold(&fixture::plan(), &story.batches());
            let step = &progress.steps[0];
            let at = progress.waiting.as_ref().map(|w| (w.attempt, w.since));
            (step.phase, step.attempts, step.gates.len(), at)
        };
        let story = Story::new()
            .started("write", 1)
            .gate("write", 1, "tests", Verdict::Passed)
            .waits("write", 1, "sign-off");
        let asked = Some((1, fixture::at(4)));
        assert_eq!(phase(&story), (StepPhase::Waiting, 1, 2, asked));
        let story = story.launch(2);
        assert_eq!(phase(&story), (StepPhase::Waiting, 1, 2, asked));
        let story = story.resumed("write", 1);
        assert_eq!(phase(&story), (StepPhase::Running, 1, 2, asked));
        // The launch was lost before the attempt ended: the next takes it up at the same gate.
        let story = story.launch(3);
        assert_eq!(phase(&story), (StepPhase::Waiting, 1, 2, asked));
        let story = story
            .resumed("write", 1)
            .gate("write", 1, "sign-off", Verdict::Passed);
        let story = story.ended("write", 1, Verdict::Passed, Next::Proceed);
        assert_eq!(phase(&story), (StepPhase::Succeeded, 1, 2, None));
        let progress = fold(&fixture::plan(), &story.batches());
        assert_eq!(
            progress.steps[0].tokens.map(|tokens| tokens.input),
            Some(200)
        );
        assert_eq!(progress.steps[0].previous_failure, None);
    }

    #[test]
    fn missing_secrets_are_named_until_they_are_found() {
        let missing = What::SecretMissing {
            secret: "model-provider".to_owned(),
            key: "api-key".to_owned(),
        };
        let story = Story::new().event(missing);
        assert_eq!(
            fold(&fixture::plan(), &story.batches())
                .missing_secrets
                .len(),
            1
        );
        let story = story.event(What::SecretsFound);
        assert!(
            fold(&fixture::plan(), &story.batches())
                .missing_secrets
                .is_empty()
        );
    }

    #[test]
    fn a_repository_is_shown_with_the_commit_it_was_read_at_and_the_one_that_was_pushed() {
        let id = |letter: &str| letter.repeat(40);
        let read = What::ProjectLoaded {
            origin: Origin::Git {
                url: "https://host/game".to_owned(),
                commit: id("a"),
                branch: Some("main".to_owned()),
            },
            files: 3,
            left_out: "lib (submodule)".to_owned(),
            snapshot: Digest::of("first"),
        };
        let story = Story::new().event(read);
        let progress = fold(&fixture::plan(), &story.batches());
        let mut expected = RepositoryStatus {
            url: "https://host/game".to_owned(),
            commit: Some(id("a")),
            ..RepositoryStatus::default()
        };
        assert_eq!(progress.repository, Some(expected.clone()));
        assert_eq!(progress.snapshot, Some(Digest::of("first").to_string()));
        let told = format!(
            "3 files from https://host/game at {}; not part of the project: lib (submodule)",
            id("a")
        );
        assert_eq!(progress.loaded, Some(told));
        let pushed = What::Delivered {
            url: "https://host/game".to_owned(),
            branch: "sopwith/x".to_owned(),
            commit: id("b"),
        };
        let progress = fold(&fixture::plan(), &story.launch(2).event(pushed).batches());
        expected.branch = Some("sopwith/x".to_owned());
        expected.delivered = Some(id("b"));
        assert_eq!(progress.repository, Some(expected));
    }

    #[test]
    fn gates_show_the_latest_attempt_only() {
        let story = Story::new()
            .started("write", 1)
            .gate("write", 1, "tests", Verdict::Failed);
        let story = story
            .ended("write", 1, Verdict::Failed, Next::Retry)
            .started("write", 2);
        let progress = fold(&fixture::plan(), &story.batches());
        assert!(progress.steps[0].gates.is_empty());
        assert_eq!(progress.ends[0].failed_gates[0].name, "tests");
    }
}
