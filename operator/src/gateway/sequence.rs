//! Which batches are taken: the rules of sequence numbers, versions and launches.

use sopwith_crds::contract::{
    VERSION,
    report::{Problem, ReportBatch},
};

/// What to do with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// It is the next one: store it.
    Store,
    /// It may be stored already: see whether it is the same, answer, count nothing again.
    Compare,
    /// A sign of life: note that the pod lives, store nothing.
    Alive,
}

/// What is known of the pod that sent a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    /// Whether its launch is the run's newest.
    pub(super) current: bool,
    /// The highest number stored for it.
    pub(super) acknowledged: u64,
    /// Whether its last word is stored.
    pub(super) ended: bool,
}

/// Why a batch is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTaken {
    /// Another shape.
    #[error(
        "the batch has version {0}, this gateway speaks version {VERSION}: use a runner image of the operator's release"
    )]
    UnsupportedVersion(u32),
    /// A newer launch is at work.
    #[error("launch {0} was replaced by a newer one: stop")]
    LaunchSuperseded(u32),
    /// Numbers are missing in between, or the number is 0.
    #[error("batch {got} does not follow: batch {expected} is expected next")]
    SequenceGap {
        /// The number that came.
        got: u64,
        /// The number that is expected.
        expected: u64,
    },
    /// The pod has already said its last word.
    #[error("the launch has ended with batch {0}: nothing can follow")]
    LaunchEnded(u64),
    /// Another batch has the number.
    #[error("batch {0} is stored with other content: a number is never used twice")]
    SequenceConflict(u64),
}

impl NotTaken {
    /// The word for machines.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::UnsupportedVersion(_) => "UnsupportedVersion",
            Self::LaunchSuperseded(_) => "LaunchSuperseded",
            Self::SequenceGap { .. } => "SequenceGap",
            Self::LaunchEnded(_) => "LaunchEnded",
            Self::SequenceConflict(_) => "SequenceConflict",
        }
    }

    /// As it is sent.
    pub(super) fn problem(&self) -> Problem {
        Problem {
            reason: self.reason().to_owned(),
            message: self.to_string(),
        }
    }
}

/// Decides what to do with a batch of launch `launch`.
pub(super) fn take(batch: &ReportBatch, launch: u32, sender: Sender) -> Result<Take, NotTaken> {
    let got = batch.sequence;
    if batch.version != VERSION {
        return Err(NotTaken::UnsupportedVersion(batch.version));
    }
    if !sender.current {
        return Err(NotTaken::LaunchSuperseded(launch));
    }
    if batch.events.is_empty() {
        return Ok(Take::Alive);
    }
    let expected = sender.acknowledged + 1;
    match got {
        0 => Err(NotTaken::SequenceGap { got, expected }),
        _ if got <= sender.acknowledged => Ok(Take::Compare),
        _ if sender.ended => Err(NotTaken::LaunchEnded(sender.acknowledged)),
        _ if got == expected => Ok(Take::Store),
        _ => Err(NotTaken::SequenceGap { got, expected }),
    }
}
