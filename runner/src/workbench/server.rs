//! The workbench's server: connects to the runner and does what it asks, one request at a time.

use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::prctl;
use nix::sys::stat::{Mode as Bits, umask};

use super::command::{self, Bounds, CommandError, Outcome};
use super::confine::{ConfineError, Confinement};
use super::connection::{Connection, End, Signals, wait};
use super::kernel;
use super::limits::Limits;
use super::process::{KillError, is_init};
use super::protocol::{Reply, Request, StreamHeader, VERSION, pack, unpack};
use super::tree::Workspace;

/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);

/// What the server is told on its command line.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The unix socket on which the runner listens.
    pub socket: PathBuf,
    /// Directory for the work tree, the commands' home and their temporary files.
    pub root: PathBuf,
    /// Further directories and files in which commands may leave something, emptied with the tree. Never a developer's
    /// `/tmp`.
    pub scratch: Vec<PathBuf>,
    /// What a command may take.
    pub limits: Limits,
    /// How long to try to connect; without it, until a signal says to end.
    pub connect_within: Option<Duration>,
}

/// Why a server could not start, or ended before it was to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A system call of the preparations failed.
    #[error("cannot {step}: {errno}")]
    Prepare {
        /// What was to be done.
        step: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// The root cannot be used.
    #[error("cannot use {}: {source}; --root must name a writable directory", path.display())]
    Root {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no filter for commands.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// Nobody listened in time.
    #[error("nobody listens on {}: {source}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the last attempt said.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("{0}")]
    Connection(String),
    /// A command could not be ended, so no other may run.
    #[error("{0}")]
    Left(String),
}

impl From<End> for ServerError {
    fn from(end: End) -> Self {
        Self::Connection(end.to_string())
    }
}

impl From<KillError> for ServerError {
    fn from(error: KillError) -> Self {
        Self::Left(error.to_string())
    }
}

/// Serves the runner until it closes the connection or a signal says to end.
pub fn serve(options: &ServerOptions) -> Result<(), ServerError> {
    let signals = prepare()?;
    let workspace = Workspace::open(&options.root, options.scratch.clone());
    let workspace = workspace.map_err(|source| ServerError::Root {
        path: options.root.clone(),
        source,
    })?;
    let protected = if is_init() {
        vec![std::process::id()]
    } else {
        vec![std::process::id(), parent_id()]
    };
    let confinement = Confinement::compile(&protected)?;
    let Some(stream) = connect(options, &signals)? else {
        return Ok(());
    };
    let mut server = Server {
        connection: Connection::new(stream, signals)?,
        workspace,
        bounds: Bounds {
            confinement,
            limits: options.limits,
        },
    };
    match server.talk() {
        Err(CommandError::End(End::Closed | End::Terminated)) | Ok(()) => Ok(()),
        Err(CommandError::End(end)) => Err(end.into()),
        Err(CommandError::Left(error)) => Err(error.into()),
        Err(CommandError::Refused(message)) => Err(ServerError::Connection(message)),
    }
}

fn prepare() -> Result<Signals, ServerError> {
    let failed = |step| move |errno| ServerError::Prepare { step, errno };
    // Nobody with our uid may look into this process; what it starts becomes dumpable again at its exec.
    prctl::set_dumpable(false).map_err(failed("become undumpable"))?;
    // As PID 1 orphans come here anyway.
    prctl::set_child_subreaper(true).map_err(failed("become the reaper of orphans"))?;
    umask(Bits::from_bits_truncate(0o022));
    // Not in kernels before 5.11; what the server opens itself closes on exec.
    let _ = kernel::close_others_on_exec();
    Signals::block().map_err(failed("block signals"))
}

/// The connection; none if a signal came first. The runner's container starts after this one, maybe much later.
fn connect(options: &ServerOptions, signals: &Signals) -> Result<Option<UnixStream>, ServerError> {
    let started = Instant::now();
    loop {
        let source = match UnixStream::connect(&options.socket) {
            Ok(stream) => return Ok(Some(stream)),
            Err(error) => error,
        };
        if options
            .connect_within
            .is_some_and(|limit| started.elapsed() >= limit)
        {
            return Err(ServerError::Connect {
                path: options.socket.clone(),
                source,
            });
        }
        let mut descriptors = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        wait(&mut descriptors, Some(RETRY)).map_err(End::from)?;
        match signals.drain() {
            Ok(()) => {}
            Err(End::Terminated) => return Ok(None),
            Err(end) => return Err(end.into()),
        }
    }
}

/// A reply and its payload in pieces.
type Message = (Reply, Vec<Vec<u8>>);

struct Server {
    connection: Connection,
    workspace: Workspace,
    bounds: Bounds,
}

impl Server {
    fn talk(&mut self) -> Result<(), CommandError> {
        self.connection
            .send(Reply::Hello { version: VERSION }, &[])?;
        loop {
            let (request, payload) = self.connection.receive()?;
            let (reply, pieces) = match self.answer(request, payload) {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(CommandError::Refused(message)) => (Reply::Refused { message }, vec![]),
                Err(other) => return Err(other),
            };
            self.connection.send(reply, &pieces)?;
        }
    }

    fn answer(
        &mut self,
        request: Request,
        payload: Vec<u8>,
    ) -> Result<Option<Message>, CommandError> {
        match request {
            Request::Lay { files, fresh } => {
                let files = unpack(files, &payload).map_err(End::Malformed)?;
                self.workspace
                    .lay(&files, fresh)
                    .map_err(CommandError::Refused)?;
                Ok(Some((Reply::Laid, vec![])))
            }
            Request::Run(mut request) => {
                request.stdin = payload;
                let outcome = command::run(
                    &mut self.connection,
                    &self.workspace,
                    &self.bounds,
                    &request,
                )?;
                Ok(Some(ran(outcome)))
            }
            Request::Fetch(request) => {
                let fetched = self
                    .workspace
                    .fetch(&request)
                    .map_err(CommandError::Refused)?;
                let (files, pieces) = pack(fetched.files);
                let reply = Reply::Fetched {
                    files,
                    left_out: fetched.left_out,
                    left_out_more: fetched.left_out_more,
                };
                Ok(Some((reply, pieces)))
            }
            // The command ended by itself before the order came.
            Request::Stop => Ok(None),
        }
    }
}

fn ran(outcome: Outcome) -> Message {
    let Outcome {
        exit,
        stdout,
        stderr,
        usage,
    } = outcome;
    let describe = |stream: &super::Captured| StreamHeader {
        size: stream.bytes.len() as u64,
        dropped: stream.dropped,
    };
    let reply = Reply::Ran {
        exit,
        stdout: describe(&stdout),
        stderr: describe(&stderr),
        usage,
    };
    (reply, vec![stdout.bytes, stderr.bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_that_nobody_listens_on_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            socket: directory.path().join("none.sock"),
            root: directory.path().to_owned(),
            scratch: vec![],
            limits: Limits::default(),
            connect_within: Some(Duration::ZERO),
        };
        let signals = Signals::block().unwrap();
        let message = connect(&options, &signals).unwrap_err().to_string();
        assert!(message.contains("none.sock"), "{message}");
    }
}
