//! Puts the parts together: watches, controllers, gateway, health; and takes them down in order.

use crate::{
    caches::{self, Caches, Filled, Scope, Watch, concerning, run_of, run_of_refusal, watch},
    config::Config,
    gateway::{
        Authenticator, Gateway, GatewayTls, Inbox, KubeBinding, KubeReviewer, TlsError, router,
        serve,
    },
    health::{self, Health},
    kinds,
    ledger::Ledger,
    metrics::Metrics,
    policy,
    retention::sweep_always,
    run::{controller as runs, job::Site, memory::Memory},
    sop,
    store::{Store, StoreError},
    triggers::{changes, forgetting, gathered, those_waiting},
};
use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        Controller, WatchStreamExt,
        controller::Error as ControllerError,
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};
use sopwith_crds::{AgentRun, SopDefinition, ToolPolicy};
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch as signal, task::JoinSet};

/// How long everything may take to end.
const END_WITHIN: Duration = Duration::from_secs(9);
/// How many runs are reconciled at once.
const CONCURRENCY: u16 = 32;

/// The operator could not start.
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
    /// A port is taken.
    #[error("{address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: std::net::SocketAddr,
        /// Why it does not.
        source: std::io::Error,
    },
}

/// Signals between the parts. Several sendings count as one for those who were not listening meanwhile.
struct Signals {
    /// A procedure or policy changed.
    definitions: signal::Sender<u64>,
    /// A run appeared, went, or changed its phase.
    phases: signal::Sender<u64>,
    /// Something was used.
    usage: signal::Sender<u64>,
    /// The end has come.
    end: signal::Receiver<bool>,
}

impl Signals {
    fn ended(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let mut end = self.end.clone();
        async move {
            // A sender that is gone means the end, too.
            let _ = end.wait_for(|ended| *ended).await;
        }
    }
}

/// The watches that feed the caches.
struct Watches {
    runs: Watch<AgentRun>,
    jobs: Watch<k8s_openapi::api::batch::v1::Job>,
    pods: Watch<k8s_openapi::api::core::v1::Pod>,
    refusals: Watch<k8s_openapi::api::core::v1::Event>,
    sops: Watch<SopDefinition>,
    policies: Watch<ToolPolicy>,
}

/// Runs the operator until `end` says true.
pub async fn run(config: Config, end: signal::Receiver<bool>) -> Result<(), StartError> {
    let client = connect().await?;
    let store = Store::open(&config.storage_url)?;
    let ledger = Ledger::open(store.clone(), Timestamp::now()).await?;
    let inbox = Inbox::new(store.clone());
    let tls = GatewayTls::open(client.clone(), &config.namespace, &config.gateway_service).await?;
    let metrics = Arc::new(Metrics::default());
    let signals = Signals {
        definitions: signal::Sender::new(0),
        phases: signal::Sender::new(0),
        usage: signal::Sender::new(0),
        end,
    };
    let scope = config.scope();
    let (caches, watches) = watch_all(&client, &scope);
    let kinds = Arc::new(kinds::Context {
        client: client.clone(),
        caches: caches.clone(),
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        written: kinds::Written::default(),
    });
    let context = Arc::new(runs::Context {
        client: client.clone(),
        caches: caches.clone(),
        inbox: inbox.clone(),
        tls: tls.clone(),
        site: Site {
            runner_image: config.runner_image.clone(),
            runner_image_pull_policy: config.runner_image_pull_policy.clone(),
            gateway_url: config.gateway_url(),
        },
        recorder: Recorder::new(
            client.clone(),
            Reporter {
                controller: crate::write::FIELD_MANAGER.to_owned(),
                instance: config.pod_name.clone(),
            },
        ),
        metrics: metrics.clone(),
        memory: Memory::default(),
        changed: signals.phases.clone(),
    });
    let sweeping = sweep_always(store.clone(), client.clone(), scope, config.retention_days);
    let gateway = Gateway {
        auth: Authenticator::new(Arc::new(KubeReviewer::new(client.clone()))),
        binding: Arc::new(KubeBinding {
            client,
            runs: caches.runs.clone(),
            jobs: caches.jobs.clone(),
            pods: caches.pods.clone(),
        }),
        store,
        inbox,
        ledger,
        observer: metrics,
    };
    let health = Health::default();
    let (gateway_at, http_at) = (listen(config.listen).await?, listen(config.http).await?);
    let server_config = tls.server_config()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_http(
        http_at,
        health::router(health.clone(), kinds.clone()),
        signals.ended(),
    ));
    let ended = signals.ended();
    tasks.spawn(async move {
        if let Err(error) = serve(gateway_at, server_config, router(gateway), ended).await {
            tracing::error!(%error, "the gateway ended");
        }
    });
    let background = [
        tokio::spawn(tls.keep_fresh()),
        tokio::spawn(sweeping),
        tokio::spawn(when_ready(caches, health.clone())),
    ];
    start_controllers(&mut tasks, watches, &context, &kinds, &signals);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %config.listen,
        http = %config.http,
        "the operator works"
    );
    signals.ended().await;
    health.set_ready(false);
    tracing::info!("the operator ends");
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(END_WITHIN, all).await.is_err() {
        tracing::info!(
            "not everything came to its end in time; it is taken up again at the next start"
        );
    }
    background.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// A client that gives its name, for the audit log of the cluster.
async fn connect() -> Result<Client, StartError> {
    const AGENT: &str = concat!("sopwith-operator/", env!("CARGO_PKG_VERSION"));
    let mut config = kube::Config::infer().await?;
    let name = axum::http::HeaderValue::from_static(AGENT);
    config.headers.push((axum::http::header::USER_AGENT, name));
    Ok(Client::try_from(config)?)
}

fn watch_all(client: &Client, scope: &Scope) -> (Caches, Watches) {
    let all = watcher::Config::default;
    let filled = Filled::default();
    let (runs, watch_runs) = watch(scope.api(client), all(), &filled);
    let (jobs, watch_jobs) = watch(scope.api(client), caches::of_runs(), &filled);
    let (pods, watch_pods) = watch(scope.api(client), caches::of_runs(), &filled);
    let (refusals, watch_refusals) = watch(scope.api(client), caches::refusals(), &filled);
    let (sops, watch_sops) = watch(scope.api(client), all(), &filled);
    let (policies, watch_policies) = watch(scope.api(client), all(), &filled);
    let caches = Caches {
        runs,
        jobs,
        pods,
        refusals,
        sops,
        policies,
        filled,
    };
    let watches = Watches {
        runs: watch_runs,
        jobs: watch_jobs,
        pods: watch_pods,
        refusals: watch_refusals,
        sops: watch_sops,
        policies: watch_policies,
    };
    (caches, watches)
}

fn start_controllers(
    tasks: &mut JoinSet<()>,
    watches: Watches,
    context: &Arc<runs::Context>,
    kinds: &Arc<kinds::Context>,
    signals: &Signals,
) {
    let definitions = changes(watches.sops, &signals.definitions);
    let sops = Controller::for_stream(definitions.touched_objects(), kinds.caches.sops.clone())
        .reconcile_all_on(gathered(signals.phases.subscribe()))
        .graceful_shutdown_on(signals.ended())
        .run(
            |sop, context| async move {
                context.caches.ready().await;
                sop::reconcile(sop, context).await
            },
            |sop, error, context| {
                kinds::on_error("SopDefinition", &sop.name_any(), error, &context.metrics)
            },
            kinds.clone(),
        );
    tasks.spawn(drive(sops));

    let definitions = changes(watches.policies, &signals.definitions);
    let policies =
        Controller::for_stream(definitions.touched_objects(), kinds.caches.policies.clone())
            .reconcile_all_on(gathered(signals.phases.subscribe()))
            .reconcile_all_on(gathered(signals.usage.subscribe()))
            .graceful_shutdown_on(signals.ended())
            .run(
                |policy, context| async move {
                    context.caches.ready().await;
                    policy::reconcile(policy, context).await
                },
                |policy, error, context| {
                    kinds::on_error("ToolPolicy", &policy.name_any(), error, &context.metrics)
                },
                kinds.clone(),
            );
    tasks.spawn(drive(policies));

    let (usage, inbox) = (signals.usage.clone(), context.inbox.clone());
    let reported = inbox.subscribe().map(move |run| {
        usage.send_modify(|count| *count = count.wrapping_add(1));
        ObjectRef::new(&run.name).within(&run.namespace)
    });
    let pokes = stream::select_all([
        concerning(watches.jobs, "Job", run_of).boxed(),
        concerning(watches.pods, "Pod", run_of).boxed(),
        concerning(watches.refusals, "Event", run_of_refusal).boxed(),
        reported.boxed(),
        those_waiting(signals.definitions.subscribe(), context.caches.clone()).boxed(),
    ]);
    let runs_changed = forgetting(watches.runs, context.clone()).touched_objects();
    let runs = Controller::for_stream(runs_changed, context.caches.runs.clone())
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(pokes)
        .graceful_shutdown_on(signals.ended())
        .run(
            |run, context| async move {
                context.caches.ready().await;
                runs::reconcile(run, context).await
            },
            |run, error, context| runs::on_error(&run, error, &context),
            context.clone(),
        );
    tasks.spawn(drive(runs));
}

/// Polls a controller to its end. Failed reconciliations were told by their error policy already.
async fn drive<K, E>(
    controller: impl Stream<
        Item = Result<
            (ObjectRef<K>, kube::runtime::controller::Action),
            ControllerError<E, watcher::Error>,
        >,
    >,
) where
    K: Resource,
    K::DynamicType: Debug,
    E: std::error::Error + 'static,
{
    controller
        .for_each(|result| {
            if let Err(ControllerError::QueueError(error)) = result {
                tracing::info!(%error, "a watch was interrupted and is begun again");
            }
            future::ready(())
        })
        .await;
}

async fn when_ready(caches: Caches, health: Health) {
    caches.ready().await;
    health.set_ready(true);
    tracing::info!("the caches are filled");
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, StartError> {
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
