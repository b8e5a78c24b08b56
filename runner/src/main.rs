//! The Sopwith runner's binary: one static file with one subcommand per place it runs in.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sopwith_crds::{contract::plan::RunPlan, tool_policy::ReplayMode};
use sopwith_runner::{
    gateway::LocalGateway,
    inject,
    llm::{replay::Replay, transport::Places},
    local, run, workbench,
};

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
        /// A further directory or file of the container that commands can write to (its /tmp, /dev/shm), emptied
        /// whenever a fresh tree is laid out; may be repeated.
        #[arg(long, value_name = "DIR")]
        scratch: Vec<PathBuf>,
        /// Most processes and threads that this user may have on this machine while a command runs.
        #[arg(long, value_name = "COUNT")]
        max_processes: Option<u64>,
        /// Most mebibytes that a command may have on disk in all those places together; beyond, it is ended.
        #[arg(long, value_name = "MIB")]
        max_disk: Option<u64>,
        /// Give up when nobody listens after this many seconds; without it, try until told to end.
        #[arg(long, value_name = "SECONDS")]
        connect_seconds: Option<u64>,
    },
    /// Fly the launch that the pod's environment describes.
    Run,
    /// Run a procedure on this machine, without a cluster.
    Local {
        #[command(flatten)]
        inputs: local::Inputs,
        /// Folder for what the run leaves: project, evidence, messages, cassette, and the state of its finished steps.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Approve in this name whatever waits for an approval; without it, the run ends there.
        #[arg(long, value_name = "NAME")]
        approve: Option<String>,
        #[command(flatten)]
        replaying: Replaying,
    },
    /// Work on cassettes.
    #[command(subcommand)]
    Cassette(CassetteCommand),
}

#[derive(Debug, Subcommand)]
enum CassetteCommand {
    /// Run the procedure on this machine and write the requests and their digests into the cassette. In the modes gatesOnly and
    /// recordFromDifference also the answers of the next endpoint.
    Fill {
        #[command(flatten)]
        inputs: local::Inputs,
        /// The completed cassette; may be the cassette itself.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        replaying: Replaying,
    },
}

#[derive(Debug, clap::Args)]
struct Replaying {
    /// What is done with a request that is not as it was recorded, in place of what the policy says: strict, gatesOnly or
    /// recordFromDifference.
    #[arg(long, value_name = "MODE", value_parser = local::mode)]
    mode: Option<ReplayMode>,
}

impl Replaying {
    fn plan(&self, inputs: &local::Inputs) -> Result<RunPlan, local::LocalError> {
        let plan = inputs.plan()?;
        Ok(match self.mode {
            Some(mode) => local::in_mode(plan, mode),
            None => plan,
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Inject { to } => {
            inject::inject(&to)?;
        }
        Command::Workbench {
            socket,
            root,
            scratch,
            max_processes,
            max_disk,
            connect_seconds,
        } => workbench::serve(&workbench::ServerOptions {
            socket,
            root,
            scratch,
            limits: workbench::Limits {
                processes: max_processes,
                disk_bytes: max_disk.map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
            },
            connect_within: connect_seconds.map(std::time::Duration::from_secs),
        })?,
        Command::Run => {
            tracing_subscriber::fmt()
                .json()
                .with_env_filter(filter())
                .with_writer(std::io::stderr)
                .init();
            return if flying(run::run())?? {
                Ok(ExitCode::SUCCESS)
            } else {
                Ok(ExitCode::from(run::EXIT_INTERRUPTED))
            };
        }
        Command::Local {
            inputs,
            out,
            approve,
            replaying,
        } => {
            tracing_subscriber::fmt()
                .with_env_filter(filter())
                .with_writer(std::io::stderr)
                .init();
            let plan = replaying.plan(&inputs)?;
            return flying(fly_locally(inputs, plan, out, approve))?;
        }
        Command::Cassette(CassetteCommand::Fill {
            inputs,
            out,
            replaying,
        }) => {
            tracing_subscriber::fmt()
                .with_env_filter(filter())
                .with_writer(std::io::stderr)
                .init();
            let plan = replaying.plan(&inputs)?;
            return flying(fill(inputs, plan, out))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn filter() -> tracing_subscriber::EnvFilter {
    tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| "warn,sopwith_runner=info".into())
}

/// Runs to completion on one thread: the runner waits, it does not compute.
fn flying<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("no TLS provider")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}

/// Flies launch after launch. What waits for an approval gets it, where a name is given in which to approve.
async fn flown(
    inputs: local::Inputs,
    plan: &RunPlan,
    replay: Arc<Replay>,
    approve: Option<&str>,
) -> anyhow::Result<local::Flown> {
    let gateway = LocalGateway::default();
    inputs.give(&gateway)?;
    let places = Places {
        secrets: inputs.secrets,
        config: inputs.config,
    };
    let program = std::env::current_exe()?;
    loop {
        let (plan, replay) = (plan.clone(), Arc::clone(&replay));
        let flown = local::fly(plan, replay, &places, &program, gateway.clone()).await;
        match approve.and_then(|by| local::approved(&flown, by)) {
            Some(next) => gateway.next_launch(next),
            None => return Ok(flown),
        }
    }
}

async fn fly_locally(
    inputs: local::Inputs,
    plan: RunPlan,
    out: PathBuf,
    approve: Option<String>,
) -> anyhow::Result<ExitCode> {
    let cassette = inputs.cassette()?;
    let replay = cassette
        .map(|file| Replay::new(file.parts()))
        .transpose()?
        .unwrap_or_default();
    let memory = inputs.memory.clone();
    let flown = flown(inputs, &plan, Arc::new(replay), approve.as_deref()).await?;
    flown.write(&out)?;
    if let Some(folder) = &memory {
        flown.remember(folder)?;
    }
    Ok(if flown.succeeded() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn fill(inputs: local::Inputs, plan: RunPlan, out: PathBuf) -> anyhow::Result<ExitCode> {
    let file = inputs.cassette()?.context("--cassette is needed")?;
    let records = plan.llm.iter().any(|endpoint| {
        let mode = endpoint.replay.as_ref().and_then(|replay| replay.mode);
        mode.is_some_and(|mode| mode != ReplayMode::Strict)
    });
    let mut replay = Replay::new(file.parts())?;
    if !records {
        replay = replay.filling();
    }
    let replay = Arc::new(replay);
    // The answers beyond a question to people are recorded as well.
    let flown = flown(inputs, &plan, Arc::clone(&replay), Some("cassette fill")).await?;
    let (text, unasked) = if records {
        file.recorded(&flown.recorded()?.concat())?
    } else {
        file.filled(&replay.filled())?
    };
    for key in &unasked {
        eprintln!("never asked for: {key}");
    }
    std::fs::write(&out, text).with_context(|| out.display().to_string())?;
    // A cassette that is not asked to its end would hold answers that nobody compared.
    Ok(if flown.succeeded() && unasked.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
