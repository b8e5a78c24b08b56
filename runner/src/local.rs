//! A run on this machine, without a cluster: the same engine, commands as processes, reports and blobs in memory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    AgentRun, SopDefinition, ToolPolicy,
    agent_run::{Decision, DecisionVerdict, KeyRef, ProjectSource, RecoverFrom},
    archive,
    cassette::{self, CassetteError, CassetteFile},
    contract::{
        Digest,
        cassette::Interaction,
        commits::{BUNDLE, bundle},
        incremental::Classified,
        memory::Facts,
        plan::RunPlan,
        report::{Event, LaunchStart, Next, Outcome, What},
        snapshot::{Message, Snapshot, messages},
    },
    plan::{Earlier, PlanInputs, Rejection, build, project_name},
    tool_policy::{Provider, ReplayMode},
};

use crate::{
    action::command::Benches,
    ending::End,
    facts::{self, FactsError},
    gateway::{Gateway, GatewayError, LocalGateway},
    git::remote::Remote,
    kept::{self, KeptError},
    llm::{
        replay::Replay,
        transport::{Places, Transport},
    },
    run::Flight,
    workbench::{Workbench, WorkbenchError},
};

/// Why a local run did not begin, or left nothing.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file cannot be read or written.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A value is given in neither of the ways there are.
    #[error("{0} has neither a value nor a configMapKeyRef")]
    NoValue(String),
    /// There is no plan.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The cassette cannot be used.
    #[error(transparent)]
    Cassette(#[from] CassetteError),
    /// What an earlier run left cannot be used.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The run names something that is in a cluster.
    #[error(
        "{0} names a run of a cluster, which a run on this machine cannot read; name the folder that a local run left with --recover, or a project with --project"
    )]
    Elsewhere(&'static str),
    /// What earlier runs left of a project cannot be read, or what this one leaves cannot be kept.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A folder for facts is given to a run that keeps none.
    #[error(
        "--memory {} is for runs with long-term memory; set spec.longTermMemory: true, or leave --memory out", .0.display()
    )]
    NoMemory(PathBuf),
    /// What the run left cannot be had.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// The files of a local run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Inputs {
    /// The `SopDefinition`.
    #[arg(long, value_name = "FILE")]
    pub sop: PathBuf,
    /// The `ToolPolicy`.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// The `AgentRun`.
    #[arg(long, value_name = "FILE")]
    pub run: PathBuf,
    /// The cassette: a ConfigMap or its content. Answers for every endpoint of provider replay.
    #[arg(long, value_name = "FILE")]
    pub cassette: Option<PathBuf>,
    /// Folder with the project that the run begins with: as if it had been uploaded and named in spec.project.source.upload.
    #[arg(long, value_name = "DIR")]
    pub project: Option<PathBuf>,
    /// Folder that an earlier run on this machine left (its --out): begins from its state after its last finished step.
    #[arg(long, value_name = "DIR", conflicts_with = "project")]
    pub recover: Option<PathBuf>,
    /// With --recover: begins after this step.
    #[arg(long, value_name = "STEP", requires = "recover")]
    pub recover_step: Option<String>,
    /// Folder with what runs left for later runs of their projects: with spec.longTermMemory the run recalls from it, and leaves what
    /// it learned there.
    #[arg(long, value_name = "DIR")]
    pub memory: Option<PathBuf>,
    /// Folder with Secrets, each a folder of its own name with a file for each key.
    #[arg(long, value_name = "DIR", default_value = "secrets")]
    pub secrets: PathBuf,
    /// Folder with ConfigMaps (of inputs, of certificates), each a folder of its own name with a file for each key.
    #[arg(long, value_name = "DIR", default_value = "config")]
    pub config: PathBuf,
}

impl Inputs {
    /// The plan of the run.
    pub fn plan(&self) -> Result<RunPlan, LocalError> {
        let sop: SopDefinition = object(&self.sop)?;
        let policy: ToolPolicy = object(&self.policy)?;
        let mut run: AgentRun = object(&self.run)?;
        run.metadata.namespace.get_or_insert_with(|| "local".into());
        run.metadata.uid.get_or_insert_with(|| "local".into());
        if let Some(archive) = self.project()? {
            let source = ProjectSource {
                upload: Some(Digest::of(&archive).to_string()),
                ..ProjectSource::default()
            };
            run.spec.project.get_or_insert_default().source = Some(source);
        }
        let earlier = self.earlier()?;
        if let Some(earlier) = &earlier {
            run.spec.recover_from = Some(RecoverFrom {
                run: earlier.name.clone(),
                step: self.recover_step.clone(),
            });
        } else if run.spec.recover_from.is_some() {
            return Err(LocalError::Elsewhere("spec.recoverFrom"));
        }
        let source = run.spec.project.as_ref().and_then(|p| p.source.as_ref());
        if earlier.is_none() && source.is_some_and(|source| source.run.is_some()) {
            return Err(LocalError::Elsewhere("spec.project.source.run"));
        }
        let idea_from = run
            .spec
            .idea_from
            .as_ref()
            .map(|from| &from.config_map_key_ref);
        let idea = self.value("spec.idea", run.spec.idea.as_ref(), idea_from)?;
        let mut inputs = BTreeMap::new();
        for input in &run.spec.inputs {
            let field = format!("spec.inputs[{}]", input.name);
            let from = input.config_map_key_ref.as_ref();
            let value = self.value(&field, input.value.as_ref(), from)?;
            inputs.insert(input.name.clone(), value);
        }
        let memory = self.recalled(&run, earlier.as_ref())?;
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        Ok(build(&PlanInputs {
            run: &run,
            sop: (&name(&sop.metadata.name), &sop.spec),
            policy: (&name(&policy.metadata.name), &policy.spec),
            idea: &idea,
            inputs: &inputs,
            templates: &BTreeMap::new(),
            earlier: earlier.as_ref(),
            memory: &memory,
        })?)
    }

    /// What earlier runs on this machine left of the run's project.
    fn recalled(
        &self,
        run: &AgentRun,
        earlier: Option<&Earlier>,
    ) -> Result<Vec<Facts>, LocalError> {
        let remembers = run.spec.long_term_memory == Some(true);
        match &self.memory {
            Some(folder) if remembers => {
                Ok(facts::of_project(folder, &project_name(run, earlier))?)
            }
            Some(folder) => Err(LocalError::NoMemory(folder.clone())),
            None if remembers => {
                tracing::warn!("without --memory DIR the run recalls and leaves nothing");
                Ok(Vec::new())
            }
            None => Ok(Vec::new()),
        }
    }

    fn value(
        &self,
        field: &str,
        value: Option<&String>,
        from: Option<&KeyRef>,
    ) -> Result<String, LocalError> {
        match (value, from) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(from)) => read(&self.config.join(&from.name).join(&from.key)),
            (None, None) => Err(LocalError::NoValue(field.to_owned())),
        }
    }

    /// The run that this one recovers from, where there is one.
    fn earlier(&self) -> Result<Option<Earlier>, LocalError> {
        let folder = self.recover.as_ref();
        let earlier = folder.map(|folder| kept::earlier(folder, self.recover_step.as_deref()));
        Ok(earlier.transpose()?)
    }

    /// Gives a gateway what the run begins with.
    pub fn give(&self, gateway: &LocalGateway) -> Result<(), LocalError> {
        if let Some(project) = self.project()? {
            gateway.keep(project);
        }
        if let Some(folder) = &self.recover {
            kept::give(folder, gateway)?;
        }
        Ok(())
    }

    /// The archive of the project that the run begins with, where there is one.
    pub fn project(&self) -> Result<Option<Bytes>, LocalError> {
        let Some(folder) = &self.project else {
            return Ok(None);
        };
        let failed = |message: String| LocalError::File {
            path: folder.clone(),
            message,
        };
        let found = archive::folder::read(folder).map_err(|error| failed(error.to_string()))?;
        let packed = archive::pack(&found.files).map_err(|error| failed(error.to_string()))?;
        Ok(Some(packed.into()))
    }

    /// The cassette's file, where there is one.
    pub fn cassette(&self) -> Result<Option<CassetteFile>, LocalError> {
        self.cassette
            .as_ref()
            .map(|path| Ok(CassetteFile::parse(&read(path)?)?))
            .transpose()
    }
}

/// Reads a mode of replay as a policy writes it.
pub fn mode(text: &str) -> Result<ReplayMode, String> {
    let mode = serde_json::from_value(serde_json::Value::from(text));
    mode.map_err(|_| "write strict, gatesOnly or recordFromDifference".to_owned())
}

/// The plan with its recorded endpoints in this mode, whatever the policy says.
#[must_use]
pub fn in_mode(mut plan: RunPlan, mode: ReplayMode) -> RunPlan {
    let endpoints = plan.llm.iter_mut();
    for replay in endpoints.filter_map(|endpoint| endpoint.replay.as_mut()) {
        replay.mode = Some(mode);
    }
    plan
}

fn read(path: &Path) -> Result<String, LocalError> {
    std::fs::read_to_string(path).map_err(|error| LocalError::File {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn object<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LocalError> {
    serde_saphyr::from_str(&read(path)?).map_err(|error| LocalError::File {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// A finished local run.
#[derive(Debug)]
pub struct Flown {
    /// Its plan.
    pub plan: Arc<RunPlan>,
    /// How it ended.
    pub end: End,
    /// Its reports and blobs.
    pub gateway: LocalGateway,
}

/// Runs a plan to its end. Endpoints of provider replay are answered from `replay`, the others for real.
pub async fn fly(
    plan: RunPlan,
    replay: Arc<Replay>,
    places: &Places,
    program: &Path,
    gateway: LocalGateway,
) -> Flown {
    let transports = plan.llm.iter().map(|endpoint| match endpoint.provider {
        Provider::Replay => Ok(Transport::Replay(Arc::clone(&replay))),
        _ => Transport::of(endpoint, places),
    });
    let transports = transports
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string());
    let via = Gateway::Local(gateway.clone());
    let start = via.start().await.unwrap_or_else(|_| LaunchStart::default());
    let plan = Arc::new(plan);
    let repository = plan.repository.as_ref();
    let flight = Flight {
        remote: repository.map(|repository| Remote::new(repository, places)),
        plan: Arc::clone(&plan),
        gateway: via,
        start,
        transports,
        secrets: None,
    };
    let scratch = std::env::temp_dir().join(format!("sopwith-local-{}", uuid::Uuid::new_v4()));
    let benches = benches(&plan, &scratch, program);
    // A launch is a long future; whoever waits for it would carry it in its own.
    let flight = Box::pin(flight.fly(benches, |reporter| reporter.witnessed_by(tell)));
    let (end, _) = flight.await;
    if let Err(error) = std::fs::remove_dir_all(&scratch)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the folder of the workbenches stays");
    }
    Flown { plan, end, gateway }
}

/// What the launch begins with that follows a wait, if somebody approved there; none where the run does not wait, or waits
/// for anything but an approval.
pub fn approved(flown: &Flown, by: &str) -> Option<LaunchStart> {
    if flown.end.outcome != Outcome::Waiting {
        return None;
    }
    let ended = |event: Event| match event.what {
        What::StepEnded { end } => Some(*end),
        _ => None,
    };
    let end = flown
        .gateway
        .events()
        .into_iter()
        .filter_map(ended)
        .next_back()?;
    let Next::Wait(wait) = end.next else {
        return None;
    };
    let decision = Decision {
        step: end.step,
        gate: wait.gate,
        attempt: end.attempt,
        subject: wait.subject.to_string(),
        verdict: DecisionVerdict::Approve,
        to: None,
        by: by.to_owned(),
        reason: None,
        at: None,
    };
    wait.options
        .contains(&decision.verdict)
        .then(|| LaunchStart {
            snapshot: flown.end.snapshot.clone(),
            decisions: vec![decision],
            ..LaunchStart::default()
        })
}

async fn benches(
    plan: &RunPlan,
    scratch: &Path,
    program: &Path,
) -> Result<Benches, WorkbenchError> {
    let mut benches = BTreeMap::new();
    for bench in &plan.workbenches {
        let root = scratch.join(&bench.name);
        std::fs::create_dir_all(&root).map_err(|error| WorkbenchError::Start {
            program: program.to_owned(),
            message: error.to_string(),
        })?;
        benches.insert(bench.image.clone(), Workbench::local(program, &root).await?);
    }
    Ok(Benches::new(benches))
}

/// One line for each event that people want to see.
fn tell(event: &Event) {
    let line = match &event.what {
        What::ProjectLoaded {
            origin,
            files,
            left_out,
            ..
        } if left_out.is_empty() => format!("{files} files from {origin}"),
        What::ProjectLoaded {
            origin,
            files,
            left_out,
            ..
        } => format!("{files} files from {origin}; left out: {left_out}"),
        What::Delivered {
            url,
            branch,
            commit,
        } => format!("delivered {commit} to the branch {branch} of {url}"),
        What::Classified { found } => classified(found),
        What::Recovered { run, step, .. } => format!("from run {run} after step {step}"),
        What::StepInherited { step, .. } => format!("{step}: taken over"),
        What::RoundStarted { round } => format!("round {round}"),
        What::StepStarted { step, attempt } => format!("{step}: attempt {attempt}"),
        What::StepResumed { step, attempt } => format!("{step}: attempt {attempt} goes on"),
        What::StepSkipped { step, message } => format!("{step}: skipped, {message}"),
        What::ActionEnded {
            action, message, ..
        } => format!("  {action}: {message}"),
        What::ToolCall {
            tool,
            function,
            status,
            ..
        } => {
            let of = function
                .as_ref()
                .map_or_else(String::new, |name| format!("/{name}"));
            format!("    tool {tool}{of}: {}", status.as_str())
        }
        What::GateJudged { gate, findings, .. } => {
            let observed = gate.observed.as_deref().unwrap_or_default();
            let findings = findings.replace('\n', "\n      ");
            let between = if findings.is_empty() { "" } else { "\n      " };
            format!(
                "  gate {} {:?}: {observed}{between}{findings}",
                gate.name, gate.verdict
            )
        }
        What::RequestDiffers { difference, .. } => {
            format!(
                "  not as recorded, the next endpoint is asked: {}",
                difference.replace('\n', "\n      ")
            )
        }
        What::StepEnded { end } => format!(
            "{}: {:?}, {} ({} tokens, ${})",
            end.step, end.verdict, end.message, end.usage.total_tokens, end.usage.cost
        ),
        What::LaunchEnded {
            outcome, failure, ..
        } => match failure {
            Some(failure) => format!("{outcome:?}: {}: {}", failure.reason, failure.message),
            None => format!("{outcome:?}"),
        },
        What::LaunchStarted { .. }
        | What::SecretMissing { .. }
        | What::SecretsFound
        | What::LlmRequest { .. } => return,
    };
    eprintln!("{line}");
}

/// What an incremental run is about, for people.
fn classified(found: &Classified) -> String {
    let mut line = format!(
        "{}, written to {}: {}",
        found.kind.as_str(),
        found.path,
        found.reason
    );
    for (what, edits) in [
        ("edited by hand", &found.edited),
        ("edited by hand although derived", &found.derived),
    ] {
        if edits.files > 0 {
            line = format!("{line}\n  {what}: {edits}");
        }
    }
    line
}

impl Flown {
    /// Whether it succeeded.
    pub fn succeeded(&self) -> bool {
        self.end.outcome == Outcome::Succeeded
    }

    /// The last snapshot.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.gateway.snapshot(self.end.snapshot.as_ref()?)
    }

    /// Its trace.
    pub fn trace(&self) -> Vec<Message> {
        let log = self.log(&self.snapshot().unwrap_or_default());
        messages(&log).unwrap_or_default()
    }

    /// The trace as JSON lines.
    fn log(&self, snapshot: &Snapshot) -> Vec<u8> {
        let blobs = snapshot.messages.iter();
        let blobs: Vec<_> = blobs
            .filter_map(|digest| self.gateway.blob(digest))
            .collect();
        blobs.concat()
    }

    /// Leaves what it learned in a folder, for later runs of its project: where it has long-term memory and succeeded.
    pub fn remember(&self, folder: &Path) -> Result<(), LocalError> {
        if self.plan.memory.is_some() && self.succeeded() {
            facts::keep(folder, &self.plan, &self.trace(), Timestamp::now())?;
        }
        Ok(())
    }

    /// What its models were asked and answered.
    pub fn recorded(&self) -> Result<Vec<Vec<Interaction>>, LocalError> {
        let parts = self.snapshot().unwrap_or_default().cassette;
        let read = |digest: &Digest| {
            let bytes = self.gateway.blob(digest).unwrap_or_default();
            Ok(cassette::decode(digest.as_str(), &bytes)?)
        };
        parts.iter().map(read).collect()
    }

    /// Writes project, evidence, trace, state, commits and cassette below a folder.
    pub fn write(&self, out: &Path) -> Result<(), LocalError> {
        kept::keep(out, &self.plan, &self.gateway)?;
        let Some(snapshot) = self.snapshot() else {
            return Ok(());
        };
        let files = snapshot
            .tree
            .values()
            .map(|entry| (out.join("project").join(&entry.path), &entry.digest));
        let evidence = snapshot
            .evidence
            .values()
            .map(|entry| (out.join("evidence").join(&entry.path), &entry.digest));
        let blobs = files.chain(evidence).map(|(path, digest)| {
            let content = self.gateway.blob(digest).unwrap_or_default();
            (path, content)
        });
        let log = (out.join("messages.jsonl"), self.log(&snapshot).into());
        for (path, content) in blobs.chain([log]) {
            let failed = |error: std::io::Error| LocalError::File {
                path: path.clone(),
                message: error.to_string(),
            };
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            std::fs::write(&path, content).map_err(failed)?;
        }
        self.write_commits(&snapshot, out)?;
        let path = out.join("cassette.yaml");
        let written = cassette::of_run(&self.plan, self.recorded()?)?;
        std::fs::write(&path, written.text).map_err(|error| LocalError::File {
            path,
            message: error.to_string(),
        })
    }

    /// Writes the run's commits as a file for Git.
    fn write_commits(&self, snapshot: &Snapshot, out: &Path) -> Result<(), LocalError> {
        let path = out.join(BUNDLE);
        let failed = |message: String| LocalError::File {
            path: path.clone(),
            message,
        };
        let made = snapshot.commits.made.iter();
        let packs: Vec<_> = made
            .map(|made| self.gateway.blob(&made.pack).unwrap_or_default())
            .collect();
        let bundle = bundle(&snapshot.commits, &self.plan.run.name, &packs)
            .map_err(|error| failed(error.to_string()))?;
        if let Some(bundle) = bundle {
            std::fs::create_dir_all(out).map_err(|error| failed(error.to_string()))?;
            std::fs::write(&path, bundle).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}
