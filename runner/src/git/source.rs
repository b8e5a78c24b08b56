//! The files of a commit. Pure.
//!
//! Only regular files become part of the project. Links, submodules and files whose names a project cannot have stay in the
//! repository as they are: a commit that is made on top of it keeps them.

use bytes::Bytes;
use gix_hash::ObjectId;
use gix_object::{CommitRef, Kind, TagRef, TreeRef, tree::EntryMode};

use super::{
    Fault,
    object::{HASH, Objects},
    pkt::plain,
};
use crate::{
    tree::{MAX_FILES, Tree, TreeError},
    workbench::check_path,
};

/// Most tags on the way to a commit.
const MAX_TAGS: usize = 8;
/// Most entries of all folders, each counted as often as it is met: a few small trees can name each other so often that
/// nobody could ever walk them.
const MAX_ENTRIES: usize = 10 * MAX_FILES;
/// Deepest folder.
const MAX_DEPTH: usize = 64;
/// Most paths in a message.
const MAX_NAMED: usize = 5;

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Its content's id.
    pub id: ObjectId,
    /// Its mode, as the repository has it.
    pub mode: EntryMode,
}

/// Why something is not part of the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is a symbolic link.
    Link,
    /// It is another repository.
    Submodule,
    /// A project cannot have its name.
    Name,
}

impl Why {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Link => "symbolic link",
            Self::Submodule => "submodule",
            Self::Name => "file with a name that a project cannot have",
        }
    }
}

/// Something of a commit that is not part of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its path, with U+FFFD for what is not UTF-8.
    pub path: String,
    /// Why.
    pub why: Why,
}

impl Kept {
    /// Whether it stands in the way of a file of that path.
    pub fn in_the_way_of(&self, path: &str) -> bool {
        let within = |outer: &str, inner: &str| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        within(&self.path, path) || within(path, &self.path)
    }
}

/// What a tree of a commit has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Files of the project.
    pub files: Vec<Listed>,
    /// What stays in the repository only.
    pub kept: Vec<Kept>,
}

/// What stays out of the project, for people; empty where nothing does.
pub fn left_out(kept: &[Kept]) -> String {
    let named = kept.iter().take(MAX_NAMED);
    let named: Vec<String> = named
        .map(|kept| format!("{} ({})", plain(kept.path.as_bytes()), kept.why.as_str()))
        .collect();
    match kept.len() {
        0 => String::new(),
        count if count > MAX_NAMED => {
            format!("{} and {} more", named.join(", "), count - MAX_NAMED)
        }
        _ => named.join(", "),
    }
}

impl Listing {
    /// Reads the files of the project.
    pub fn read(&self, objects: &Objects) -> Result<Tree, Fault> {
        let mut tree = Tree::default();
        for file in &self.files {
            let bytes = objects.of_kind(&file.id, Kind::Blob);
            let bytes: Bytes = bytes.cloned().ok_or_else(|| missing(&file.id))?;
            tree.write(&file.path, bytes, file.mode.is_executable())
                .map_err(|error| match error {
                    TreeError::TooMuch { .. } => {
                        Fault::TooMuch(format!("the repository has too much: {error}"))
                    }
                    _ => malformed(&error.to_string()),
                })?;
        }
        Ok(tree)
    }
}

fn missing(id: &ObjectId) -> Fault {
    Fault::protocol(format!("the object {id} is missing in what it sent"))
}

fn malformed(why: &str) -> Fault {
    Fault::Protocol(format!(
        "the repository is damaged, `git fsck` says more: {why}"
    ))
}

/// The commit that an id names, by way of tags or not; and its tree.
pub fn commit(objects: &Objects, id: ObjectId) -> Result<(ObjectId, ObjectId), Fault> {
    let mut id = id;
    for _ in 0..MAX_TAGS {
        let object = objects.get(&id).ok_or_else(|| missing(&id))?;
        match object.kind {
            Kind::Commit => {
                let commit = CommitRef::from_bytes(&object.bytes, HASH);
                let commit = commit.map_err(|error| malformed(&error.to_string()))?;
                return Ok((id, commit.tree()));
            }
            Kind::Tag => {
                let tag = TagRef::from_bytes(&object.bytes, HASH);
                id = tag.map_err(|error| malformed(&error.to_string()))?.target();
            }
            Kind::Tree | Kind::Blob => {
                return Err(Fault::Missing(
                    "what the run names is no commit, nor a tag of one".into(),
                ));
            }
        }
    }
    Err(malformed("a tag points to a tag, too often"))
}

/// A folder, its entries in order and named once.
pub fn folder<'a>(objects: &'a Objects, id: &ObjectId) -> Result<TreeRef<'a>, Fault> {
    if id.is_empty_tree() {
        return Ok(TreeRef {
            entries: Vec::new(),
        });
    }
    let bytes = objects.of_kind(id, Kind::Tree).ok_or_else(|| missing(id))?;
    let tree = TreeRef::from_bytes(bytes, HASH).map_err(|error| malformed(&error.to_string()))?;
    let name = |name: &[u8], folder| [name, if folder { b"/" } else { b"" }].concat();
    let names: Vec<Vec<u8>> = tree
        .entries
        .iter()
        .map(|entry| name(entry.filename, entry.mode.is_tree()))
        .collect();
    let clean = |name: &[u8]| !name.is_empty() && !name.contains(&b'/');
    let sorted = names.is_sorted_by(|one, two| one < two);
    if sorted && tree.entries.iter().all(|entry| clean(entry.filename)) {
        return Ok(tree);
    }
    Err(malformed(
        "a folder has entries out of order, twice, or without a proper name",
    ))
}

/// Lists what a tree has.
pub fn list(objects: &Objects, root: ObjectId) -> Result<Listing, Fault> {
    let mut listing = Listing::default();
    let mut seen = 0;
    let mut folders = vec![(String::new(), 0, root)];
    while let Some((above, depth, id)) = folders.pop() {
        let tree = folder(objects, &id)?;
        seen += tree.entries.len();
        if seen > MAX_ENTRIES || depth > MAX_DEPTH {
            return Err(Fault::TooMuch(format!(
                "the repository has more than {MAX_ENTRIES} files and folders at this commit, or folders deeper than {MAX_DEPTH}"
            )));
        }
        for entry in tree.entries {
            let name = std::str::from_utf8(entry.filename);
            let path = format!("{above}{}", String::from_utf8_lossy(entry.filename));
            let why = if entry.mode.is_commit() {
                Some(Why::Submodule)
            } else if entry.mode.is_link() {
                Some(Why::Link)
            } else if name.is_err() || check_path(&path).is_err() {
                Some(Why::Name)
            } else {
                None
            };
            match why {
                Some(why) => listing.kept.push(Kept { path, why }),
                None if entry.mode.is_tree() => {
                    folders.push((format!("{path}/"), depth + 1, entry.oid.to_owned()));
                }
                None => listing.files.push(Listed {
                    path,
                    id: entry.oid.to_owned(),
                    mode: entry.mode,
                }),
            }
        }
    }
    listing.files.sort_by(|one, two| one.path.cmp(&two.path));
    listing.kept.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(listing)
}
