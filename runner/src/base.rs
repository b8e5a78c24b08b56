//! The existing project that a run begins with: loaded in the first launch before any step, then kept beside what the run
//! makes of it.

use std::sync::Arc;

use sopwith_crds::{
    archive::{ArchiveError, unpack},
    contract::{
        plan::{RunPlan, Source},
        report::{LaunchStart, Outcome, What},
        snapshot::Origin,
    },
    status::{Failure, FailureReason},
};

use crate::{
    ending::End,
    engine::Engine,
    gateway::{Gateway, GatewayError},
    recover::{self, Recovered},
    report::Reporter,
    snapshot::{FilesError, SnapshotError, files, read},
    tree::{Tree, TreeError},
};

/// What a run begins with.
#[derive(Debug)]
pub enum Beginning {
    /// A project.
    Project(Base),
    /// The state of an earlier run.
    State(Box<Recovered>),
}

/// A project, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Its files.
    pub tree: Tree,
    /// Where they came from.
    pub origin: Origin,
}

/// Why there is no project to begin with.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The gateway did not give it.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// What it gave is no project.
    #[error("{0}")]
    Wrong(String),
}

impl From<SnapshotError> for SourceError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Gateway(error) => Self::Gateway(error),
            wrong @ SnapshotError::Wrong { .. } => Self::Wrong(wrong.to_string()),
        }
    }
}

impl From<FilesError> for SourceError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Gateway(error) => Self::Gateway(error),
            FilesError::Tree(error) => error.into(),
        }
    }
}

impl From<TreeError> for SourceError {
    fn from(error: TreeError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl From<ArchiveError> for SourceError {
    fn from(error: ArchiveError) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl SourceError {
    /// Why the run fails; none where another launch may have more luck.
    fn failure(&self, from: &str) -> Option<Failure> {
        if let Self::Gateway(GatewayError::Away(_) | GatewayError::Superseded(_)) = self {
            return None;
        }
        Some(Failure {
            reason: FailureReason::ProjectUnavailable,
            step: None,
            message: format!("the project cannot be loaded from {from}: {self}"),
        })
    }
}

/// What a launch begins with, or how it ends: none where it resumes from a snapshot, which has it, or where the run begins
/// with an empty project.
pub(crate) async fn begin(
    plan: &RunPlan,
    start: &LaunchStart,
    gateway: &Gateway,
    reporter: &Reporter,
) -> Result<Option<Beginning>, (Outcome, Option<Failure>)> {
    if start.snapshot.is_some() {
        return Ok(None);
    }
    let loaded = tokio::select! {
        biased;
        stop = reporter.stopped() => return Err((stop.outcome(), None)),
        loaded = beginning(plan, gateway) => loaded,
    };
    loaded.map_err(|(from, error)| {
        tracing::error!(%error, "no project to begin with");
        match error.failure(&from) {
            Some(failure) => (Outcome::Failed, Some(failure)),
            None => (Outcome::Interrupted, None),
        }
    })
}

async fn beginning(
    plan: &RunPlan,
    gateway: &Gateway,
) -> Result<Option<Beginning>, (String, SourceError)> {
    let (from, loaded) = match (&plan.recover, &plan.source) {
        (Some(recover), _) => (
            format!("run {} after step {}", recover.run, recover.step),
            recover::load(plan, recover, gateway).await,
        ),
        (None, Some(source)) => (
            told(source),
            load(source, gateway).await.map(Beginning::Project),
        ),
        (None, None) => return Ok(None),
    };
    loaded.map(Some).map_err(|error| (from, error))
}

/// A source, for people.
fn told(source: &Source) -> String {
    match source {
        Source::Run { name, .. } => format!("run {name}"),
        Source::Upload { digest } => format!("upload {digest}"),
    }
}

/// Loads the project of a source.
pub async fn load(source: &Source, gateway: &Gateway) -> Result<Base, SourceError> {
    match source {
        Source::Run { name, snapshot, .. } => {
            let left = read(gateway, snapshot).await?;
            Ok(Base {
                tree: files(gateway, &left.tree, &Tree::default()).await?,
                origin: Origin::Run {
                    name: name.clone(),
                    snapshot: snapshot.clone(),
                },
            })
        }
        Source::Upload { digest } => {
            let files = unpack(&gateway.upload(digest).await?)?;
            let mut tree = Tree::default();
            for (path, file) in files {
                tree.write(&path, file.bytes.into(), file.executable)?;
            }
            Ok(Base {
                tree,
                origin: Origin::Upload {
                    digest: digest.clone(),
                },
            })
        }
    }
}

impl Engine {
    /// Before the first step of the first launch: keeps what the run begins with.
    pub(crate) async fn prepare(&mut self) -> Result<(), End> {
        let plan = Arc::clone(&self.plan);
        if let Some(recover) = &plan.recover {
            let snapshot = self.save().await?;
            self.tell_recovered(recover, snapshot);
            return self.deliver().await;
        }
        let Some(baseline) = &self.record.baseline else {
            return Ok(());
        };
        let (origin, files) = (baseline.base.origin.clone(), baseline.base.files);
        let snapshot = self.save().await?;
        self.pending.push(What::ProjectLoaded {
            origin,
            files,
            snapshot,
        });
        self.deliver().await
    }
}
