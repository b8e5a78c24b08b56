//! Runs on a Git repository: from its server beside the cluster, by way of a pod, to a branch.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use serde_json::{Value, json};
use sopwith_crds::{
    AgentRun, RUN_LABEL,
    status::{Phase, RepositoryStatus},
};
use sopwith_e2e::{
    kubectl,
    namespace::{Namespace, in_namespace},
    operator_process::node_address,
};

use crate::git_server::{Https, PASSWORD, Repositories, Repository, Ssh, USER};

/// Servers, and what a namespace needs to reach them.
struct Stage {
    repositories: Repositories,
    game: Repository,
    https: Https,
    ssh: Ssh,
}

impl Stage {
    async fn new(namespace: &Namespace) -> Result<Self> {
        let address = node_address(&namespace.client).await?;
        let repositories = Repositories::new();
        let game = repositories.add("team/game.git");
        game.commit(
            "main",
            &[
                ("README.md", "100644", b"A game\n"),
                ("bin/run", "100755", b"#!/bin/sh\n"),
                ("link", "120000", b"README.md"),
            ],
        );
        let https = Https::serve_at(&repositories, address, &address.to_string()).await;
        let ssh = Ssh::serve_at(&repositories, address).await;
        let stage = Self {
            repositories,
            game,
            https,
            ssh,
        };
        namespace.apply(stage.objects()?).await?;
        namespace.apply_fixture("repository/sop.yaml").await?;
        Ok(stage)
    }

    fn objects(&self) -> Result<Vec<DynamicObject>> {
        let objects = json!([
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "web" }, "type": "kubernetes.io/basic-auth",
                "stringData": { "username": USER, "password": PASSWORD },
            },
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "shell" }, "type": "kubernetes.io/ssh-auth",
                "stringData": { "ssh-privatekey": self.ssh.key, "known_hosts": self.ssh.known_hosts },
            },
            {
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "trust" },
                "data": { "ca.crt": self.https.authority },
            },
            {
                "apiVersion": "sopwith.dev/v1alpha1", "kind": "ToolPolicy", "metadata": { "name": "default" },
                "spec": {
                    "commands": [{ "argv": ["python3"] }],
                    "images": ["localhost/sopwith/workbench-python:*"],
                    "git": [
                        {
                            "url": format!("{}/team", self.https.url), "secretRef": { "name": "web" },
                            "caRef": { "name": "trust", "key": "ca.crt" }, "branches": ["sopwith/*"],
                        },
                        { "url": self.ssh.url, "secretRef": { "name": "shell" }, "branches": ["sopwith/*"] },
                    ],
                },
            },
        ]);
        Ok(serde_json::from_value(objects)?)
    }

    /// Creates a run that delivers to `sopwith/NAME`.
    async fn run(
        &self,
        namespace: &Namespace,
        name: &str,
        server: &str,
        parameters: Value,
    ) -> Result<()> {
        let run = json!({ "metadata": { "name": name }, "spec": {
            "idea": "notes", "sopRef": { "name": "notes" }, "parameters": parameters,
            "project": {
                "source": { "git": { "url": format!("{server}/team/game.git"), "ref": "main" } },
                "deliver": { "git": { "branch": format!("sopwith/{name}") } },
            },
            "runner": { "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "512Mi" } } },
        } });
        let runs = namespace.api::<AgentRun>();
        runs.create(&PostParams::default(), &serde_json::from_value(run)?)
            .await?;
        Ok(())
    }

    /// The branch of a run that succeeded: two commits on the one it began from, as its status says.
    fn delivered(&self, run: &AgentRun, base: &str) -> Result<()> {
        let name = run.name_any();
        let branch = format!("sopwith/{name}");
        let status = run.status.clone().context("no status")?;
        let repository = status.repository.context("no repository")?;
        let at = self.game.head(&branch).context("no branch")?;
        ensure!(
            repository.commit.as_deref() == Some(base)
                && repository.branch.as_deref() == Some(&branch)
                && repository.delivered.as_deref() == Some(&at),
            "{repository:?}"
        );
        let log = self
            .game
            .git(&["rev-list", "--reverse", &format!("{base}..{branch}")]);
        let commits: Vec<Option<String>> =
            status.steps.into_iter().map(|step| step.commit).collect();
        let made: Vec<Option<String>> = log.lines().map(|line| Some(line.to_owned())).collect();
        ensure!(commits == made, "{commits:?} {made:?}");
        let parent = self.game.git(&["rev-parse", &format!("{branch}~2")]);
        ensure!(parent == base, "begun from {parent}, not {base}");
        let changed = self
            .game
            .git(&["diff-tree", "-r", "--name-only", base, &branch]);
        ensure!(changed == "bin/run\ndocs/note.md", "{changed}");
        ensure!(self.game.git(&["show", &format!("{branch}:docs/note.md")]) == "A game, and more");
        ensure!(self.game.fsck().is_empty(), "{}", self.game.fsck());
        Ok(())
    }
}

fn repository(run: &AgentRun) -> Option<RepositoryStatus> {
    run.status.as_ref()?.repository.clone()
}

#[tokio::test]
async fn a_run_begins_from_a_repository_and_delivers_over_https_and_ssh() -> Result<()> {
    in_namespace("repository", async |namespace| {
        let stage = Stage::new(&namespace).await?;
        let base = stage.game.head("main").context("no main")?;
        let (web, shell) = (stage.https.url.clone(), stage.ssh.url.clone());
        stage.run(&namespace, "web", &web, json!({})).await?;
        stage.run(&namespace, "shell", &shell, json!({})).await?;
        for name in ["web", "shell"] {
            let run = namespace.ended_as(name, Phase::Succeeded, 120).await?;
            stage.delivered(&run, &base)?;
        }
        let events = namespace.events().await?;
        let told = |reason: &str, words: &str| {
            events
                .iter()
                .any(|(found, note)| found == reason && note.contains(words))
        };
        ensure!(told("ProjectLoaded", "link (symbolic link)"), "{events:?}");
        ensure!(told("Delivered", "the branch sopwith/web of"), "{events:?}");
        what_is_left_has_the_commits(&stage, &namespace).await?;
        let dump = namespace.dump().await;
        let key = stage.ssh.key.lines().nth(1).context("no key")?;
        ensure!(
            !dump.contains(PASSWORD) && !dump.contains(key),
            "a credential leaked"
        );
        Ok(())
    })
    .await
}

async fn what_is_left_has_the_commits(stage: &Stage, namespace: &Namespace) -> Result<()> {
    let out = stage.repositories.root().join("pulled");
    let path = out.to_string_lossy();
    kubectl::kubectl(&["sop", "pull", "web", "-n", &namespace.name, "--out", &path]).await?;
    let bundle = out.join("commits.bundle");
    let bundle = bundle.to_string_lossy();
    stage
        .game
        .git(&["fetch", "--quiet", &bundle, "sopwith/web:pulled"]);
    ensure!(stage.game.head("pulled") == stage.game.head("sopwith/web"));
    Ok(())
}

#[tokio::test]
async fn a_launch_after_a_lost_one_works_on_the_commit_that_the_run_began_from() -> Result<()> {
    in_namespace("repository-lost", async |namespace| {
        let stage = Stage::new(&namespace).await?;
        let base = stage.game.head("main").context("no main")?;
        let slow = json!({ "seconds": "15" });
        stage
            .run(&namespace, "lost", &stage.https.url, slow)
            .await?;
        let working = |run: &AgentRun| {
            let step = run
                .status
                .as_ref()
                .and_then(|status| status.current_step.clone());
            step.as_deref() == Some("work")
                && repository(run).is_some_and(|found| found.commit.is_some())
        };
        namespace
            .until::<AgentRun>("lost", 120, "at work", working)
            .await?;
        stage
            .game
            .commit("main", &[("README.md", "100644", b"Another game\n")]);
        let pods = namespace.api::<Pod>();
        let of_run = ListParams::default().labels(&format!("{RUN_LABEL}=lost"));
        pods.delete_collection(&DeleteParams::default(), &of_run)
            .await?;
        let run = namespace.ended_as("lost", Phase::Succeeded, 180).await?;
        ensure!(run.status.as_ref().and_then(|status| status.launch) == Some(2));
        stage.delivered(&run, &base)
    })
    .await
}

#[tokio::test]
async fn what_the_policy_does_not_open_is_refused_and_nothing_is_pushed() -> Result<()> {
    in_namespace("repository-refused", async |namespace| {
        let stage = Stage::new(&namespace).await?;
        let web = stage.https.url.clone();
        let pipeline = json!({ "path": ".github/workflows/ci.yml" });
        stage.run(&namespace, "pipeline", &web, pipeline).await?;
        let elsewhere = web.replace("https://", "https://elsewhere.");
        stage
            .run(&namespace, "elsewhere", &elsewhere, json!({}))
            .await?;
        stage
            .game
            .commit("sopwith/moved", &[("a.txt", "100644", b"a\n")]);
        let moved = stage.game.head("sopwith/moved");
        stage.run(&namespace, "moved", &web, json!({})).await?;
        for (name, reason, words) in [
            (
                "pipeline",
                "PolicyDenied",
                "\".github/workflows/ci.yml\" may not be delivered",
            ),
            (
                "elsewhere",
                "PolicyDenied",
                "Add an entry to spec.git of the policy",
            ),
            ("moved", "DeliveryFailed", "somebody wrote to it meanwhile"),
        ] {
            let run = namespace.ended_as(name, Phase::Failed, 120).await?;
            let failure = run.status.and_then(|status| status.failure);
            let failure = failure.context("no failure")?;
            ensure!(
                failure.reason.to_string() == reason && failure.message.contains(words),
                "{name}: {failure:?}"
            );
        }
        ensure!(stage.game.head("sopwith/pipeline").is_none());
        ensure!(stage.game.head("sopwith/moved") == moved);
        Ok(())
    })
    .await
}
