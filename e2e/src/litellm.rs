//! `LiteLLM`'s proxy beside the tests: a server of OpenAI's and Azure's protocols that is not ours.

use crate::repository;
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The one key that it takes.
pub const KEY: &str = "sk-e2e-5c1d07ba";
/// Longest time until it answers: it imports for long.
const START: Duration = Duration::from_secs(180);

/// A proxy at work; it stops when dropped.
pub struct LiteLlm {
    /// `http://127.0.0.1:PORT`.
    pub address: String,
    _folder: TempDir,
    _process: Child,
}

impl LiteLlm {
    /// Serves the models of `e2e/fixtures/providers/litellm.yaml`.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = repository().join("e2e/fixtures/providers/litellm.yaml");
        let port = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?
            .local_addr()?
            .port();
        let path = folder.path().join("log");
        let log = fs::File::create(&path)?;
        let mut process = Command::new("litellm")
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--telemetry", "False", "--config"])
            .arg(config)
            .env("LITELLM_MASTER_KEY", KEY)
            // It would fetch a list of prices.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .current_dir(folder.path())
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context(
                "starting litellm: `make tools` installs it, e2e/cluster/env.sh puts it on PATH",
            )?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = format!("http://127.0.0.1:{port}");
        let alive = format!("{address}/health/liveliness");
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answers = async {
            while client.get(&alive).send().await.is_err() {
                if let Some(ended) = process.try_wait()? {
                    bail!(
                        "litellm ended with {ended}:\n{}",
                        fs::read_to_string(&path)?
                    );
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(START, answers).await {
            Ok(answered) => answered?,
            Err(_) => bail!(
                "litellm does not answer within {} s:\n{}",
                START.as_secs(),
                fs::read_to_string(&path)?
            ),
        }
        Ok(Self {
            address,
            _folder: folder,
            _process: process,
        })
    }
}
