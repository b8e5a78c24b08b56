//! The commits of a run: each is built from the project's files on top of the one before. Pure.
//!
//! What no step touched keeps its entry as it is, whatever its mode, and with it every tree that has no other changes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gix_hash::ObjectId;
use gix_object::{
    Commit, Kind, WriteTo,
    bstr::BString,
    date::Time,
    tree::{Editor, EntryKind},
};

use super::{
    Fault,
    object::{HASH, Object, Objects, id_of},
    source::{Kept, Listed, Listing, folder, list},
};
use crate::tree::{Tree, TreeFile};

/// Longest value of a trailer in characters.
const MAX_TRAILER: usize = 200;
/// Who commits.
const COMMITTER: &str = "sopwith";
/// Domain of addresses that cannot receive mail (RFC 2606).
const DOMAIN: &str = "sopwith.invalid";

/// What a commit says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The role that did the step; empty: none.
    pub role: String,
    /// Seconds since 1970.
    pub seconds: i64,
    /// First line.
    pub subject: String,
    /// Trailers by name, in order.
    pub trailers: Vec<(&'static str, String)>,
}

/// A commit that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its id.
    pub id: ObjectId,
    /// The objects that are new with it.
    pub objects: Objects,
}

/// Where the commits of a run stand.
#[derive(Debug, Clone, Default)]
pub struct History {
    head: Option<ObjectId>,
    root: Option<ObjectId>,
    /// The trees of `root`.
    trees: Objects,
    files: BTreeMap<String, Listed>,
    kept: Vec<Kept>,
    known: BTreeMap<String, (Bytes, ObjectId)>,
}

impl History {
    /// A history that begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A history that stands at a commit, whose trees are among `objects`.
    pub fn at(objects: &Objects, head: ObjectId) -> Result<Self, Fault> {
        let (head, root) = super::source::commit(objects, head)?;
        let Listing { files, kept } = list(objects, root)?;
        let mut trees = objects.clone();
        trees.retain(|_, object| object.kind == Kind::Tree);
        Ok(Self {
            head: Some(head),
            root: Some(root),
            trees,
            files: files
                .into_iter()
                .map(|file| (file.path.clone(), file))
                .collect(),
            kept,
            known: BTreeMap::new(),
        })
    }

    /// The newest commit.
    pub const fn head(&self) -> Option<ObjectId> {
        self.head
    }

    /// What stays in the repository only.
    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// Paths that a project has otherwise than the newest commit.
    pub fn changed(&mut self, tree: &Tree) -> Result<Vec<String>, Fault> {
        let mut changed = Vec::new();
        for (path, file) in tree.iter() {
            let id = self.id(path, &file.bytes)?;
            let same = self
                .files
                .get(path)
                .is_some_and(|old| old.id == id && old.mode.is_executable() == file.executable);
            if !same {
                changed.push(path.to_owned());
            }
        }
        let gone = self.files.keys().filter(|path| tree.get(path).is_none());
        changed.extend(gone.cloned());
        Ok(changed)
    }

    /// The id of a file's content, hashed once for as long as it stays the same bytes.
    fn id(&mut self, path: &str, bytes: &Bytes) -> Result<ObjectId, Fault> {
        if let Some((known, id)) = self.known.get(path)
            && known.as_ptr() == bytes.as_ptr()
            && known.len() == bytes.len()
        {
            return Ok(*id);
        }
        let id = id_of(Kind::Blob, bytes).map_err(broken)?;
        self.known.insert(path.to_owned(), (bytes.clone(), id));
        Ok(id)
    }

    /// Commits the project as it is; none where nothing changed.
    pub fn commit(&mut self, tree: &Tree, about: &About) -> Result<Option<Made>, Fault> {
        let changed = self.changed(tree)?;
        if changed.is_empty() {
            return Ok(None);
        }
        if let Some(kept) = self
            .kept
            .iter()
            .find(|kept| changed.iter().any(|path| kept.in_the_way_of(path)))
        {
            return Err(broken(format!(
                "{} ({}) of the repository would be replaced",
                kept.path,
                kept.why.as_str()
            )));
        }
        let mut objects = Objects::default();
        let mut edits: Vec<(&String, Option<(EntryKind, ObjectId)>)> = Vec::new();
        for path in &changed {
            let Some(TreeFile { bytes, executable }) = tree.get(path) else {
                edits.push((path, None));
                continue;
            };
            let id = self.id(path, bytes)?;
            let kind = if *executable {
                EntryKind::BlobExecutable
            } else {
                EntryKind::Blob
            };
            edits.push((path, Some((kind, id))));
            let bytes = bytes.clone();
            objects.insert(
                id,
                Object {
                    kind: Kind::Blob,
                    bytes,
                },
            );
        }
        let root = self.edited(&edits, &mut objects)?;
        let commit = described(about, root, self.head);
        let id = add(&mut objects, &commit)?;
        self.moved(id, root, &objects)?;
        Ok(Some(Made { id, objects }))
    }

    /// The root of the trees with all edits, new trees among `objects`.
    fn edited(
        &self,
        edits: &[(&String, Option<(EntryKind, ObjectId)>)],
        objects: &mut Objects,
    ) -> Result<ObjectId, Fault> {
        let root = match &self.root {
            Some(root) => folder(&self.trees, root)?.into_owned(),
            None => gix_object::Tree::empty(),
        };
        let mut editor = Editor::new(root, &self.trees, HASH);
        // What goes makes way: a file may become a folder.
        for (path, edit) in edits {
            if edit.is_none() {
                editor.remove(path.split('/')).map_err(broken)?;
            }
        }
        for (path, edit) in edits {
            if let Some((kind, id)) = edit {
                editor.upsert(path.split('/'), *kind, *id).map_err(broken)?;
            }
        }
        editor.write(|tree| add(objects, tree))
    }

    /// Stands at a new commit.
    fn moved(&mut self, id: ObjectId, root: ObjectId, objects: &Objects) -> Result<(), Fault> {
        let mut trees = objects.clone();
        trees.retain(|_, object| object.kind == Kind::Tree);
        self.trees.extend(trees);
        let Listing { files, kept } = list(&self.trees, root)?;
        let reached = reached(&self.trees, root)?;
        self.trees.retain(|id, _| reached.contains(id));
        self.files = files
            .into_iter()
            .map(|file| (file.path.clone(), file))
            .collect();
        self.kept = kept;
        self.head = Some(id);
        self.root = Some(root);
        Ok(())
    }
}

/// A commit and the trees of it, without files: what later commits can be built on.
pub fn skeleton(objects: &Objects, commit: ObjectId) -> Result<Objects, Fault> {
    let (commit, root) = super::source::commit(objects, commit)?;
    let mut wanted = reached(objects, root)?;
    wanted.insert(commit);
    let mut skeleton = objects.clone();
    skeleton.retain(|id, _| wanted.contains(id));
    Ok(skeleton)
}

/// The trees below a tree, itself included. The tree was listed before, so this ends.
fn reached(objects: &Objects, root: ObjectId) -> Result<BTreeSet<ObjectId>, Fault> {
    let mut reached = BTreeSet::new();
    let mut next = vec![root];
    while let Some(id) = next.pop() {
        if reached.insert(id) {
            let entries = folder(objects, &id)?.entries;
            let folders = entries.iter().filter(|entry| entry.mode.is_tree());
            next.extend(folders.map(|entry| entry.oid.to_owned()));
        }
    }
    Ok(reached)
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::Protocol(format!("the commit cannot be built: {error}"))
}

fn add(objects: &mut Objects, object: &dyn WriteTo) -> Result<ObjectId, Fault> {
    let mut bytes = Vec::new();
    object.write_to(&mut bytes).map_err(broken)?;
    let kind = object.kind();
    let id = id_of(kind, &bytes).map_err(broken)?;
    let bytes = bytes.into();
    objects.insert(id, Object { kind, bytes });
    Ok(id)
}

fn described(about: &About, tree: ObjectId, parent: Option<ObjectId>) -> Commit {
    let author = if about.role.is_empty() {
        COMMITTER
    } else {
        &about.role
    };
    Commit {
        tree,
        parents: parent.into_iter().collect(),
        author: signature(author, about.seconds),
        committer: signature(COMMITTER, about.seconds),
        encoding: None,
        message: message(about),
        extra_headers: Vec::new(),
    }
}

fn signature(name: &str, seconds: i64) -> gix_actor::Signature {
    let simple = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let local: String = name
        .chars()
        .map(|c| {
            if simple(c) {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    // These would end the name.
    let name: String = one_line(name)
        .chars()
        .filter(|c| !"<>".contains(*c))
        .collect();
    gix_actor::Signature {
        name: name.into(),
        email: format!("{local}@{DOMAIN}").into(),
        time: Time { seconds, offset: 0 },
    }
}

fn message(about: &About) -> BString {
    let mut text = one_line(&about.subject);
    text.push('\n');
    for (index, (name, value)) in about.trailers.iter().enumerate() {
        if index == 0 {
            text.push('\n');
        }
        text = format!("{text}{name}: {}\n", one_line(value));
    }
    text.into()
}

/// A text as it can stand in a line, whoever wrote it.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").chars().take(MAX_TRAILER).collect()
}
