//! The server's end of the connection, and the signals that can interrupt any wait on it.
//!
//! The server has a single thread and no runtime: what it forks then starts from a plain state, no call of a command
//! can name another of its threads, and it needs little memory beside the toolchain.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{CHUNK, Envelope, MAX_HEADER, MAX_PAYLOAD, Reply, Request};

/// Why the server ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The runner closed the connection, or is gone.
    #[error("the runner closed the connection")]
    Closed,
    /// The server was told to end.
    #[error("told to end by a signal")]
    Terminated,
    #[error("cannot talk to the runner: {0}")]
    Io(#[from] std::io::Error),
    #[error("a message of the runner makes no sense: {0}")]
    Malformed(String),
}

impl From<Errno> for End {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Signals as a descriptor. All are blocked, so that only what is read here has an effect.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(super) fn block() -> nix::Result<Self> {
        SigSet::all().thread_block()?;
        let wanted = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&wanted, flags)?))
    }

    /// Reads what arrived; an error if the server is to end.
    ///
    /// Only kill(2) (which the filter keeps commands from using on this process) and a terminal count: a descriptor
    /// whose owner was set to this process (`F_SETOWN`) could send signals too, with another origin.
    pub(super) fn drain(&self) -> Result<(), End> {
        while let Some(signal) = self.0.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            let ends = number == libc::SIGTERM || number == libc::SIGINT;
            if ends && [libc::SI_USER, libc::SI_KERNEL].contains(&signal.ssi_code) {
                return Err(End::Terminated);
            }
        }
        Ok(())
    }

    /// Waits until some signal is there, at most this long, and leaves it there unless it speaks of a child.
    pub(super) fn wait_for_child(&self, time: Duration) -> nix::Result<()> {
        // A pending SIGTERM changes nothing here: the caller is ending things already and is bounded.
        match self.drain() {
            Ok(()) => wait(
                &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
                Some(time),
            ),
            Err(_) => wait(&mut [], Some(time)),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// poll(2), with rounding up (so that a deadline has passed when it returns) and without EINTR.
pub(super) fn wait(descriptors: &mut [PollFd], time: Option<Duration>) -> nix::Result<()> {
    let timeout = time.map_or(PollTimeout::NONE, |time| {
        let milliseconds = time.as_micros().div_ceil(1000);
        i32::try_from(milliseconds)
            .ok()
            .and_then(|milliseconds| PollTimeout::try_from(milliseconds).ok())
            .unwrap_or(PollTimeout::MAX)
    });
    match poll(descriptors, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Whether a descriptor that was waited for can be read, or has ended.
pub(super) fn ready(descriptor: &PollFd) -> bool {
    descriptor.any().unwrap_or(true)
}

/// The connection to the runner.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    pub(super) signals: Signals,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, signals: Signals) -> Result<Self, End> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, signals })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Waits for a message.
    pub(super) fn receive(&mut self) -> Result<(Request, Vec<u8>), End> {
        let envelope: Envelope<Request> = decode(&self.frame(MAX_HEADER)?)?;
        if envelope.payload > MAX_PAYLOAD {
            return Err(End::Malformed(format!(
                "a payload of {} bytes",
                envelope.payload
            )));
        }
        let mut payload = Vec::new();
        while (payload.len() as u64) < envelope.payload {
            payload.append(&mut self.frame(CHUNK)?);
        }
        Ok((envelope.body, payload))
    }

    /// Sends a message.
    pub(super) fn send(&mut self, reply: Reply, payload: &[Vec<u8>]) -> Result<(), End> {
        let envelope = Envelope {
            payload: payload.iter().map(|piece| piece.len() as u64).sum(),
            body: reply,
        };
        self.write_frame(&encode(&envelope)?)?;
        for piece in payload {
            for chunk in piece.chunks(CHUNK) {
                self.write_frame(chunk)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, most: usize) -> Result<Vec<u8>, End> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > most {
            return Err(End::Malformed(format!("a frame of {length} bytes")));
        }
        let mut frame = vec![0; length];
        self.read_exact(&mut frame)?;
        Ok(frame)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<(), End> {
        while !buffer.is_empty() {
            match self.stream.read(buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) => self.wait_out(error, PollFlags::POLLIN)?,
            }
        }
        Ok(())
    }

    fn write_frame(&mut self, frame: &[u8]) -> Result<(), End> {
        let length = u32::try_from(frame.len())
            .map_err(|_| End::Malformed("a reply of over 4 GiB".into()))?;
        self.write_all(&length.to_be_bytes())?;
        self.write_all(frame)
    }

    fn write_all(&mut self, mut buffer: &[u8]) -> Result<(), End> {
        while !buffer.is_empty() {
            match self.stream.write(buffer) {
                Ok(count) => buffer = &buffer[count..],
                Err(error) => self.wait_out(error, PollFlags::POLLOUT)?,
            }
        }
        Ok(())
    }

    /// Waits until what could not be done at once can be done; any other error is the end.
    fn wait_out(&self, error: std::io::Error, direction: PollFlags) -> Result<(), End> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock => {
                let mut descriptors = [
                    PollFd::new(self.stream.as_fd(), direction),
                    PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                ];
                wait(&mut descriptors, None)?;
                self.signals.drain()
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Err(End::Closed),
            _ => Err(End::Io(error)),
        }
    }
}

fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, End> {
    serde_json::from_slice(frame).map_err(|error| End::Malformed(error.to_string()))
}

fn encode(envelope: &impl Serialize) -> Result<Vec<u8>, End> {
    serde_json::to_vec(envelope).map_err(|error| End::Malformed(error.to_string()))
}
