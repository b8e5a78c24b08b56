//! What a command may take of what it shares with others: processes, and room on the disk.
//!
//! The pod's own limits come last: a volume over its size has the kubelet evict the pod, and with it the launch. So the
//! server ends the command before that, and the command has an outcome.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode as Bits, SFlag, fstatat, stat};

use super::tree::{DIRECTORY, kind};

/// Most bytes of one file that a command writes; the kernel refuses more with EFBIG.
const MAX_FILE: u64 = 1 << 30;
/// Deepest directory that is looked into; more than [`super::path::MAX_DEPTH`], as tools work deeper than they hand over.
const MAX_DEPTH: usize = 200;
/// What an entry counts for at least: it takes room in tables of the file system, too.
const ENTRY: u64 = 8 << 10;
/// Least pause between two looks at the disk.
const PAUSE: Duration = Duration::from_millis(500);

/// Limits on all that one command starts together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most processes and threads of the server's user on this machine, which should therefore be nobody else's.
    pub processes: Option<u64>,
    /// Most bytes on disk in all the places that a command can write to.
    pub disk_bytes: Option<u64>,
}

impl Limits {
    /// Sets what the kernel enforces by itself. Only system calls: it runs between fork and exec.
    pub(super) fn set(&self) -> nix::Result<()> {
        die_first();
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        setrlimit(Resource::RLIMIT_FSIZE, MAX_FILE, MAX_FILE)?;
        match self.processes {
            Some(most) => setrlimit(Resource::RLIMIT_NPROC, most, most),
            None => Ok(()),
        }
    }
}

/// Has the kernel end this process and its children before the server where the container's memory is used up.
///
/// Only a process that is dumpable may say so of itself. Nothing else runs here that could look into it meanwhile.
fn die_first() {
    let _ = prctl::set_dumpable(true);
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    if let Ok(score) = nix::fcntl::open(c"/proc/self/oom_score_adj", flags, Bits::empty()) {
        let _ = nix::unistd::write(&score, b"1000");
    }
    let _ = prctl::set_dumpable(false);
}

/// What a command took too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// More than so many bytes on disk.
    Disk(u64),
    /// Directories in directories.
    Depth,
}

impl fmt::Display for Excess {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(limit) => write!(
                to,
                "it left more than {} MiB on disk, each file counted with at least {} KiB",
                limit >> 20,
                ENTRY >> 10
            ),
            Self::Depth => write!(to, "it made directories more than {MAX_DEPTH} deep"),
        }
    }
}

/// Looks at the disk now and then while a command runs.
#[derive(Debug)]
pub(super) struct DiskWatch {
    places: Vec<PathBuf>,
    limit: Option<u64>,
    next: Instant,
}

impl DiskWatch {
    pub(super) fn new(places: Vec<PathBuf>, limits: Limits) -> Self {
        Self {
            places,
            limit: limits.disk_bytes,
            next: Instant::now() + PAUSE,
        }
    }

    /// How long until the next look is due; none if there is no limit.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.limit
            .map(|_| self.next.saturating_duration_since(Instant::now()))
    }

    /// Looks where it is due. A look takes a twentieth of the time at most, however much there is to look at.
    pub(super) fn look_if_due(&mut self) -> Option<Excess> {
        let begun = Instant::now();
        if begun < self.next {
            return None;
        }
        let found = self.look();
        self.next = Instant::now() + PAUSE.max(begun.elapsed() * 20);
        found
    }

    /// Looks now.
    pub(super) fn look(&self) -> Option<Excess> {
        let limit = self.limit?;
        let mut tally = Tally { bytes: 0, limit };
        let mut places = self.places.iter();
        places.find_map(|place| tally.place(place).err())
    }
}

struct Tally {
    bytes: u64,
    limit: u64,
}

impl Tally {
    /// A directory with all that is in it, or a file. What is not there or not to be entered counts nothing.
    fn place(&mut self, path: &Path) -> Result<(), Excess> {
        match nix::fcntl::open(path, DIRECTORY, Bits::empty()) {
            Ok(directory) => self.directory(&directory, c".", 0),
            Err(_) => stat(path).map_or(Ok(()), |found| self.add(&found)),
        }
    }

    fn directory(&mut self, parent: &OwnedFd, name: &CStr, depth: usize) -> Result<(), Excess> {
        if depth > MAX_DEPTH {
            return Err(Excess::Depth);
        }
        let (Ok(directory), Ok(mut listing)) = (
            nix::fcntl::openat(parent, name, DIRECTORY, Bits::empty()),
            Dir::openat(parent, name, DIRECTORY, Bits::empty()),
        ) else {
            return Ok(());
        };
        for entry in listing.iter().flatten() {
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let Ok(found) = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
                continue;
            };
            self.add(&found)?;
            if kind(found.st_mode) == SFlag::S_IFDIR {
                self.directory(&directory, name, depth + 1)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, found: &libc::stat) -> Result<(), Excess> {
        // In units of 512 bytes whatever the file system; a hole takes none.
        let held = u64::try_from(found.st_blocks).unwrap_or(0) * 512;
        // A file with several names would count for each of them.
        #[allow(clippy::useless_conversion, reason = "narrower on other architectures")]
        let names = u64::from(found.st_nlink).max(1);
        self.bytes += ENTRY.max(held / names);
        if self.bytes > self.limit {
            return Err(Excess::Disk(self.limit));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn found(place: &Path, limit: u64) -> Option<Excess> {
        let limits = Limits {
            disk_bytes: Some(limit),
            ..Limits::default()
        };
        DiskWatch::new(vec![place.to_owned(), "/no/such/place".into()], limits).look()
    }

    #[test]
    fn what_is_on_disk_counts_and_holes_do_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/data"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(path.join("a/b/data"), path.join("again")).unwrap();
        fs::File::create(path.join("hole"))
            .unwrap()
            .set_len(1 << 32)
            .unwrap();
        std::os::unix::fs::symlink("/usr", path.join("link")).unwrap();
        assert_eq!(found(path, 3 << 19), None);
        assert_eq!(found(path, 1 << 20), Some(Excess::Disk(1 << 20)));
        assert_eq!(
            found(&path.join("a/b/data"), 1 << 18),
            Some(Excess::Disk(1 << 18))
        );
    }

    #[test]
    fn many_small_files_and_deep_directories_are_too_much() {
        let place = tempfile::tempdir().unwrap();
        for number in 0..150 {
            fs::write(place.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(found(place.path(), 1 << 20), Some(Excess::Disk(1 << 20)));
        assert_eq!(found(place.path(), 2 << 20), None);
        let deep = tempfile::tempdir().unwrap();
        let path: PathBuf = std::iter::once(deep.path())
            .chain(std::iter::repeat_n(Path::new("d"), MAX_DEPTH + 1))
            .collect();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(found(deep.path(), 1 << 30), None);
        fs::create_dir(&path).unwrap();
        assert_eq!(found(deep.path(), 1 << 30), Some(Excess::Depth));
    }
}
