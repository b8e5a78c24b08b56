//! What a campaign can ask of the proxy: one fault at one call or one event of a watch.

use super::call::Key;
use std::{fmt, time::Duration};

/// How long a watch is held back: longer than the operator needs to act on what it knows.
pub const HELD: Duration = Duration::from_secs(3);
/// How long a slow read takes.
pub const SLOW: Duration = Duration::from_secs(2);

/// One fault. It happens once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// At a write.
    Write(Key, AtWrite),
    /// At a read.
    Read(Key, AtRead),
    /// At an event of a watch.
    Watch(EventKey, AtEvent),
}

/// What happens at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AtWrite {
    /// The operator is killed and the API server never sees the write.
    KilledBefore,
    /// The API server takes the write, and the operator is killed before it sees the answer.
    KilledAfter,
    /// The API server takes the write and the answer is lost; the operator lives on.
    AnswerLost,
}

/// What happens at a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AtRead {
    /// The answer is 500.
    Refused,
    /// The connection breaks.
    Lost,
    /// The answer comes late.
    Slow,
}

/// What happens to an event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AtEvent {
    /// It and all that follow come late.
    Held,
    /// It never comes.
    Dropped,
    /// In its place comes 410 Expired, and the watch ends: everything is listed anew.
    Expired,
    /// The connection breaks within it, and the watch goes on from what was seen before.
    Cut,
    /// The connection breaks before it, and to go on is refused with 410: everything is listed anew.
    Relisted,
}

/// One event of the watch of a kind: its `nth` since the operator was started first, counted from 1. 0: the beginning of
/// the watch, for kinds of which nothing happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    /// Plural of the kind.
    pub resource: String,
    /// Counted from 1.
    pub nth: u32,
}

impl AtWrite {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::KilledBefore, Self::KilledAfter, Self::AnswerLost];
}

impl AtRead {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Lost, Self::Slow];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(key, what) => write!(f, "{} {key}", what.as_str()),
            Self::Read(key, what) => write!(f, "{} {key}", what.as_str()),
            Self::Watch(key, what) => write!(f, "{} {key}", what.as_str()),
        }
    }
}

impl Fault {
    /// Its kind, for a summary.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Write(_, what) => what.as_str(),
            Self::Read(_, what) => what.as_str(),
            Self::Watch(_, what) => what.as_str(),
        }
    }
}

impl AtWrite {
    const fn as_str(self) -> &'static str {
        match self {
            Self::KilledBefore => "killed before",
            Self::KilledAfter => "killed after",
            Self::AnswerLost => "answer lost of",
        }
    }
}

impl AtRead {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Lost => "broken",
            Self::Slow => "slow",
        }
    }
}

impl AtEvent {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held back from",
            Self::Dropped => "dropped",
            Self::Expired => "410 in place of",
            Self::Cut => "cut within",
            Self::Relisted => "listed anew at",
        }
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nth {
            0 => write!(f, "the beginning of the watch of {}", self.resource),
            nth => write!(f, "event {nth} of {}", self.resource),
        }
    }
}
