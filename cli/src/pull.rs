//! `kubectl sop pull`: fetches what a run has left.

mod evidence;
mod layout;
mod tree;
mod write;

use crate::{
    args::PullArgs,
    cluster::{self, Cluster},
    gateway::{self, Address, Gateway},
    text,
};
use anyhow::Context as _;
use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use layout::{CASSETTE, EVIDENCE, File, MESSAGES};
use sopwith_crds::{
    AgentRun,
    cassette::{self, Form},
    contract::{
        Digest, VERSION,
        commits::{BUNDLE, bundle},
        delta::{ReadError, Reading},
        plan::{CA_KEY, PLAN_KEY, RunPlan},
        snapshot::Snapshot,
    },
    plan,
    status::{AgentRunStatus, Verdict},
};
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

const MAY_NOT_READ: &str = "ask for \"get\" on agentruns/dossier in the run's namespace (ClusterRole sopwith-dossier-reader)";

/// Why there is nothing to pull.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "AgentRun \"{name}\" has no snapshot yet: it is {phase}{why}; a snapshot is there once its first step has ended"
    )]
    NoSnapshot {
        name: String,
        phase: String,
        why: String,
    },
    #[error("AgentRun \"{name}\" has no plan in ConfigMap \"{config_map}\": {why}")]
    NoPlan {
        name: String,
        config_map: String,
        why: String,
    },
    #[error(
        "the snapshot has version {0}; this plugin reads version {VERSION}: use the plugin of the operator's release"
    )]
    Version(u32),
    #[error("the snapshot belongs to plan {found}, the run to plan {expected}")]
    OtherPlan { found: String, expected: String },
    #[error("{path:?} has {found} bytes, the snapshot says {expected}; nothing was written")]
    Size {
        path: String,
        found: usize,
        expected: u64,
    },
}

/// Fetches, verifies, writes, shows.
pub(crate) async fn run(cluster: &Cluster, args: &PullArgs) -> anyhow::Result<()> {
    write::check(&args.out, args.force)?;
    let run = cluster.run(&args.name).await?;
    let status = run.status.clone().unwrap_or_default();
    let digest = newest_snapshot(&args.name, &status)?;
    let frozen = frozen(cluster, &run, &status).await?;
    let address = Address {
        namespace: &args.gateway.operator_namespace,
        service: &args.gateway.gateway_service,
        account: &args.reader,
        authority: Some(&frozen.authority),
    };
    let folder = gateway::blobs(&cluster.namespace, &args.name);
    let mut gateway = Gateway::find(cluster, &address, folder, MAY_NOT_READ).await?;
    let snapshot = snapshot(&mut gateway, &digest, &status).await?;
    let project = &frozen.plan.options.project_name;
    let mut files = layout::files(&snapshot, project)?;
    let stage = write::Stage::new(&args.out)?;
    let mut fetched = Vec::new();
    for file in &files {
        let content = gateway
            .get(&file.digest)
            .await
            .with_context(|| format!("fetch {}", file.path))?;
        whole(file, &content)?;
        stage.write(file, &content)?;
        fetched.push(Fetched::of(file, &content));
    }
    let (log, content) = messages(&mut gateway, &snapshot).await?;
    stage.write(&log, &content)?;
    fetched.push(Fetched::of(&log, &content));
    files.push(log);
    if let Some((file, content)) = commits(&mut gateway, &snapshot, &args.name).await? {
        stage.write(&file, &content)?;
        fetched.push(Fetched::of(&file, &content));
        files.push(file);
    }
    let cassette = cassette(&mut gateway, &snapshot, &frozen.plan).await?;
    stage.write(&cassette.file, &cassette.content)?;
    fetched.push(Fetched::of(&cassette.file, &cassette.content));
    files.push(cassette.file);
    stage.place(&files)?;
    let mut said = summary(&snapshot, &fetched, project);
    said.push_str(&cassette.said);
    // Nobody reads any more: the files are there all the same.
    let _ = write!(io::stdout(), "{}\n{said}", args.out.display());
    Ok(())
}

/// The run's commits as one file for Git.
async fn commits(
    gateway: &mut Gateway,
    snapshot: &Snapshot,
    run: &str,
) -> anyhow::Result<Option<(File, Bytes)>> {
    let mut packs = Vec::new();
    for made in &snapshot.commits.made {
        let pack = gateway.get(&made.pack).await;
        packs.push(pack.with_context(|| format!("fetch commit {}", made.id))?);
    }
    let content = bundle(&snapshot.commits, run, &packs)?.map(Bytes::from);
    Ok(content.map(|content| (made(BUNDLE, &content), content)))
}

/// The run's messages as one file.
async fn messages(gateway: &mut Gateway, snapshot: &Snapshot) -> anyhow::Result<(File, Bytes)> {
    let mut log = Vec::new();
    for digest in &snapshot.messages {
        log.extend(gateway.get(digest).await.context("fetch the messages")?);
    }
    let content = Bytes::from(log);
    Ok((made(MESSAGES, &content), content))
}

/// A file that is put together from several blobs.
fn made(path: &str, content: &Bytes) -> File {
    File {
        path: path.to_owned(),
        digest: Digest::of(content),
        size: Some(content.len() as u64),
        executable: false,
    }
}

/// The snapshot, or why there is none.
fn newest_snapshot(name: &str, status: &AgentRunStatus) -> anyhow::Result<Digest> {
    let Some(digest) = &status.snapshot else {
        let why = status
            .failure
            .as_ref()
            .map(|f| format!(" ({}: {})", f.reason, text::one_line(&f.message, 300)));
        let phase = status.phase.unwrap_or_default().to_string();
        return Err(Error::NoSnapshot {
            name: name.to_owned(),
            phase,
            why: why.unwrap_or_default(),
        }
        .into());
    };
    digest.parse().context("status.snapshot")
}

/// What the run's plan tells.
struct Frozen {
    plan: RunPlan,
    authority: Vec<u8>,
}

/// What models were asked and answered, as a file.
struct Recorded {
    file: File,
    content: Bytes,
    said: String,
}

/// Fetches what the run recorded.
async fn cassette(
    gateway: &mut Gateway,
    snapshot: &Snapshot,
    plan: &RunPlan,
) -> anyhow::Result<Recorded> {
    let mut parts = Vec::new();
    for digest in &snapshot.cassette {
        let bytes = gateway.get(digest).await.context("fetch the cassette")?;
        parts.push(cassette::decode(digest.as_str(), &bytes)?);
    }
    let count = parts.iter().map(Vec::len).sum();
    let written = cassette::of_run(plan, parts)?;
    let how = match written.form {
        Form::Readable => "",
        Form::Packed => ", compressed",
        Form::WithoutRequests => {
            ", compressed and without the requests: a difference will be found, but not shown"
        }
        Form::TooLarge => {
            ", too large for a ConfigMap: play it with `sopwith-runner local --cassette`"
        }
    };
    let content = Bytes::from(written.text);
    Ok(Recorded {
        file: made(CASSETTE, &content),
        content,
        said: format!(
            "cassette: {} ({CASSETTE}{how})\n",
            text::count(count, "answer")
        ),
    })
}

/// Reads the plan's ConfigMap.
async fn frozen(
    cluster: &Cluster,
    run: &AgentRun,
    status: &AgentRunStatus,
) -> anyhow::Result<Frozen> {
    let name = run.metadata.name.clone().unwrap_or_default();
    let config_map = status
        .plan
        .as_ref()
        .map(|p| p.config_map.clone())
        .unwrap_or_default();
    let missing = |why: &str| Error::NoPlan {
        name: name.clone(),
        config_map: config_map.clone(),
        why: why.to_owned(),
    };
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let map = maps
        .get_opt(&config_map)
        .await
        .map_err(|e| {
            cluster::Error::of(
                e,
                format!("read ConfigMap \"{config_map}\""),
                "ask for the role \"view\" in the namespace",
            )
        })?
        .ok_or_else(|| missing("it is not there"))?;
    let authority = map
        .data
        .as_ref()
        .and_then(|d| d.get(CA_KEY))
        .ok_or_else(|| missing(&format!("it has no key {CA_KEY}")))?;
    let packed = map
        .binary_data
        .as_ref()
        .and_then(|d| d.get(PLAN_KEY))
        .ok_or_else(|| missing(&format!("it has no key {PLAN_KEY}")))?;
    let plan = plan::decompress(&packed.0).map_err(|e| missing(&e.to_string()))?;
    Ok(Frozen {
        plan,
        authority: authority.as_bytes().to_vec(),
    })
}

/// Reads the snapshot and checks that it is the run's.
async fn snapshot(
    gateway: &mut Gateway,
    digest: &Digest,
    status: &AgentRunStatus,
) -> anyhow::Result<Snapshot> {
    let mut reading = Reading::default();
    let mut next = Some(digest.clone());
    while let Some(part) = next {
        let bytes = gateway.get(&part).await.context("fetch the snapshot")?;
        next = reading.take(&part, &bytes).map_err(|error| match error {
            ReadError::Version(found) => Error::Version(found).into(),
            error => anyhow::Error::from(error).context("read the snapshot"),
        })?;
    }
    let snapshot = reading.whole();
    let expected = status
        .plan
        .as_ref()
        .map(|p| p.digest.clone())
        .unwrap_or_default();
    if snapshot.plan != expected {
        return Err(Error::OtherPlan {
            found: snapshot.plan,
            expected,
        }
        .into());
    }
    Ok(snapshot)
}

fn whole(file: &File, content: &Bytes) -> Result<(), Error> {
    match file.size {
        Some(expected) if expected != content.len() as u64 => Err(Error::Size {
            path: file.path.clone(),
            found: content.len(),
            expected,
        }),
        _ => Ok(()),
    }
}

/// What is told of a file once it is written.
struct Fetched {
    path: String,
    size: u64,
    lines: usize,
    report: Option<evidence::Report>,
}

impl Fetched {
    fn of(file: &File, content: &Bytes) -> Self {
        let is_evidence = file
            .path
            .strip_prefix(EVIDENCE)
            .is_some_and(|p| p.starts_with('/'));
        let lines = if file.path == MESSAGES {
            content
                .split(|b| *b == b'\n')
                .filter(|l| !l.is_empty())
                .count()
        } else {
            0
        };
        Self {
            path: file.path.clone(),
            size: content.len() as u64,
            lines,
            report: is_evidence.then(|| evidence::report(content)).flatten(),
        }
    }
}

/// The tree and what there is to say about it. Deciding.
fn summary(snapshot: &Snapshot, files: &[Fetched], project: &str) -> String {
    let mut said = tree::tree(files.iter().map(|f| (f.path.as_str(), f.size)));
    let total: u64 = files.iter().map(|f| f.size).sum();
    let messages: usize = files.iter().map(|f| f.lines).sum();
    let passed = |verdict: Verdict| {
        snapshot
            .gates
            .values()
            .filter(|g| g.verdict == verdict)
            .count()
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        said,
        "\nproject {project} and its evidence: {}, {}; every digest matches",
        text::count(files.len(), "file"),
        text::bytes(total),
    );
    let _ = writeln!(said, "messages: {messages} ({MESSAGES})");
    if !snapshot.commits.made.is_empty() {
        let count = text::count(snapshot.commits.made.len(), "commit");
        let _ = writeln!(said, "history: {count} ({BUNDLE})");
    }
    let _ = writeln!(
        said,
        "gates: {} passed, {} failed, {} waived",
        passed(Verdict::Passed),
        passed(Verdict::Failed),
        passed(Verdict::Waived)
    );
    // Tests before coverage.
    let mut reports: Vec<_> = files
        .iter()
        .filter_map(|f| Some((f.report.as_ref()?, &f.path)))
        .collect();
    reports.sort_by_key(|(report, _)| matches!(report, evidence::Report::Coverage { .. }));
    for (report, path) in reports {
        let _ = writeln!(said, "{report} ({path})");
    }
    let _ = writeln!(said, "spent: {}", text::usage(&snapshot.spent));
    said
}
