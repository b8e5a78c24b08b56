//! A launch in a pod: reads plan and environment, connects gateway and workbenches, flies, leaves last words.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::try_join_all;
use sopwith_crds::{
    contract::{
        Digest, VERSION,
        plan::{
            CA_KEY, GATEWAY_URL_VARIABLE, LAUNCH_VARIABLE, PLAN_DIGEST_VARIABLE, PLAN_DIR,
            PLAN_KEY, RunPlan, SOCKETS_DIR, TOKEN_FILE,
        },
        report::{LastWords, LaunchStart, Outcome, What},
    },
    plan::{decompress, digest},
    status::{Failure, FailureReason, Usage},
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    action::command::Benches,
    base,
    ending::End,
    engine::{Engine, Parts},
    gateway::{Gateway, GatewayError, HttpGateway},
    git::remote::Remote,
    llm::{
        Llm,
        transport::{Places, Transport, missing_secrets},
    },
    report::{Reporter, Stop},
    snapshot::Blobs,
    tool::Toolbox,
    workbench::{Listener, Workbench, WorkbenchError},
};

/// Where Kubernetes looks for last words.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Exit code of a launch that could not go on; another may.
pub const EXIT_INTERRUPTED: u8 = 75;

/// How long a workbench may take to connect.
const WORKBENCH: Duration = Duration::from_secs(120);
/// From one look at missing Secrets to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of last words that Kubernetes keeps.
const MAX_LAST_WORDS: usize = 4096;

/// Why a launch could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The environment is not that of a runner's pod.
    #[error("{0} is not set, or not as it should be: the runner is started by the operator's Job")]
    Environment(&'static str),
    /// The plan cannot be read.
    #[error("cannot read {}: {message}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The gateway refused the launch.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// No socket for a workbench.
    #[error(transparent)]
    Workbench(#[from] WorkbenchError),
    /// No signal handler.
    #[error("cannot listen for signals: {0}")]
    Signal(#[from] std::io::Error),
}

/// What a launch flies with.
pub struct Flight {
    /// The plan.
    pub plan: Arc<RunPlan>,
    /// The gateway.
    pub gateway: Gateway,
    /// What it begins with.
    pub start: LaunchStart,
    /// The ways to the plan's endpoints, or why there are none.
    pub transports: Result<Vec<Transport>, String>,
    /// Where Secrets are; none: they are not waited for.
    pub secrets: Option<Places>,
    /// The way to the plan's repository.
    pub remote: Option<Remote>,
}

impl Flight {
    /// The models, the reports and the work of a launch, which `benches` joins once they have connected.
    pub async fn fly(
        self,
        benches: impl Future<Output = Result<Benches, WorkbenchError>>,
        on_start: impl FnOnce(&Reporter),
    ) -> (End, LastWords) {
        let Self {
            plan,
            gateway,
            start,
            transports,
            secrets,
            remote,
        } = self;
        let (transports, fault) = transports.map_or_else(
            |why| (Vec::new(), Some(no_way(why))),
            |transports| (transports, None),
        );
        let llm = Arc::new(Llm::new(&plan, transports, start.spent.clone()));
        let books = Arc::clone(&llm);
        let reporter = Reporter::new(
            gateway.clone(),
            start.acknowledged,
            start.orders,
            Arc::new(move || books.used()),
        );
        on_start(&reporter);
        let work = async {
            let first = What::LaunchStarted {
                runner: env!("CARGO_PKG_VERSION").to_owned(),
                resumed_from: start.snapshot.clone(),
            };
            if let Some(failure) = fault {
                return ended(
                    &reporter,
                    vec![first],
                    Outcome::Failed,
                    Some(failure),
                    start.snapshot,
                )
                .await;
            }
            let benches = match benches.await {
                Ok(benches) => benches,
                Err(error) => {
                    tracing::error!(%error, "no workbench");
                    return ended(
                        &reporter,
                        vec![first],
                        Outcome::Interrupted,
                        None,
                        start.snapshot,
                    )
                    .await;
                }
            };
            let (places, way) = (secrets.as_ref(), remote.as_ref());
            let first = match wait_for_secrets(&plan, places, way, &reporter, first).await {
                Ok(first) => first,
                Err(stop) => {
                    return ended(&reporter, vec![], stop.outcome(), None, start.snapshot).await;
                }
            };
            let beginning = Box::pin(base::begin(&plan, &start, &gateway, &reporter, way));
            let beginning = match beginning.await {
                Ok(beginning) => beginning,
                Err((outcome, failure)) => {
                    return ended(&reporter, first, outcome, failure, start.snapshot).await;
                }
            };
            let parts = Parts {
                plan: Arc::clone(&plan),
                llm: Arc::clone(&llm),
                tools: Toolbox::new(&plan.tools, start.tool_calls.clone()),
                benches,
                reporter: reporter.clone(),
                blobs: Blobs::new(gateway),
                resume: start.snapshot.clone(),
                beginning,
                remote,
                decisions: start.decisions,
                first: first.clone(),
            };
            // Boxed: they are large, and so would be whatever waits for them.
            match Box::pin(Engine::new(parts)).await {
                Ok(mut engine) => Box::pin(engine.run()).await,
                Err(failure) => {
                    ended(
                        &reporter,
                        first,
                        Outcome::Failed,
                        Some(failure),
                        start.snapshot,
                    )
                    .await
                }
            }
        };
        let end = tokio::select! {
            end = work => end,
            () = reporter.clone().live() => cut_short(),
            // Whatever still waits then, the last words are more worth.
            () = too_late(&reporter) => cut_short(),
        };
        let words = last_words(&end, reporter.acknowledged(), llm.used());
        (end, words)
    }
}

/// A launch that cannot reach the plan's endpoints.
const fn no_way(why: String) -> Failure {
    Failure {
        reason: FailureReason::ProviderFailed,
        step: None,
        message: why,
    }
}

/// A moment after the last report had its time.
async fn too_late(reporter: &Reporter) {
    reporter.out_of_time().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

const fn cut_short() -> End {
    End {
        outcome: Outcome::Interrupted,
        failure: None,
        snapshot: None,
    }
}

/// Reports an end before the engine began.
async fn ended(
    reporter: &Reporter,
    mut events: Vec<What>,
    outcome: Outcome,
    failure: Option<Failure>,
    snapshot: Option<sopwith_crds::contract::Digest>,
) -> End {
    events.push(What::LaunchEnded {
        outcome,
        snapshot: snapshot.clone(),
        failure: failure.clone(),
    });
    reporter.record(events);
    if let Err(error) = reporter.deliver().await {
        tracing::error!(%error, "the end could not be reported");
    }
    End {
        outcome,
        failure,
        snapshot,
    }
}

/// Says once which Secret is missing, and waits for it; gives what has to be reported first. Without places nothing is
/// waited for.
async fn wait_for_secrets(
    plan: &RunPlan,
    places: Option<&Places>,
    remote: Option<&Remote>,
    reporter: &Reporter,
    first: What,
) -> Result<Vec<What>, Stop> {
    let Some(places) = places else {
        return Ok(vec![first]);
    };
    let mut first = Some(first);
    let mut told = Vec::new();
    loop {
        let mut missing = missing_secrets(&plan.llm, places);
        missing.extend(remote.map(Remote::missing_secrets).unwrap_or_default());
        if missing.is_empty() {
            break;
        }
        let mut events: Vec<What> = first.take().into_iter().collect();
        for reference in missing {
            if !told.contains(&reference) {
                tracing::warn!(
                    secret = reference.name,
                    key = reference.key,
                    "a Secret is missing"
                );
                events.push(What::SecretMissing {
                    secret: reference.name.clone(),
                    key: reference.key.clone(),
                });
                told.push(reference);
            }
        }
        if !events.is_empty() {
            reporter.record(events);
            // A report that does not get through now gets through later.
            let _ = reporter.deliver().await;
        }
        tokio::select! {
            stop = reporter.stopped() => return Err(stop),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    let found = (!told.is_empty()).then_some(What::SecretsFound);
    Ok(first.into_iter().chain(found).collect())
}

/// What fits into a termination message.
fn last_words(end: &End, acknowledged: u64, usage: Usage) -> LastWords {
    let mut words = LastWords {
        version: VERSION,
        outcome: end.outcome,
        snapshot: end.snapshot.clone(),
        acknowledged,
        usage,
        failure: end.failure.clone(),
    };
    let size = |words: &LastWords| serde_json::to_vec(words).map_or(0, |bytes| bytes.len());
    while size(&words) > MAX_LAST_WORDS {
        let Some(failure) = &mut words.failure else {
            break;
        };
        let keep = failure.message.chars().count() * 3 / 4;
        failure.message = failure.message.chars().take(keep).collect();
    }
    words
}

fn variable<T: std::str::FromStr>(name: &'static str) -> Result<T, RunError> {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(RunError::Environment(name))
}

/// Flies the launch that the environment describes. True: it came to its proper end.
pub async fn run() -> Result<bool, RunError> {
    let url: String = variable(GATEWAY_URL_VARIABLE)?;
    let launch: u32 = variable(LAUNCH_VARIABLE)?;
    let expected: Digest = variable(PLAN_DIGEST_VARIABLE)?;
    let folder = Path::new(PLAN_DIR);
    let read = |key: &str| {
        let path = folder.join(key);
        std::fs::read(&path).map_err(|error| RunError::Plan {
            path,
            message: error.to_string(),
        })
    };
    let plan = decompress(&read(PLAN_KEY)?).map_err(|error| RunError::Plan {
        path: folder.join(PLAN_KEY),
        message: error.to_string(),
    })?;
    let found = digest(&plan);
    if found != expected {
        return Err(RunError::Plan {
            path: folder.join(PLAN_KEY),
            message: format!("it is the plan {found}, not that of this launch, {expected}"),
        });
    }
    let plan = Arc::new(plan);
    let mut terminated = signal(SignalKind::terminate())?;
    // Workbenches try to connect from the moment they start: listen before anything that can take long.
    let listeners = listeners(&plan)?;
    let gateway = HttpGateway::new(
        &url,
        &read(CA_KEY)?,
        Path::new(TOKEN_FILE),
        &plan.run,
        launch,
    )?;
    let gateway = Gateway::Http(Arc::new(gateway));
    let start = tokio::select! {
        start = gateway.start() => start?,
        _ = terminated.recv() => return Ok(false),
    };
    let places = Places::default();
    let transports = plan
        .llm
        .iter()
        .map(|endpoint| Transport::of(endpoint, &places))
        .collect::<Result<Vec<_>, _>>();
    let repository = plan.repository.as_ref();
    let flight = Flight {
        remote: repository.map(|repository| Remote::new(repository, &places)),
        plan,
        gateway,
        start,
        transports: transports.map_err(|error| error.to_string()),
        secrets: Some(places),
    };
    let fly = flight.fly(accept(listeners), |reporter| {
        let reporter = reporter.clone();
        tokio::spawn(async move {
            terminated.recv().await;
            reporter.terminate();
        });
    });
    let (end, words) = fly.await;
    leave(&words);
    tracing::info!(outcome = ?end.outcome, failure = ?end.failure, "launch ended");
    Ok(end.outcome != Outcome::Interrupted)
}

fn listeners(plan: &RunPlan) -> Result<Vec<(String, Listener)>, WorkbenchError> {
    let bind = |bench: &sopwith_crds::contract::plan::Workbench| {
        let path = Path::new(SOCKETS_DIR).join(format!("{}.sock", bench.name));
        Ok((bench.image.clone(), Listener::bind(&path)?))
    };
    plan.workbenches.iter().map(bind).collect()
}

/// Waits for all workbenches: none can connect once a command has run.
async fn accept(listeners: Vec<(String, Listener)>) -> Result<Benches, WorkbenchError> {
    let accepts = listeners
        .into_iter()
        .map(|(image, listener)| async move { Ok((image, listener.accept(WORKBENCH).await?)) });
    let benches: Vec<(String, Workbench)> = try_join_all(accepts).await?;
    Ok(Benches::new(
        benches.into_iter().collect::<BTreeMap<_, _>>(),
    ))
}

fn leave(words: &LastWords) {
    let text = serde_json::to_string(words).unwrap_or_default();
    if let Err(error) = std::fs::write(TERMINATION_LOG, text) {
        tracing::warn!(%error, "no last words");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_fit_into_a_termination_message() {
        let failure = Failure {
            reason: FailureReason::ProviderFailed,
            step: None,
            message: "\"ü\n".repeat(4000),
        };
        let end = End {
            outcome: Outcome::Failed,
            failure: Some(failure),
            snapshot: None,
        };
        let words = last_words(&end, 7, Usage::default());
        let size = serde_json::to_vec(&words).unwrap().len();
        assert!(
            size <= MAX_LAST_WORDS && size > MAX_LAST_WORDS / 2,
            "{size}"
        );
    }
}
