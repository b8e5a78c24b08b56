//! Runs one command to its end and leaves nothing of it running.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal};

use super::confine::Confinement;
use super::connection::{Connection, End, ready, wait};
use super::kernel;
use super::limits::{DiskWatch, Excess, Limits};
use super::output::{Captured, Keeper};
use super::process::{KillError, Reaped, kill_rest, reap};
use super::protocol::{CommandRequest, Exit, Request, Usage};
use super::tree::Workspace;

/// Most bytes that a request may have kept of a stream.
const MAX_OUTPUT: u64 = 64 << 20;
/// Where programs are looked for if the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What holds commands.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) confinement: Confinement,
    pub(super) limits: Limits,
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    /// The request cannot be carried out; the server goes on.
    #[error("{0}")]
    Refused(String),
    /// The server ends.
    #[error(transparent)]
    End(#[from] End),
    /// Something of the command is left; the server must not run another beside it.
    #[error(transparent)]
    Left(#[from] KillError),
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) exit: Exit,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
    pub(super) usage: Usage,
}

/// Runs a command and waits for its end, its time-out, an order to stop, or the end of the connection.
pub(super) fn run(
    connection: &mut Connection,
    workspace: &Workspace,
    bounds: &Bounds,
    request: &CommandRequest,
) -> Result<Outcome, CommandError> {
    let limit = usize::try_from(request.output_limit_bytes.min(MAX_OUTPUT)).unwrap_or(0);
    let (stdout, stdout_end) = Stream::open(limit).map_err(|e| refused("open a pipe", &e))?;
    let (stderr, stderr_end) = Stream::open(limit).map_err(|e| refused("open a pipe", &e))?;
    let mut command = prepare(workspace, bounds, request)?;
    command.stdout(stdout_end).stderr(stderr_end);
    let started = Instant::now();
    let spawned = command.spawn();
    // The command holds the writing ends of the pipes, which would keep them from ending.
    drop(command);
    let child = match spawned {
        Ok(child) => child,
        Err(error) => return not_started(&error, request),
    };
    let mut running = Running {
        pid: i32::try_from(child.id()).unwrap_or(0),
        streams: [stdout, stderr],
        status: None,
        usage: Usage::default(),
        disk: DiskWatch::new(workspace.places(), bounds.limits),
        excess: None,
    };
    let watched = running.watch(connection, started, request.timeout);
    running.usage.wall_seconds = started.elapsed().as_secs_f64();
    let timed_out = running.status.is_none();
    let Running {
        pid, status, usage, ..
    } = &mut running;
    kill_rest(&connection.signals, |ended| {
        note(*pid, status, usage, ended);
    })?;
    watched?;
    // Also what it did at the end, between two looks.
    let excess = running.excess.or_else(|| running.disk.look());
    if excess.is_some() {
        // Before the kubelet looks.
        workspace.lay(&[], true).map_err(CommandError::Refused)?;
    }
    // Everything is dead, so what the pipes hold now is the rest.
    for stream in &mut running.streams {
        stream.read_available();
    }
    let [stdout, stderr] = running.streams.map(|stream| stream.keeper.finish());
    let exit = match running.status {
        _ if excess.is_some() => {
            Exit::Exceeded(excess.map(|it| it.to_string()).unwrap_or_default())
        }
        _ if timed_out => Exit::TimedOut,
        Some(status) if libc::WIFSIGNALED(status) => Exit::Signal(libc::WTERMSIG(status)),
        Some(status) => Exit::Code(libc::WEXITSTATUS(status)),
        None => Exit::TimedOut,
    };
    Ok(Outcome {
        exit,
        stdout,
        stderr,
        usage: running.usage,
    })
}

struct Running {
    pid: libc::pid_t,
    streams: [Stream; 2],
    status: Option<libc::c_int>,
    usage: Usage,
    disk: DiskWatch,
    excess: Option<Excess>,
}

impl Running {
    /// Reads the streams until the command has ended, or is to be ended: then its status is unknown.
    fn watch(
        &mut self,
        connection: &mut Connection,
        started: Instant,
        timeout: Duration,
    ) -> Result<(), End> {
        let mut more = false;
        loop {
            let left = timeout.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            let pause = if more {
                Duration::ZERO
            } else {
                self.disk.pause().map_or(left, |pause| pause.min(left))
            };
            let [from_runner, signalled] = {
                let mut descriptors = vec![
                    PollFd::new(connection.as_fd(), PollFlags::POLLIN),
                    PollFd::new(connection.signals.as_fd(), PollFlags::POLLIN),
                ];
                let open = self.streams.iter().filter(|stream| stream.open);
                descriptors.extend(open.map(|s| PollFd::new(s.reader.as_fd(), PollFlags::POLLIN)));
                wait(&mut descriptors, Some(pause))?;
                [ready(&descriptors[0]), ready(&descriptors[1])]
            };
            for stream in &mut self.streams {
                stream.read_once();
            }
            if from_runner {
                return match connection.receive()? {
                    (Request::Stop, _) => Ok(()),
                    _ => Err(End::Malformed(
                        "a request before the reply to the last".into(),
                    )),
                };
            }
            if signalled || more {
                connection.signals.drain()?;
                let Self {
                    pid, status, usage, ..
                } = self;
                more = reap(|ended| note(*pid, status, usage, ended))? == Reaped::More;
            }
            if self.status.is_some() {
                return Ok(());
            }
            self.excess = self.disk.look_if_due();
            if self.excess.is_some() {
                return Ok(());
            }
        }
    }
}

/// Adds what a process used; keeps the status if it is the command's own. A parent's figures contain those of the
/// children that it reaped itself, and those that come here were reaped here: nothing counts twice.
fn note(
    pid: libc::pid_t,
    status: &mut Option<libc::c_int>,
    usage: &mut Usage,
    ended: kernel::Ended,
) {
    if ended.pid == pid {
        *status = Some(ended.status);
    }
    usage.user_seconds += ended.user_seconds;
    usage.system_seconds += ended.system_seconds;
    usage.max_rss_bytes = usage.max_rss_bytes.max(ended.max_rss_bytes);
}

fn prepare(
    workspace: &Workspace,
    bounds: &Bounds,
    request: &CommandRequest,
) -> Result<Command, CommandError> {
    let (program, arguments) = request
        .argv
        .split_first()
        .filter(|(program, _)| !program.is_empty())
        .ok_or_else(|| CommandError::Refused("argv is empty; name a program".into()))?;
    let directory = workspace.command_directory(&request.cwd).map_err(|error| {
        CommandError::Refused(format!(
            "cwd {:?}: {error}; name a directory of the work tree",
            request.cwd
        ))
    })?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        // What the image says, so that its toolchain is found; of the rest of its environment nothing is passed on.
        .env(
            "PATH",
            std::env::var_os("PATH")
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| DEFAULT_PATH.into()),
        )
        .env("HOME", workspace.home())
        .env("TMPDIR", workspace.temporary())
        .env("LANG", "C.UTF-8")
        .envs(&request.env)
        .stdin(stdin(&request.stdin).map_err(|e| refused("hand over stdin", &e))?);
    kernel::before_exec(&mut command, becoming(directory, bounds.clone()));
    Ok(command)
}

/// What the child does between fork and exec: system calls only.
///
/// It inherits that it is not dumpable, so that nobody can attach to it before the exec; an exec makes it dumpable.
fn becoming(
    directory: OwnedFd,
    bounds: Bounds,
) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    move || {
        nix::unistd::fchdir(&directory)?;
        nix::unistd::setsid()?;
        // If the server itself is killed, as PID 1 it takes all with it; elsewhere at least the command goes.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        SigSet::empty().thread_set_mask()?;
        bounds.limits.set()?;
        // Not in kernels before 5.11. All descriptors of this server close on exec anyway; this is the second lock.
        let _ = kernel::close_others_on_exec();
        // An errno that exec does not have, to tell the two apart.
        bounds
            .confinement
            .install()
            .map_err(|_| io::Error::from_raw_os_error(libc::EPROTO))
    }
}

/// Bytes as a file in memory: no pipe to feed while the command runs.
fn stdin(bytes: &[u8]) -> io::Result<Stdio> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = std::fs::File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

fn not_started(error: &io::Error, request: &CommandRequest) -> Result<Outcome, CommandError> {
    let program = &request.argv[0];
    match error.raw_os_error() {
        Some(
            libc::ENOENT
            | libc::EACCES
            | libc::ENOTDIR
            | libc::ENOEXEC
            | libc::ELOOP
            | libc::EISDIR
            | libc::ENAMETOOLONG,
        ) => Ok(Outcome {
            exit: Exit::NotFound(format!(
                "{program}: {error}; the workbench's image must contain the program (and, for a script, the interpreter of its first line)"
            )),
            stdout: Captured::default(),
            stderr: Captured::default(),
            usage: Usage::default(),
        }),
        Some(libc::EPROTO) => Err(CommandError::Refused(
            "the kernel does not accept the system call filter (seccomp); nothing runs without it"
                .into(),
        )),
        _ => Err(refused(&format!("start {program}"), error)),
    }
}

fn refused(what: &str, error: &io::Error) -> CommandError {
    CommandError::Refused(format!("cannot {what}: {error}"))
}

/// An output stream of the command.
struct Stream {
    reader: PipeReader,
    open: bool,
    keeper: Keeper,
}

impl Stream {
    fn open(limit: usize) -> io::Result<(Self, io::PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((
            Self {
                reader,
                open: true,
                keeper: Keeper::new(limit),
            },
            writer,
        ))
    }

    /// Reads a piece; gives whether there may be more.
    fn read_once(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        if !self.open {
            return false;
        }
        match self.reader.read(&mut buffer) {
            Ok(0) => self.open = false,
            Ok(count) => self.keeper.push(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.open = false,
        }
        self.open
    }

    fn read_available(&mut self) {
        // A pipe holds at most a megabyte; the bound is for a writer that somehow still lives.
        for _ in 0..128 {
            if !self.read_once() {
                break;
            }
        }
    }
}
