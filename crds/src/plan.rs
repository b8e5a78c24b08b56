//! The plan of a run: a pure function of the run, its procedure, its policy and the texts they name.

use crate::{
    AgentRun, Money, SopDefinitionSpec, ToolPolicySpec,
    check::{self, Finding, defaults},
    contract::{
        Digest, ParseDigestError, VERSION,
        memory::{Facts, Recalled},
        plan::{Deliver, Recover, Repository, RunIdentity, RunOptions, RunPlan, Source, Workbench},
    },
    memory,
    repository::entry_for,
    sop_definition::{Gate, Role, Step, Work},
    status::{FailureReason, InheritedGates, Revision, Usage},
    tool_policy::{Tool, called, granted},
};
use flate2::{Compression, GzBuilder, read::GzDecoder};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    sync::Arc,
};

/// Most bytes of a compressed plan: a ConfigMap holds 1 MiB, names and certificate included.
pub const MAX_PLAN_BYTES: usize = 900 * 1024;
/// Most bytes of a plan once it is decompressed: what a hostile ConfigMap could cost a runner.
const MAX_PLAIN_BYTES: u64 = 64 * 1024 * 1024;

/// Everything a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs<'a> {
    /// The run. Its namespace, name and UID become the plan's identity.
    pub run: &'a AgentRun,
    /// The procedure, by name.
    pub sop: (&'a str, &'a SopDefinitionSpec),
    /// The policy, by name.
    pub policy: (&'a str, &'a ToolPolicySpec),
    /// The idea, already read where it comes from a ConfigMap.
    pub idea: &'a str,
    /// The run's inputs by name, already read.
    pub inputs: &'a BTreeMap<String, String>,
    /// Templates of the ConfigMaps that the procedure names, by name.
    pub templates: &'a BTreeMap<String, String>,
    /// The earlier run that the run begins with, where it names one.
    pub earlier: Option<&'a Earlier>,
    /// What earlier runs of its project left, where the run has long-term memory.
    pub memory: &'a [Facts],
}

/// An earlier run of the same namespace, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Earlier {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The snapshot that is taken over.
    pub snapshot: Digest,
    /// Name of its project.
    pub project_name: String,
    /// Where the run recovers from it.
    pub state: Option<EarlierState>,
}

/// The state of an earlier run at a finished step.
#[derive(Clone, Debug, PartialEq)]
pub struct EarlierState {
    /// The step.
    pub step: String,
    /// What it had used up to there, with what it had inherited itself.
    pub usage: Usage,
    /// Its plan.
    pub plan: Arc<RunPlan>,
}

/// Why there is no plan. Final: neither the run's spec nor what it was resolved to can still change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Rejection {
    /// One of `InvalidPlan`, `PlanTooLarge` and `PolicyDenied`.
    pub reason: FailureReason,
    /// Every mistake, one a line, each with its field, value and remedy.
    pub message: String,
}

/// A compressed plan that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadPlanError {
    /// No gzip, or cut off.
    #[error("the plan is no gzip stream: {0}")]
    Gzip(#[from] std::io::Error),
    /// Not the shape of a plan.
    #[error("the plan is not of the known shape: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version.
    #[error(
        "the plan has version {0}, this program reads version {VERSION}: install operator and runner of one version"
    )]
    Version(u32),
}

/// Makes the plan, or says everything that stands in its way.
pub fn build(inputs: &PlanInputs<'_>) -> Result<RunPlan, Rejection> {
    let (sop_name, sop) = inputs.sop;
    let (policy_name, policy) = inputs.policy;
    refuse_mistakes(inputs)?;
    let order = check::order(&sop.steps)
        .map_err(|finding| rejected(FailureReason::InvalidPlan, &[finding]))?;
    let mut templates = inputs.templates.clone();
    templates.extend(sop.templates.clone());
    let options = options(inputs);
    let layout = defaults::layout(&sop.layout, &options.project_name);
    let steps: Vec<Step> = order
        .into_iter()
        .filter_map(|index| sop.steps.get(index).cloned())
        .collect();
    let tools = tools(&sop.roles, &steps, &policy.tools);
    let mut plan = RunPlan {
        version: VERSION,
        run: identity(inputs.run),
        sop: Revision {
            name: sop_name.to_owned(),
            revision: revision(sop),
        },
        policy: Revision {
            name: policy_name.to_owned(),
            revision: revision(policy),
        },
        options,
        layout,
        templates,
        schemas: sop.schemas.clone(),
        roles: sop.roles.clone(),
        workbenches: workbenches(&steps, &tools),
        steps,
        llm: policy.llm.clone(),
        tools,
        budgets: policy.budgets.clone().unwrap_or_default(),
        llm_concurrency: policy
            .concurrency
            .as_ref()
            .and_then(|c| c.llm_requests)
            .unwrap_or(defaults::LLM_REQUESTS),
        source: source(inputs)?,
        evidence: check::evidence(policy),
        repository: repository(inputs),
        recover: None,
        memory: recalled(inputs),
    };
    plan.recover = recover(inputs.earlier, &plan);
    Ok(plan)
}

/// The repository of a run that was checked against its policy.
fn repository(inputs: &PlanInputs<'_>) -> Option<Repository> {
    let project = inputs.run.spec.project.as_ref()?;
    let git = project.source.as_ref()?.git.as_ref()?;
    let url = git.url.parse().ok()?;
    let (_, policy) = inputs.policy;
    let entry = entry_for(&policy.git, &url)?;
    let delivery = project
        .deliver
        .as_ref()
        .and_then(|deliver| deliver.git.as_ref());
    let rules = policy.deliver.clone().unwrap_or_default();
    Some(Repository {
        url,
        reference: git.reference.clone(),
        secret: entry.secret_ref.as_ref().map(|secret| secret.name.clone()),
        ca_ref: entry.ca_ref.clone(),
        deliver: delivery.map(|delivery| Deliver {
            branch: delivery.branch.clone(),
            deny_paths: rules.deny_paths,
            allow_paths: rules.allow_paths,
        }),
    })
}

/// What a run with long-term memory recalls. One that goes on from the state of another recalls what that one did: what its
/// steps have done follows from it.
fn recalled(inputs: &PlanInputs<'_>) -> Option<Recalled> {
    inputs.run.spec.long_term_memory.filter(|on| *on)?;
    let state = inputs.earlier.and_then(|earlier| earlier.state.as_ref());
    let kept = state.and_then(|state| state.plan.memory.clone());
    Some(kept.unwrap_or_else(|| Recalled {
        facts: memory::recalled(inputs.memory, inputs.idea),
    }))
}

/// The state that a run begins from. The verdicts of the earlier run stand where its steps saw what this run's would see.
fn recover(earlier: Option<&Earlier>, plan: &RunPlan) -> Option<Recover> {
    let earlier = earlier?;
    let state = earlier.state.as_ref()?;
    let same = seen_by_steps(&state.plan) == seen_by_steps(plan);
    Some(Recover {
        run: earlier.name.clone(),
        uid: earlier.uid.clone(),
        step: state.step.clone(),
        snapshot: earlier.snapshot.clone(),
        gates: if same {
            InheritedGates::TakenOver
        } else {
            InheritedGates::JudgedAgain
        },
        usage: state.usage.clone(),
    })
}

/// Everything of a plan that decides what steps do and how they are judged, the evidence that the policy counts included.
/// What bounds a run (money, rounds, time), which models it asks and where it begins does not change what was done.
fn seen_by_steps(plan: &RunPlan) -> Digest {
    let options = RunOptions {
        investment: Money::ZERO,
        rounds: 0,
        deadline_seconds: None,
        model: String::new(),
        recover_from: String::new(),
        project_source: String::new(),
        ..plan.options.clone()
    };
    Digest::of_json(&(
        &options,
        &plan.layout,
        &plan.templates,
        &plan.schemas,
        &plan.roles,
        &plan.steps,
        &plan.evidence,
        &plan.memory,
    ))
}

/// The project that the run begins with, pinned. That of a repository is not: the first launch reads it.
fn source(inputs: &PlanInputs<'_>) -> Result<Option<Source>, Rejection> {
    let project = inputs.run.spec.project.as_ref();
    let Some(source) = project.and_then(|project| project.source.as_ref()) else {
        return Ok(None);
    };
    if let Some(digest) = &source.upload {
        let digest = digest.parse().map_err(|error: ParseDigestError| Finding {
            path: "run:spec.project.source.upload".to_owned(),
            message: error.to_string(),
        });
        return digest
            .map(|digest| Some(Source::Upload { digest }))
            .map_err(|finding| rejected(FailureReason::InvalidPlan, &[finding]));
    }
    if source.run.is_none() {
        return Ok(None);
    }
    Ok(inputs.earlier.map(|earlier| Source::Run {
        name: earlier.name.clone(),
        uid: earlier.uid.clone(),
        snapshot: earlier.snapshot.clone(),
    }))
}

/// Digest of a spec: the same spec has the same revision wherever it is computed.
pub fn revision(spec: &impl Serialize) -> String {
    Digest::of_json(spec).to_string()
}

/// Digest of a plan, as status and snapshots name it.
pub fn digest(plan: &RunPlan) -> Digest {
    Digest::of_json(plan)
}

/// The plan as its ConfigMap holds it: gzip of canonical JSON. The same plan gives the same bytes.
pub fn compress(plan: &RunPlan) -> Result<Vec<u8>, Rejection> {
    let failed = |error: &dyn std::fmt::Display| Rejection {
        reason: FailureReason::Internal,
        message: format!("the plan could not be written: {error}"),
    };
    let json = serde_json_canonicalizer::to_vec(plan).map_err(|e| failed(&e))?;
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(&json).map_err(|e| failed(&e))?;
    let bytes = gzip.finish().map_err(|e| failed(&e))?;
    if bytes.len() > MAX_PLAN_BYTES {
        return Err(too_large(plan, bytes.len()));
    }
    Ok(bytes)
}

/// Reads what `compress` wrote.
pub fn decompress(bytes: &[u8]) -> Result<RunPlan, ReadPlanError> {
    let mut json = Vec::new();
    GzDecoder::new(bytes)
        .take(MAX_PLAIN_BYTES)
        .read_to_end(&mut json)?;
    let plan: RunPlan = serde_json::from_slice(&json)?;
    if plan.version == VERSION {
        Ok(plan)
    } else {
        Err(ReadPlanError::Version(plan.version))
    }
}

fn refuse_mistakes(inputs: &PlanInputs<'_>) -> Result<(), Rejection> {
    let (run, sop, policy) = (&inputs.run.spec, inputs.sop.1, inputs.policy.1);
    let mut invalid = prefixed("run", check::run(run));
    invalid.extend(prefixed("sop", check::sop_with(sop, inputs.templates)));
    invalid.extend(prefixed("policy", check::policy(policy)));
    invalid.extend(parameters(inputs));
    invalid.extend(other_way(inputs));
    if invalid.is_empty() {
        invalid.extend(check::not_supported_yet(run, sop, policy));
    }
    if !invalid.is_empty() {
        return Err(rejected(FailureReason::InvalidPlan, &invalid));
    }
    let mut denied = check::pairing(run, sop, policy);
    denied.extend(pinned_sop(inputs));
    if denied.is_empty() {
        Ok(())
    } else {
        Err(rejected(FailureReason::PolicyDenied, &denied))
    }
}

/// Findings of several objects are told apart as the checker's own are.
fn prefixed(object: &str, findings: Vec<Finding>) -> Vec<Finding> {
    findings
        .into_iter()
        .map(|finding| Finding {
            path: format!("{object}:{}", finding.path),
            ..finding
        })
        .collect()
}

/// A run recovers the state of an incremental run as one, and of any other as another.
fn other_way(inputs: &PlanInputs<'_>) -> Option<Finding> {
    let state = inputs.earlier?.state.as_ref()?;
    let incremental = inputs.run.spec.incremental.unwrap_or(false);
    (incremental != state.plan.options.incremental).then(|| Finding {
        path: "run:spec.incremental".to_owned(),
        message: "is another than that of the run in spec.recoverFrom; write the same".to_owned(),
    })
}

/// A run sets what the procedure declares, and everything it requires.
fn parameters(inputs: &PlanInputs<'_>) -> Vec<Finding> {
    let declared = &inputs.sop.1.parameters;
    let given = &inputs.run.spec.parameters;
    let unknown = given
        .keys()
        .filter(|name| declared.iter().all(|p| &p.name != *name));
    let names: Vec<&str> = declared.iter().map(|p| p.name.as_str()).collect();
    let unknown = unknown.map(|name| Finding {
        path: format!("run:spec.parameters[{name}]"),
        message: format!(
            "SopDefinition \"{}\" declares no parameter \"{name}\"; it has: {}",
            inputs.sop.0,
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        ),
    });
    let missing = declared.iter().filter(|p| {
        p.required == Some(true) && p.default.is_none() && !given.contains_key(&p.name)
    });
    let missing = missing.map(|p| Finding {
        path: format!("run:spec.parameters[{}]", p.name),
        message: format!(
            "SopDefinition \"{}\" requires the parameter \"{}\": set it in the AgentRun",
            inputs.sop.0, p.name
        ),
    });
    unknown.chain(missing).collect()
}

/// A policy may allow one revision of a procedure only.
fn pinned_sop(inputs: &PlanInputs<'_>) -> Option<Finding> {
    let (name, spec) = inputs.sop;
    let allowed = inputs.policy.1.sops.iter().find(|sop| sop.name == name)?;
    let pinned = allowed.revision.as_deref()?;
    let present = revision(spec);
    (pinned != present).then(|| Finding {
        path: format!("policy:spec.sops[{name}].revision"),
        message: format!(
            "ToolPolicy \"{}\" allows SopDefinition \"{name}\" at revision {pinned} only, it is at {present}",
            inputs.policy.0
        ),
    })
}

fn rejected(reason: FailureReason, findings: &[Finding]) -> Rejection {
    let lines: Vec<String> = findings
        .iter()
        .map(|finding| format!("{}: {}", finding.path, finding.message))
        .collect();
    Rejection {
        reason,
        message: lines.join("\n"),
    }
}

fn too_large(plan: &RunPlan, bytes: usize) -> Rejection {
    let templates: usize = plan.templates.values().map(String::len).sum();
    let schemas: usize = plan.schemas.values().map(|s| s.to_string().len()).sum();
    let inputs: usize = plan.options.inputs.values().map(String::len).sum();
    Rejection {
        reason: FailureReason::PlanTooLarge,
        message: format!(
            "the plan has {} KiB compressed, a ConfigMap takes {} KiB; before compression the templates have {} KiB, the \
             schemas {} KiB, the inputs {} KiB: shorten the largest of them or split the SopDefinition",
            bytes.div_ceil(1024),
            MAX_PLAN_BYTES / 1024,
            templates.div_ceil(1024),
            schemas.div_ceil(1024),
            inputs.div_ceil(1024),
        ),
    }
}

fn identity(run: &AgentRun) -> RunIdentity {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    RunIdentity {
        namespace: text(&run.metadata.namespace),
        name: text(&run.metadata.name),
        uid: text(&run.metadata.uid),
    }
}

fn options(inputs: &PlanInputs<'_>) -> RunOptions {
    let spec = &inputs.run.spec;
    let run_tests = spec.run_tests.unwrap_or(false);
    let environment = spec.environment.unwrap_or_default();
    let declared = inputs.sop.1.parameters.iter();
    let mut parameters: BTreeMap<String, String> = declared
        .filter_map(|p| Some((p.name.clone(), p.default.clone()?)))
        .collect();
    parameters.extend(spec.parameters.clone());
    RunOptions {
        idea: inputs.idea.to_owned(),
        inputs: inputs.inputs.clone(),
        parameters,
        environment,
        project_name: project_name(inputs.run, inputs.earlier),
        model: spec
            .model
            .clone()
            .or_else(|| first_model(inputs.policy.1))
            .unwrap_or_default(),
        prompt_schema: spec
            .prompt_schema
            .unwrap_or(defaults::prompt_schema(environment)),
        investment: spec.investment.unwrap_or(defaults::INVESTMENT),
        rounds: defaults::rounds(spec.rounds, run_tests),
        code_review: spec.code_review.unwrap_or(true),
        run_tests,
        implement: spec.implement.unwrap_or(true),
        incremental: spec.incremental.unwrap_or(false),
        max_auto_summarize_code: spec.max_auto_summarize_code.unwrap_or(0),
        reqa_file: spec.reqa_file.clone().unwrap_or_default(),
        project_source: spec
            .project
            .as_ref()
            .and_then(|project| project.source.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
        recover_from: spec
            .recover_from
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        deadline_seconds: spec.deadline_seconds,
    }
}

/// The name of a run's project: its own, that of the run it begins with, or the run's.
pub fn project_name(run: &AgentRun, earlier: Option<&Earlier>) -> String {
    let project = run.spec.project.as_ref();
    let own = project.and_then(|project| project.name.clone());
    own.or_else(|| earlier.map(|earlier| earlier.project_name.clone()))
        .or_else(|| run.metadata.name.clone())
        .unwrap_or_default()
}

fn first_model(policy: &ToolPolicySpec) -> Option<String> {
    let endpoint = policy.llm.first()?;
    Some(endpoint.models.first()?.name.clone())
}

/// The tools of a policy that a procedure can come to call.
fn tools(roles: &[Role], steps: &[Step], tools: &[Tool]) -> Vec<Tool> {
    let entries: Vec<String> = roles.iter().flat_map(|role| role.tools.clone()).collect();
    let calls = steps.iter().flat_map(works);
    let by_action: Vec<&str> = calls
        .filter_map(|work| Some(called(tools, &work.tool.as_ref()?.name)?.0.name.as_str()))
        .collect();
    let by_role = granted(tools, &entries);
    let wanted = |tool: &&Tool| {
        by_role.iter().any(|granted| granted.tool.name == tool.name)
            || by_action.contains(&tool.name.as_str())
    };
    tools.iter().filter(wanted).cloned().collect()
}

/// Everything that a step's actions do.
fn works(step: &Step) -> impl Iterator<Item = &Work> {
    step.actions.iter().flat_map(|action| {
        let inner = action.repeat.iter().flat_map(|repeat| &repeat.actions);
        std::iter::once(&action.work).chain(inner.map(|action| &action.work))
    })
}

/// One workbench for each distinct image, named by its place in the order of first use.
fn workbenches(steps: &[Step], tools: &[Tool]) -> Vec<Workbench> {
    let mut seen = BTreeSet::new();
    let of_tools = tools.iter().filter_map(|tool| tool.command.as_ref());
    let distinct = images(steps)
        .into_iter()
        .chain(of_tools.map(|command| command.image.as_str()))
        .filter(|image| seen.insert(*image));
    distinct
        .enumerate()
        .map(|(index, image)| Workbench {
            name: format!("workbench-{}", index + 1),
            image: image.to_owned(),
        })
        .collect()
}

/// The images of all commands of actions and gates, in the order in which they are written.
pub fn images(steps: &[Step]) -> Vec<&str> {
    fn of_work(work: &Work) -> impl Iterator<Item = &str> {
        work.command.iter().map(|command| command.image.as_str())
    }
    fn of_gates(gates: &[Gate]) -> impl Iterator<Item = &str> {
        let commands = gates.iter().filter_map(|gate| gate.command.as_ref());
        commands.flat_map(|gate| gate.programs().map(|(_, run)| run.image.as_str()))
    }
    let mut images = Vec::new();
    for step in steps {
        for action in &step.actions {
            images.extend(of_work(&action.work));
            for inner in action.repeat.iter().flat_map(|repeat| &repeat.actions) {
                images.extend(of_work(&inner.work));
                images.extend(of_gates(&inner.gates));
            }
            images.extend(
                action
                    .repeat
                    .iter()
                    .flat_map(|repeat| of_gates(&repeat.gates)),
            );
            images.extend(of_gates(&action.gates));
        }
        images.extend(of_gates(&step.gates));
    }
    images
}

#[cfg(test)]
mod tests;
