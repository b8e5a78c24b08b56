//! The commits of a run as they are kept: a pack for each, and all of them as one file for Git.
//!
//! A commit's pack holds what is new with it, without deltas, so packs are joined without reading what is in them.

use super::Digest;
use crate::repository::is_commit_id;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

/// Magic, version and number of objects.
const HEADER: usize = 12;
/// Checksum at the end of a pack.
const TRAILER: usize = 20;
/// Name of the file that holds all commits of a run, where people get what it left.
pub const BUNDLE: &str = "commits.bundle";
/// Where a bundle puts the commits of a run, with the run's name behind it.
const BRANCHES: &str = "refs/heads/sopwith/";

/// The commits of a run. Ids are 40 hexadecimal digits.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Commits {
    /// The commit of the source repository that they are made on; none: the first has no parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseCommit>,
    /// The commits in order, each made on the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<StepCommit>,
    /// Items of loops that the next commit names: they were worked on since the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
}

impl Commits {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The newest commit, that of the source where no step made one.
    pub fn head(&self) -> Option<&str> {
        let made = self.made.last().map(|commit| commit.id.as_str());
        made.or(self.base.as_ref().map(|base| base.id.as_str()))
    }
}

/// The commit of the source repository.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BaseCommit {
    /// Its id.
    pub id: String,
    /// Blob with a pack of the commit and its folders, without files.
    pub skeleton: Digest,
}

/// A commit of a step.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StepCommit {
    /// Its id.
    pub id: String,
    /// The step.
    pub step: String,
    /// Of the step.
    pub attempt: u32,
    /// Blob with a pack of what is new with it.
    pub pack: Digest,
}

/// An item of a loop.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// How it is named in messages.
    pub label: String,
    /// What it asks for, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// Commits that cannot be put together: a pack is damaged, or an id is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the run kept of its commits is damaged")]
pub struct DamagedPack;

/// One pack of several that were written without deltas. No pack at all gives an empty one.
pub fn join<P: AsRef<[u8]>>(packs: &[P]) -> Result<Vec<u8>, DamagedPack> {
    let mut count = 0_u32;
    let mut joined = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
    for pack in packs {
        let pack = pack.as_ref();
        let body = pack.len().checked_sub(TRAILER).filter(|end| *end >= HEADER);
        let (head, body) = pack
            .get(..body.ok_or(DamagedPack)?)
            .and_then(|pack| pack.split_at_checked(HEADER))
            .filter(|(head, _)| head.starts_with(b"PACK\0\0\0\x02"))
            .ok_or(DamagedPack)?;
        let number: [u8; 4] = head[8..].try_into().map_err(|_| DamagedPack)?;
        count = count
            .checked_add(u32::from_be_bytes(number))
            .ok_or(DamagedPack)?;
        joined.extend_from_slice(body);
    }
    joined[8..HEADER].copy_from_slice(&count.to_be_bytes());
    let sum = Sha1::digest(&joined);
    joined.extend_from_slice(&sum);
    Ok(joined)
}

/// All commits of a run as one file that `git clone` and `git fetch` read: its branch is `sopwith/RUN`. Where the run began
/// from a repository, the file is for clones of that repository. None where no step made a commit.
pub fn bundle<P: AsRef<[u8]>>(
    commits: &Commits,
    run: &str,
    packs: &[P],
) -> Result<Option<Vec<u8>>, DamagedPack> {
    let Some(head) = commits.made.last() else {
        return Ok(None);
    };
    let base = commits.base.as_ref().map(|base| base.id.as_str());
    if !is_commit_id(&head.id) || !base.is_none_or(is_commit_id) {
        return Err(DamagedPack);
    }
    let mut bundle = b"# v2 git bundle\n".to_vec();
    if let Some(base) = base {
        bundle.extend(format!("-{base} the run began here\n").into_bytes());
    }
    bundle.extend(format!("{} {BRANCHES}{run}\n", head.id).into_bytes());
    if base.is_none() {
        // What is cloned needs to know what to check out.
        bundle.extend(format!("{} HEAD\n", head.id).into_bytes());
    }
    bundle.push(b'\n');
    bundle.extend(join(packs)?);
    Ok(Some(bundle))
}
