//! The runner's end: a listener that accepts one connection, and the requests over it.
//!
//! What comes over the connection is judged like any other input: a workbench runs beside model-written code.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::output::Captured;
use super::protocol::{
    CommandRequest, CommandResult, FetchRequest, Fetched, MAX_LEFT_OUT, MAX_PAYLOAD, Reply,
    Request, VERSION, WorkFile, check_files, pack, printable, split, unpack,
};
use super::wire::{Answer, Wire};

/// How long a reply may take beyond the time of the command itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long laying out may take, which first removes what a command left: many files, maybe.
const LAYING: Duration = Duration::from_secs(180);
/// How long a local server may take to connect, and to end.
const LOCAL: Duration = Duration::from_secs(10);

/// Why a workbench did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkbenchError {
    /// The runner cannot listen.
    #[error("cannot listen on {}: {message}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why not.
        message: String,
    },
    /// A workbench on this machine could not be started.
    #[error("cannot start {}: {message}", program.display())]
    Start {
        /// The runner's binary.
        program: PathBuf,
        /// Why not.
        message: String,
    },
    /// No workbench connected.
    #[error(
        "no workbench connected to {} within {seconds} s; look at its container's state and log",
        path.display()
    )]
    NeverConnected {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection is gone, and with it the workbench: it may have been killed, for its memory or with its pod.
    #[error("the connection to the workbench is lost: {0}")]
    Lost(String),
    /// The workbench does not answer.
    #[error("the workbench did not answer within {seconds} s")]
    Unresponsive {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The workbench sent what it must not.
    #[error("the workbench broke the protocol: {0}")]
    Protocol(String),
    /// The other end is of another version.
    #[error(
        "the workbench speaks version {theirs} of the protocol, not {ours}; both must be the same binary"
    )]
    Version {
        /// What the workbench speaks.
        theirs: u8,
        /// What this runner speaks.
        ours: u8,
    },
    /// The workbench refused the request, or could not carry it out; it can be asked again.
    #[error("the workbench refused: {0}")]
    Refused(String),
}

impl WorkbenchError {
    /// Whether the workbench can be asked again.
    pub fn usable_after(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A socket on which one workbench is waited for.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Listener {
    /// Listens on a unix socket with mode 0660, so that a workbench of another user but the same group may connect.
    ///
    /// A socket that an earlier process left is replaced. Needs a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, WorkbenchError> {
        let failed = |error: std::io::Error| WorkbenchError::Listen {
            path: path.to_owned(),
            message: error.to_string(),
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }

    /// Waits for the one connection, then removes the socket: nobody else can connect, least of all a command.
    pub async fn accept(self, patience: Duration) -> Result<Workbench, WorkbenchError> {
        let accepted = timeout(patience, self.listener.accept()).await;
        let removed = std::fs::remove_file(&self.path);
        let (stream, _) = accepted
            .map_err(|_| WorkbenchError::NeverConnected {
                path: self.path.clone(),
                seconds: patience.as_secs(),
            })?
            .map_err(|error| WorkbenchError::Lost(error.to_string()))?;
        removed.map_err(|error| WorkbenchError::Listen {
            path: self.path.clone(),
            message: format!("cannot remove the socket: {error}"),
        })?;
        drop(self.listener);
        Workbench::greet(stream, None).await
    }
}

/// A connected workbench. Clones share the connection; requests are carried out one after the other.
///
/// Dropping the future of [`Workbench::run`] ends the command. When the last clone is dropped, the server ends.
#[derive(Debug, Clone)]
pub struct Workbench {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
struct Job {
    request: Request,
    payload: Vec<Vec<u8>>,
    /// Most bytes of payload that the reply may have.
    most: u64,
    patience: Duration,
    answer: oneshot::Sender<Answer>,
}

impl Workbench {
    /// Starts a workbench as a plain process of this machine, with `program` (the runner's binary) as server and its
    /// files below `root`. It confines commands as far as this module's page says, but there is no container.
    pub async fn local(program: &Path, root: &Path) -> Result<Self, WorkbenchError> {
        let directory = std::env::temp_dir().join(format!("sopwith-{}", uuid::Uuid::new_v4()));
        let failed = |error: std::io::Error| WorkbenchError::Start {
            program: program.to_owned(),
            message: error.to_string(),
        };
        // Only this user may connect before the server does.
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&directory).map_err(failed)?;
        let connected = Self::start(program, root, &directory.join("workbench.sock")).await;
        std::fs::remove_dir_all(&directory).map_err(failed)?;
        connected
    }

    async fn start(program: &Path, root: &Path, socket: &Path) -> Result<Self, WorkbenchError> {
        let listener = Listener::bind(socket)?;
        let server = Command::new(program)
            .arg("workbench")
            .arg("--socket")
            .arg(socket)
            .arg("--root")
            .arg(root)
            .arg("--connect-seconds")
            .arg(LOCAL.as_secs().to_string())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // An interrupt from the terminal is for the runner, which then ends its commands in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| WorkbenchError::Start {
                program: program.to_owned(),
                message: error.to_string(),
            })?;
        let (stream, _) = timeout(LOCAL, listener.listener.accept())
            .await
            .map_err(|_| WorkbenchError::NeverConnected {
                path: socket.to_owned(),
                seconds: LOCAL.as_secs(),
            })?
            .map_err(|error| WorkbenchError::Lost(error.to_string()))?;
        Self::greet(stream, Some(server)).await
    }

    async fn greet(stream: UnixStream, server: Option<Child>) -> Result<Self, WorkbenchError> {
        let mut wire = Wire::new(stream);
        let hello = timeout(PATIENCE, wire.greeting()).await;
        match hello.map_err(|_| unresponsive(PATIENCE))?? {
            (Reply::Hello { version: VERSION }, _) => {}
            (Reply::Hello { version: theirs }, _) => {
                return Err(WorkbenchError::Version {
                    theirs,
                    ours: VERSION,
                });
            }
            _ => return Err(WorkbenchError::Protocol("no greeting".into())),
        }
        let (jobs, queue) = mpsc::channel(1);
        tokio::spawn(attend(wire, queue, server));
        Ok(Self { jobs })
    }

    /// Writes files into the work tree; with `fresh`, after removing all that was there, and all that commands left in
    /// their home and among temporary files.
    pub async fn lay(&self, files: Vec<WorkFile>, fresh: bool) -> Result<(), WorkbenchError> {
        let paths = files.iter().map(|file| file.path.as_str());
        check_files(paths).map_err(WorkbenchError::Refused)?;
        let (files, payload) = pack(files);
        match self
            .ask(Request::Lay { files, fresh }, payload, 0, LAYING)
            .await?
        {
            (Reply::Laid, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    /// Runs a command to its end; nothing that it started is left running.
    pub async fn run(&self, mut request: CommandRequest) -> Result<CommandResult, WorkbenchError> {
        let stdin = std::mem::take(&mut request.stdin);
        let patience = request.timeout.saturating_add(PATIENCE);
        // Both streams, each with a line about what was left out.
        let most = request
            .output_limit_bytes
            .saturating_add(100)
            .saturating_mul(2);
        let answer = self
            .ask(Request::Run(request), vec![stdin], most, patience)
            .await?;
        let (
            Reply::Ran {
                exit,
                stdout,
                stderr,
                usage,
            },
            payload,
        ) = answer
        else {
            return Err(unexpected());
        };
        let streams = split(&payload, &[stdout.size, stderr.size])
            .ok()
            .and_then(|streams| <[Vec<u8>; 2]>::try_from(streams).ok());
        let [out, err] = streams.ok_or_else(|| {
            WorkbenchError::Protocol("the streams are not as long as described".into())
        })?;
        Ok(CommandResult {
            exit,
            stdout: Captured {
                bytes: out,
                dropped: stdout.dropped,
            },
            stderr: Captured {
                bytes: err,
                dropped: stderr.dropped,
            },
            usage,
        })
    }

    /// Fetches files from the work tree, in the order of their paths.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetched, WorkbenchError> {
        let limits = request.clone();
        let most = request.max_total_bytes;
        let answer = self
            .ask(Request::Fetch(request), vec![], most, PATIENCE)
            .await?;
        let (
            Reply::Fetched {
                files,
                left_out,
                left_out_more,
            },
            payload,
        ) = answer
        else {
            return Err(unexpected());
        };
        let files = unpack(files, &payload).map_err(WorkbenchError::Protocol)?;
        let fetched = Fetched {
            files,
            left_out,
            left_out_more,
        };
        checked(fetched, &limits).map_err(WorkbenchError::Protocol)
    }

    async fn ask(
        &self,
        request: Request,
        payload: Vec<Vec<u8>>,
        most: u64,
        patience: Duration,
    ) -> Answer {
        let size: u64 = payload.iter().map(|piece| piece.len() as u64).sum();
        if size > MAX_PAYLOAD {
            return Err(WorkbenchError::Refused(format!(
                "{size} bytes in one request, at most {MAX_PAYLOAD} are possible; send less"
            )));
        }
        let (answer, answered) = oneshot::channel();
        let job = Job {
            request,
            payload,
            most,
            patience,
            answer,
        };
        let ended = || WorkbenchError::Lost("the connection was closed".into());
        self.jobs.send(job).await.map_err(|_| ended())?;
        match answered.await.map_err(|_| ended())?? {
            (Reply::Refused { message }, _) => Err(WorkbenchError::Refused(message)),
            other => Ok(other),
        }
    }
}

/// Checks on this side what the workbench should have held to.
fn checked(mut fetched: Fetched, limits: &FetchRequest) -> Result<Fetched, String> {
    check_files(fetched.files.iter().map(|file| file.path.as_str()))?;
    let largest = fetched
        .files
        .iter()
        .map(|file| file.bytes.len() as u64)
        .max();
    if fetched.files.len() > limits.max_files || largest > Some(limits.max_bytes_each) {
        return Err("more or larger files than were asked for".into());
    }
    fetched.left_out.truncate(MAX_LEFT_OUT);
    for left_out in &mut fetched.left_out {
        left_out.path = printable(left_out.path.as_bytes());
    }
    fetched.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(fetched)
}

fn unexpected() -> WorkbenchError {
    WorkbenchError::Protocol("a reply to another request".into())
}

fn unresponsive(patience: Duration) -> WorkbenchError {
    WorkbenchError::Unresponsive {
        seconds: patience.as_secs(),
    }
}

/// Owns the connection; serves one job after the other until nobody is left to ask or the connection is no longer good.
async fn attend(mut wire: Wire, mut queue: mpsc::Receiver<Job>, server: Option<Child>) {
    while let Some(job) = queue.recv().await {
        let Job {
            request,
            payload,
            most,
            patience,
            mut answer,
        } = job;
        if answer.is_closed() {
            continue;
        }
        let exchange = wire.exchange(request, payload, most, &mut answer);
        let result = timeout(patience, exchange)
            .await
            .unwrap_or_else(|_| Err(unresponsive(patience)));
        let failure = result.as_ref().err().cloned();
        // Whoever asked may have gone; then the outcome is nobody's.
        let _ = answer.send(result);
        if let Some(failure) = failure {
            drop(wire);
            return refuse_all(queue, failure, server).await;
        }
    }
    drop(wire);
    end(server).await;
}

/// Answers all that is asked later with why nothing can be done any more.
async fn refuse_all(
    mut queue: mpsc::Receiver<Job>,
    failure: WorkbenchError,
    server: Option<Child>,
) {
    end(server).await;
    while let Some(job) = queue.recv().await {
        let _ = job.answer.send(Err(failure.clone()));
    }
}

/// Gives a local server time to end its command, which it does when the connection closes.
async fn end(server: Option<Child>) {
    if let Some(mut server) = server {
        // Otherwise it is killed as it is dropped.
        let _ = timeout(LOCAL, server.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workbench::{LeftOut, LeftOutReason, Mode};

    fn limits() -> FetchRequest {
        FetchRequest {
            include: vec!["**".into()],
            max_files: 2,
            max_bytes_each: 3,
            max_total_bytes: 6,
        }
    }

    fn file(path: &str, bytes: &[u8]) -> WorkFile {
        WorkFile {
            path: path.into(),
            mode: Mode::Regular,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn a_workbench_that_does_not_keep_to_the_limits_is_found_out() {
        let table = [
            (vec![file("b", b"1"), file("a", b"123")], true),
            (vec![], true),
            (vec![file("a", b"1234")], false),
            (vec![file("a", b""), file("b", b""), file("c", b"")], false),
            (vec![file("../a", b"")], false),
            (vec![file("x/.git/config", b"")], false),
            (vec![file("a", b""), file("a", b"")], false),
        ];
        for (files, good) in table {
            let fetched = Fetched {
                files: files.clone(),
                ..Fetched::default()
            };
            assert_eq!(checked(fetched, &limits()).is_ok(), good, "{files:?}");
        }
    }

    #[test]
    fn names_in_reports_are_made_printable() {
        let fetched = Fetched {
            left_out: vec![LeftOut {
                path: "a\u{1b}[2J".into(),
                reason: LeftOutReason::Name,
            }],
            ..Fetched::default()
        };
        assert_eq!(
            checked(fetched, &limits()).unwrap().left_out[0].path,
            "a\u{fffd}[2J"
        );
    }
}
