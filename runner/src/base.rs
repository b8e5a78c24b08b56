//! The existing project that a run begins with: loaded in the first launch before any step, then kept beside what the run
//! makes of it.

use gix_hash::ObjectId;
use sopwith_crds::{
    archive::{ArchiveError, unpack},
    contract::{
        Digest,
        plan::{RunPlan, Source},
        report::{LaunchStart, Outcome, What},
        snapshot::Origin,
    },
    language::Since,
    status::{Failure, FailureReason},
};

use crate::{
    commits,
    context::SharedTree,
    ending::End,
    engine::Engine,
    gateway::{Gateway, GatewayError},
    git::{
        Fault,
        history::History,
        object::Objects,
        remote::Remote,
        source::{self, left_out},
    },
    report::Reporter,
    snapshot::{Blobs, FilesError, Machine, Record, SnapshotError, files, read},
    sop::State,
    tree::{Tree, TreeError},
};

/// A project, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Base {
    /// Its files.
    pub tree: Tree,
    /// Where they came from.
    pub origin: Origin,
    /// The commit that they are of, and its objects; none where they are of no repository, or of one without commits.
    pub commit: Option<(ObjectId, Objects)>,
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
    /// The repository did not give it.
    #[error(transparent)]
    Repository(#[from] Fault),
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
    pub fn failure(&self, source: &str) -> Option<Failure> {
        if let Self::Gateway(GatewayError::Away(_) | GatewayError::Superseded(_)) = self {
            return None;
        }
        Some(Failure {
            reason: FailureReason::ProjectUnavailable,
            step: None,
            message: format!("the project cannot be loaded from {source}: {self}"),
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
    remote: Option<&Remote>,
) -> Result<Option<Base>, (Outcome, Option<Failure>)> {
    if start.snapshot.is_some() {
        return Ok(None);
    }
    let loading = async {
        match (&plan.source, remote) {
            (Some(source), _) => (told(source), load(source, gateway).await.map(Some)),
            (None, Some(remote)) => {
                let url = remote.repository().url.to_string();
                (url, cloned(remote).await.map(Some))
            }
            (None, None) => (String::new(), Ok(None)),
        }
    };
    let (from, loaded) = tokio::select! {
        biased;
        stop = reporter.stopped() => return Err((stop.outcome(), None)),
        loaded = loading => loaded,
    };
    loaded.map_err(|error| {
        tracing::error!(%error, "no project to begin with");
        match error.failure(&from) {
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
                commit: None,
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
                commit: None,
            })
        }
    }
}

/// Reads the commit that a repository's reference stands for.
async fn cloned(remote: &Remote) -> Result<Base, SourceError> {
    let url = remote.repository().url.to_string();
    let Some(fetched) = remote.fetch().await? else {
        return Ok(Base {
            tree: Tree::default(),
            origin: Origin::Git {
                url,
                commit: String::new(),
                branch: None,
            },
            commit: None,
        });
    };
    let (commit, root) = source::commit(&fetched.objects, fetched.commit)?;
    let tree = source::list(&fetched.objects, root)?.read(&fetched.objects)?;
    Ok(Base {
        tree,
        origin: Origin::Git {
            url,
            commit: commit.to_string(),
            branch: fetched.branch,
        },
        commit: Some((commit, fetched.objects)),
    })
}

/// Where a launch begins.
pub(crate) struct Beginning {
    /// What the run has gathered.
    pub(crate) record: Record,
    /// Where its commits stand.
    pub(crate) history: History,
}

impl Beginning {
    /// What a snapshot holds; without one the first launch, with the project that the run begins with. Fills the tree, and what
    /// it is compared with.
    pub(crate) async fn of(
        plan: &RunPlan,
        blobs: &mut Blobs,
        resume: Option<&Digest>,
        base: Option<Base>,
        tree: &SharedTree,
    ) -> Result<Self, String> {
        let begun = Self::found(plan, blobs, resume, base, tree).await?;
        if let Some(baseline) = &begun.record.baseline {
            tree.remember(Since::Run, baseline.tree.clone());
        }
        Ok(begun)
    }

    async fn found(
        plan: &RunPlan,
        blobs: &mut Blobs,
        resume: Option<&Digest>,
        base: Option<Base>,
        tree: &SharedTree,
    ) -> Result<Self, String> {
        if let Some(digest) = resume {
            let record = restored(blobs, digest, &Digest::of_json(plan), tree).await;
            let record = record.map_err(|error| error.to_string())?;
            let history = commits::resumed(blobs, &record.commits).await;
            return Ok(Self {
                record,
                history: history.map_err(|error| error.to_string())?,
            });
        }
        let mut record = Record::default();
        record.machine.state = State::new(plan);
        let Some(base) = base else {
            return Ok(Self {
                record,
                history: History::new(),
            });
        };
        tree.write(|tree| *tree = base.tree.clone());
        let begun = commits::begun(plan, blobs, &base).map_err(|fault| fault.to_string())?;
        record.commits = begun.0;
        record.baseline = Some(blobs.add_base(base));
        Ok(Self {
            record,
            history: begun.1,
        })
    }
}

/// Fills the tree, and what it is compared with, from a snapshot; gives the rest of it.
async fn restored(
    blobs: &mut Blobs,
    snapshot: &Digest,
    plan: &Digest,
    tree: &SharedTree,
) -> Result<Record, SnapshotError> {
    let (files, record) = blobs.load(snapshot, plan).await?;
    let Machine { starts, begun, .. } = &record.machine;
    if let Some(begun) = begun {
        let first = starts.get(&begun.step).cloned().flatten();
        for (since, at) in [(Since::Step, &first), (Since::Attempt, &begun.at)] {
            let earlier = match at {
                Some(digest) => blobs.earlier(digest, &files).await?.0,
                None => Tree::default(),
            };
            tree.remember(since, earlier);
        }
    }
    tree.write(|tree| *tree = files);
    Ok(record)
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
            left_out: left_out(self.history.kept()),
            snapshot,
        });
        self.deliver().await
    }
}
