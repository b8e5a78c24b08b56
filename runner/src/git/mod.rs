//! The project as a Git repository: taken from a server at a commit, kept as a commit a step, pushed to a branch.
//!
//! Three ways were weighed.
//!
//! - **git and ssh as programs in the image.** Complete, but the runner's image would no longer be one static program on an
//!   empty file system, and would bring a second TLS stack. Programs of Git read configuration, hooks, filters and attributes
//!   wherever they find some, and they would hold the credentials.
//! - **libgit2.** It parses what a hostile server sends in C, in the process that holds every secret of the run. Its ssh needs
//!   OpenSSL.
//! - **This.** Objects are read and written by gitoxide's plumbing (`gix-object`, `gix-hash`: memory-safe, SHA-1 with detection
//!   of collisions), https goes through the runner's own client (rustls, ring), ssh through `russh` with ring. What remains is
//!   the protocol, of which a run needs little: one shallow fetch of one commit, one push to one branch. gitoxide cannot push,
//!   and its fetch is made for repositories on disk and pulls in what starts programs.
//!
//! There is no repository on disk, no index, no work tree: nothing that a hook, filter, attribute or `fsmonitor` could hang on.
//! RSA keys are not supported: the crate that would do it has a known timing flaw (RUSTSEC-2023-0071).
//!
//! The protocol is version 0, which every server speaks; its drawback, that all branches and tags are listed, is bounded.

pub mod advert;
pub mod fetch;
pub mod history;
pub mod object;
pub mod pack;
pub mod pkt;
pub mod push;
pub mod remote;
pub mod source;

mod https;
mod known_hosts;
mod ssh;

use std::fmt;

/// Why a repository cannot be read or written. The texts are for people, without the repository's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The server is away or ill; another try can help.
    #[error("{0}")]
    Away(String),
    /// The credential is missing or refused.
    #[error("{0}")]
    Credential(String),
    /// The repository, or what was asked of it, is not there.
    #[error("{0}")]
    Missing(String),
    /// The server does not want it.
    #[error("the server refused: {0}")]
    Refused(String),
    /// What the server sends is not what it should be.
    #[error("{0}")]
    Protocol(String),
    /// More than a project may have.
    #[error("{0}")]
    TooMuch(String),
}

impl Fault {
    fn protocol(why: impl fmt::Display) -> Self {
        Self::Protocol(format!(
            "the server does not answer as a Git server does: {why}"
        ))
    }

    /// The same with another text, as one in which secrets are masked.
    #[must_use]
    pub fn mapped(self, change: impl Fn(String) -> String) -> Self {
        match self {
            Self::Away(text) => Self::Away(change(text)),
            Self::Credential(text) => Self::Credential(change(text)),
            Self::Missing(text) => Self::Missing(change(text)),
            Self::Refused(text) => Self::Refused(change(text)),
            Self::Protocol(text) => Self::Protocol(change(text)),
            Self::TooMuch(text) => Self::TooMuch(change(text)),
        }
    }

    /// Whether another try can help.
    pub const fn worth_another(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl From<pkt::NoLine> for Fault {
    fn from(error: pkt::NoLine) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<pack::PackError> for Fault {
    fn from(error: pack::PackError) -> Self {
        match error {
            pack::PackError::Damaged(_) => Self::Protocol(error.to_string()),
            pack::PackError::TooMuch(why) => Self::TooMuch(why),
        }
    }
}
