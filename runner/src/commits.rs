//! The commits of a run: one for each step that passed and changed something, kept with the snapshots, pushed at the end.
//!
//! A commit is made before the snapshot of its step and kept as a pack, so a launch that resumes has the same commits, and
//! pushing them again finds them there. Nothing is pushed before the last step has passed: a branch never shows what a gate
//! refused.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use gix_hash::ObjectId;
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    contract::{
        commits::{BaseCommit, Commits, Item, StepCommit, join},
        plan::{Deliver, RunPlan},
        report::{Outcome, What},
    },
    places::is_delivered,
    sop_definition::Step,
    status::{Failure, FailureReason},
};

use crate::{
    attempt::{Spot, Stopped},
    base::Base,
    ending::End,
    engine::Engine,
    gateway::GatewayError,
    git::{
        Fault,
        history::{About, History, Made, skeleton},
        object::Objects,
        pack,
        remote::{LIMITS, Pushed, Remote},
    },
    snapshot::Blobs,
    tree::{Tree, TreeError},
};

/// Packs that are fetched at once.
const AT_ONCE: usize = 8;
/// Most items that a commit names.
const MAX_ITEMS: usize = 100;

/// Why the commits of a run cannot be taken up again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResumeError {
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("the run's commits cannot be read: {0}")]
    Fault(#[from] Fault),
    #[error("{0:?} is no id of a commit")]
    Id(String),
}

fn id(text: &str) -> Result<ObjectId, ResumeError> {
    ObjectId::from_hex(text.as_bytes()).map_err(|_| ResumeError::Id(text.to_owned()))
}

/// Where the commits of a snapshot stand.
pub(crate) async fn resumed(blobs: &Blobs, commits: &Commits) -> Result<History, ResumeError> {
    let Some(head) = commits.head() else {
        return Ok(History::new());
    };
    let skeleton = commits.base.iter().map(|base| &base.skeleton);
    let digests = skeleton.chain(commits.made.iter().map(|made| &made.pack));
    let packs = digests.map(|digest| blobs.get(digest));
    let packs: Vec<_> = stream::iter(packs).buffered(AT_ONCE).try_collect().await?;
    let mut objects = Objects::default();
    for pack in packs {
        let found = pack::read(&pack, LIMITS).map_err(Fault::from)?;
        objects.extend(found);
    }
    Ok(History::at(&objects, id(head)?)?)
}

/// The commits of a run that begins with a project: on top of the commit that it is of; else one of the project as it was
/// found comes first, so that each later one shows what its step did.
pub(crate) fn begun(
    plan: &RunPlan,
    blobs: &mut Blobs,
    base: &Base,
) -> Result<(Commits, History), Fault> {
    let mut commits = Commits::default();
    if let Some((commit, objects)) = &base.commit {
        let bones = skeleton(objects, *commit)?;
        commits.base = Some(BaseCommit {
            id: commit.to_string(),
            skeleton: blobs.add(pack::write(&bones).into()),
        });
        return Ok((commits, History::at(&bones, *commit)?));
    }
    let mut history = History::new();
    let about = About {
        role: String::new(),
        seconds: Timestamp::now().as_second(),
        subject: format!("the project as the run found it: {}", base.origin),
        trailers: of_run(plan),
    };
    if let Some(made) = history.commit(&base.tree, &about)? {
        commits.made.push(kept(blobs, &made, "", 0));
    }
    Ok((commits, history))
}

/// Trailers that say whose commit it is.
fn of_run(plan: &RunPlan) -> Vec<(&'static str, String)> {
    let run = &plan.run;
    vec![
        ("Sopwith-Run", format!("{}/{}", run.namespace, run.name)),
        ("Sopwith-Run-Uid", run.uid.clone()),
    ]
}

/// The files of a project that are delivered, and of the others those that it began with.
fn committed(
    now: &Tree,
    base: Option<&Tree>,
    delivered: impl Fn(&str) -> bool,
) -> Result<Tree, TreeError> {
    let mut tree = now.clone();
    for (path, _) in now.iter().filter(|(path, _)| !delivered(path)) {
        tree.remove(path);
    }
    let kept = base.into_iter().flat_map(Tree::iter);
    for (path, file) in kept.filter(|(path, _)| !delivered(path)) {
        tree.write(path, file.bytes.clone(), file.executable)?;
    }
    Ok(tree)
}

/// A commit with its pack among the blobs.
fn kept(blobs: &mut Blobs, made: &Made, step: &str, attempt: u32) -> StepCommit {
    StepCommit {
        id: made.id.to_string(),
        step: step.to_owned(),
        attempt,
        pack: blobs.add(pack::write(&made.objects).into()),
    }
}

impl Engine {
    /// Keeps in mind which item of a loop is worked on, for the next commit.
    pub(crate) fn worked_on(&mut self, spot: Spot<'_>) {
        let Some(item) = spot.lap.and_then(|lap| lap.item) else {
            return;
        };
        let value = item.value;
        let text = |field: &str| value.get(field).and_then(serde_json::Value::as_str);
        let task = ["task", "title", "description"]
            .iter()
            .find_map(|field| text(field));
        let item = Item {
            label: item.label.to_owned(),
            task: task.map(str::to_owned),
        };
        self.names(item);
    }

    /// Has the next commit name an item.
    pub(crate) fn names(&mut self, item: Item) {
        let items = &mut self.record.commits.items;
        if items.len() < MAX_ITEMS && !items.contains(&item) {
            items.push(item);
        }
    }

    /// Commits what a step that passed leaves; gives the commit that the project is at.
    pub(crate) fn commit(&mut self, step: &Step, attempt: u32) -> Result<Option<String>, Fault> {
        let about = self.about(step, attempt);
        let tree = self.to_commit()?;
        if let Some(made) = self.history.commit(&tree, &about)? {
            let commit = kept(&mut self.blobs, &made, &step.name, attempt);
            self.record.commits.items.clear();
            self.record.commits.made.push(commit);
        }
        Ok(self.history.head().map(|head| head.to_string()))
    }

    /// The project without what is of one run only; of that the repository keeps what it had.
    fn to_commit(&self) -> Result<Tree, Fault> {
        let base = self.record.baseline.as_ref().map(|line| &line.tree);
        let tree = self
            .tree
            .read(|now| committed(now, base, |path| is_delivered(&self.plan.layout, path)));
        tree.map_err(|error| Fault::TooMuch(error.to_string()))
    }

    fn about(&self, step: &Step, attempt: u32) -> About {
        let mut trailers = of_run(&self.plan);
        trailers.extend([
            ("Sopwith-Step", step.name.clone()),
            ("Sopwith-Attempt", attempt.to_string()),
            ("Sopwith-Round", self.state().round.to_string()),
        ]);
        for item in &self.record.commits.items {
            trailers.push(("Sopwith-Item", item.label.clone()));
            trailers.extend(item.task.iter().map(|task| ("Sopwith-Task", task.clone())));
        }
        About {
            role: step.role.clone().unwrap_or_default(),
            seconds: Timestamp::now().as_second(),
            subject: format!("{}: {}", step.name, self.handed_over(step)),
            trailers,
        }
    }

    /// No step leaves what nobody may write, however it was written.
    pub(crate) fn nothing_is_guarded(&mut self) -> Result<(), Stopped> {
        if self.guard.is_open() {
            return Ok(());
        }
        let tree = self.to_commit();
        let changed = tree.and_then(|tree| self.history.changed(&tree));
        let changed = changed.map_err(|fault| Stopped::internal(&fault))?;
        let refusal = |path: &String| self.guard.undeliverable(path);
        match changed.iter().find_map(refusal) {
            Some(refusal) => Err(Stopped::Failed(FailureReason::PolicyDenied, refusal)),
            None => Ok(()),
        }
    }

    /// Pushes the run's commits to the branch that receives them; an error is the end of the launch.
    pub(crate) async fn push(&mut self) -> Result<(), End> {
        let plan = Arc::clone(&self.plan);
        let delivery = plan
            .repository
            .as_ref()
            .and_then(|repository| repository.deliver.as_ref());
        let (Some(delivery), Some(remote)) = (delivery, self.remote.clone()) else {
            return Ok(());
        };
        // The last step counts before anybody sees its commit.
        self.deliver().await?;
        let reporter = self.reporter.clone();
        let pushed = tokio::select! {
            biased;
            stop = reporter.stopped() => return Err(self.stop(stop).await),
            pushed = pushed(&self.blobs, &self.record.commits, &remote, delivery) => pushed,
        };
        let branch = delivery.branch.clone();
        match pushed {
            Ok(None) => Ok(()),
            Ok(Some(commit)) => {
                let url = remote.repository().url.to_string();
                self.pending.push(What::Delivered {
                    url,
                    branch,
                    commit,
                });
                Ok(())
            }
            Err(ResumeError::Gateway(error)) => Err(self.cut_off(&error)),
            Err(error) => {
                let failure = undelivered(&plan.run.name, &remote, &branch, &error);
                Err(self.end(Outcome::Failed, Some(failure)).await)
            }
        }
    }
}

/// Pushes what there is; gives the commit that the branch is at.
async fn pushed(
    blobs: &Blobs,
    commits: &Commits,
    remote: &Remote,
    delivery: &Deliver,
) -> Result<Option<String>, ResumeError> {
    let Some(head) = commits.made.last() else {
        return Ok(None);
    };
    let base = commits.base.as_ref().map(|base| id(&base.id)).transpose()?;
    let made: Result<Vec<ObjectId>, _> = commits.made.iter().map(|made| id(&made.id)).collect();
    let packs = commits.made.iter().map(|made| blobs.get(&made.pack));
    let packs: Vec<_> = stream::iter(packs).buffered(AT_ONCE).try_collect().await?;
    let joined = |first: usize| {
        join(packs.get(first..).unwrap_or_default())
            .map_err(|error| Fault::Protocol(error.to_string()))
    };
    let done = remote.push(&delivery.branch, base, &made?, joined).await?;
    tracing::info!(
        branch = delivery.branch,
        commit = head.id,
        again = done == Pushed::There,
        "delivered"
    );
    Ok(Some(head.id.clone()))
}

fn undelivered(run: &str, remote: &Remote, branch: &str, error: &ResumeError) -> Failure {
    let url = &remote.repository().url;
    Failure {
        reason: FailureReason::DeliveryFailed,
        step: None,
        message: format!(
            "the commits cannot be delivered to the branch {branch} of {url}: {error}. Nothing is lost: `kubectl sop pull {run}` writes \
             commits.bundle, from which `git fetch commits.bundle sopwith/{run}` takes them into a clone; merge them there, or begin a new run \
             from what the branch has now"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::of as tree;

    #[test]
    fn what_is_of_one_run_only_is_not_committed_and_the_repository_keeps_its_own() {
        let base = tree(&[("a", "old"), ("tmp/theirs", "old"), ("tmp/gone", "old")]);
        let now = tree(&[("a", "new"), ("tmp/theirs", "new"), ("tmp/ours", "new")]);
        let delivered = |path: &str| !path.starts_with("tmp/");
        assert_eq!(
            committed(&now, Some(&base), delivered).unwrap(),
            tree(&[("a", "new"), ("tmp/theirs", "old"), ("tmp/gone", "old")])
        );
        let alone = committed(&now, None, delivered).unwrap();
        assert_eq!(alone, tree(&[("a", "new")]));
    }
}
