//! A real Prometheus beside the cluster, with the rules that the chart ships.

use crate::repository;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{fs, net::TcpListener, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A Prometheus at work; it stops when dropped.
pub struct Prometheus {
    address: String,
    http: reqwest::Client,
    _data: TempDir,
    _process: Child,
}

impl Prometheus {
    /// Starts one that scrapes `target` (`host:port`) every second.
    pub fn start(target: &str) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let rules = repository()
            .join("charts/sopwith/alerts/sopwith.rules.yaml")
            .canonicalize()?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n- job_name: sopwith\n  static_configs: [{{targets: [\"{target}\"]}}]\n",
            rules.display()
        );
        fs::write(data.path().join("prometheus.yaml"), config)?;
        let address = format!("127.0.0.1:{port}");
        let process = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                data.path().join("prometheus.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                data.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting prometheus: `make tools` installs it")?;
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self {
            address,
            http,
            _data: data,
            _process: process,
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let text = self
            .http
            .get(format!("http://{}{path}", self.address))
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until an alert is in a state, or no longer in it, for a namespace.
    pub async fn alert(
        &self,
        name: &str,
        namespace: &str,
        firing: bool,
        seconds: u64,
    ) -> Result<Option<Value>> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let mut last = Value::Null;
        while tokio::time::Instant::now() < deadline {
            tick.tick().await;
            // Not yet listening counts as nothing known.
            let Ok(alerts) = self.get("/api/v1/alerts").await else {
                continue;
            };
            let all = alerts
                .pointer("/data/alerts")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let found = all.into_iter().find(|alert| {
                alert["labels"]["alertname"] == name
                    && alert["labels"]["namespace"] == namespace
                    && alert["state"] == "firing"
            });
            if found.is_some() == firing {
                return Ok(found);
            }
            last = alerts;
        }
        bail!(
            "alert {name} for {namespace}: firing should become {firing} within {seconds} s; alerts: {last}"
        )
    }
}
