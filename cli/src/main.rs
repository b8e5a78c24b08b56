//! `kubectl sop`: follows runs of Sopwith, fetches what they left, and uploads what they begin with.

mod args;
mod cluster;
mod gateway;
mod init;
mod pull;
mod push;
mod text;
mod watch;

use anyhow::Context as _;
use args::{Args, Command};
use clap::Parser as _;
use std::{fmt::Write as _, process::ExitCode};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::from(
                error
                    .downcast_ref::<cluster::Error>()
                    .map_or(args::EXIT_FAILED, cluster::Error::exit_code),
            )
        }
    }
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("TLS could not be set up: a provider is installed already"))
        .context("start")?;
    let connect = async || cluster::Cluster::connect(&args.cluster).await;
    match &args.command {
        Command::Init(init) => {
            init::run(init)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Watch(watch) => Ok(ExitCode::from(watch::run(&connect().await?, watch).await?)),
        Command::Pull(pull) => {
            pull::run(&connect().await?, pull).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Push(push) => {
            push::run(&connect().await?, push).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// An error with its causes, each once: many libraries repeat the cause in their own text.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let said = cause.to_string();
        if !text.contains(&said) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {said}");
        }
    }
    text
}
