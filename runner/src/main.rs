//! The Sopwith runner's binary: one static file with one subcommand per place it runs in.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use sopwith_runner::{inject, workbench};

/// Executes Sopwith run plans, and stands in for itself in the containers beside it.
#[derive(Debug, Parser)]
#[command(name = "sopwith-runner", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this binary to DIR/runner, for other containers of the pod to start.
    Inject {
        /// Directory to copy to.
        #[arg(long = "to", value_name = "DIR")]
        to: PathBuf,
    },
    /// Lay out files, run commands and hand back files for the runner that listens on a socket.
    Workbench {
        /// The unix socket on which the runner listens.
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// Directory that holds the work tree, the commands' home and their temporary files.
        #[arg(long, value_name = "DIR", default_value = workbench::DEFAULT_ROOT)]
        root: PathBuf,
        /// A further directory of the container that commands can write to (its /tmp, /dev/shm), emptied whenever a
        /// fresh tree is laid out; may be repeated.
        #[arg(long, value_name = "DIR")]
        scratch: Vec<PathBuf>,
        /// Give up when nobody listens after this many seconds; without it, try until told to end.
        #[arg(long, value_name = "SECONDS")]
        connect_seconds: Option<u64>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Inject { to } => {
            inject::inject(&to)?;
        }
        Command::Workbench {
            socket,
            root,
            scratch,
            connect_seconds,
        } => workbench::serve(&workbench::ServerOptions {
            socket,
            root,
            scratch,
            connect_within: connect_seconds.map(std::time::Duration::from_secs),
        })?,
    }
    Ok(())
}
