//! The store is slow, busy, deaf or full while runs are at work: each ends as it would have ended anyway, and is booked once.
//!
//! The operators of these tests are processes of this machine with a store of their own; the one of the cluster is not harmed.

use anyhow::{Context as _, Result, ensure};
use kube::api::DynamicObject;
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, status::Phase};
use sopwith_e2e::{
    fixture, host,
    namespace::{Namespace, in_namespace},
    operator_process::{OperatorProcess, Site, Storage, node_address},
    repository,
    s3_proxy::{S3Proxy, Weather},
    s3_server::S3Server,
    sample,
};
use std::{fs, io::Write as _, path::PathBuf, process::Command, time::Duration};

/// How long the second step works: long enough for weather to change within it.
const WORK: u32 = 6;
/// Writes that a passing fault strikes before it is over.
const STRUCK: u32 = 4;
/// Longest time from one point of a run to the next.
const PATIENCE: u64 = 120;

#[tokio::test]
async fn what_a_bucket_takes_late_twice_or_without_a_word_counts_once() -> Result<()> {
    let site = Site::open().await?;
    in_namespace("bucket", async |namespace| {
        let server = S3Server::start(node_address(&namespace.client).await?).await?;
        let proxy = S3Proxy::start(&server.endpoint).await?;
        let api = site.proxy(None).await?;
        let storage = Storage::Bucket(&server, &proxy.url);
        let operator = site.operator(&namespace, &api, storage, &[]).await?;
        let played = Box::pin(in_every_weather(&namespace, &proxy, &operator)).await;
        played.with_context(|| operator.log())
    })
    .await
}

async fn in_every_weather(
    namespace: &Namespace,
    proxy: &S3Proxy,
    operator: &OperatorProcess,
) -> Result<()> {
    prepare(namespace).await?;
    begin(namespace, "fair", 0).await?;
    let fair = namespace
        .ended_as("fair", Phase::Succeeded, PATIENCE)
        .await?;
    let expected = results(&fair)?;
    for weather in [Weather::Slow, Weather::Deaf, Weather::Doubling] {
        proxy.turns(weather);
        let name = format!("{weather:?}").to_lowercase();
        begin(namespace, &name, 0).await?;
        ends_as(namespace, &name, &expected).await?;
        ensure!(
            proxy.struck() > STRUCK,
            "{weather:?} at {} writes",
            proxy.struck()
        );
        eprintln!("{weather:?} at {} writes: the same end", proxy.struck());
    }
    proxy.turns(Weather::Fair);
    begin(namespace, "refusing", WORK).await?;
    at_work(namespace, "refusing").await?;
    proxy.turns(Weather::Refusing);
    let struck = tokio::time::timeout(Duration::from_secs(60), proxy.has_struck(STRUCK));
    struck.await.context("nothing was written")?;
    let refused = proxy.struck();
    proxy.turns(Weather::Fair);
    ends_as(namespace, "refusing", &expected).await?;
    eprintln!("Refusing at {refused} writes: the same end");
    booked(namespace, operator).await
}

#[tokio::test]
async fn a_full_volume_holds_runs_up_until_there_is_room() -> Result<()> {
    if !host::is_node() {
        eprintln!("not the local cluster: no small volume can be mounted");
        return Ok(());
    }
    let site = Site::open().await?;
    in_namespace("full", async |namespace| {
        let volume = Volume::mount()?;
        let api = site.proxy(None).await?;
        let storage = Storage::At(volume.folder.path());
        let operator = site.operator(&namespace, &api, storage, &[]).await?;
        let played = Box::pin(while_full(&namespace, &volume, &operator)).await;
        played.with_context(|| operator.log())
    })
    .await
}

async fn while_full(
    namespace: &Namespace,
    volume: &Volume,
    operator: &OperatorProcess,
) -> Result<()> {
    prepare(namespace).await?;
    begin(namespace, "roomy", 0).await?;
    let roomy = namespace
        .ended_as("roomy", Phase::Succeeded, PATIENCE)
        .await?;
    begin(namespace, "full", WORK).await?;
    at_work(namespace, "full").await?;
    let ballast = volume.fill()?;
    let told = async {
        while !operator.log().contains("No space left on device") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told);
    told.await.context("the operator never says it is full")?;
    fs::remove_file(ballast)?;
    ends_as(namespace, "full", &results(&roomy)?).await?;
    booked(namespace, operator).await
}

/// A volume of 16 MiB.
struct Volume {
    folder: tempfile::TempDir,
}

impl Volume {
    fn mount() -> Result<Self> {
        let volume = Self {
            folder: tempfile::tempdir()?,
        };
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "sopwith-e2e"])
            .arg(volume.folder.path())
            .status()?;
        ensure!(mounted.success(), "mount: {mounted}");
        Ok(volume)
    }

    /// Takes all the room that is left; gives the file that does.
    fn fill(&self) -> Result<PathBuf> {
        let ballast = self.folder.path().join("ballast");
        let mut file = fs::File::create(&ballast)?;
        let block = vec![0; 4096];
        while file.write_all(&block).is_ok() {}
        Ok(ballast)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: the operator may still look into it.
        let unmounted = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

async fn prepare(namespace: &Namespace) -> Result<()> {
    for file in ["cassette", "policy", "sop"] {
        namespace
            .apply_fixture(&format!("relay/{file}.yaml"))
            .await?;
    }
    Ok(())
}

async fn begin(namespace: &Namespace, name: &str, seconds: u32) -> Result<()> {
    let run = fixture::read(repository().join("e2e/fixtures/relay/run.yaml"))?;
    let mut run: DynamicObject = run.into_iter().next().context("no run")?;
    run.metadata.name = Some(name.to_owned());
    run.data["spec"]["parameters"] = json!({"word": "two", "seconds": seconds.to_string()});
    namespace.apply([run]).await
}

/// Waits until the second step is at work.
async fn at_work(namespace: &Namespace, name: &str) -> Result<()> {
    let second = |run: &AgentRun| {
        let status = run.status.as_ref();
        status.and_then(|status| status.current_step.as_deref()) == Some("copy")
    };
    namespace
        .until(name, PATIENCE, "the second step at work", second)
        .await?;
    Ok(())
}

fn results(run: &AgentRun) -> Result<Value> {
    let status = run.status.as_ref().context("no status")?;
    Ok(json!([sample::results(run)?, status.launch, status.round]))
}

async fn ends_as(namespace: &Namespace, name: &str, expected: &Value) -> Result<()> {
    let run = namespace.ended_as(name, Phase::Succeeded, PATIENCE).await?;
    let came = results(&run)?;
    ensure!(came == *expected, "{name}: {came}\nexpected: {expected}");
    Ok(())
}

/// What the ledger has booked is what the runs, which are alike, have used.
async fn booked(namespace: &Namespace, operator: &OperatorProcess) -> Result<()> {
    let all = kube::api::ListParams::default();
    let runs = namespace.api::<AgentRun>().list(&all).await?;
    let tokens = |run: &AgentRun| Some(run.status.as_ref()?.usage.as_ref()?.total_tokens);
    let used: u64 = runs.items.iter().filter_map(tokens).sum();
    let booked = operator.booked_tokens()?;
    ensure!(booked == used, "{booked} booked, {used} used");
    eprintln!("{} runs, {used} tokens booked once", runs.items.len());
    Ok(())
}
