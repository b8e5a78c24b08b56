//! The Sopwith operator: controllers, gateway, ledger.

use anyhow::Context;
use clap::Parser;
use sopwith_operator::{
    config::{Config, LogFormat},
    operator,
};
use std::process::ExitCode;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let config = Config::parse();
    start_log(&config)?;
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(
        installed.is_ok(),
        "another TLS provider is installed already"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(async {
        let (end, ended) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            end.send_replace(true);
        });
        anyhow::Ok(operator::run(config, ended).await)
    })?;
    // What is still under way is of no use to anybody: a leader that lost its lease must not linger.
    runtime.shutdown_background();
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    })
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log_filter).with_context(|| {
        format!(
            "--log-filter \"{}\": expected for example info or sopwith_operator=debug,info",
            config.log_filter
        )
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(true);
    match config.log {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.init(),
    }
    Ok(())
}
