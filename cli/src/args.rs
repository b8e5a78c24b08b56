//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use std::{path::PathBuf, time::Duration};

/// The run succeeded.
pub(crate) const EXIT_SUCCEEDED: u8 = 0;
/// The run failed or was cancelled, or the command could not do its work.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command line is wrong, or there is no such run.
pub(crate) const EXIT_USAGE: u8 = 2;
/// The run had not ended in time.
pub(crate) const EXIT_TIMEOUT: u8 = 3;

/// Follow runs of Sopwith, fetch what they left, and upload what they begin with.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-sop",
    bin_name = "kubectl sop",
    version,
    propagate_version = true
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster and namespace.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ClusterArgs {
    /// Namespace of the run; the kubeconfig's where it is not given
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig; the current one where it is not given
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Follow a run to its end
    ///
    /// On a terminal a table is kept up to date; elsewhere each change is a line with its time.
    /// Exit code: 0 the run succeeded; 1 it failed or was cancelled; 2 wrong usage or no such run; 3 timeout.
    Watch(WatchArgs),
    /// Fetch what a run has left: the project, its messages and the evidence of its gates
    ///
    /// The newest snapshot is fetched from the gateway through a port-forward; every file is checked against
    /// its digest. A run that is still at work can be pulled, too.
    Pull(PullArgs),
    /// Upload a folder as the project that a run begins with
    ///
    /// Regular files that git would not ignore go into the run's namespace; the digest that is printed belongs into
    /// spec.project.source.upload of an `AgentRun` there. The same files have the same digest. An upload is kept for 7 days.
    Push(PushArgs),
    /// Write a template of a run, with the policy and the Secret it needs
    ///
    /// Every option stands in it, most of them in a comment with its default. Fill it in and apply it. Needs no cluster.
    Init(InitArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InitArgs {
    /// Name of the `AgentRun`
    #[arg(default_value = "my-run", value_parser = object_name)]
    pub(crate) name: String,
    /// What is to be done, in a line or a few
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "Write a command-line blackjack game"
    )]
    pub(crate) idea: String,
    /// Name of the `SopDefinition`
    #[arg(long, value_name = "NAME", default_value = "software-company", value_parser = object_name)]
    pub(crate) sop: String,
    /// Provider of the models
    #[arg(long, value_enum, default_value = "openai")]
    pub(crate) provider: ProviderArg,
    /// File to write; - for standard output
    #[arg(long, value_name = "FILE", default_value = "sopwith.yaml")]
    pub(crate) out: PathBuf,
    /// Replace the file where it exists
    #[arg(long)]
    pub(crate) force: bool,
}

/// Providers of which there are templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProviderArg {
    /// `OpenAI`, or a server that speaks its protocol
    Openai,
    /// Azure `OpenAI`
    Azure,
    /// A server of Ollama
    Ollama,
    /// Groq
    Groq,
}

/// A name as Kubernetes takes it, short enough for a run.
fn object_name(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = !text.is_empty()
        && text.len() <= 50
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    good.then(|| text.to_owned()).ok_or_else(|| {
        "write at most 50 lower-case letters, digits and dashes, a letter or digit first and last".to_owned()
    })
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WatchArgs {
    /// Name of the `AgentRun`
    pub(crate) name: String,
    /// Give up after this time, as 90s, 10m or 1h30m; without it, follow to the end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print lines, not a table, on a terminal too
    #[arg(long)]
    pub(crate) plain: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PullArgs {
    /// Name of the `AgentRun`
    pub(crate) name: String,
    /// Folder to write to: PROJECT/, evidence/, messages.jsonl and cassette.yaml. Must be new or empty
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Write into a folder that is not empty; files of the same name are replaced, others stay
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
    /// ServiceAccount in the operator's namespace that reads, where the kubeconfig has no bearer token
    #[arg(long, value_name = "NAME", default_value = "sopwith-reader")]
    pub(crate) reader: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PushArgs {
    /// Folder to upload
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) gateway: GatewayArgs,
    /// ServiceAccount in the operator's namespace that uploads, where the kubeconfig has no bearer token
    #[arg(long, value_name = "NAME", default_value = "sopwith-uploader")]
    pub(crate) uploader: String,
}

/// Where the gateway is.
#[derive(Debug, ClapArgs)]
pub(crate) struct GatewayArgs {
    /// Namespace of the operator
    #[arg(long, value_name = "NAMESPACE", default_value = "sopwith-system")]
    pub(crate) operator_namespace: String,
    /// Service of the gateway in the operator's namespace
    #[arg(long, value_name = "SERVICE", default_value = "sopwith-gateway")]
    pub(crate) gateway_service: String,
}

/// Reads `10m`, `90s`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|d| Duration::try_from(d).ok())
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "write a time above zero with its unit, as 90s, 10m or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use rstest::rstest;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[rstest]
    #[case("90s", Some(90))]
    #[case("10m", Some(600))]
    #[case("1h30m", Some(5400))]
    #[case("0s", None)]
    #[case("-5m", None)]
    #[case("10", None)]
    #[case("soon", None)]
    fn a_timeout_needs_its_unit(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs));
    }

    #[test]
    fn the_namespace_may_stand_behind_the_command() {
        let args = Args::parse_from(["kubectl-sop", "watch", "blackjack", "-n", "demo"]);
        assert_eq!(args.cluster.namespace.as_deref(), Some("demo"));
    }
}
