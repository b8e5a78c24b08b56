//! Ending everything that a command started.

use std::fs;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp};

use super::connection::Signals;
use super::kernel::{self, Ended, Waited};

/// Killed processes end at once unless the kernel holds them (a dead disk); then the server must not go on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why something that a command started is still there.
#[derive(Debug, thiserror::Error)]
pub(super) enum KillError {
    #[error("processes of the command did not end within {} s of SIGKILL", PATIENCE.as_secs())]
    Stuck,
    #[error("cannot reap processes: {0}")]
    Reap(#[from] Errno),
}

/// Whether this process is the first of its pid namespace, so that all others in it are its business.
pub(super) fn is_init() -> bool {
    std::process::id() == 1
}

/// Whether [`reap`] is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// There are no children any more.
    All,
    /// The children that are left are running.
    Ended,
    /// Maybe more children have ended.
    More,
}

/// Reaps children that have ended; not without end, as they may come faster than they go.
pub(super) fn reap(mut each: impl FnMut(Ended)) -> Result<Reaped, Errno> {
    for _ in 0..256 {
        match kernel::reap_one()? {
            Waited::Ended(ended) => each(ended),
            Waited::Running => return Ok(Reaped::Ended),
            Waited::NoChildren => return Ok(Reaped::All),
        }
    }
    Ok(Reaped::More)
}

/// Kills and reaps every process but this one, as far as it comes from here.
///
/// A process that is forked meanwhile is met in the next turn; the end is reached when there are no children left: as
/// PID 1, or as a subreaper, this process becomes the parent of every orphan.
pub(super) fn kill_rest(signals: &Signals, mut each: impl FnMut(Ended)) -> Result<(), KillError> {
    let started = Instant::now();
    loop {
        kill_once();
        let reaped = reap(&mut each)?;
        if reaped == Reaped::All {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(KillError::Stuck);
        }
        if reaped == Reaped::Ended {
            signals.wait_for_child(Duration::from_millis(10))?;
        }
    }
}

fn kill_once() {
    if is_init() {
        // Everything in the container but this process. ESRCH: there is nothing else.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    } else {
        // Never kill(-1) here: it would end everything that the developer runs.
        let own_group = getpgrp().as_raw();
        for process in descendants() {
            // A group ends in one go, so that what forks faster than it can be looked for is met too. It holds only
            // what a command started: each command begins a session, and groups do not reach across sessions.
            if process.group > 1 && process.group != own_group {
                let _ = kill(Pid::from_raw(-process.group), Signal::SIGKILL);
            }
            // It may have ended by itself; its number cannot have been given away, as only this process reaps it or
            // its parent, which is a descendant too and about to be killed.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
    }
}

/// What `/proc` says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// All processes that have this one as an ancestor.
fn descendants() -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect();
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    below(own, &all)
}

/// Reads a line of `/proc/PID/stat`; the name in it may contain anything, parentheses too.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(1);
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
    })
}

/// Everything below `root`.
fn below(root: i32, all: &[Process]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in all.iter().filter(|process| process.parent == parent) {
            if process.pid != root && !found.contains(process) {
                found.push(*process);
                parents.push(process.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, group: i32) -> Process {
        Process { pid, parent, group }
    }

    #[test]
    fn parent_and_group_are_found_behind_any_name() {
        let table = [
            ("12 (sh) S 7 11 12 0", Some(process(12, 7, 11))),
            ("12 (a) S 1 (b) R 9 1) S 8 12", Some(process(12, 8, 12))),
            ("garbage", None),
            ("12 (sh)", None),
        ];
        for (stat, expected) in table {
            assert_eq!(parse_stat(stat), expected, "{stat}");
        }
    }

    #[test]
    fn only_descendants_are_below() {
        let all = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 8)].map(|(p, q)| process(p, q, p));
        let pids = |root| {
            below(root, &all)
                .iter()
                .map(|process| process.pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(pids(5), [6, 7]);
        assert_eq!(pids(7), [0; 0]);
        assert_eq!(pids(8), [9]);
    }
}
