//! The existing project that a run begins with: loaded in the first launch before any step, then kept beside what the run
//! makes of it.

use std::sync::Arc;

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
    recover::{self, Recovered},
    report::Reporter,
    snapshot::{Blobs, FilesError, Machine, Record, SnapshotError, files, read},
    sop::State,
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
    remote: Option<&Remote>,
) -> Result<Option<Beginning>, (Outcome, Option<Failure>)> {
    if start.snapshot.is_some() {
        return Ok(None);
    }
    let loaded = tokio::select! {
        biased;
        stop = reporter.stopped() => return Err((stop.outcome(), None)),
        loaded = beginning(plan, gateway, remote) => loaded,
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
    remote: Option<&Remote>,
) -> Result<Option<Beginning>, (String, SourceError)> {
    let (from, loaded) = match (&plan.recover, &plan.source, remote) {
        (Some(recover), _, _) => (
            format!("run {} after step {}", recover.run, recover.step),
            recover::load(plan, recover, gateway).await,
        ),
        (None, Some(source), _) => (
            told(source),
            load(source, gateway).await.map(Beginning::Project),
        ),
        (None, None, Some(remote)) => (
            remote.repository().url.to_string(),
            cloned(remote).await.map(Beginning::Project),
        ),
        (None, None, None) => return Ok(None),
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
            let (left, _) = read(gateway, snapshot).await?;
            Ok(Base {
                tree: files(gateway, left.tree.values(), &Tree::default()).await?,
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
pub(crate) struct Outset {
    /// What the run has gathered.
    pub(crate) record: Record,
    /// Where its commits stand.
    pub(crate) history: History,
}

impl Outset {
    /// What a snapshot holds; without one the first launch, with what the run begins with. Fills the tree, and what it is
    /// compared with.
    pub(crate) async fn of(
        plan: &RunPlan,
        blobs: &mut Blobs,
        resume: Option<&Digest>,
        beginning: Option<Beginning>,
        tree: &SharedTree,
    ) -> Result<Self, String> {
        let begun = match (resume, beginning) {
            (Some(snapshot), _) => Self::resumed(plan, blobs, snapshot, tree).await?,
            (None, Some(Beginning::State(state))) => {
                Self::recovered(plan, blobs, *state, tree).await?
            }
            (None, Some(Beginning::Project(base))) => {
                Self::with_project(plan, blobs, base, tree).map_err(|fault| fault.to_string())?
            }
            (None, None) => Self {
                record: fresh(plan),
                history: History::new(),
            },
        };
        if let Some(baseline) = &begun.record.baseline {
            tree.remember(Since::Run, baseline.tree.clone());
        }
        Ok(begun)
    }

    async fn resumed(
        plan: &RunPlan,
        blobs: &mut Blobs,
        snapshot: &Digest,
        tree: &SharedTree,
    ) -> Result<Self, String> {
        let record = restored(blobs, snapshot, &Digest::of_json(plan), tree).await;
        Self::going_on(blobs, record.map_err(|error| error.to_string())?).await
    }

    async fn recovered(
        plan: &RunPlan,
        blobs: &mut Blobs,
        state: Recovered,
        tree: &SharedTree,
    ) -> Result<Self, String> {
        tree.write(|tree| *tree = state.tree);
        *blobs = state.blobs;
        let inherited = plan.recover.as_ref().map(|from| from.usage.clone());
        let record = Record {
            inherited,
            ..state.record
        };
        Self::going_on(blobs, record).await
    }

    async fn going_on(blobs: &Blobs, record: Record) -> Result<Self, String> {
        let history = commits::resumed(blobs, &record.commits).await;
        Ok(Self {
            record,
            history: history.map_err(|error| error.to_string())?,
        })
    }

    fn with_project(
        plan: &RunPlan,
        blobs: &mut Blobs,
        base: Base,
        tree: &SharedTree,
    ) -> Result<Self, Fault> {
        tree.write(|tree| *tree = base.tree.clone());
        let (commits, history) = commits::begun(plan, blobs, &base)?;
        let record = Record {
            commits,
            baseline: Some(blobs.add_base(base)),
            ..fresh(plan)
        };
        Ok(Self { record, history })
    }
}

/// What a run has gathered that begins with nothing.
fn fresh(plan: &RunPlan) -> Record {
    let mut record = Record::default();
    record.machine.state = State::new(plan);
    record
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
        let attempt = tree_at(blobs, begun.at.as_ref(), &files).await?;
        let step = if first == begun.at {
            attempt.clone()
        } else {
            tree_at(blobs, first.as_ref(), &files).await?
        };
        tree.remember(Since::Step, step);
        tree.remember(Since::Attempt, attempt);
    }
    tree.write(|tree| *tree = files);
    Ok(record)
}

/// The tree of a snapshot; without one that of an empty project. What is the same in `near` is not fetched again.
async fn tree_at(
    blobs: &Blobs,
    snapshot: Option<&Digest>,
    near: &Tree,
) -> Result<Tree, SnapshotError> {
    match snapshot {
        Some(digest) => Ok(blobs.earlier(digest, near).await?.0),
        None => Ok(Tree::default()),
    }
}

impl Engine {
    /// Before the first step of the first launch: keeps what the run begins with.
    pub(crate) async fn prepare(&mut self) -> Result<(), End> {
        self.tell_recalled();
        let plan = Arc::clone(&self.plan);
        self.begin_incremental().await?;
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
            left_out: left_out(self.history.kept()),
            snapshot,
        });
        self.deliver().await
    }
}
