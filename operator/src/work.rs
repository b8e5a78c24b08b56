//! The work of the leader: watches, controllers and gateway, put together and taken down in order.

use crate::{
    admission::{self, Admission},
    caches::{self, Caches, Filled, Scope, Watch, concerning, run_of, run_of_refusal, watch},
    config::Config,
    forget::forget_always,
    gateway::{
        Authenticator, Gateway, GatewayTls, Inbox, KubeBinding, KubeReviewer, router, serve,
    },
    health::Health,
    kinds,
    leader::{Leadership, announce},
    ledger::Ledger,
    metrics::Metrics,
    operator::{StartError, ended, listen},
    policy,
    retention::sweep_always,
    run::{controller as runs, job::Site, memory::Memory},
    sop,
    store::Store,
    triggers::{changes, comings, gathered, goings, those_waiting},
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
use tokio::{
    sync::watch as signal,
    task::{JoinHandle, JoinSet},
};

/// How long everything may take to end.
const END_WITHIN: Duration = Duration::from_secs(9);
/// How many runs are reconciled at once.
const CONCURRENCY: u16 = 32;

/// Signals between the parts. Several sendings count as one for those who were not listening meanwhile.
struct Signals {
    /// A procedure or policy changed.
    definitions: signal::Sender<u64>,
    /// A run appeared, went, or changed its phase.
    phases: signal::Sender<u64>,
    /// Something was used.
    usage: signal::Sender<u64>,
    /// A run, procedure or policy may have gone.
    gone: signal::Sender<u64>,
    /// The end has come.
    end: signal::Receiver<bool>,
}

impl Signals {
    fn ended(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        ended(&self.end)
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

/// What the leader works with.
pub(crate) struct Tools {
    /// Sends nothing but questions when the lease is over.
    pub(crate) client: Client,
    /// Writes nothing when the lease is over.
    pub(crate) store: Store,
    /// Says whether the lease is over.
    pub(crate) leadership: Leadership,
    /// Told when the work goes on.
    pub(crate) health: Health,
}

/// What the parts share.
struct Shared {
    runs: Arc<runs::Context>,
    kinds: Arc<kinds::Context>,
    gateway: Gateway,
}

/// Works until `end` says true.
pub(crate) async fn work(
    config: &Config,
    tools: Tools,
    end: signal::Receiver<bool>,
) -> Result<(), StartError> {
    let signals = Signals {
        definitions: signal::Sender::new(0),
        phases: signal::Sender::new(0),
        usage: signal::Sender::new(0),
        gone: signal::Sender::new(0),
        end,
    };
    let gateway_at = listen(config.listen).await?;
    let scope = config.scope();
    let (caches, watches) = watch_all(&tools.client, &scope, config.relist());
    let shared = share(config, &tools, &caches, &signals).await?;
    let server_config = shared.runs.tls.server_config()?;
    tools.health.works(shared.kinds.clone());
    let mut tasks = JoinSet::new();
    let (gateway, ended) = (shared.gateway, signals.ended());
    tasks.spawn(async move {
        if let Err(error) = serve(gateway_at, server_config, router(gateway), ended).await {
            tracing::error!(%error, "the gateway ended");
        }
    });
    let Tools {
        client,
        store,
        leadership,
        health,
    } = tools;
    let days = config.retention_days;
    let admission = shared.runs.admission.clone().watch(
        client.clone(),
        admission::account(&client).await?,
        shared.runs.metrics.clone(),
        signals.definitions.clone(),
    );
    let tls = shared.runs.tls.clone();
    let authority = Arc::new(move || tls.ca_pem());
    let background = [
        tokio::spawn(admission),
        tokio::spawn(shared.runs.tls.clone().keep_fresh()),
        tokio::spawn(sweep_always(store, client.clone(), scope, days)),
        tokio::spawn(announce(client, leadership, config.address(), authority)),
        tokio::spawn(when_ready(caches, health.clone())),
        tokio::spawn(forget_always(
            shared.runs.clone(),
            shared.kinds.clone(),
            signals.gone.subscribe(),
        )),
    ];
    start_controllers(&mut tasks, watches, &shared.runs, &shared.kinds, &signals);
    tracing::info!(listen = %config.listen, "the operator works");
    signals.ended().await;
    health.set_ready(false);
    tracing::info!("the operator ends");
    end_all(tasks, &background).await;
    Ok(())
}

async fn end_all(mut tasks: JoinSet<()>, background: &[JoinHandle<()>]) {
    background.iter().for_each(JoinHandle::abort);
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(END_WITHIN, all).await.is_err() {
        tracing::info!(
            "not everything came to its end in time; it is taken up again at the next start"
        );
        tasks.shutdown().await;
    }
}

/// Reads what earlier leaders left, and makes what the parts share.
async fn share(
    config: &Config,
    tools: &Tools,
    caches: &Caches,
    signals: &Signals,
) -> Result<Shared, StartError> {
    let (client, store) = (&tools.client, &tools.store);
    let ledger = Ledger::open(store.clone(), Timestamp::now()).await?;
    let inbox = Inbox::new(store.clone());
    let tls = GatewayTls::open(client.clone(), &config.namespace, &config.gateway_service).await?;
    let metrics = Arc::new(Metrics::default());
    let kinds = Arc::new(kinds::Context {
        client: client.clone(),
        caches: caches.clone(),
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        written: kinds::Written::default(),
    });
    let runs = Arc::new(runs::Context {
        client: client.clone(),
        caches: caches.clone(),
        admission: Admission::new(config.insecure_admission),
        inbox: inbox.clone(),
        store: store.clone(),
        tls,
        site: Site {
            runner_image: config.runner_image.clone(),
            runner_image_pull_policy: config.runner_image_pull_policy.clone(),
            gateway_url: config.gateway_url(),
        },
        recorder: Recorder::new(
            client.clone(),
            Reporter {
                controller: crate::write::FIELD_MANAGER.to_owned(),
                instance: Some(config.pod_name.clone()),
            },
        ),
        metrics: metrics.clone(),
        memory: Memory::default(),
        listening_since: Timestamp::now(),
        changed: signals.phases.clone(),
    });
    let gateway = Gateway {
        auth: Authenticator::new(Arc::new(KubeReviewer::new(client.clone()))),
        binding: Arc::new(KubeBinding {
            client: client.clone(),
            runs: caches.runs.clone(),
            jobs: caches.jobs.clone(),
            pods: caches.pods.clone(),
            policies: caches.policies.clone(),
            admission: runs.admission.clone(),
        }),
        leadership: tools.leadership.clone(),
        store: store.clone(),
        inbox,
        ledger,
        observer: metrics,
    };
    Ok(Shared {
        runs,
        kinds,
        gateway,
    })
}

fn watch_all(client: &Client, scope: &Scope, every: Duration) -> (Caches, Watches) {
    let all = watcher::Config::default;
    let filled = Filled::default();
    let (runs, watch_runs) = watch(scope.api(client), all(), &filled, every);
    let (jobs, watch_jobs) = watch(scope.api(client), caches::of_runs(), &filled, every);
    let (pods, watch_pods) = watch(scope.api(client), caches::of_runs(), &filled, every);
    let (refusals, watch_refusals) = watch(scope.api(client), caches::refusals(), &filled, every);
    let (sops, watch_sops) = watch(scope.api(client), all(), &filled, every);
    let (policies, watch_policies) = watch(scope.api(client), all(), &filled, every);
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
    let definitions = changes(goings(watches.sops, &signals.gone), &signals.definitions);
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

    let definitions = changes(
        goings(watches.policies, &signals.gone),
        &signals.definitions,
    );
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
    let runs_changed = comings(goings(watches.runs, &signals.gone), &signals.phases);
    let runs_changed = runs_changed.touched_objects();
    let runs = Controller::for_stream(runs_changed, context.caches.runs.clone())
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY))
        .reconcile_on(pokes)
        .graceful_shutdown_on(signals.ended())
        .run(
            |run, context| async move {
                context.caches.ready().await;
                context.admission.ready().await;
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
