//! The sample run from `kubectl apply` to a finished project whose tests really ran.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use sopwith_crds::{
    AgentRun, SopDefinition, ToolPolicy, conditions,
    status::{AgentRunStatus, Phase, StepPhase, StepStatus, Trust, Verdict},
};
use sopwith_e2e::{
    OPERATOR_NAMESPACE, audit, kubectl,
    namespace::{Namespace, in_namespace, phase},
    sample,
};
use std::{fs, path::Path};

/// User name of the operator in the audit log.
const OPERATOR: &str = "system:serviceaccount:sopwith-system:sopwith-operator";

fn step<'a>(status: &'a AgentRunStatus, name: &str) -> Result<&'a StepStatus> {
    status
        .steps
        .iter()
        .find(|step| step.name == name)
        .with_context(|| format!("no step {name}"))
}

#[tokio::test]
async fn the_sample_stops_at_a_red_test_and_ends_green() -> Result<()> {
    in_namespace("flight", async |namespace| {
        namespace.apply([sample::secret()?]).await?;
        namespace.apply(sample::objects()?).await?;
        let running = namespace
            .until::<AgentRun>(sample::RUN, 120, "running", |run| {
                phase(run) == Some(Phase::Running)
            })
            .await?;
        ensure!(
            kubectl::kstatus(&running).await? == "InProgress",
            "a running run is in progress"
        );
        the_pod_holds_no_more_than_it_needs(&namespace).await?;
        let run = namespace
            .ended_as(sample::RUN, Phase::Succeeded, 240)
            .await?;
        ensure!(
            kubectl::kstatus(&run).await? == "Current",
            "kstatus calls it {}",
            kubectl::kstatus(&run).await?
        );
        let status = run.status.context("no status")?;
        two_attempts_and_the_earlier_failure(&status)?;
        what_was_used_is_counted(&namespace, &status).await?;
        the_operator_wrote_little(&namespace, &status)?;
        what_it_left_can_be_pulled(&namespace).await?;
        events_tell_the_story(&namespace).await?;
        definitions_are_current(&namespace).await
    })
    .await
}

fn two_attempts_and_the_earlier_failure(status: &AgentRunStatus) -> Result<()> {
    ensure!(
        conditions::is_true(&status.conditions, conditions::FINISHED),
        "{:?}",
        status.conditions
    );
    ensure!(
        conditions::is_true(&status.conditions, conditions::SUCCEEDED),
        "{:?}",
        status.conditions
    );
    ensure!(
        status.progress.as_deref() == Some("6/6"),
        "progress is {:?}",
        status.progress
    );
    ensure!(
        status.round == Some(2),
        "a backtrack begins a second round, not {:?}",
        status.round
    );
    ensure!(
        status.launch == Some(1),
        "one launch, not {:?}",
        status.launch
    );
    for name in ["write-prd", "design-api", "plan-tasks", "comply"] {
        ensure!(
            step(status, name)?.attempts == 1,
            "{name} took {} attempts",
            step(status, name)?.attempts
        );
    }
    for name in ["implement", "verify"] {
        let step = step(status, name)?;
        ensure!(
            step.attempts == 2 && step.phase == StepPhase::Succeeded,
            "{step:?}"
        );
        let earlier = step
            .previous_failure
            .as_deref()
            .context("the earlier failure is not shown")?;
        ensure!(
            earlier.contains("unit-tests"),
            "the earlier failure names its gate: {earlier}"
        );
    }
    for (name, gate, trust) in [
        ("write-prd", "prd-agreed", Trust::External),
        ("design-api", "architecture-agreed", Trust::External),
        ("implement", "code-reviewed", Trust::External),
        ("implement", "lint", Trust::InProcess),
        ("verify", "bug-trend-falls", Trust::External),
        ("verify", "unit-tests", Trust::InProcess),
        ("comply", "by-the-book", Trust::External),
    ] {
        let gates = &step(status, name)?.gates;
        let judged = gates.iter().find(|judged| judged.name == gate);
        let judged = judged.with_context(|| format!("no gate {gate} in {name}"))?;
        ensure!(
            judged.verdict == Verdict::Passed && judged.trust == Some(trust),
            "{judged:?}"
        );
        ensure!(
            judged
                .evidence
                .as_deref()
                .is_some_and(|digest| digest.starts_with("sha256:")),
            "{judged:?}"
        );
    }
    let size = serde_json::to_vec(status)?.len();
    ensure!(
        size < 16 * 1024,
        "the status of six steps takes {size} bytes"
    );
    Ok(())
}

async fn what_was_used_is_counted(namespace: &Namespace, status: &AgentRunStatus) -> Result<()> {
    let usage = status.usage.clone().context("no usage")?;
    ensure!(
        usage.llm_requests == 41 && usage.llm_errors == 0,
        "{usage:?}"
    );
    ensure!(
        usage.total_tokens == usage.input_tokens + usage.output_tokens && usage.cost.nanos() > 0,
        "{usage:?}"
    );
    let policy = namespace
        .until::<ToolPolicy>("default", 60, "the day's use", |policy| {
            let today = policy
                .status
                .as_ref()
                .and_then(|status| status.today.as_ref());
            today
                .is_some_and(|today| today.tokens == usage.total_tokens && today.cost == usage.cost)
        })
        .await?;
    let policy = policy.status.context("no status")?;
    ensure!(policy.running.unwrap_or_default() == 0, "{policy:?}");
    let metrics = kubectl::kubectl(&[
        "get",
        "--raw",
        &format!(
            "/api/v1/namespaces/{OPERATOR_NAMESPACE}/services/sopwith-metrics:http/proxy/metrics"
        ),
    ])
    .await?;
    for (name, label) in [
        ("sopwith_runs{", "phase=\"Succeeded\""),
        ("sopwith_llm_requests_total{", "status=\"ok\""),
        ("sopwith_llm_tokens_total{", "direction=\"input\""),
        (
            "sopwith_llm_request_duration_seconds_count{",
            "provider=\"replay\"",
        ),
        ("sopwith_step_duration_seconds_count{", "step=\"verify\""),
        ("sopwith_gate_verdicts_total{", "status=\"Failed\""),
        ("sopwith_budget_used_ratio{", "policy=\"default\""),
    ] {
        let ours = format!("namespace=\"{}\"", namespace.name);
        let found = metrics
            .lines()
            .any(|line| line.starts_with(name) && line.contains(label) && line.contains(&ours));
        ensure!(found, "no metric {name}{label},{ours}}}");
    }
    ensure!(
        !metrics.contains(sample::RUN),
        "a run's name is a metric label"
    );
    Ok(())
}

fn the_operator_wrote_little(namespace: &Namespace, status: &AgentRunStatus) -> Result<()> {
    if audit::path().is_none() {
        eprintln!("no audit log on this cluster: writes are not counted");
        return Ok(());
    }
    let writes = audit::writes(
        OPERATOR,
        &namespace.name,
        &["agentruns", "configmaps", "jobs"],
    )?;
    let attempts: usize = status.steps.iter().map(|step| step.attempts as usize).sum();
    let total: usize = writes.values().sum();
    eprintln!("writes of the operator for {attempts} step attempts: {total} {writes:?}");
    ensure!(
        total > 0 && total <= attempts + 4,
        "{total} writes for {attempts} step attempts: {writes:?}"
    );
    Ok(())
}

async fn the_pod_holds_no_more_than_it_needs(namespace: &Namespace) -> Result<()> {
    let pods = namespace
        .api::<Pod>()
        .list(&ListParams::default().labels(sopwith_crds::RUN_LABEL))
        .await?;
    let pod = pods
        .items
        .into_iter()
        .next()
        .context("no pod")?
        .spec
        .context("no spec")?;
    ensure!(
        pod.automount_service_account_token == Some(false),
        "a Kubernetes token is mounted"
    );
    let holders = |volume: &str| -> Vec<String> {
        let containers = pod
            .containers
            .iter()
            .chain(pod.init_containers.iter().flatten());
        let mounts = |c: &&k8s_openapi::api::core::v1::Container| {
            c.volume_mounts.iter().flatten().any(|m| m.name == volume)
        };
        containers
            .filter(mounts)
            .map(|container| container.name.clone())
            .collect()
    };
    for volume in pod.volumes.iter().flatten() {
        let private = volume.secret.is_some() || volume.projected.is_some();
        ensure!(
            !private || holders(&volume.name) == ["runner"],
            "{} is mounted in {:?}",
            volume.name,
            holders(&volume.name)
        );
        let audiences: Vec<_> = volume
            .projected
            .iter()
            .flat_map(|p| p.sources.iter().flatten())
            .collect();
        for source in audiences {
            let audience = source
                .service_account_token
                .as_ref()
                .and_then(|token| token.audience.clone());
            ensure!(
                audience.as_deref() == Some(sopwith_crds::GATEWAY_AUDIENCE),
                "a token for {audience:?}"
            );
        }
    }
    Ok(())
}

async fn what_it_left_can_be_pulled(namespace: &Namespace) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let out_text = out.to_string_lossy().into_owned();
    kubectl::kubectl(&[
        "sop",
        "pull",
        sample::RUN,
        "-n",
        &namespace.name,
        "--out",
        &out_text,
    ])
    .await?;
    let project = out.join("blackjack");
    for place in [
        "docs/prds",
        "docs/system_designs",
        "docs/tasks",
        "docs/code_reviews",
        "docs/code_summaries",
        "docs/quality_reports",
        "resources/competitive_analysis",
        "resources/data_api_design",
        "resources/seq_flow",
        "resources/defects",
        "test_outputs",
        "blackjack",
        "tests",
    ] {
        ensure!(has_files(&project.join(place)), "nothing in {place}");
    }
    ensure!(out.join("messages.jsonl").is_file(), "no trace");
    let evidence = read_all(&out.join("evidence"))?;
    ensure!(
        evidence.contains("<testsuite") && evidence.contains("line-rate"),
        "no JUnit and coverage reports as evidence"
    );
    let checklist = fs::read_to_string(out.join("evidence/gates/comply/by-the-book.md"))?;
    ensure!(
        checklist.contains("verify: attempt 1 failed, back to implement"),
        "{checklist}"
    );
    let defects = fs::read_to_string(project.join("docs/quality_reports/blackjack.md"))?;
    ensure!(
        defects.contains("Open defects, report by report: 2, 1."),
        "{defects}"
    );
    let played = kubectl::run(
        "python3",
        [
            "-B",
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import blackjack.game",
            &project.to_string_lossy(),
        ],
        &[],
        "",
    )
    .await?;
    ensure!(
        played.code == 0,
        "the game does not import: {}",
        played.all()
    );
    Ok(())
}

fn has_files(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

fn read_all(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        text += &if path.is_dir() {
            read_all(&path)?
        } else {
            fs::read_to_string(path)?
        };
    }
    Ok(text)
}

async fn events_tell_the_story(namespace: &Namespace) -> Result<()> {
    let events = namespace.events().await?;
    for reason in ["Launched", "GateFailed", "Succeeded"] {
        ensure!(
            events.iter().any(|(found, _)| found == reason),
            "no Event {reason} in {events:?}"
        );
    }
    Ok(())
}

async fn definitions_are_current(namespace: &Namespace) -> Result<()> {
    let sop = namespace
        .until::<SopDefinition>("software-company", 30, "no run in flight", |sop| {
            sop.status
                .as_ref()
                .is_some_and(|status| status.runs_in_flight.unwrap_or_default() == 0)
        })
        .await?;
    ensure!(
        kubectl::kstatus(&sop).await? == "Current",
        "the SOP is {}",
        kubectl::kstatus(&sop).await?
    );
    let status = sop.status.context("no status")?;
    ensure!(
        status.steps == Some(6) && status.roles == Some(5) && status.revision.is_some(),
        "{status:?}"
    );
    let policy = namespace.api::<ToolPolicy>().get("default").await?;
    ensure!(
        kubectl::kstatus(&policy).await? == "Current",
        "the policy is {}",
        kubectl::kstatus(&policy).await?
    );
    Ok(())
}
