//! The canonical tree of the project: paths and bytes, in the runner's memory only.
//!
//! Model-written code never sees this tree; it sees copies that are laid out in a workbench. What comes back is
//! checked here again.

use bytes::Bytes;
use globset::{GlobBuilder, GlobMatcher};
use sopwith_crds::contract::{Digest, snapshot::TreeEntry};
use std::collections::BTreeMap;

use crate::workbench::{Mode, PathFault, WorkFile, check_path};

pub use sopwith_crds::archive::{MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES};

/// Why a file cannot be part of the project.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The path is not allowed.
    #[error("path {path:?} {fault}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// The path leads through a file, or names a folder.
    #[error(
        "path {path:?} cannot stand beside {other:?}: one of them would be a file and a folder"
    )]
    Folder {
        /// The path.
        path: String,
        /// What is there already.
        other: String,
    },
    /// Too much.
    #[error(
        "{path:?} is too much: a project has at most {MAX_FILES} files, {MAX_FILE_BYTES} bytes in each and {MAX_TOTAL_BYTES} bytes in all"
    )]
    TooMuch {
        /// The path.
        path: String,
    },
    /// A pattern that is none.
    #[error("pattern {pattern:?} is wrong: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        message: String,
    },
}

/// A file of the project.
#[derive(Debug, Clone, Eq)]
pub struct TreeFile {
    /// Its content.
    pub bytes: Bytes,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Most files of two trees that are compared share their bytes, and need not be read.
impl PartialEq for TreeFile {
    fn eq(&self, other: &Self) -> bool {
        let shared = self.bytes.as_ptr() == other.bytes.as_ptr();
        self.executable == other.executable
            && self.bytes.len() == other.bytes.len()
            && (shared || self.bytes == other.bytes)
    }
}

/// The files of the project by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    files: BTreeMap<String, TreeFile>,
    total: usize,
}

impl Tree {
    /// Writes a file. Says whether that changed anything.
    pub fn write(&mut self, path: &str, bytes: Bytes, executable: bool) -> Result<bool, TreeError> {
        check_path(path).map_err(|fault| TreeError::Path {
            path: path.to_owned(),
            fault,
        })?;
        self.check_folders(path)?;
        let before = self.files.get(path).map_or(0, |file| file.bytes.len());
        let total = self.total - before + bytes.len();
        let count = self.files.len() + usize::from(!self.files.contains_key(path));
        if bytes.len() > MAX_FILE_BYTES || total > MAX_TOTAL_BYTES || count > MAX_FILES {
            return Err(TreeError::TooMuch {
                path: path.to_owned(),
            });
        }
        self.total = total;
        let file = TreeFile { bytes, executable };
        let old = self.files.insert(path.to_owned(), file.clone());
        Ok(old != Some(file))
    }

    /// Removes a file, where it is there.
    pub fn remove(&mut self, path: &str) {
        if let Some(file) = self.files.remove(path) {
            self.total -= file.bytes.len();
        }
    }

    /// A file.
    pub fn get(&self, path: &str) -> Option<&TreeFile> {
        self.files.get(path)
    }

    /// Writes a text file; one that may be executed stays so.
    pub fn rewrite(&mut self, path: &str, bytes: Bytes) -> Result<bool, TreeError> {
        let executable = self.get(path).is_some_and(|file| file.executable);
        self.write(path, bytes, executable)
    }

    /// A file as text, with U+FFFD for what is not UTF-8.
    pub fn text(&self, path: &str) -> Option<String> {
        self.get(path)
            .map(|file| String::from_utf8_lossy(&file.bytes).into_owned())
    }

    /// All files in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TreeFile)> {
        self.files.iter().map(|(path, file)| (path.as_str(), file))
    }

    /// Paths that match a pattern, in order.
    pub fn glob(&self, pattern: &str) -> Result<Vec<String>, TreeError> {
        let matcher = matcher(pattern)?;
        Ok(self
            .files
            .keys()
            .filter(|path| matcher.is_match(path))
            .cloned()
            .collect())
    }

    /// Files that another tree does not have, or has otherwise, in the order of their paths.
    pub fn written_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a TreeFile)> {
        let differs = |(path, file): &(&str, &TreeFile)| before.get(path) != Some(*file);
        self.iter().filter(differs)
    }

    /// Paths that only another tree has, in their order.
    pub fn gone_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let paths = before.iter().map(|(path, _)| path);
        paths.filter(|path| self.get(path).is_none())
    }

    /// What a snapshot lists.
    pub fn entries(&self) -> Vec<TreeEntry> {
        self.iter().map(|(path, file)| entry(path, file)).collect()
    }

    /// Copies for a workbench.
    pub fn work_files(&self) -> Vec<WorkFile> {
        self.iter()
            .map(|(path, file)| WorkFile {
                path: path.to_owned(),
                mode: if file.executable {
                    Mode::Executable
                } else {
                    Mode::Regular
                },
                bytes: file.bytes.to_vec(),
            })
            .collect()
    }

    fn check_folders(&self, path: &str) -> Result<(), TreeError> {
        let clash = |other: &str| TreeError::Folder {
            path: path.to_owned(),
            other: other.to_owned(),
        };
        for (end, _) in path.match_indices('/') {
            if self.files.contains_key(&path[..end]) {
                return Err(clash(&path[..end]));
            }
        }
        let folder = format!("{path}/");
        match self.files.range(folder.clone()..).next() {
            Some((other, _)) if other.starts_with(&folder) => Err(clash(other)),
            _ => Ok(()),
        }
    }
}

/// What a snapshot says of a file.
pub fn entry(path: &str, file: &TreeFile) -> TreeEntry {
    TreeEntry {
        path: path.to_owned(),
        digest: Digest::of(&file.bytes),
        size: file.bytes.len() as u64,
        executable: file.executable,
    }
}

/// A pattern in which `*` stops at a slash and `**` does not.
pub fn matcher(pattern: &str) -> Result<GlobMatcher, TreeError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| TreeError::Pattern {
            pattern: pattern.to_owned(),
            message: error.kind().to_string(),
        })
}

/// A tree of text files, for tests.
#[cfg(test)]
pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        tree.write(path, bytes, false).unwrap();
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::default();
        for path in paths {
            tree.write(path, Bytes::from_static(b"x"), false).unwrap();
        }
        tree
    }

    #[test]
    fn paths_that_leave_the_project_or_clash_are_refused() {
        let mut tree = tree(&["a/b", "c"]);
        for path in ["../x", "/x", ".git/config", "a", "c/d", "a/b/c", "x\ny", ""] {
            assert!(tree.write(path, Bytes::new(), false).is_err(), "{path:?}");
        }
        assert!(tree.write("a-b", Bytes::new(), false).unwrap());
        assert!(!tree.write("a-b", Bytes::new(), false).unwrap());
    }

    #[test]
    fn a_star_stops_at_a_slash() {
        let tree = tree(&["a.py", "p/b.py", "p/q/c.py", "p/d.txt"]);
        assert_eq!(tree.glob("*.py").unwrap(), ["a.py"]);
        assert_eq!(
            tree.glob("**/*.py").unwrap(),
            ["a.py", "p/b.py", "p/q/c.py"]
        );
        assert_eq!(tree.glob("p/**/*.py").unwrap(), ["p/b.py", "p/q/c.py"]);
        assert!(tree.glob("[").is_err());
    }
}
