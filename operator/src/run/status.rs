//! Folds everything that is known of a run into its status, and tells whether that is worth a write.

use super::{
    decisions::{Tally, instructions, shown},
    earlier::{RUN_NOT_FINISHED, RUN_NOT_FOUND, STEP_NOT_FINISHED, UPLOAD_NOT_FOUND},
    launch::End,
    observe::{MISSING_SECRET, Observation, Pending},
    progress::{Progress, Waiting},
    stuck::Pulse,
};
use crate::admission::NOT_ENFORCED;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use sopwith_crds::{
    AgentRun, AgentRunStatus,
    conditions::{self, Said},
    contract::{
        incremental::Classified,
        plan::{RunPlan, Source},
    },
    sop_definition::{GateKind, OnStuck},
    status::{
        DecisionStatus, FailureReason, IncrementalStatus, Inherited, Phase, PlanRef, StepStatus,
        Usage, Verdict,
    },
    tool_policy::{Endpoint, Provider},
};

/// Where a run stands, before it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It cannot be planned or launched yet; what is missing may still appear.
    Waiting(Pending),
    /// A launch is on its way or at work.
    Going,
    /// Suspended.
    Held,
    /// Waits for a person or a budget.
    Asking,
    /// At its end.
    Ended(End),
}

/// What is known of a run that has a plan.
#[derive(Clone, Copy, Debug)]
pub struct Launched<'a> {
    /// The plan as it was applied.
    pub plan: &'a RunPlan,
    /// Where it is.
    pub reference: &'a PlanRef,
    /// Number of the newest launch.
    pub launch: u32,
    /// What was reported.
    pub progress: &'a Progress,
    /// What all launches have used.
    pub usage: &'a Usage,
    /// What is seen of the newest launch.
    pub observation: &'a Observation,
    /// Whether a step is stuck.
    pub pulse: &'a Pulse,
    /// How the decisions stand.
    pub tally: &'a Tally,
}

/// On its way to the first step, with nothing in its way.
const STARTING: &str = "Starting";
const RUNNING: &str = "Running";
const SUSPENDED: &str = "Suspended";
const WAITING: &str = "Waiting";
/// A gate of kind approval waits for people.
const APPROVAL_REQUESTED: &str = "ApprovalRequested";
/// A gate failed, and people say what follows.
const DECISION_REQUESTED: &str = "DecisionRequested";
const NOT_ENDED: &str = "the run has not ended";
/// Bytes that a status may have; an object has 1.5 MiB, but many are listed at once.
const MAX_STATUS: usize = 60 * 1024;
/// Steps from which on a status has little room for anything else.
const MANY_STEPS: usize = 40;
/// Bytes of decisions in a status that could become too large.
const MAX_DECISIONS: usize = 512;

/// The status of a run.
pub fn status(
    run: &AgentRun,
    previous: &AgentRunStatus,
    launched: Option<&Launched<'_>>,
    standing: &Standing,
    now: Timestamp,
) -> AgentRunStatus {
    let generation = run.metadata.generation;
    let mut next = AgentRunStatus {
        observed_generation: generation,
        trace_id: run.metadata.uid.as_ref().map(|uid| uid.replace('-', "")),
        dossier: previous.dossier.clone(),
        audit: previous.audit.clone(),
        ..AgentRunStatus::default()
    };
    if let Some(launched) = launched {
        describe(&mut next, run, launched);
        let waiting = launched.progress.waiting.as_ref();
        next.decisions = shown(&previous.decisions, launched.tally, waiting);
        if launched.plan.steps.len() > MANY_STEPS {
            newest_that_fit(&mut next.decisions);
        }
        if let (Some(waiting), Standing::Asking | Standing::Held) = (waiting, standing) {
            next.current_step = Some(waiting.step.clone());
        }
    }
    next.phase = Some(phase(&next, standing));
    if let Standing::Ended(end) = standing {
        next.failure.clone_from(&end.failure);
        next.finished_at = Some(Time(end.at));
        next.current_step = None;
    }
    let said = said(&next, launched, standing, run);
    next.conditions = conditions::set(&previous.conditions, said, generation, &Time(now));
    next
}

/// Whether a status says something that is worth a write. How a step at work gets on is written with the next that is.
pub fn worth_writing(previous: &AgentRunStatus, next: &AgentRunStatus) -> bool {
    let essence = |status: &AgentRunStatus| {
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .map(|c| {
                // These messages carry details that come and go while the reason stays.
                let telling = matches!(
                    c.reason.as_str(),
                    RUN_NOT_FOUND
                        | RUN_NOT_FINISHED
                        | STEP_NOT_FINISHED
                        | UPLOAD_NOT_FOUND
                        | "SopNotFound"
                        | "PolicyNotFound"
                        | "ConfigMapNotFound"
                        | "NameTaken"
                        | NOT_ENFORCED
                        | APPROVAL_REQUESTED
                        | DECISION_REQUESTED
                        | MISSING_SECRET
                );
                let message = telling.then(|| c.message.clone());
                (c.type_.clone(), c.status.clone(), c.reason.clone(), message)
            })
            .collect();
        (
            status.observed_generation,
            status.phase,
            status.launch,
            status.plan.clone(),
            status.snapshot.clone(),
            status.failure.clone(),
            status.finished_at.clone(),
            status.decisions.clone(),
            conditions,
        )
    };
    essence(previous) != essence(next)
}

fn describe(status: &mut AgentRunStatus, run: &AgentRun, launched: &Launched<'_>) {
    let Launched { plan, progress, .. } = launched;
    let room = room(plan.steps.len());
    let many = plan.steps.len() > MANY_STEPS;
    status.sop = Some(plan.sop.clone());
    status.policy = Some(plan.policy.clone());
    let replays = |endpoint: &Endpoint| endpoint.provider == Provider::Replay;
    status.replayed = plan.llm.iter().any(replays).then_some(true);
    status.plan = Some(launched.reference.clone());
    status.launch = Some(launched.launch);
    status.job_name = run
        .metadata
        .name
        .as_deref()
        .map(|name| super::job::name(name, launched.launch));
    status.current_step = progress
        .current
        .as_ref()
        .map(|current| current.step.clone());
    status.progress = Some(format!("{}/{}", progress.done(), progress.steps.len()));
    status.round = Some(progress.round).filter(|round| *round > 0);
    status.steps = progress
        .steps
        .iter()
        .map(|step| clipped(step, room, many))
        .collect();
    status.usage = Some(launched.usage.clone());
    status.inherited = inherited(plan).map(Box::new);
    status.repository.clone_from(&progress.repository);
    status.incremental = progress
        .incremental
        .as_ref()
        .map(|found| incremental(found, room));
    status.snapshot.clone_from(&progress.snapshot);
    status.started_at = progress.started_at.map(Time);
}

/// What an incremental run is about; `room` are the most bytes of its message.
pub(super) fn incremental(found: &Classified, room: usize) -> IncrementalStatus {
    IncrementalStatus {
        kind: found.kind,
        message: Some(clip(&found.reason, room)).filter(|reason| !reason.is_empty()),
        path: found.path.clone(),
        edited_files: found.edited.files,
        derived_files: found.derived.files,
    }
}

/// The earlier run that a plan takes over from.
fn inherited(plan: &RunPlan) -> Option<Inherited> {
    if let Some(recover) = &plan.recover {
        return Some(Inherited {
            run: recover.run.clone(),
            uid: recover.uid.clone(),
            snapshot: recover.snapshot.to_string(),
            step: Some(recover.step.clone()),
            gates: Some(recover.gates),
            usage: Some(recover.usage.clone()),
        });
    }
    match &plan.source {
        Some(Source::Run {
            name,
            uid,
            snapshot,
        }) => Some(Inherited {
            run: name.clone(),
            uid: uid.clone(),
            snapshot: snapshot.to_string(),
            ..Inherited::default()
        }),
        Some(Source::Upload { .. }) | None => None,
    }
}

/// Drops the oldest.
fn newest_that_fit(decisions: &mut Vec<DecisionStatus>) {
    let size =
        |decision: &DecisionStatus| serde_json::to_vec(decision).map_or(0, |json| json.len());
    let mut room = MAX_DECISIONS;
    let fit = decisions.iter().rev().take_while(|decision| {
        let fits = size(decision) <= room;
        room = room.saturating_sub(size(decision));
        fits
    });
    let surplus = decisions.len() - fit.count();
    decisions.drain(..surplus);
}

fn phase(status: &AgentRunStatus, standing: &Standing) -> Phase {
    match standing {
        Standing::Ended(end) => end.phase,
        Standing::Held => Phase::Suspended,
        Standing::Asking => Phase::Waiting,
        Standing::Going if status.started_at.is_some() => Phase::Running,
        Standing::Going | Standing::Waiting(_) => Phase::Pending,
    }
}

fn said(
    status: &AgentRunStatus,
    launched: Option<&Launched<'_>>,
    standing: &Standing,
    run: &AgentRun,
) -> Vec<Said> {
    let mut said = match standing {
        Standing::Ended(end) => at_the_end(status, end),
        Standing::Held => paused(
            SUSPENDED,
            "suspended by spec.suspend; set it to false to go on",
        ),
        Standing::Asking => paused(
            WAITING,
            "waits for a decision; the condition AwaitingApproval says on what, and how to decide",
        ),
        Standing::Waiting(pending) => going(pending.reason, &pending.message),
        Standing::Going => {
            let (reason, message) = on_the_way(status, launched, run);
            going(reason, &message)
        }
    };
    if *standing == Standing::Held {
        said.push(Said::yes(
            conditions::SUSPENDED,
            SUSPENDED,
            "suspended by spec.suspend",
        ));
    }
    let waiting = launched.and_then(|l| Some((l.progress.waiting.as_ref()?, l.tally)));
    if let (Standing::Asking | Standing::Held, Some((waiting, tally))) = (standing, waiting) {
        said.push(asking(run, waiting, tally));
    }
    if let (Standing::Going, Some(Pulse::Stuck(stuck))) = (standing, launched.map(|l| l.pulse)) {
        let remedy = match stuck.then {
            OnStuck::Restart => {
                "its launch is ended, and a new one goes on after the last finished step (onStuck: Restart)"
            }
            OnStuck::Alert | OnStuck::Cancel => {
                "look at its pod with kubectl logs, cancel the run with spec.cancel, or wait"
            }
        };
        said.push(Said::yes(
            conditions::STEP_STUCK,
            "NoTrace",
            format!("{}; {remedy}", stuck.told()),
        ));
    }
    said
}

fn asking(run: &AgentRun, waiting: &Waiting, tally: &Tally) -> Said {
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    let reason = if waiting.wait.kind == GateKind::Approval {
        APPROVAL_REQUESTED
    } else {
        DECISION_REQUESTED
    };
    Said::yes(
        conditions::AWAITING_APPROVAL,
        reason,
        instructions(namespace, name, waiting, tally),
    )
}

/// Finished and Succeeded are for pipelines, Ready, Reconciling and Stalled for kstatus.
fn at_the_end(status: &AgentRunStatus, end: &End) -> Vec<Said> {
    let Some(failure) = &end.failure else {
        let message = format!(
            "every step finished: {}",
            status.progress.as_deref().unwrap_or("none to do")
        );
        return vec![
            Said::yes(conditions::READY, "Succeeded", &message),
            Said::yes(conditions::FINISHED, "Succeeded", &message),
            Said::yes(conditions::SUCCEEDED, "Succeeded", message),
        ];
    };
    let (reason, message) = (failure.reason.to_string(), &failure.message);
    let mut said = vec![
        Said::no(conditions::READY, &reason, message),
        Said::yes(conditions::STALLED, &reason, message),
        Said::yes(conditions::FINISHED, &reason, message),
        Said::no(conditions::SUCCEEDED, &reason, message),
    ];
    if failure.reason == FailureReason::BudgetExhausted {
        said.push(Said::yes(conditions::BUDGET_EXHAUSTED, &reason, message));
    }
    said
}

fn going(reason: &str, message: &str) -> Vec<Said> {
    let mut said = paused(reason, message);
    said.push(Said::yes(conditions::RECONCILING, reason, message));
    said
}

fn paused(reason: &str, message: &str) -> Vec<Said> {
    vec![
        Said::no(conditions::READY, reason, message),
        Said::no(conditions::FINISHED, reason, NOT_ENDED),
        Said::unknown(conditions::SUCCEEDED, reason, NOT_ENDED),
    ]
}

fn on_the_way(
    status: &AgentRunStatus,
    launched: Option<&Launched<'_>>,
    run: &AgentRun,
) -> (&'static str, String) {
    let Some(launched) = launched else {
        return (STARTING, "the run is being planned".to_owned());
    };
    if let Some(pending) = &launched.observation.pending {
        return (pending.reason, pending.message.clone());
    }
    if let Some((secret, key)) = launched.progress.missing_secrets.first() {
        let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
        let message = format!(
            "Secret \"{secret}\" in namespace {namespace} is missing or has no key \"{key}\"; create it, and the run goes on \
             by itself: kubectl -n {namespace} create secret generic {secret} --from-literal={key}=…"
        );
        return (MISSING_SECRET, message);
    }
    let seen = launched.progress.launches.get(&launched.launch);
    match &status.current_step {
        Some(step) => (RUNNING, format!("step \"{step}\" is at work")),
        None if seen.is_some_and(|seen| seen.begun) => {
            (RUNNING, "the next step is about to start".to_owned())
        }
        None => (
            STARTING,
            format!("launch {} is about to start a step", launched.launch),
        ),
    }
}

/// Characters that each free text of a step may have, so that the whole status stays within its bound: a step with two
/// gates has about 900 bytes beside its six texts.
fn room(steps: usize) -> usize {
    let each = MAX_STATUS / steps.max(1);
    (each.saturating_sub(900) / 6).clamp(16, 512)
}

fn clipped(step: &StepStatus, room: usize, many: bool) -> StepStatus {
    let clip = |text: &Option<String>| text.as_deref().map(|text| clip(text, room));
    let mut step = step.clone();
    step.message = clip(&step.message);
    step.previous_failure = clip(&step.previous_failure);
    for gate in &mut step.gates {
        if many && gate.verdict == Verdict::Passed {
            gate.threshold = None;
        }
        gate.observed = clip(&gate.observed);
        gate.threshold = clip(&gate.threshold);
    }
    step
}

fn clip(text: &str, room: usize) -> String {
    if text.len() <= room {
        return text.to_owned();
    }
    let end = (0..=room - 3)
        .rev()
        .find(|i| text.is_char_boundary(*i))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{
        decisions::tally,
        fixture::{self, Story, at},
        launch::failed,
        observe::JobState,
        progress::fold,
        stuck::{Signs, pulse},
    };
    use sopwith_crds::{
        contract::{
            incremental::EditsTold,
            report::{Next, What},
        },
        sop_definition::Step,
        status::{ArtifactsRef, GateStatus, IdeaKind, Tokens, Verdict},
        tool_policy::Approvals,
    };

    fn told(
        story: &Story,
        standing: &Standing,
        previous: &AgentRunStatus,
        now: i64,
    ) -> AgentRunStatus {
        let plan = fixture::plan();
        let progress = fold(&plan, &story.batches());
        let observation = Observation {
            job: JobState::Active { stopping: false },
            ..Observation::default()
        };
        let launched = Launched {
            plan: &plan,
            reference: &PlanRef {
                config_map: "blackjack-plan".to_owned(),
                digest: "sha256:0".to_owned(),
            },
            launch: 1,
            progress: &progress,
            usage: &Usage::default(),
            observation: &observation,
            pulse: &pulse(
                &plan,
                Signs {
                    progress: &progress,
                    launch: 1,
                    active: true,
                    listening_since: at(0),
                },
                at(now),
            ),
            tally: &tally(
                &fixture::run().spec,
                progress.waiting.as_ref(),
                &Ok(Approvals::default()),
                at(now),
            ),
        };
        status(
            &fixture::run(),
            previous,
            Some(&launched),
            standing,
            at(now),
        )
    }

    fn reason(status: &AgentRunStatus, kind: &str) -> Option<String> {
        conditions::find(&status.conditions, kind).map(|c| format!("{} {}", c.status, c.reason))
    }

    fn done() -> Story {
        let mut story = Story::new();
        for step in ["write", "code", "test"] {
            story = story
                .started(step, 1)
                .ended(step, 1, Verdict::Passed, Next::Proceed);
        }
        story
    }

    #[test]
    fn a_run_that_waits_says_on_what_and_how_to_decide() {
        let story = Story::new()
            .started("write", 1)
            .waits("write", 1, "sign-off");
        let none = AgentRunStatus::default();
        let status = told(&story, &Standing::Asking, &none, 5);
        assert_eq!(status.phase, Some(Phase::Waiting));
        assert_eq!(status.current_step.as_deref(), Some("write"));
        let asks = conditions::find(&status.conditions, conditions::AWAITING_APPROVAL).unwrap();
        assert_eq!(
            (asks.status.as_str(), asks.reason.as_str()),
            ("True", APPROVAL_REQUESTED)
        );
        assert!(
            asks.message.contains("kubectl patch ar blackjack -n demo"),
            "{}",
            asks.message
        );
        assert_eq!(
            reason(&status, conditions::SUCCEEDED).as_deref(),
            Some("Unknown Waiting")
        );
        let held = told(&story, &Standing::Held, &status, 6);
        assert!(conditions::is_true(
            &held.conditions,
            conditions::AWAITING_APPROVAL
        ));
        let going = told(&story, &Standing::Going, &held, 7);
        assert!(conditions::find(&going.conditions, conditions::AWAITING_APPROVAL).is_none());
    }

    #[test]
    fn a_fresh_run_is_on_its_way() {
        let none = AgentRunStatus::default();
        let status = told(&Story::new(), &Standing::Going, &none, 0);
        assert_eq!(status.phase, Some(Phase::Pending));
        assert_eq!(
            reason(&status, conditions::RECONCILING).as_deref(),
            Some("True Starting")
        );
        assert_eq!(
            reason(&status, conditions::SUCCEEDED).as_deref(),
            Some("Unknown Starting")
        );
        assert_eq!(
            status.trace_id.as_deref(),
            Some("11111111222233334444555555555555")
        );
    }

    #[test]
    fn a_good_run_of_three_steps_takes_four_writes_of_status_after_its_launch() {
        let mut written = told(
            &Story::new(),
            &Standing::Going,
            &AgentRunStatus::default(),
            0,
        );
        let mut writes = 0;
        let mut story = Story::new();
        let mut tell = |story: &Story, standing: &Standing| {
            let next = told(story, standing, &written, 5);
            if worth_writing(&written, &next) {
                writes += 1;
                written = next;
            }
        };
        for step in ["write", "code", "test"] {
            story = story.started(step, 1);
            tell(&story, &Standing::Going);
            story = story
                .action(step, 1)
                .gate(step, 1, "tests", Verdict::Passed);
            tell(&story, &Standing::Going);
            story = story.ended(step, 1, Verdict::Passed, Next::Proceed);
            let end = Standing::Ended(End {
                phase: Phase::Succeeded,
                failure: None,
                at: at(5),
            });
            tell(
                &story,
                if step == "test" {
                    &end
                } else {
                    &Standing::Going
                },
            );
        }
        assert_eq!(writes, 4);
    }

    #[test]
    fn a_missing_secret_is_named_with_its_key_and_the_remedy() {
        let story = Story::new().event(What::SecretMissing {
            secret: "model-provider".to_owned(),
            key: "api-key".to_owned(),
        });
        let status = told(&story, &Standing::Going, &AgentRunStatus::default(), 2);
        let ready = conditions::find(&status.conditions, conditions::READY).unwrap();
        assert_eq!(ready.reason, MISSING_SECRET);
        assert_eq!(
            ready.message,
            "Secret \"model-provider\" in namespace demo is missing or has no key \"api-key\"; create it, and the run goes \
             on by itself: kubectl -n demo create secret generic model-provider --from-literal=api-key=…"
        );
    }

    #[test]
    fn a_stuck_step_appears_and_disappears() {
        let story = Story::new().started("write", 1);
        let none = AgentRunStatus::default();
        let stuck = told(&story, &Standing::Going, &none, 40);
        assert_eq!(
            reason(&stuck, conditions::STEP_STUCK).as_deref(),
            Some("True NoTrace")
        );
        let story = story.pause(50).action("write", 1);
        let freed = told(&story, &Standing::Going, &stuck, 55);
        assert_eq!(reason(&freed, conditions::STEP_STUCK), None);
        assert!(worth_writing(&stuck, &freed));
    }

    #[test]
    fn a_success_is_ready_and_neither_reconciling_nor_stalled() {
        let end = Standing::Ended(End {
            phase: Phase::Succeeded,
            failure: None,
            at: at(9),
        });
        let status = told(&done(), &end, &AgentRunStatus::default(), 9);
        assert_eq!(status.progress.as_deref(), Some("3/3"));
        assert_eq!(
            reason(&status, conditions::READY).as_deref(),
            Some("True Succeeded")
        );
        assert_eq!(reason(&status, conditions::RECONCILING), None);
        assert_eq!(reason(&status, conditions::STALLED), None);
        assert_eq!(
            reason(&status, conditions::SUCCEEDED).as_deref(),
            Some("True Succeeded")
        );
    }

    #[test]
    fn a_failure_is_stalled_with_its_reason() {
        let end = Standing::Ended(failed(
            FailureReason::GateFailed,
            "gate tests failed",
            at(9),
        ));
        let status = told(&done(), &end, &AgentRunStatus::default(), 9);
        assert_eq!(status.phase, Some(Phase::Failed));
        for (kind, expected) in [
            (conditions::READY, "False GateFailed"),
            (conditions::STALLED, "True GateFailed"),
            (conditions::FINISHED, "True GateFailed"),
            (conditions::SUCCEEDED, "False GateFailed"),
        ] {
            assert_eq!(reason(&status, kind).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_run_that_cannot_be_planned_yet_is_pending() {
        let standing = Standing::Waiting(Pending {
            reason: "SopNotFound",
            message: "SopDefinition \"x\" not found".to_owned(),
        });
        let none = AgentRunStatus::default();
        let status = status(&fixture::run(), &none, None, &standing, at(0));
        assert_eq!(status.phase, Some(Phase::Pending));
        assert_eq!(
            reason(&status, conditions::READY).as_deref(),
            Some("False SopNotFound")
        );
        assert_eq!(status.plan, None);
    }

    #[test]
    fn the_largest_status_stays_below_64_kib() {
        let plan = RunPlan {
            steps: (0..64)
                .map(|n| Step {
                    name: format!("step-{n:02}-with-a-long-name-of-{}", "x".repeat(20)),
                    ..Step::default()
                })
                .collect(),
            ..fixture::plan()
        };
        let digest = sopwith_crds::contract::Digest::of("x").to_string();
        let gate = |name: &str| GateStatus {
            name: name.to_owned(),
            kind: GateKind::Expression,
            verdict: Verdict::Passed,
            observed: Some("o".repeat(4000)),
            threshold: Some("t".repeat(4000)),
            evidence: Some(digest.clone()),
            at: Some(Time(at(0))),
            trust: Some(sopwith_crds::status::Trust::InProcess),
            decided_by: None,
        };
        let fate = DecisionStatus {
            step: "s".repeat(40),
            gate: "g".repeat(40),
            by: "b".repeat(80),
            message: "m".repeat(160),
            ..DecisionStatus::default()
        };
        let mut progress = fold(&plan, &[]);
        for step in &mut progress.steps {
            step.role = Some("product-manager".to_owned());
            step.message = Some("m".repeat(4000));
            step.previous_failure = Some("f".repeat(4000));
            step.started_at = Some(Time(at(0)));
            step.finished_at = Some(Time(at(0)));
            step.tokens = Some(Tokens {
                input: 1_000_000,
                output: 1_000_000,
            });
            step.commit = Some("c".repeat(40));
            step.artifacts = Some(ArtifactsRef {
                manifest: digest.clone(),
                count: 30,
            });
            step.gates = vec![gate("documents-are-there"), gate("unit-tests-pass")];
        }
        progress.repository = Some(sopwith_crds::status::RepositoryStatus {
            url: "u".repeat(2048),
            commit: Some("c".repeat(40)),
            branch: Some("b".repeat(256)),
            delivered: Some("c".repeat(40)),
        });
        progress.incremental = Some(Classified {
            kind: IdeaKind::Bug,
            reason: "r".repeat(300),
            path: "p".repeat(128),
            edited: EditsTold::default(),
            derived: EditsTold::default(),
        });
        let launched = Launched {
            plan: &plan,
            reference: &PlanRef::default(),
            launch: 1,
            progress: &progress,
            usage: &Usage::default(),
            observation: &Observation::default(),
            pulse: &Pulse::Idle,
            tally: &Tally {
                fates: vec![fate; 256],
                ..Tally::default()
            },
        };
        let none = AgentRunStatus::default();
        let status = status(
            &fixture::run(),
            &none,
            Some(&launched),
            &Standing::Going,
            at(0),
        );
        let bytes = serde_json::to_vec(&status).unwrap().len();
        assert!(bytes < 64 * 1024, "{bytes} bytes");
    }
}
