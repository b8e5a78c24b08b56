//! The existing project that a run begins with: loaded in the first launch before any step, then kept beside what the run
//! makes of it.

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
    report::Reporter,
    snapshot::{FilesError, SnapshotError, files, read},
    tree::{Tree, TreeError},
};

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
    pub fn failure(&self, source: &Source) -> Option<Failure> {
        if let Self::Gateway(GatewayError::Away(_) | GatewayError::Superseded(_)) = self {
            return None;
        }
        Some(Failure {
            reason: FailureReason::ProjectUnavailable,
            step: None,
            message: format!("the project cannot be loaded from {}: {self}", told(source)),
        })
    }
}

/// A source, for people.
fn told(source: &Source) -> String {
    match source {
        Source::Run { name, .. } => format!("run {name}"),
        Source::Upload { digest } => format!("upload {digest}"),
    }
}

/// The project that a launch begins with, or how it ends: none where it resumes from a snapshot, which has it, or where
/// the run begins with an empty project.
pub(crate) async fn begin(
    plan: &RunPlan,
    start: &LaunchStart,
    gateway: &Gateway,
    reporter: &Reporter,
) -> Result<Option<Base>, (Outcome, Option<Failure>)> {
    let (None, Some(source)) = (&start.snapshot, &plan.source) else {
        return Ok(None);
    };
    let loaded = tokio::select! {
        biased;
        stop = reporter.stopped() => return Err((stop.outcome(), None)),
        loaded = load(source, gateway) => loaded,
    };
    loaded.map(Some).map_err(|error| {
        tracing::error!(%error, "no project to begin with");
        match error.failure(source) {
            Some(failure) => (Outcome::Failed, Some(failure)),
            None => (Outcome::Interrupted, None),
        }
    })
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
    /// Before the first step of the first launch: keeps the project that the run begins with.
    pub(crate) async fn prepare(&mut self) -> Result<(), End> {
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
