//! Runners that are killed: the next launch goes on after the last finished step, no finished call is made again, and a late
//! report changes nothing but the books.

use crate::{
    SHARED,
    line::{begin, booked_once, pod, prepare, question, tokens, uid},
};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Service},
};
use kube::{
    Api, ResourceExt as _,
    api::{EvictParams, ListParams},
};
use reqwest::{Certificate, StatusCode};
use sopwith_crds::{
    AgentRun, RUN_LABEL,
    contract::{
        VERSION,
        plan::{CA_KEY, TOKEN_FILE},
        report::{Event, Outcome, Problem, ReportBatch, What},
    },
    status::{Failure, Phase, Usage},
};
use sopwith_e2e::{
    OPERATOR_NAMESPACE, host,
    llm_server::{ANSWER_TOKENS, LlmServer},
    namespace::{Namespace, in_namespace},
    sample,
};
use std::{fs, net::SocketAddr, path::PathBuf};

/// Seconds that the second step works: long enough to be found at it, and to be told to end.
const WORK: u32 = 4;
const WORK_OF_EVICTED: u32 = 15;
/// What a late report claims.
const LATE_TOKENS: u64 = 1000;
/// Most that is reserved for one call: the longest answer, and the question in bytes.
const RESERVED: u64 = 1000 + 1000;
/// Tokens of one call.
const CALL: u64 = ANSWER_TOKENS.0 + ANSWER_TOKENS.1;

/// What is done to a run, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Nothing.
    None,
    /// The runner is killed before it has said a word.
    KilledBefore,
    /// The runner is killed while the model thinks.
    KilledAsking,
    /// The runner is killed while the second step's command runs.
    KilledWorking,
    /// The same in two launches.
    KilledTwice,
    /// The same, and then the lost launch reports.
    LateReport,
    /// The kernel ends the runner because it needs too much memory.
    OutOfMemory,
    /// The workbench is killed while its command runs.
    WorkbenchKilled,
    /// Its pod is evicted while its command runs.
    Evicted,
    /// Its pod is evicted while the model thinks.
    EvictedAsking,
}

const ALL: [Harm; 10] = [
    Harm::None,
    Harm::KilledBefore,
    Harm::KilledAsking,
    Harm::KilledWorking,
    Harm::KilledTwice,
    Harm::LateReport,
    Harm::OutOfMemory,
    Harm::WorkbenchKilled,
    Harm::Evicted,
    Harm::EvictedAsking,
];

impl Harm {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    const fn waits_at_the_model(self) -> bool {
        matches!(
            self,
            Self::KilledAsking | Self::OutOfMemory | Self::EvictedAsking
        )
    }

    const fn launches(self) -> u32 {
        match self {
            Self::None => 1,
            Self::KilledTwice => 3,
            _ => 2,
        }
    }
}

#[tokio::test]
async fn a_run_whose_runner_is_killed_goes_on_after_its_last_finished_step() -> Result<()> {
    if !host::is_node() {
        eprintln!("not the local cluster: its runners' processes cannot be reached");
        return Ok(());
    }
    let _unharmed = SHARED.read().await;
    in_namespace("runners", async |namespace| {
        let names: Vec<String> = ALL.iter().map(|harm| harm.name()).collect();
        let held = ALL.iter().zip(&names);
        let held: Vec<&str> = held
            .filter(|(harm, _)| harm.waits_at_the_model())
            .map(|(_, name)| name.as_str())
            .collect();
        let server = prepare(&namespace, held.iter().map(|run| question(run))).await?;
        // Boxed: together they are more than a test's stack holds.
        let ends = ALL.map(|harm| Box::pin(one(&namespace, &server, harm)));
        let ends = try_join_all(ends).await?;
        let (_, unbroken) = ends.first().context("no run")?;
        let expected = sample::results(unbroken)?["steps"].clone();
        for (harm, run) in &ends {
            let steps = sample::results(run)?["steps"].clone();
            ensure!(steps == expected, "{harm:?}: {steps}\nunbroken: {expected}");
            let times = server.times(&question(&harm.name()));
            eprintln!("{harm:?}: asked {times} times, {} tokens", tokens(run));
        }
        let used = booked_once(&namespace).await?;
        eprintln!("{} runs, {used} tokens booked once", ends.len());
        Ok(())
    })
    .await
}

async fn one(namespace: &Namespace, server: &LlmServer, harm: Harm) -> Result<(Harm, AgentRun)> {
    let name = harm.name();
    let done = async {
        let seconds = if harm == Harm::Evicted {
            WORK_OF_EVICTED
        } else {
            WORK
        };
        begin(namespace, &name, seconds, |_| {}).await?;
        hurt(namespace, server, harm).await?;
        let run = namespace.ended_as(&name, Phase::Succeeded, 150).await?;
        came_through(namespace, server, harm, &run).await?;
        anyhow::Ok(run)
    };
    let run = done.await.with_context(|| name.clone())?;
    Ok((harm, run))
}

async fn hurt(namespace: &Namespace, server: &LlmServer, harm: Harm) -> Result<()> {
    let name = harm.name();
    if harm == Harm::None {
        return Ok(());
    }
    let first = pod(namespace, &name, 1).await?;
    let at_work = async |pod: &Pod| host::process_of(&uid(pod), &["time.sleep"], 90).await;
    let runner = async |pod: &Pod| host::process_of(&uid(pod), &["/sopwith-runner run"], 90).await;
    if harm.waits_at_the_model() {
        server.asked(&question(&name), 90).await?;
    }
    match harm {
        Harm::None => {}
        Harm::KilledBefore | Harm::KilledAsking => host::signal(runner(&first).await?, "KILL")?,
        Harm::KilledWorking => {
            at_work(&first).await?;
            host::signal(runner(&first).await?, "KILL")?;
        }
        Harm::KilledTwice => {
            for launch in [1, 2] {
                let pod = pod(namespace, &name, launch).await?;
                at_work(&pod).await?;
                host::signal(runner(&pod).await?, "KILL")?;
            }
        }
        Harm::LateReport => {
            at_work(&first).await?;
            let runner = runner(&first).await?;
            let token = token_of(runner)?;
            host::signal(runner, "KILL")?;
            let second = pod(namespace, &name, 2).await?;
            at_work(&second).await?;
            report_late(namespace, &name, &token).await?;
        }
        Harm::OutOfMemory => leave_no_memory(runner(&first).await?)?,
        Harm::WorkbenchKilled => {
            at_work(&first).await?;
            let words = ["runner", "workbench", "--socket"];
            host::signal(host::process_of(&uid(&first), &words, 10).await?, "KILL")?;
        }
        Harm::Evicted | Harm::EvictedAsking => {
            if harm == Harm::Evicted {
                at_work(&first).await?;
            }
            let pods = namespace.api::<Pod>();
            pods.evict(&first.name_any(), &EvictParams::default())
                .await?;
            // The answer must not come before its end.
            pod(namespace, &name, 2).await?;
        }
    }
    server.release(&question(&name));
    Ok(())
}

/// Shrinks what the runner's container may have to what it has: the next page is one too many.
fn leave_no_memory(runner: u32) -> Result<()> {
    let cgroups = fs::read_to_string(format!("/proc/{runner}/cgroup"))?;
    let of = |wanted: &str| {
        let mut lines = cgroups.lines().map(|line| line.splitn(3, ':'));
        lines.find_map(|mut parts| {
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            (controllers == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let (limit, usage) = if let Some(path) = of("memory") {
        let folder = PathBuf::from("/sys/fs/cgroup/memory").join(path);
        (
            folder.join("memory.limit_in_bytes"),
            folder.join("memory.usage_in_bytes"),
        )
    } else {
        let folder = PathBuf::from("/sys/fs/cgroup").join(of("").context("no cgroup")?);
        (folder.join("memory.max"), folder.join("memory.current"))
    };
    let mut least: u64 = fs::read_to_string(&usage)?.trim().parse()?;
    // The kernel refuses what it cannot take back (v1), or ends the process (v2).
    while least > 65536 && fs::write(&limit, least.to_string()).is_ok() {
        least -= 65536;
        if !usage.exists() {
            break;
        }
    }
    Ok(())
}

async fn came_through(
    namespace: &Namespace,
    server: &LlmServer,
    harm: Harm,
    run: &AgentRun,
) -> Result<()> {
    let name = harm.name();
    let launch = run.status.as_ref().and_then(|status| status.launch);
    ensure!(
        launch == Some(harm.launches()),
        "{harm:?}: {launch:?} launches"
    );
    let of_run = ListParams::default().labels(&format!("{RUN_LABEL}={name}"));
    let jobs = namespace.api::<Job>().list(&of_run).await?.items.len();
    ensure!(jobs == harm.launches() as usize, "{harm:?}: {jobs} Jobs");
    let times = server.times(&question(&name));
    let may = match harm {
        // Who is killed at his start may have asked just then.
        Harm::KilledBefore => 1..=2,
        // What was never answered is asked again.
        Harm::KilledAsking | Harm::OutOfMemory | Harm::EvictedAsking => 2..=2,
        _ => 1..=1,
    };
    ensure!(may.contains(&times), "{harm:?}: asked {times} times");
    let used = match harm {
        Harm::LateReport => LATE_TOKENS..=LATE_TOKENS,
        // A call that is cut off may have been paid: it is booked as much as was reserved for it.
        Harm::EvictedAsking => CALL + 1..=CALL + RESERVED,
        // What the kernel cut off may have been booked already.
        Harm::KilledBefore | Harm::OutOfMemory => CALL..=2 * CALL,
        _ => CALL..=CALL,
    };
    ensure!(
        used.contains(&tokens(run)),
        "{harm:?}: {} tokens",
        tokens(run)
    );
    if harm != Harm::None {
        told_as_lost(namespace, &name).await?;
    }
    Ok(())
}

/// An Event says which launch was lost and how.
async fn told_as_lost(namespace: &Namespace, run: &str) -> Result<()> {
    use k8s_openapi::api::core::v1::Event;
    let lost =
        ListParams::default().fields(&format!("reason=LaunchLost,involvedObject.name={run}"));
    let events = namespace.api::<Event>().list(&lost).await?;
    let notes: Vec<String> = events
        .into_iter()
        .filter_map(|event| event.message)
        .collect();
    ensure!(
        notes
            .iter()
            .any(|note| note.starts_with("launch 1 was lost: ")),
        "{run}: {notes:?}"
    );
    eprintln!("{run}: {}", notes.join(" | "));
    Ok(())
}

/// The pod of a lost launch speaks up, with its own token: it wants the run to have failed, and has used more than it said.
async fn report_late(namespace: &Namespace, run: &str, token: &str) -> Result<()> {
    let answer = gateway(namespace, run)
        .await?
        .post(format!(
            "https://sopwith-gateway.{OPERATOR_NAMESPACE}.svc:8443/v1/runs/{}/{run}/launches/1/reports",
            namespace.name
        ))
        .bearer_auth(token)
        .json(&ReportBatch {
            version: VERSION,
            sequence: 90,
            events: vec![Event {
                at: k8s_openapi::jiff::Timestamp::now(),
                what: What::LaunchEnded {
                    outcome: Outcome::Failed,
                    snapshot: None,
                    failure: Some(Failure::default()),
                },
            }],
            usage: Usage {
                total_tokens: LATE_TOKENS,
                input_tokens: LATE_TOKENS,
                cost: "1.00".parse()?,
                ..Usage::default()
            },
        })
        .send()
        .await?;
    let status = answer.status();
    let problem: Problem = answer.json().await?;
    ensure!(
        status == StatusCode::CONFLICT && problem.reason == "LaunchSuperseded",
        "a late report is answered with {status}: {problem:?}"
    );
    Ok(())
}

async fn gateway(namespace: &Namespace, run: &str) -> Result<reqwest::Client> {
    let status = namespace.api::<AgentRun>().get(run).await?.status;
    let plan = status.and_then(|s| s.plan).context("no plan")?.config_map;
    let plan = namespace.api::<ConfigMap>().get(&plan).await?;
    let authority = plan.data.and_then(|mut data| data.remove(CA_KEY));
    let authority = authority.context("no certificate authority in the plan")?;
    let services: Api<Service> = Api::namespaced(namespace.client.clone(), OPERATOR_NAMESPACE);
    let service = services.get("sopwith-gateway").await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("no address")?;
    let address = SocketAddr::new(address.parse()?, 8443);
    Ok(reqwest::Client::builder()
        .tls_certs_only(Certificate::from_pem_bundle(authority.as_bytes())?)
        .resolve(
            &format!("sopwith-gateway.{OPERATOR_NAMESPACE}.svc"),
            address,
        )
        .no_proxy()
        .build()?)
}

/// The token that the kubelet gave to a runner. It outlives the process.
fn token_of(runner: u32) -> Result<String> {
    let file = format!("/proc/{runner}/root{TOKEN_FILE}");
    let token = fs::read_to_string(&file).context(file)?;
    Ok(token.trim().to_owned())
}
