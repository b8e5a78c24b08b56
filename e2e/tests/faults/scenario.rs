//! The runs in which faults happen, and what a person does in them.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, status::Phase};
use sopwith_e2e::{
    fixture,
    namespace::{Namespace, phase},
    repository, sample,
};

/// Name of the run.
pub(crate) const RUN: &str = "relay";
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
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::Succeeds,
        Self::Backtracks,
        Self::Cancelled,
        Self::Suspended,
    ];

    /// For names of cases.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeds => "succeeds",
            Self::Backtracks => "backtracks",
            Self::Cancelled => "cancelled",
            Self::Suspended => "suspended",
        }
    }

    /// How it ends.
    pub(crate) const fn end(self) -> Phase {
        match self {
            Self::Cancelled => Phase::Cancelled,
            _ => Phase::Succeeded,
        }
    }

    /// The second step works as long as a person needs to find it at work.
    fn parameters(self) -> Value {
        match self {
            Self::Succeeds => json!({ "word": "one" }),
            Self::Backtracks => json!({ "word": "two" }),
            Self::Cancelled => json!({ "word": "one", "seconds": "100" }),
            Self::Suspended => json!({ "word": "one", "seconds": "8" }),
        }
    }

    /// From `kubectl apply` to the run's end.
    pub(crate) async fn play(self, namespace: &Namespace) -> Result<AgentRun> {
        for file in ["cassette", "policy", "sop"] {
            namespace
                .apply_fixture(&format!("relay/{file}.yaml"))
                .await?;
        }
        let mut run = fixture::read(repository().join("e2e/fixtures/relay/run.yaml"))?;
        let spec = &mut sample::of_kind(&mut run, "AgentRun")?.data["spec"];
        spec["parameters"] = self.parameters();
        namespace.apply(run).await?;
        match self {
            Self::Succeeds | Self::Backtracks => {}
            Self::Cancelled => {
                at_work(namespace).await?;
                ask(namespace, json!({ "cancel": true })).await?;
            }
            Self::Suspended => {
                at_work(namespace).await?;
                ask(namespace, json!({ "suspend": true })).await?;
                until(namespace, "suspended", |run| {
                    phase(run) == Some(Phase::Suspended)
                })
                .await?;
                ask(namespace, json!({ "suspend": false })).await?;
            }
        }
        namespace.ended(RUN, PATIENCE).await
    }
}

/// Waits until the second step is at work.
async fn at_work(namespace: &Namespace) -> Result<()> {
    let second = |run: &AgentRun| {
        let status = run.status.as_ref();
        status.and_then(|status| status.current_step.as_deref()) == Some("copy")
    };
    until(namespace, "the second step at work", second).await
}

async fn until(
    namespace: &Namespace,
    what: &str,
    wanted: impl Fn(&AgentRun) -> bool + Send,
) -> Result<()> {
    namespace.until(RUN, PATIENCE, what, wanted).await?;
    Ok(())
}

async fn ask(namespace: &Namespace, spec: Value) -> Result<()> {
    let asked = namespace.patch_run(RUN, spec).await;
    asked.context("ask the run")?;
    Ok(())
}
