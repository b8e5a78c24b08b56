//! What the operator is told at its start.

use crate::{caches::Scope, leader, store::S3Options};
use clap::Parser;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Runs SOPs on Kubernetes: controllers for `SopDefinition`, `ToolPolicy` and `AgentRun`, and the gateway of the runners.
#[derive(Clone, Debug, Parser)]
#[command(name = "sopwith-operator", version)]
pub struct Config {
    /// Namespace the operator itself lives in; its certificate, its lease and the gateway's Service are there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sopwith-system")]
    pub namespace: String,
    /// Name of the operator's own pod: who reports Events and holds the lease. No two processes at a time may share it.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,
    /// Address at which others reach this process.
    #[arg(long, env = "POD_IP")]
    pub advertise_address: IpAddr,
    /// Seconds for which another replica leaves the lease of a silent leader alone.
    #[arg(
        long,
        env = "SOPWITH_LEASE_SECONDS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u32).range(5..=300)
    )]
    pub lease_seconds: u32,
    /// The one namespace whose runs, procedures and policies are served; all, if unset.
    #[arg(
        long,
        env = "SOPWITH_WATCH_NAMESPACE",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub watch_namespace: Option<String>,
    /// Where reports and artifacts are kept: `file:///<folder>`, or `s3://<bucket>/<prefix>`.
    #[arg(
        long,
        env = "SOPWITH_STORAGE_URL",
        default_value = "file:///var/lib/sopwith"
    )]
    pub storage_url: String,
    /// How a bucket is reached.
    #[command(flatten)]
    pub s3: S3Options,
    /// Days for which what a run left is kept after the run is deleted.
    #[arg(
        long,
        env = "SOPWITH_RETENTION_DAYS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=36500)
    )]
    pub retention_days: u32,
    /// Seconds after which everything that is watched is listed anew: the longest that an event is missed which a watch lost.
    #[arg(
        long,
        env = "SOPWITH_RELIST_SECONDS",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(1..=86400)
    )]
    pub relist_seconds: u32,
    /// Image of the runner, started in every run's pod.
    #[arg(long, env = "SOPWITH_RUNNER_IMAGE")]
    pub runner_image: String,
    /// How the runner's image is pulled: Always, `IfNotPresent` or Never.
    #[arg(
        long,
        env = "SOPWITH_RUNNER_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent"
    )]
    pub runner_image_pull_policy: String,
    /// Name of the Service, in the operator's namespace, through which runners reach the gateway.
    #[arg(
        long,
        env = "SOPWITH_GATEWAY_SERVICE",
        default_value = "sopwith-gateway"
    )]
    pub gateway_service: String,
    /// Port of that Service.
    #[arg(long, env = "SOPWITH_GATEWAY_PORT", default_value_t = 8443)]
    pub gateway_port: u16,
    /// Where the gateway listens, with TLS.
    #[arg(long, env = "SOPWITH_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where health and metrics are served, without TLS.
    #[arg(long, env = "SOPWITH_HTTP", default_value = "0.0.0.0:8080")]
    pub http: SocketAddr,
    /// Begins runs and counts decisions although the admission policies are not in force: the names in them may be false.
    #[arg(long, env = "SOPWITH_INSECURE_ADMISSION")]
    pub insecure_admission: bool,
    /// How the log is written.
    #[arg(long, env = "SOPWITH_LOG", value_enum, default_value_t = LogFormat::Json)]
    pub log: LogFormat,
    /// What is logged, as `info` or `sopwith_operator=debug,info`.
    #[arg(long, env = "SOPWITH_LOG_FILTER", default_value = "info")]
    pub log_filter: String,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Config {
    /// Where the operator looks for runs.
    pub fn scope(&self) -> Scope {
        self.watch_namespace
            .clone()
            .map_or(Scope::Cluster, Scope::Namespace)
    }

    /// How long another replica leaves the lease of a silent leader alone.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }

    /// After how long everything that is watched is listed anew.
    pub fn relist(&self) -> Duration {
        Duration::from_secs(self.relist_seconds.into())
    }

    /// Where this process' gateway is.
    pub fn address(&self) -> leader::Address {
        leader::Address {
            namespace: self.namespace.clone(),
            service: self.gateway_service.clone(),
            pod: self.pod_name.clone(),
            ip: self.advertise_address,
            port: self.listen.port(),
        }
    }

    /// The gateway's address as runners see it.
    pub fn gateway_url(&self) -> String {
        format!(
            "https://{}.{}.svc:{}",
            self.gateway_service, self.namespace, self.gateway_port
        )
    }
}
