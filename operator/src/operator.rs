//! The operator as a process: looks after its store and its lease, and works while it is the leader.

use crate::{
    config::Config,
    gateway::TlsError,
    health::{self, Health},
    leader::{Election, Lost, fenced},
    store::{Store, StoreError},
    work::{Tools, work},
};
use kube::Client;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, sync::watch as signal};

/// How soon a store that does not answer is asked again, and how late at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// The operator could not start, or must not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing says where the cluster is.
    #[error("no Kubernetes API server is configured: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// No cluster.
    #[error("no Kubernetes API server to speak to: {0}")]
    Kube(#[from] kube::Error),
    /// No storage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another replica is the leader now.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A port is taken.
    #[error("{address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why it does not.
        source: std::io::Error,
    },
}

/// Runs the operator until `end` says true, or until another replica has taken the lease.
pub async fn run(config: Config, end: signal::Receiver<bool>) -> Result<(), StartError> {
    let client = connect().await?;
    let store = Store::open(&config.storage_url, &config.s3)?;
    let health = Health::default();
    let http = listen(config.http).await?;
    tokio::spawn(serve_http(
        http,
        health::router(health.clone()),
        ended(&end),
    ));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = config.pod_name,
        http = %config.http,
        %store,
        "the operator starts"
    );
    let election = Election::new(
        client.clone(),
        &config.namespace,
        config.pod_name.clone(),
        config.lease(),
    );
    let winning = async {
        until_it_answers(&store).await;
        health.set_ready(true);
        election.win().await
    };
    let mut leader = tokio::select! {
        () = ended(&end) => return Ok(()),
        leader = winning => leader,
    };
    health.set_ready(false);
    let leadership = leader.leadership();
    let tools = Tools {
        client: fenced(client, leadership.clone()),
        store: store.fenced(leadership.clone()),
        leadership,
        health,
    };
    let worked = tokio::select! {
        worked = work(&config, tools, end) => worked,
        lost = leader.keep() => return Err(lost.into()),
    };
    leader.release().await;
    worked
}

/// Resolves when `end` says true.
pub(crate) fn ended(
    end: &signal::Receiver<bool>,
) -> impl Future<Output = ()> + Send + Sync + 'static {
    let mut end = end.clone();
    async move {
        // A sender that is gone means the end, too.
        let _ = end.wait_for(|ended| *ended).await;
    }
}

/// Waits for the store: a replica that cannot reach it must not become the leader. It is not ready meanwhile, which says
/// more than a crash.
async fn until_it_answers(store: &Store) {
    let mut wait = ASK_AGAIN.0;
    while let Err(error) = store.ask().await {
        tracing::warn!(%store, %error, "the artifact store does not answer; it is asked again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(ASK_AGAIN.1);
    }
}

/// A client that gives its name, for the audit log of the cluster.
async fn connect() -> Result<Client, StartError> {
    const AGENT: &str = concat!("sopwith-operator/", env!("CARGO_PKG_VERSION"));
    let mut config = kube::Config::infer().await?;
    let name = axum::http::HeaderValue::from_static(AGENT);
    config.headers.push((axum::http::header::USER_AGENT, name));
    // Tries again above the fence only, so that each try is checked.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Listen { address, source })
}

async fn serve_http(
    listener: TcpListener,
    router: axum::Router,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(ended)
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "health and metrics ended");
    }
}
