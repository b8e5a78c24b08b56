//! The words that runner and workbench exchange. Pure.
//!
//! A message is one frame (four bytes of length, big endian) with a JSON [`Envelope`], and then as many frames of raw
//! bytes, each at most [`CHUNK`], as add up to the envelope's `payload`. The payload is the concatenation of what the
//! body describes by size. The server speaks first, with [`Reply::Hello`]; then one reply follows each request, except
//! for [`Request::Stop`], which has none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::path::check_path;

/// Version of this protocol; both ends are normally the same binary.
pub(super) const VERSION: u8 = 1;
/// Most bytes in a frame of raw bytes.
pub(super) const CHUNK: usize = 1 << 20;
/// Most bytes in a frame with an envelope.
pub(super) const MAX_HEADER: usize = 32 << 20;
/// Most bytes of payload in one message.
pub(super) const MAX_PAYLOAD: u64 = 512 << 20;
/// Most entries that [`Fetched::left_out`] names; further ones are counted.
pub(super) const MAX_LEFT_OUT: usize = 1000;

/// A file as it crosses between the runner and a workbench.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkFile {
    /// Path relative to the work tree, see [`check_path`].
    pub path: String,
    /// Its mode.
    pub mode: Mode,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The two modes that a file can have, as in git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// 0644.
    Regular,
    /// 0755.
    Executable,
}

/// A command to run in the workbench.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRequest {
    /// The program and its arguments. A program without a slash is looked up in `PATH`.
    pub argv: Vec<String>,
    /// Directory relative to the work tree; empty for the tree itself.
    pub cwd: String,
    /// Variables beside (or instead of) `PATH`, `HOME`, `LANG` and `TMPDIR`; nothing else is in the environment.
    pub env: BTreeMap<String, String>,
    /// What the command reads from its standard input.
    #[serde(skip)]
    pub stdin: Vec<u8>,
    /// After this time everything that the command started is killed.
    pub timeout: Duration,
    /// How many bytes are kept of each of stdout and stderr: half from the beginning, half from the end.
    pub output_limit_bytes: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was still running when its time was over.
    TimedOut,
    /// It took too much of what it shares with others and was killed; the text says of what. Its files are gone.
    Exceeded(String),
    /// There is no such program, or it cannot be executed; the text says which and why.
    NotFound(String),
}

/// What a command and all it started used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode, in seconds.
    pub user_seconds: f64,
    /// CPU time in the kernel, in seconds.
    pub system_seconds: f64,
    /// Largest resident set of one process, in bytes.
    pub max_rss_bytes: u64,
    /// Time from start to end, in seconds.
    pub wall_seconds: f64,
}

/// The outcome of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandResult {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: super::Captured,
    /// Its standard error.
    pub stderr: super::Captured,
    /// What it used.
    pub usage: Usage,
}

/// Which files to hand back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRequest {
    /// Globs over paths relative to the work tree; `*` stops at a slash, `**` does not. `**` alone is everything.
    pub include: Vec<String>,
    /// Most files.
    pub max_files: usize,
    /// Most bytes in a file.
    pub max_bytes_each: u64,
    /// Most bytes in all files together.
    pub max_total_bytes: u64,
}

/// The files that a workbench handed back, in the order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// The files.
    pub files: Vec<WorkFile>,
    /// What was wanted but left out, and why; the first thousand.
    pub left_out: Vec<LeftOut>,
    /// How many more were left out.
    pub left_out_more: u64,
}

/// Something that was not handed back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path, with control characters and invalid UTF-8 replaced.
    pub path: String,
    /// Why.
    pub reason: LeftOutReason,
}

/// Why something was not handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeftOutReason {
    /// A symbolic link.
    Link,
    /// A device, a pipe or a socket.
    Special,
    /// A git directory.
    Git,
    /// A name that is not UTF-8, has control characters, or is too long or too deep.
    Name,
    /// Larger than one file may be.
    TooLarge,
    /// There were as many files as there may be.
    TooManyFiles,
    /// The files together would have been too large.
    TotalTooLarge,
    /// It could not be read.
    Unreadable,
    /// The walk over the tree ended here, because it has too many entries.
    WalkEnded,
}

/// A file of a message, without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FileHeader {
    pub(super) path: String,
    pub(super) mode: Mode,
    pub(super) size: u64,
}

/// A captured stream of a message, without its bytes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StreamHeader {
    pub(super) size: u64,
    pub(super) dropped: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Payload: the files.
    Lay {
        files: Vec<FileHeader>,
        fresh: bool,
    },
    /// Payload: stdin.
    Run(CommandRequest),
    Fetch(FetchRequest),
    /// Kill the command that runs now, as if its time were over. Without a command: nothing.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Hello {
        version: u8,
    },
    Laid,
    /// Payload: stdout, stderr.
    Ran {
        exit: Exit,
        stdout: StreamHeader,
        stderr: StreamHeader,
        usage: Usage,
    },
    /// Payload: the files.
    Fetched {
        files: Vec<FileHeader>,
        left_out: Vec<LeftOut>,
        left_out_more: u64,
    },
    /// The request was not carried out, or not to its end.
    Refused {
        message: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope<T> {
    /// How many raw bytes follow.
    pub(super) payload: u64,
    pub(super) body: T,
}

/// Describes files and gives their bytes in the same order.
pub(super) fn pack(files: Vec<WorkFile>) -> (Vec<FileHeader>, Vec<Vec<u8>>) {
    files
        .into_iter()
        .map(|WorkFile { path, mode, bytes }| {
            let size = bytes.len() as u64;
            (FileHeader { path, mode, size }, bytes)
        })
        .unzip()
}

/// The reverse of [`pack`], for a payload in one piece.
pub(super) fn unpack(headers: Vec<FileHeader>, payload: &[u8]) -> Result<Vec<WorkFile>, String> {
    let sizes: Vec<u64> = headers.iter().map(|header| header.size).collect();
    Ok(split(payload, &sizes)?
        .into_iter()
        .zip(headers)
        .map(|(bytes, header)| WorkFile {
            path: header.path,
            mode: header.mode,
            bytes,
        })
        .collect())
}

/// Cuts a payload into pieces of these sizes, which must add up to it.
pub(super) fn split(payload: &[u8], sizes: &[u64]) -> Result<Vec<Vec<u8>>, String> {
    let mut rest = payload;
    let mut pieces = Vec::new();
    for size in sizes {
        let (piece, after) = usize::try_from(*size)
            .ok()
            .and_then(|size| rest.split_at_checked(size))
            .ok_or("the payload is shorter than its description")?;
        pieces.push(piece.to_vec());
        rest = after;
    }
    if rest.is_empty() {
        Ok(pieces)
    } else {
        Err("the payload is longer than its description".into())
    }
}

/// Checks that files can stand beside each other in one tree.
pub(super) fn check_files<'a>(paths: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for path in paths {
        check_path(path).map_err(|fault| format!("path {path:?} {fault}"))?;
        if !seen.insert(path) {
            return Err(format!("path {path:?} is there twice; name each file once"));
        }
    }
    for path in &seen {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(parent) = parents.into_iter().find(|parent| seen.contains(parent)) {
            return Err(format!(
                "path {parent:?} is a file and the directory of {path:?}; rename one of them"
            ));
        }
    }
    Ok(())
}

/// A name as it can be shown in a report whoever chose it.
pub(super) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .take(1024)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_stand_beside_each_other_are_refused() {
        let table: [(&[&str], Option<&str>); 5] = [
            (&["a", "b/c", "b/d"], None),
            (&["a", "a"], Some("twice")),
            (&["a/b", "a"], Some("is a file and the directory of")),
            (&["a/b/c/d", "a/b"], Some("is a file and the directory of")),
            (&["../a"], Some("`..`")),
        ];
        for (paths, expected) in table {
            let found = check_files(paths.iter().copied()).err();
            match (found, expected) {
                (None, None) => {}
                (Some(found), Some(part)) if found.contains(part) => {}
                (found, expected) => panic!("{paths:?}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_payload_must_be_as_long_as_its_description() {
        assert_eq!(
            split(b"abc", &[1, 0, 2]),
            Ok(vec![b"a".to_vec(), vec![], b"bc".to_vec()])
        );
        assert!(split(b"abc", &[1, 1]).is_err());
        assert!(split(b"abc", &[4]).is_err());
        assert!(split(b"abc", &[u64::MAX]).is_err());
    }

    #[test]
    fn a_hostile_name_becomes_printable() {
        assert_eq!(
            printable(b"a\nb\xff\x1b[2J"),
            "a\u{fffd}b\u{fffd}\u{fffd}[2J"
        );
    }
}
