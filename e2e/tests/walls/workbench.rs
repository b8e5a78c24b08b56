//! What a command in a real workbench tries: to get out, to reach what it must not, and to take more than there is.

#![allow(
    clippy::print_stdout,
    reason = "how many attempts were made, and how each ended, is what a campaign is for"
)]

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use sopwith_crds::{
    AgentRun,
    status::{Phase, Verdict},
};
use sopwith_e2e::{
    namespace::{Namespace, in_namespace, phase},
    walls::{self, Left},
};
use std::collections::{BTreeMap, BTreeSet};

/// Every attempt of `attempts.py`, and with what it is refused.
const ATTEMPTS: &str = include_str!("attempts.txt");

#[tokio::test]
async fn a_command_does_not_leave_its_workbench() -> Result<()> {
    in_namespace("attempts", async |namespace| {
        walls::prepare(&namespace).await?;
        namespace.apply([walls::run("attempts")?]).await?;
        let running = |run: &AgentRun| phase(run) == Some(Phase::Running);
        namespace
            .until::<AgentRun>("attempts", 60, "running", running)
            .await?;
        the_runner_has_something_to_take(&namespace).await?;
        let run = namespace
            .ended_as("attempts", Phase::Succeeded, 120)
            .await?;
        every_gate_passed(&run)?;
        let left = Left::of(&namespace, "attempts").await?;
        let found = outcomes(&left.text("attempts.txt")?)?;
        let expected = outcomes(ATTEMPTS)?;
        let names = |outcomes: &BTreeMap<String, String>| -> BTreeSet<String> {
            outcomes.keys().cloned().collect()
        };
        ensure!(
            names(&found) == names(&expected),
            "tried, but not expected, or the other way round: {:?}",
            names(&found).symmetric_difference(&names(&expected))
        );
        let differing: Vec<String> = found
            .iter()
            .filter(|(name, outcome)| !expected[*name].split(" or ").any(|one| one == *outcome))
            .map(|(name, outcome)| format!("{name}: {outcome}, expected {}", expected[name]))
            .collect();
        ensure!(differing.is_empty(), "{}", differing.join("\n"));
        eprintln!("{} attempts from a command: all refused", found.len());
        Ok(())
    })
    .await
}

/// Otherwise the attempts to read it would prove nothing.
async fn the_runner_has_something_to_take(namespace: &Namespace) -> Result<()> {
    let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
    let spec = pods.items.first().and_then(|pod| pod.spec.clone());
    let spec = spec.context("no pod")?;
    let mounted = |name: &str| -> BTreeSet<String> {
        let init = spec.init_containers.iter().flatten();
        init.chain(&spec.containers)
            .filter(|container| container.name == name)
            .flat_map(|container| container.volume_mounts.iter().flatten())
            .map(|mount| mount.mount_path.clone())
            .collect()
    };
    let runner = mounted("runner");
    for path in [
        "/etc/sopwith/secrets/model-provider",
        "/var/run/secrets/sopwith.dev",
        "/etc/sopwith/plan",
    ] {
        ensure!(runner.contains(path), "the runner has {runner:?}");
    }
    let bench = mounted("workbench-1");
    let expected = ["/run/sopwith", "/sopwith", "/tmp", "/workspace"];
    ensure!(
        bench.iter().eq(expected),
        "the workbench has {bench:?} mounted"
    );
    Ok(())
}

/// Attempts by name, from lines `attempt NAME: refused WHY` or `attempt NAME: REACHED WHAT`.
fn outcomes(text: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let outcome = line
            .strip_prefix("attempt ")
            .and_then(|line| line.split_once(": "));
        let (name, outcome) = outcome.with_context(|| format!("no attempt: {line}"))?;
        let before = found.insert(name.to_owned(), outcome.to_owned());
        ensure!(before.is_none(), "{name} is there twice");
    }
    Ok(found)
}

/// What `excess.py` takes, and what the gate around it observes.
const EXCESS: [(&str, &str); 10] = [
    ("leaves", "every program exited with 0"),
    ("mute", "python3 exited with 3"),
    ("shared_memory", "every program exited with 0"),
    ("one_file", "every program exited with 0"),
    ("folders", "it made directories more than 200 deep"),
    ("threads", "every program exited with 0"),
    // The kernel ends one process; on nodes with cgroup v2 the container, unless the kubelet has singleProcessOOMKill.
    ("memory", "python3 was ended by signal 9"),
    ("disk", "it left more than 1536 MiB on disk"),
    ("home", "it left more than 1536 MiB on disk"),
    ("files", "it left more than 1536 MiB on disk"),
];
const ENDLESS: [(&str, &str); 3] = [
    (
        "deaf",
        "was still running after its 3 seconds and was killed",
    ),
    (
        "output",
        "was still running after its 3 seconds and was killed",
    ),
    (
        // Still at it when its time was over, or ended by the kernel before: for its memory.
        "processes",
        "python3 was ",
    ),
];

#[tokio::test]
async fn what_takes_too_much_is_ended_and_the_next_gate_judges_as_if_nothing_had_been() -> Result<()>
{
    in_namespace("excess", async |namespace| {
        walls::prepare(&namespace).await?;
        namespace.apply([walls::run("excess")?]).await?;
        let run = namespace.ended_as("excess", Phase::Succeeded, 280).await?;
        every_gate_passed(&run)?;
        let left = Left::of(&namespace, "excess").await?;
        for (cause, expected) in [
            ("excess/bounded", &EXCESS[..]),
            ("endless/endless", &ENDLESS[..]),
        ] {
            let taken = left.said(&format!("{cause}/take"))?;
            ensure!(taken.len() == expected.len(), "{taken:#?}");
            for ((what, part), said) in expected.iter().zip(taken) {
                ensure!(said.contains(part), "{what}: {said}");
                eprintln!("{what}: {}", said.lines().next().unwrap_or_default());
            }
            for gate in ["nothing-is-left", "one-of-two-fails"] {
                let judged = left.said(&format!("{cause}/{gate}"))?;
                ensure!(judged.len() == expected.len(), "{gate}: {judged:#?}");
            }
        }
        only_files_crossed(&left)
    })
    .await
}

/// Of what `litter.py` left.
fn only_files_crossed(left: &Left) -> Result<()> {
    let long = "n".repeat(255);
    let expected = [
        "..twice",
        ".gitattributes",
        ".gitmodules",
        "good.txt",
        &long,
    ];
    let crossed = left.files("litter")?;
    ensure!(crossed.iter().eq(expected), "{crossed:?}");
    let said = left.said("litter/leave")?.join("\n");
    for part in [
        "stayed behind: ",
        "\"litter/.git\" belongs to a git repository",
        "is a link",
    ] {
        ensure!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}

/// Processes without end may cost a launch, where the kernel ends the workbench with them: the next goes on, and judges right.
fn every_gate_passed(run: &AgentRun) -> Result<()> {
    let status = run.status.as_ref().context("no status")?;
    ensure!(
        status.launch.is_some_and(|launch| launch <= 3),
        "launch {:?}",
        status.launch
    );
    let mut gates = status.steps.iter().flat_map(|step| &step.gates);
    ensure!(
        gates.all(|gate| gate.verdict == Verdict::Passed),
        "{:?}",
        status.steps
    );
    Ok(())
}
