//! The workbench: the only place where model-written code, tests and linters execute.
//!
//! A server (`workbench --socket …`, PID 1 of the toolchain's container) connects to the runner, which accepts exactly
//! one connection per workbench before any command has run and then unlinks the socket. Over that connection the runner
//! lays out files, runs commands and fetches files; nothing else is shared.
//!
//! # What is held back from a command, and what is not
//!
//! Held back by the filter of [`confine`]: every socket but `AF_UNIX`, `io_uring`, `ptrace`, reading another process's
//! memory, pidfds, mounts, namespaces, BPF, keyrings, and every call that names the server's pid (signals, limits,
//! scheduling). A command may signal itself and what it started. Held back by the server: descriptors other than the
//! three standard streams, its environment, and life after the end of the command: when a command ends, everything in
//! the container but the server is killed.
//!
//! Bounded by [`limits`]: processes, the size of a file, and what a command holds on disk. Where memory is used up, the
//! kernel ends what the command started before the server.
//!
//! Not held back: CPU up to the container's limit; memory where the kernel ends the whole container (a typed loss of the
//! connection); `AF_UNIX` sockets that other containers of the pod offer, by path in a shared volume or in the abstract
//! namespace (the runner offers none once commands run); what a command leaves in writable places that were not named
//! with `--scratch`; timing. Where the server is not PID 1 (a workbench started on a developer's machine) a command can
//! also signal, and read the files of, whatever the developer can: there is no container around it.
//!
//! `docs/walls.md` lists every attempt with its test.

mod client;
mod command;
pub mod confine;
mod connection;
mod kernel;
mod limits;
mod output;
mod path;
mod process;
mod protocol;
mod server;
mod tree;
mod wire;

pub use client::{Listener, Workbench, WorkbenchError};
pub use limits::Limits;
pub use output::Captured;
pub use path::{PathFault, check_path};
pub use protocol::{
    CommandRequest, CommandResult, Exit, FetchRequest, Fetched, LeftOut, LeftOutReason, Mode,
    Usage, WorkFile,
};
pub use server::{ServerError, ServerOptions, serve};

/// Where the server keeps the work tree unless told otherwise.
pub const DEFAULT_ROOT: &str = "/workspace";
