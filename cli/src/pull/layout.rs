//! Where the files of a snapshot go. Deciding: nothing that a run wrote may leave the folder it is pulled to.

use sopwith_crds::contract::{
    Digest,
    commits::BUNDLE,
    report::MAX_BLOB_BYTES,
    snapshot::{Snapshot, TreeEntry},
};
use std::collections::BTreeSet;

/// Folder of the evidence.
pub(crate) const EVIDENCE: &str = "evidence";
/// File with the messages.
pub(crate) const MESSAGES: &str = "messages.jsonl";
/// File with the cassette.
pub(crate) const CASSETTE: &str = "cassette.yaml";

/// Why a snapshot cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A path leads out of the folder, into a git directory, or cannot be shown.
    #[error("the snapshot names {path:?}, which is not safe to write: {why}")]
    Unsafe {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A path is there twice, or is a file and a folder.
    #[error("the snapshot names {0:?} twice")]
    Twice(String),
    /// A file is larger than a blob can be.
    #[error(
        "the snapshot says that {path:?} has {size} bytes; a blob has at most {MAX_BLOB_BYTES}"
    )]
    TooLarge {
        /// The path.
        path: String,
        /// Its size.
        size: u64,
    },
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Path below the folder that is pulled to, `/` between its parts.
    pub(crate) path: String,
    /// Digest of its content.
    pub(crate) digest: Digest,
    /// Bytes, where the snapshot says so.
    pub(crate) size: Option<u64>,
    /// Whether it may be executed.
    pub(crate) executable: bool,
}

/// The files of a snapshot: the project below its name, and the evidence.
pub(crate) fn files(snapshot: &Snapshot, project: &str) -> Result<Vec<File>, Error> {
    if project.contains('/') || [BUNDLE, EVIDENCE, MESSAGES, CASSETTE].contains(&project) {
        return Err(Error::Unsafe {
            path: project.to_owned(),
            why: "it is no name of a project folder",
        });
    }
    let project = snapshot.tree.values().map(|entry| file(project, entry));
    let evidence = snapshot
        .evidence
        .values()
        .map(|entry| file(EVIDENCE, entry));
    let files: Vec<File> = project.chain(evidence).collect::<Result<_, _>>()?;
    distinct(&files)?;
    Ok(files)
}

fn file(below: &str, entry: &TreeEntry) -> Result<File, Error> {
    check(below)?;
    check(&entry.path)?;
    if entry.size > MAX_BLOB_BYTES as u64 {
        return Err(Error::TooLarge {
            path: entry.path.clone(),
            size: entry.size,
        });
    }
    Ok(File {
        path: format!("{below}/{}", entry.path),
        digest: entry.digest.clone(),
        size: Some(entry.size),
        executable: entry.executable,
    })
}

/// Refuses what is not a plain relative path. Stricter than the file system: a path is also shown to people.
fn check(path: &str) -> Result<(), Error> {
    let refuse = |why| {
        Err(Error::Unsafe {
            path: path.to_owned(),
            why,
        })
    };
    if path.len() > 1024 {
        return refuse("it is longer than 1024 bytes");
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return refuse("it contains a control character or a backslash");
    }
    for part in path.split('/') {
        match part {
            "" => return refuse("it is absolute, empty or has an empty part"),
            "." | ".." => return refuse("it has a part . or .."),
            _ if part.len() > 255 => return refuse("a part is longer than 255 bytes"),
            _ if part.eq_ignore_ascii_case(".git") => return refuse("it lies in a git directory"),
            _ => {}
        }
    }
    Ok(())
}

/// No path twice, and none that is a folder of another.
fn distinct(files: &[File]) -> Result<(), Error> {
    let mut paths = BTreeSet::new();
    for file in files {
        if !paths.insert(file.path.as_str()) {
            return Err(Error::Twice(file.path.clone()));
        }
    }
    for path in &paths {
        let folders = path.match_indices('/').map(|(i, _)| &path[..i]);
        for folder in folders {
            if paths.contains(folder) {
                return Err(Error::Twice(folder.to_owned()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn entry(path: &str) -> TreeEntry {
        TreeEntry {
            path: path.to_owned(),
            digest: Digest::of(path),
            size: 3,
            executable: false,
        }
    }

    fn snapshot(paths: &[&str]) -> Snapshot {
        Snapshot {
            // What they are listed under is not where they go.
            tree: (1..)
                .map(|n| n.to_string())
                .zip(paths.iter().map(|p| entry(p)))
                .collect(),
            evidence: [("report".to_owned(), entry("test_outputs/junit.xml"))].into(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn project_and_evidence_have_their_places() {
        let files = files(&snapshot(&["docs/prds/game.md", "game/cli.py"]), "game").unwrap();
        let paths: Vec<&str> = files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "game/docs/prds/game.md",
                "game/game/cli.py",
                "evidence/test_outputs/junit.xml"
            ]
        );
    }

    #[rstest]
    #[case("/etc/passwd")]
    #[case("../x")]
    #[case("a/../../x")]
    #[case("a//b")]
    #[case("./a")]
    #[case("a/")]
    #[case("")]
    #[case(".git/config")]
    #[case("sub/.GIT/hooks/pre-commit")]
    #[case("a\\b")]
    #[case("a\u{1b}[31m")]
    #[case("a\0b")]
    fn a_path_that_could_do_harm_is_refused(#[case] path: &str) {
        assert!(matches!(
            files(&snapshot(&[path]), "game"),
            Err(Error::Unsafe { .. })
        ));
    }

    #[rstest]
    #[case(".gitignore")]
    #[case(".github/workflows/ci.yml")]
    #[case("a..b/c")]
    #[case("ünï/код.py")]
    fn ordinary_paths_pass(#[case] path: &str) {
        assert!(files(&snapshot(&[path]), "game").is_ok());
    }

    #[rstest]
    #[case("..")]
    #[case("a/b")]
    #[case("")]
    #[case("evidence")]
    #[case(".git")]
    fn a_project_name_is_one_safe_part(#[case] project: &str) {
        assert!(matches!(
            files(&snapshot(&["a"]), project),
            Err(Error::Unsafe { .. })
        ));
    }

    #[test]
    fn a_path_is_one_thing_only() {
        let twice = files(&snapshot(&["a", "a"]), "game");
        assert_eq!(twice, Err(Error::Twice("game/a".into())));
        let both = files(&snapshot(&["a/b", "a"]), "game");
        assert_eq!(both, Err(Error::Twice("game/a".into())));
    }
}
