//! A gateway behind a real TLS listener, with a fixed answer to who calls and which pod belongs where.

use crate::{
    gateway::{
        Authenticator, BatchContext, Binding, Gateway, Identity, Inbox, LaunchBinding, Observer,
        PodIdentity, Refusal, ReviewError, Reviewer, Right, RunFacts, RunRef,
        certificate::{Bundle, Need, make},
        router, serve,
        tls::{certified_key, server_config},
    },
    leader::Leadership,
    ledger::Ledger,
    run::progress::Waiting,
    store::{S3Options, Store},
};
use futures::future::BoxFuture;
use k8s_openapi::jiff::Timestamp;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sopwith_crds::{agent_run::Decision, contract::report::ReportBatch};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub(super) const NAME: &str = "sopwith-gateway.sopwith.svc";

/// Tokens are `pod:<uid>` for pods of the gateway's audience and `user:<name>` for people.
struct Tokens;

impl Reviewer for Tokens {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, ReviewError>> {
        let answer = match token.split_once(':') {
            Some(("pod", uid)) => Ok(Identity {
                user: "system:serviceaccount:demo:default".into(),
                pod: Some(PodIdentity {
                    namespace: "demo".into(),
                    name: format!("name-of-{uid}"),
                    uid: uid.into(),
                }),
                ..Identity::default()
            }),
            Some(("user", name)) => Ok(Identity {
                user: name.into(),
                ..Identity::default()
            }),
            _ => Err(ReviewError::Rejected),
        };
        Box::pin(std::future::ready(answer))
    }

    fn may<'a>(
        &'a self,
        who: &'a Identity,
        right: Right<'a>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        let allowed = match right {
            Right::Read { .. } => who.user == "ada",
            Right::Upload { namespace } => who.user == "ada" && namespace == "demo",
        };
        Box::pin(std::future::ready(Ok(allowed)))
    }
}

/// Pods `1` and `2` belong to the launches 1 and 2 of demo/blackjack.
#[derive(Default)]
pub(super) struct Launches {
    pub(super) newest: Mutex<u32>,
    pub(super) upload: Mutex<Option<String>>,
    pub(super) earlier: Mutex<Option<String>>,
}

impl Binding for Launches {
    fn launch_of<'a>(
        &'a self,
        _: &'a str,
        run: &'a str,
        pod_name: &'a str,
        pod_uid: &'a str,
    ) -> BoxFuture<'a, Result<LaunchBinding, Refusal>> {
        let newest = *self.newest.lock().unwrap();
        let answer = match pod_uid.parse::<u32>() {
            Ok(launch) if run == "blackjack" => Ok(LaunchBinding {
                run_uid: "run-1".into(),
                launch,
                current: launch >= newest,
                policy: "default".into(),
                sop: "software-company".into(),
                upload: self.upload.lock().unwrap().clone(),
                earlier: self.earlier.lock().unwrap().clone(),
                ..LaunchBinding::default()
            }),
            _ => Err(Refusal::NotOfRun {
                pod: pod_name.into(),
                run: run.into(),
            }),
        };
        Box::pin(std::future::ready(answer))
    }

    fn decided<'a>(
        &'a self,
        _: &'a RunRef,
        _: &'a str,
        _: &'a Waiting,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Decision>, Refusal>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn run<'a>(
        &'a self,
        namespace: &'a str,
        run: &'a str,
    ) -> BoxFuture<'a, Result<RunFacts, Refusal>> {
        let answer = if run == "blackjack" {
            Ok(RunFacts {
                uid: "run-1".into(),
                snapshot: None,
            })
        } else {
            Err(Refusal::RunNotFound {
                namespace: namespace.into(),
                name: run.into(),
            })
        };
        Box::pin(std::future::ready(answer))
    }
}

/// Remembers what it saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) batches: Mutex<Vec<(u64, BatchContext)>>,
    pub(super) statuses: Mutex<Vec<u16>>,
}

impl Observer for Seen {
    fn on_batch(&self, context: &BatchContext, batch: &ReportBatch) {
        let mut batches = self.batches.lock().unwrap();
        batches.push((batch.sequence, context.clone()));
    }

    fn on_request(&self, status: u16) {
        self.statuses.lock().unwrap().push(status);
    }
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A gateway at work; dropped, it is killed, and its folder stays with whoever holds it.
pub(super) struct Running {
    pub(super) client: reqwest::Client,
    pub(super) leadership: Leadership,
    pub(super) store: Store,
    pub(super) inbox: Inbox,
    pub(super) ledger: Ledger,
    pub(super) seen: Arc<Seen>,
    pub(super) launches: Arc<Launches>,
    pub(super) address: SocketAddr,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) served: JoinHandle<std::io::Result<()>>,
}

impl Running {
    pub(super) async fn start(folder: &TempDir) -> Self {
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let leadership = Leadership::always();
        let store = Store::open(url.as_str(), &S3Options::default()).unwrap();
        let store = store.fenced(leadership.clone());
        let inbox = Inbox::new(store.clone());
        let ledger = Ledger::open(store.clone(), Timestamp::now()).await.unwrap();
        let seen = Arc::new(Seen::default());
        let launches = Arc::new(Launches {
            newest: Mutex::new(1),
            ..Launches::default()
        });
        let gateway = Gateway {
            auth: Authenticator::new(Arc::new(Tokens)),
            binding: launches.clone(),
            leadership: leadership.clone(),
            store: store.clone(),
            inbox: inbox.clone(),
            ledger: ledger.clone(),
            observer: seen.clone(),
        };
        let names = [NAME.to_owned()];
        let bundle = make(&Bundle::default(), Need::Both, &names, Timestamp::now()).unwrap();
        let key = Arc::new(certified_key(&bundle).unwrap());
        let tls = server_config(Arc::new(Fixed(key))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(serve(listener, tls, router(gateway), async {
            let _ = stopped.await;
        }));
        Self {
            client: client(&bundle, address),
            leadership,
            store,
            inbox,
            ledger,
            seen,
            launches,
            address,
            stop: Some(stop),
            served,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        self.url_of("runs/demo/blackjack", path)
    }

    /// The URL of what belongs to another run, or to a namespace.
    pub(super) fn url_of(&self, whose: &str, path: &str) -> String {
        let port = self.address.port();
        format!("https://{NAME}:{port}/v1/{whose}/{path}")
    }
}

fn client(bundle: &Bundle, address: SocketAddr) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(bundle.ca_cert.as_bytes()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([ca])
        .resolve(NAME, address)
        .build()
        .unwrap()
}
