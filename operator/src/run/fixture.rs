//! A small run for tests of deciding files, and stories of what its runner reported.

use super::job::Site;
use crate::store::StoredBatch;
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    AgentRun, AgentRunSpec, ToolPolicySpec,
    agent_run::{DecisionVerdict, KeyRef, LocalRef},
    contract::{
        Digest, VERSION,
        plan::{Recover, RunIdentity, RunOptions, RunPlan, Workbench},
        report::{Event, Next, ReportBatch, StepEnd, Wait, What},
    },
    sop_definition::{GateKind, Step},
    status::{GateStatus, InheritedGates, Revision, Usage, Verdict},
    tool_policy::{Endpoint, Provider, Replay},
};
use std::sync::Arc;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

pub(crate) fn run() -> AgentRun {
    let mut run = AgentRun::new(
        "blackjack",
        AgentRunSpec {
            idea: Some("write a cli blackjack game".to_owned()),
            sop_ref: LocalRef {
                name: "software-company".to_owned(),
            },
            ..AgentRunSpec::default()
        },
    );
    run.metadata.namespace = Some("demo".to_owned());
    run.metadata.uid = Some("11111111-2222-3333-4444-555555555555".to_owned());
    run.metadata.generation = Some(1);
    run.metadata.resource_version = Some("7".to_owned());
    run
}

pub(crate) fn policy() -> ToolPolicySpec {
    ToolPolicySpec {
        llm: vec![Endpoint {
            name: "replay".to_owned(),
            provider: Provider::Replay,
            secret_ref: Some(KeyRef {
                name: "model-provider".to_owned(),
                key: "api-key".to_owned(),
            }),
            replay: Some(Replay {
                cassette_ref: LocalRef {
                    name: "cassette".to_owned(),
                },
                mode: None,
            }),
            ..Endpoint::default()
        }],
        ..ToolPolicySpec::default()
    }
}

pub(crate) fn site() -> Site {
    Site {
        runner_image: "sopwith/runner:test".to_owned(),
        runner_image_pull_policy: "IfNotPresent".to_owned(),
        gateway_url: "https://sopwith-gateway.sopwith-system.svc:8443".to_owned(),
    }
}

fn step(name: &str, needs: &[&str]) -> Step {
    Step {
        name: name.to_owned(),
        role: Some("engineer".to_owned()),
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        stuck_after_seconds: Some(30),
        ..Step::default()
    }
}

pub(crate) fn plan() -> RunPlan {
    RunPlan {
        version: VERSION,
        run: RunIdentity {
            namespace: "demo".to_owned(),
            name: "blackjack".to_owned(),
            uid: "11111111-2222-3333-4444-555555555555".to_owned(),
        },
        sop: Revision {
            name: "software-company".to_owned(),
            revision: Digest::of("sop").to_string(),
        },
        policy: Revision {
            name: "default".to_owned(),
            revision: Digest::of("policy").to_string(),
        },
        options: RunOptions {
            idea: "write a cli blackjack game".to_owned(),
            ..RunOptions::default()
        },
        steps: vec![
            step("write", &[]),
            step("code", &["write"]),
            step("test", &["code"]),
        ],
        llm: policy().llm,
        workbenches: vec![Workbench {
            name: "workbench-1".to_owned(),
            image: "workbench-python:test".to_owned(),
        }],
        llm_concurrency: 4,
        ..RunPlan::default()
    }
}

/// What a run takes over that recovers from another.
pub(crate) fn recover() -> Recover {
    Recover {
        run: "first".to_owned(),
        uid: "uid-1".to_owned(),
        step: "write".to_owned(),
        snapshot: Digest::of("left"),
        gates: InheritedGates::TakenOver,
        usage: Usage {
            total_tokens: 110,
            ..Usage::default()
        },
    }
}

/// What a runner reported: one batch a second, one event a batch.
#[derive(Clone)]
pub(crate) struct Story {
    clock: i64,
    launch: u32,
    events: Vec<(u32, i64, What)>,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            clock: 0,
            launch: 0,
            events: Vec::new(),
        }
        .launch(1)
    }

    pub(crate) fn launch(mut self, number: u32) -> Self {
        self.launch = number;
        self.push(What::LaunchStarted {
            runner: "test".to_owned(),
            resumed_from: None,
        })
    }

    pub(crate) fn event(mut self, what: What) -> Self {
        self.clock += 1;
        self.push(what)
    }

    pub(crate) fn pause(mut self, seconds: i64) -> Self {
        self.clock += seconds;
        self
    }

    pub(crate) fn started(self, step: &str, attempt: u32) -> Self {
        self.event(What::StepStarted {
            step: step.to_owned(),
            attempt,
        })
    }

    pub(crate) fn action(self, step: &str, attempt: u32) -> Self {
        self.event(What::ActionEnded {
            step: step.to_owned(),
            attempt,
            action: "draft".to_owned(),
            item: None,
            message: "wrote".to_owned(),
        })
    }

    pub(crate) fn gate(self, step: &str, attempt: u32, name: &str, verdict: Verdict) -> Self {
        self.event(What::GateJudged {
            step: step.to_owned(),
            attempt,
            gate: GateStatus {
                name: name.to_owned(),
                kind: GateKind::Command,
                verdict,
                observed: Some("1 of 2 tests failed".to_owned()),
                ..GateStatus::default()
            },
            findings: String::new(),
        })
    }

    pub(crate) fn ended(self, step: &str, attempt: u32, verdict: Verdict, next: Next) -> Self {
        let snapshot = Digest::of(format!("{step}/{attempt}/{}", self.clock));
        self.event(What::StepEnded {
            end: Box::new(StepEnd {
                step: step.to_owned(),
                attempt,
                verdict,
                message: format!("{step} attempt {attempt} {verdict:?}"),
                usage: Usage {
                    input_tokens: 100,
                    output_tokens: 10,
                    total_tokens: 110,
                    ..Usage::default()
                },
                artifacts: None,
                commit: None,
                snapshot,
                next,
            }),
        })
    }

    pub(crate) fn waits(self, step: &str, attempt: u32, gate: &str) -> Self {
        let wait = Wait {
            gate: gate.to_owned(),
            kind: GateKind::Approval,
            subject: Digest::of(format!("{step}/{attempt}/{gate}")),
            question: "Go on?".to_owned(),
            options: vec![DecisionVerdict::Approve, DecisionVerdict::Reject],
            back: Vec::new(),
        };
        self.gate(step, attempt, gate, Verdict::Pending).ended(
            step,
            attempt,
            Verdict::Pending,
            Next::Wait(Box::new(wait)),
        )
    }

    pub(crate) fn resumed(self, step: &str, attempt: u32) -> Self {
        self.event(What::StepResumed {
            step: step.to_owned(),
            attempt,
        })
    }

    fn push(mut self, what: What) -> Self {
        self.events.push((self.launch, self.clock, what));
        self
    }

    pub(crate) fn batches(&self) -> Vec<Arc<StoredBatch>> {
        let numbered = self.events.iter().zip(1..);
        numbered
            .map(|((launch, second, what), sequence)| {
                Arc::new(StoredBatch {
                    launch: *launch,
                    pod_uid: format!("pod-{launch}"),
                    received_at: at(*second),
                    batch: ReportBatch {
                        version: VERSION,
                        sequence,
                        events: vec![Event {
                            at: at(*second),
                            what: what.clone(),
                        }],
                        usage: Usage::default(),
                    },
                })
            })
            .collect()
    }
}
