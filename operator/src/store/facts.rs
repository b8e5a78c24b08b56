//! Facts: what runs leave for later runs of their project. One object a run, below its namespace and project.
//!
//! The path is made from the namespace of the run that asks, never from what a run says; so no run sees what those of another
//! namespace left.

use super::{Store, StoreError, damaged, segment};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use object_store::{ObjectMeta, path::Path};
use sopwith_crds::{contract::memory::Facts, memory::MAX_RUNS};

/// Objects that are read at once.
const AT_ONCE: usize = 8;

/// What a run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFacts {
    /// Namespace of the run.
    pub namespace: String,
    /// UID of the run.
    pub uid: String,
    /// When it was written.
    pub at: Timestamp,
    path: Path,
}

impl Store {
    /// Keeps what a run leaves, once; later calls change nothing. Of a project the newest [`MAX_RUNS`] runs are kept.
    pub async fn put_facts(&self, facts: &Facts) -> Result<(), StoreError> {
        let folder = folder(&facts.namespace, &facts.project)?;
        let path = folder
            .clone()
            .join(format!("{}.json", segment(&facts.uid)?));
        let bytes = serde_json::to_vec(facts).map_err(|error| damaged(&path, &error))?;
        if !self.create(&path, bytes.into()).await? {
            return Ok(());
        }
        let all = self.newest_first(&folder).await?;
        for old in all.into_iter().skip(MAX_RUNS) {
            self.remove(&old.location).await?;
        }
        Ok(())
    }

    /// What the runs of a project left, newest first. An object that cannot be read is left out.
    pub async fn facts(&self, namespace: &str, project: &str) -> Result<Vec<Facts>, StoreError> {
        let all = self.newest_first(&folder(namespace, project)?).await?;
        let newest = all.into_iter().take(MAX_RUNS);
        let read = stream::iter(newest).map(|object| async move {
            let bytes = self.read(&object.location).await?;
            let facts = bytes.map(|bytes| serde_json::from_slice::<Facts>(&bytes));
            Ok::<_, StoreError>(match facts {
                Some(Ok(facts)) => Some(facts),
                Some(Err(error)) => {
                    tracing::warn!(path = %object.location, %error, "facts that cannot be read are left out");
                    None
                }
                None => None,
            })
        });
        let facts: Vec<Option<Facts>> = read.buffered(AT_ONCE).try_collect().await?;
        let own = |facts: &Facts| facts.namespace == namespace && facts.project == project;
        Ok(facts.into_iter().flatten().filter(own).collect())
    }

    /// The facts of all projects, for sweeping.
    pub async fn kept_facts(&self) -> Result<Vec<KeptFacts>, StoreError> {
        let all = self.list(&Path::from(ROOT)).await?;
        let kept = all.into_iter().filter_map(|object| {
            let parts: Vec<_> = object.location.parts().collect();
            let [_, namespace, _, name] = parts.as_slice() else {
                return None;
            };
            Some(KeptFacts {
                namespace: namespace.as_ref().to_owned(),
                uid: name.as_ref().strip_suffix(".json")?.to_owned(),
                at: Timestamp::from_second(object.last_modified.timestamp()).ok()?,
                path: object.location,
            })
        });
        Ok(kept.collect())
    }

    /// Deletes what a run left. Safe to repeat.
    pub async fn delete_facts(&self, facts: &KeptFacts) -> Result<(), StoreError> {
        self.remove(&facts.path).await
    }

    async fn newest_first(&self, folder: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        let mut all = self.list(folder).await?;
        all.sort_by(|one, other| {
            let order = |object: &ObjectMeta| (object.last_modified, object.location.clone());
            order(other).cmp(&order(one))
        });
        Ok(all)
    }
}

const ROOT: &str = "memory";

fn folder(namespace: &str, project: &str) -> Result<Path, StoreError> {
    let path = Path::from(ROOT).join(segment(namespace)?);
    Ok(path.join(segment(project)?))
}
