//! The runs in which faults happen, and what a person does in them.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use sopwith_crds::{
    AgentRun,
    status::{Phase, Verdict},
};
use sopwith_e2e::{
    fixture,
    namespace::{Namespace, phase},
    repository, sample,
};

/// Longest time from one point of a run to the next.
const PATIENCE: u64 = 90;

/// A run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// Every gate passes at once.
    Succeeds,
    /// A gate fails and sends the line back; then all pass.
    Backtracks,
    /// A person cancels it while a step is at work.
    Cancelled,
    /// A person suspends it while a step is at work, and lets it go on.
    Suspended,
    /// It waits for a person, who approves.
    Approved,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Succeeds,
        Self::Backtracks,
        Self::Cancelled,
        Self::Suspended,
        Self::Approved,
    ];

    /// For names of cases.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeds => "succeeds",
            Self::Backtracks => "backtracks",
            Self::Cancelled => "cancelled",
            Self::Suspended => "suspended",
            Self::Approved => "approved",
        }
    }

    /// How it ends.
    pub(crate) const fn end(self) -> Phase {
        match self {
            Self::Cancelled => Phase::Cancelled,
            _ => Phase::Succeeded,
        }
    }

    /// Name of the run and of its procedure.
    pub(crate) const fn run(self) -> &'static str {
        match self {
            Self::Approved => "signed",
            _ => "relay",
        }
    }

    /// What a person applies, the run last.
    const fn fixtures(self) -> &'static [&'static str] {
        match self {
            Self::Approved => &[
                "small/policy.yaml",
                "approval/sop.yaml",
                "approval/run.yaml",
            ],
            _ => &[
                "relay/cassette.yaml",
                "relay/policy.yaml",
                "relay/sop.yaml",
                "relay/run.yaml",
            ],
        }
    }

    /// The second step works as long as a person needs to find it at work.
    fn parameters(self) -> Value {
        match self {
            Self::Approved => json!({}),
            Self::Succeeds => json!({ "word": "one" }),
            Self::Backtracks => json!({ "word": "two" }),
            Self::Cancelled => json!({ "word": "one", "seconds": "100" }),
            Self::Suspended => json!({ "word": "one", "seconds": "8" }),
        }
    }

    /// From `kubectl apply` to the run's end.
    pub(crate) async fn play(self, namespace: &Namespace) -> Result<AgentRun> {
        for file in self.fixtures() {
            let mut objects = fixture::read(repository().join("e2e/fixtures").join(file))?;
            if let Ok(run) = sample::of_kind(&mut objects, "AgentRun") {
                run.data["spec"]["parameters"] = self.parameters();
            }
            namespace.apply(objects).await?;
        }
        match self {
            Self::Succeeds | Self::Backtracks => {}
            Self::Cancelled => {
                self.at_work(namespace).await?;
                self.ask(namespace, json!({ "cancel": true })).await?;
            }
            Self::Suspended => {
                self.at_work(namespace).await?;
                self.ask(namespace, json!({ "suspend": true })).await?;
                self.until(namespace, "suspended", |run| {
                    phase(run) == Some(Phase::Suspended)
                })
                .await?;
                self.ask(namespace, json!({ "suspend": false })).await?;
            }
            Self::Approved => {
                self.until(namespace, "asking", |run| {
                    phase(run) == Some(Phase::Waiting)
                })
                .await?;
                let decision = self.approval(namespace).await?;
                self.ask(namespace, json!({ "decisions": [decision] }))
                    .await?;
            }
        }
        namespace.ended(self.run(), PATIENCE).await
    }

    /// Waits until the second step is at work.
    async fn at_work(self, namespace: &Namespace) -> Result<()> {
        let second = |run: &AgentRun| {
            let status = run.status.as_ref();
            status.and_then(|status| status.current_step.as_deref()) == Some("copy")
        };
        self.until(namespace, "the second step at work", second)
            .await
    }

    /// A decision for what waits, in the name of whoever runs the test.
    async fn approval(self, namespace: &Namespace) -> Result<Value> {
        let reviews: Api<SelfSubjectReview> = Api::all(namespace.client.clone());
        let asked = SelfSubjectReview::default();
        let review = reviews.create(&PostParams::default(), &asked).await?;
        let user = review.status.and_then(|status| status.user_info);
        let by = user.and_then(|user| user.username).context("no user")?;
        let run = namespace.api::<AgentRun>().get(self.run()).await?;
        let steps = run.status.context("no status")?.steps;
        let gates = steps
            .iter()
            .flat_map(|step| step.gates.iter().map(move |gate| (step, gate)));
        let mut waiting = gates.filter(|(_, gate)| gate.verdict == Verdict::Pending);
        let (step, gate) = waiting.next().context("no gate waits")?;
        Ok(json!({
            "step": step.name, "gate": gate.name, "attempt": step.attempts,
            "subject": gate.evidence, "verdict": "Approve", "by": by,
        }))
    }

    async fn until(
        self,
        namespace: &Namespace,
        what: &str,
        wanted: impl Fn(&AgentRun) -> bool + Send,
    ) -> Result<()> {
        namespace.until(self.run(), PATIENCE, what, wanted).await?;
        Ok(())
    }

    async fn ask(self, namespace: &Namespace, spec: Value) -> Result<()> {
        let asked = namespace.patch_run(self.run(), spec).await;
        asked.context("ask the run")?;
        Ok(())
    }
}
