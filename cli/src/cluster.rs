//! The connection to the cluster, and what its answers mean to a person.

use crate::args::{ClusterArgs, EXIT_FAILED, EXIT_USAGE};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use secrecy::{ExposeSecret as _, SecretString};
use sopwith_crds::AgentRun;

/// Why the cluster could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No kubeconfig, or one that cannot be read.
    #[error("no cluster: {0}; set KUBECONFIG, or name a context with --context")]
    Config(String),
    /// The API server did not answer.
    #[error("{doing}: the API server cannot be reached: {source}")]
    Unreachable {
        /// What was tried.
        doing: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server refused.
    #[error("{doing}: not allowed: {message}; {remedy}")]
    Forbidden {
        /// What was tried.
        doing: String,
        /// What the API server said.
        message: String,
        /// What to do.
        remedy: String,
    },
    /// The kind is unknown.
    #[error("the cluster does not know AgentRuns; install Sopwith's chart first")]
    NotInstalled,
    /// There is no such run.
    #[error("AgentRun \"{name}\" not found in namespace {namespace}; {others}")]
    RunNotFound {
        /// Its name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What is there instead.
        others: String,
    },
    /// The run went away while it was followed.
    #[error("AgentRun \"{0}\" was deleted")]
    Deleted(String),
}

impl Error {
    /// What the process ends with.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::NotInstalled | Self::RunNotFound { .. } | Self::Deleted(_) => {
                EXIT_USAGE
            }
            Self::Unreachable { .. } | Self::Forbidden { .. } => EXIT_FAILED,
        }
    }

    /// Sorts an answer of the API server.
    pub(crate) fn of(
        source: kube::Error,
        doing: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let doing = doing.into();
        match &source {
            kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
                Self::Forbidden {
                    doing,
                    message: status.message.clone(),
                    remedy: remedy.into(),
                }
            }
            _ => Self::Unreachable {
                doing,
                source: Box::new(source),
            },
        }
    }
}

/// The cluster, and the namespace that is meant.
pub(crate) struct Cluster {
    /// Client of the API server.
    pub(crate) client: Client,
    /// Namespace of the run.
    pub(crate) namespace: String,
    /// The kubeconfig's bearer token, where it has one.
    pub(crate) token: Option<SecretString>,
}

impl Cluster {
    /// Connects as kubectl would.
    pub(crate) async fn connect(args: &ClusterArgs) -> Result<Self, Error> {
        let config = match &args.context {
            None => Config::infer()
                .await
                .map_err(|e| Error::Config(e.to_string()))?,
            Some(context) => {
                let options = KubeConfigOptions {
                    context: Some(context.clone()),
                    ..KubeConfigOptions::default()
                };
                let file = Kubeconfig::read().map_err(|e| Error::Config(e.to_string()))?;
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|e| Error::Config(e.to_string()))?
            }
        };
        let namespace = args
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let token = bearer_token(&config).await?;
        let client = Client::try_from(config).map_err(|e| Error::Config(e.to_string()))?;
        Ok(Self {
            client,
            namespace,
            token,
        })
    }

    /// The runs of the namespace.
    pub(crate) fn runs(&self) -> Api<AgentRun> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The run, or an error that names those that are there.
    pub(crate) async fn run(&self, name: &str) -> Result<AgentRun, Error> {
        let doing = || format!("read AgentRun \"{name}\" in namespace {}", self.namespace);
        let remedy = "ask for the role \"view\" in the namespace";
        let found = self
            .runs()
            .get_opt(name)
            .await
            .map_err(|e| Error::of(e, doing(), remedy))?;
        if let Some(run) = found {
            return Ok(run);
        }
        let others = match self.runs().list(&ListParams::default().limit(20)).await {
            Ok(list) => others(
                &list
                    .items
                    .into_iter()
                    .filter_map(|r| r.metadata.name)
                    .collect::<Vec<_>>(),
            ),
            Err(kube::Error::Api(status)) if status.code == 404 => return Err(Error::NotInstalled),
            Err(_) => "see kubectl get agentruns".to_owned(),
        };
        Err(Error::RunNotFound {
            name: name.to_owned(),
            namespace: self.namespace.clone(),
            others,
        })
    }
}

/// What is there instead, and where else to look.
fn others(names: &[String]) -> String {
    if names.is_empty() {
        "there are none; name another namespace with -n".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    }
}

/// The bearer token in the kubeconfig or in the file that it names. Tokens of credential plugins stay theirs.
async fn bearer_token(config: &Config) -> Result<Option<SecretString>, Error> {
    let auth = &config.auth_info;
    if let Some(token) = &auth.token {
        return Ok(Some(token.clone()));
    }
    let Some(file) = &auth.token_file else {
        return Ok(None);
    };
    let text = tokio::fs::read_to_string(file)
        .await
        .map(SecretString::from)
        .map_err(|e| Error::Config(format!("the token file {file} cannot be read: {e}")))?;
    Ok(Some(SecretString::from(text.expose_secret().trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_missing_run_hears_what_is_there() {
        assert_eq!(others(&["a".into(), "b".into()]), "there are: a, b");
        assert!(others(&[]).contains("-n"));
    }

    #[test]
    fn a_missing_run_is_a_usage_error() {
        let error = Error::RunNotFound {
            name: "x".into(),
            namespace: "demo".into(),
            others: others(&[]),
        };
        assert_eq!(error.exit_code(), EXIT_USAGE);
        assert_eq!(
            error.to_string(),
            "AgentRun \"x\" not found in namespace demo; there are none; name another namespace with -n"
        );
    }
}
