//! The server's files: laying them out and fetching them.
//!
//! A command may have left anything in the tree: links to elsewhere, pipes, directories nobody may enter, names of any
//! bytes. So every step goes from an open directory to an entry of it, never through a path, and never follows a link.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{
    FchmodatFlags, Mode as Bits, SFlag, fchmod, fchmodat, fstat, fstatat, mkdirat,
};
use nix::unistd::{UnlinkatFlags, truncate, unlinkat};

use super::path::{MAX_DEPTH, PathFault, check_name, check_path};
use super::protocol::{
    FetchRequest, Fetched, LeftOut, LeftOutReason, MAX_LEFT_OUT, MAX_PAYLOAD, Mode, WorkFile,
    check_files, printable,
};

/// The directories below the root.
const TREE: &CStr = c"tree";
const HOME: &CStr = c"home";
const TEMPORARY: &CStr = c"tmp";
/// Most entries that a fetch looks at.
const MAX_WALK: usize = 200_000;

pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The directories that commands work in: the tree, a home, and a place for temporary files.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    root: OwnedFd,
    scratch: Vec<PathBuf>,
}

impl Workspace {
    /// Opens the root, which is made if need be; `scratch` are further directories and files that are emptied with it.
    pub(super) fn open(path: &Path, scratch: Vec<PathBuf>) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let path = path.canonicalize()?;
        let root = nix::fcntl::open(&path, DIRECTORY, Bits::empty())?;
        Ok(Self {
            path,
            root,
            scratch,
        })
    }

    /// Every place that commands can write to.
    pub(super) fn places(&self) -> Vec<PathBuf> {
        let root = std::iter::once(&self.path);
        root.chain(&self.scratch).cloned().collect()
    }

    pub(super) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Opens the directory in which a command starts. Links in `cwd` are followed: the command could do so too.
    pub(super) fn command_directory(&self, cwd: &str) -> io::Result<OwnedFd> {
        directory(&self.root, HOME)?;
        directory(&self.root, TEMPORARY)?;
        let tree = directory(&self.root, TREE)?;
        if cwd.is_empty() {
            return Ok(tree);
        }
        check_path(cwd).map_err(|fault| io::Error::other(format!("it {fault}")))?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(openat(&tree, cwd, flags, Bits::empty())?)
    }

    /// Writes files into the tree; with `fresh`, after emptying it and everything else that a command could write to.
    pub(super) fn lay(&self, files: &[WorkFile], fresh: bool) -> Result<(), String> {
        check_files(files.iter().map(|file| file.path.as_str()))?;
        if fresh {
            self.empty()
                .map_err(|error| format!("cannot empty the work tree: {error}"))?;
        }
        let tree = directory(&self.root, TREE)
            .map_err(|error| format!("cannot open the work tree: {error}"))?;
        files.iter().try_for_each(|file| {
            write(&tree, file).map_err(|error| format!("cannot write {:?}: {error}", file.path))
        })
    }

    fn empty(&self) -> io::Result<()> {
        empty(&self.root)?;
        for place in &self.scratch {
            match nix::fcntl::open(place, DIRECTORY, Bits::empty()) {
                Ok(place) => {
                    for name in names(&place)? {
                        // What cannot be removed here is not of our user, so no command has made it.
                        let _ = remove(&place, &name);
                    }
                }
                // A file that stays, like the container's termination message.
                Err(Errno::ENOTDIR) => truncate(place, 0)?,
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Reads the wanted files.
    pub(super) fn fetch(&self, request: &FetchRequest) -> Result<Fetched, String> {
        let mut walk = Walk {
            include: globs(&request.include)?,
            request,
            total: 0,
            looked_at: 0,
            fetched: Fetched::default(),
        };
        let tree = directory(&self.root, TREE)
            .map_err(|error| format!("cannot open the work tree: {error}"))?;
        walk.directory(&tree, "", 1);
        Ok(walk.fetched)
    }
}

fn globs(include: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for glob in include {
        let compiled = GlobBuilder::new(glob).literal_separator(true).build();
        set.add(compiled.map_err(|error| {
            format!(
                "include {glob:?}: {error}; `*`, `**`, `?`, `[ab]` and `{{a,b}}` are understood"
            )
        })?);
    }
    set.build().map_err(|error| format!("include: {error}"))
}

/// Opens a directory of `parent`; makes it if it is not there, or if something else is in its place.
fn directory(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    // Each turn removes one obstacle; nothing else works in the tree meanwhile.
    for _ in 0..4 {
        match openat(parent, name, DIRECTORY, Bits::empty()) {
            Ok(directory) => return Ok(directory),
            Err(Errno::ENOENT) => mkdirat(parent, name, Bits::from_bits_truncate(0o755))?,
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
            }
            Err(Errno::EACCES) => make_accessible(parent, name)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::other("something keeps changing the work tree"))
}

/// Undoes a `chmod 000` of a command. The caller knows that it is a directory, and no command runs.
fn make_accessible(parent: &OwnedFd, name: &CStr) -> nix::Result<()> {
    fchmodat(parent, name, Bits::S_IRWXU, FchmodatFlags::FollowSymlink)
}

fn write(tree: &OwnedFd, file: &WorkFile) -> io::Result<()> {
    let (parents, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let mut parent = tree.try_clone()?;
    for component in parents.split('/').filter(|component| !component.is_empty()) {
        parent = directory(&parent, &CString::new(component)?)?;
    }
    let name = CString::new(name)?;
    remove(&parent, &name)?;
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut to = File::from(openat(
        &parent,
        name.as_c_str(),
        flags,
        Bits::S_IRUSR | Bits::S_IWUSR,
    )?);
    to.write_all(&file.bytes)?;
    let bits = match file.mode {
        Mode::Regular => 0o644,
        Mode::Executable => 0o755,
    };
    Ok(fchmod(&to, Bits::from_bits_truncate(bits))?)
}

/// Removes an entry of a directory, whatever it is.
fn remove(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // Linux says EISDIR, POSIX allows EPERM.
        Err(Errno::EISDIR | Errno::EPERM) => {
            empty(&directory(parent, name)?)?;
            Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Removes everything in a directory.
///
/// However deep it goes, three descriptors and no recursion do: a directory in a directory is first moved up.
fn empty(top: &OwnedFd) -> io::Result<()> {
    let mut spare = 0_u64;
    loop {
        // Made by the file system itself on some volumes, and not ours to remove.
        let names: Vec<CString> = names(top)?
            .into_iter()
            .filter(|name| name.as_bytes() != b"lost+found")
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if !is_directory(top, &name)? {
                unlinkat(top, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
                continue;
            }
            // Without write and search permission nothing can be taken out of it.
            make_accessible(top, &name)?;
            let inner = openat(top, name.as_c_str(), DIRECTORY, Bits::empty())?;
            empty_into(&inner, top, &mut spare)?;
            unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
}

/// Removes the entries of `inner`; directories with something in them are moved to `top`.
fn empty_into(inner: &OwnedFd, top: &OwnedFd, spare: &mut u64) -> io::Result<()> {
    for name in names(inner)? {
        if !is_directory(inner, &name)? {
            unlinkat(inner, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            continue;
        }
        if unlinkat(inner, name.as_c_str(), UnlinkatFlags::RemoveDir).is_ok() {
            continue;
        }
        // Moving a directory writes its `..`, which needs the permission to.
        make_accessible(inner, &name)?;
        loop {
            *spare += 1;
            let free = CString::new(format!(".moved-up-{spare}"))?;
            match renameat(inner, name.as_c_str(), top, free.as_c_str()) {
                Ok(()) => break,
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

fn is_directory(parent: &OwnedFd, name: &CStr) -> nix::Result<bool> {
    let found = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(kind(found.st_mode) == SFlag::S_IFDIR)
}

pub(super) fn kind(mode: libc::mode_t) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

/// The entries of a directory in the order of their bytes, without `.` and `..`.
fn names(directory: &OwnedFd) -> nix::Result<Vec<CString>> {
    // Opened anew, as a duplicate would share its position with the original.
    let mut listing = Dir::openat(directory, c".", DIRECTORY, Bits::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A walk over the tree that collects what was asked for.
struct Walk<'a> {
    include: GlobSet,
    request: &'a FetchRequest,
    total: u64,
    looked_at: usize,
    fetched: Fetched,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &OwnedFd, prefix: &str, depth: usize) {
        let Ok(names) = names(directory) else {
            self.leave_out(prefix.as_bytes(), LeftOutReason::Unreadable);
            return;
        };
        for name in names {
            self.looked_at += 1;
            if self.looked_at > MAX_WALK {
                // Said once, where the walk ended.
                if self.looked_at == MAX_WALK + 1 {
                    self.leave_out(prefix.as_bytes(), LeftOutReason::WalkEnded);
                }
                return;
            }
            self.entry(directory, prefix, &name, depth);
        }
    }

    fn entry(&mut self, parent: &OwnedFd, prefix: &str, name: &CStr, depth: usize) {
        let checked = match name.to_str() {
            Ok(text) => check_name(text).map(|()| text),
            Err(_) => Err(PathFault::Control),
        };
        let name_text = match checked {
            Ok(text) => text,
            Err(fault) => {
                let reason = if fault == PathFault::Git {
                    LeftOutReason::Git
                } else {
                    LeftOutReason::Name
                };
                self.leave_out(&[prefix.as_bytes(), name.to_bytes()].concat(), reason);
                return;
            }
        };
        let path = format!("{prefix}{name_text}");
        let Ok(found) = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
            self.leave_out(path.as_bytes(), LeftOutReason::Unreadable);
            return;
        };
        let wanted = self.include.is_match(&path);
        match kind(found.st_mode) {
            SFlag::S_IFDIR if depth >= MAX_DEPTH => {
                self.leave_out(path.as_bytes(), LeftOutReason::Name);
            }
            SFlag::S_IFDIR => match openat(parent, name, DIRECTORY, Bits::empty()) {
                Ok(directory) => self.directory(&directory, &format!("{path}/"), depth + 1),
                Err(_) => self.leave_out(path.as_bytes(), LeftOutReason::Unreadable),
            },
            _ if !wanted => {}
            SFlag::S_IFREG => match self.file(parent, name, &path) {
                Ok(file) => self.fetched.files.push(file),
                Err(reason) => self.leave_out(path.as_bytes(), reason),
            },
            SFlag::S_IFLNK => self.leave_out(path.as_bytes(), LeftOutReason::Link),
            _ => self.leave_out(path.as_bytes(), LeftOutReason::Special),
        }
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &str,
    ) -> Result<WorkFile, LeftOutReason> {
        check_path(path).map_err(|_| LeftOutReason::Name)?;
        if self.fetched.files.len() >= self.request.max_files {
            return Err(LeftOutReason::TooManyFiles);
        }
        // Not to hang on a pipe that has taken the file's place; what was opened is looked at again.
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let opened =
            openat(parent, name, flags, Bits::empty()).map_err(|_| LeftOutReason::Unreadable)?;
        let found = fstat(opened.as_fd()).map_err(|_| LeftOutReason::Unreadable)?;
        if kind(found.st_mode) != SFlag::S_IFREG {
            return Err(LeftOutReason::Special);
        }
        let size = u64::try_from(found.st_size).unwrap_or(u64::MAX);
        if size > self.request.max_bytes_each {
            return Err(LeftOutReason::TooLarge);
        }
        if size > self.room() {
            return Err(LeftOutReason::TotalTooLarge);
        }
        let mut bytes = Vec::new();
        // It may grow or shrink while it is read, so the size only decides whether to begin.
        let most = self.request.max_bytes_each.min(self.room());
        File::from(opened)
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|_| LeftOutReason::Unreadable)?;
        if bytes.len() as u64 > most {
            return Err(LeftOutReason::TooLarge);
        }
        self.total += bytes.len() as u64;
        let executable = found.st_mode & Bits::S_IXUSR.bits() != 0;
        let mode = if executable {
            Mode::Executable
        } else {
            Mode::Regular
        };
        Ok(WorkFile {
            path: path.to_owned(),
            mode,
            bytes,
        })
    }

    fn room(&self) -> u64 {
        self.request.max_total_bytes.min(MAX_PAYLOAD) - self.total
    }

    fn leave_out(&mut self, path: &[u8], reason: LeftOutReason) {
        if self.fetched.left_out.len() < MAX_LEFT_OUT {
            let path = printable(path);
            self.fetched.left_out.push(LeftOut { path, reason });
        } else {
            self.fetched.left_out_more += 1;
        }
    }
}
