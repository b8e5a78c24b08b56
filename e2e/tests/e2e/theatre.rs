//! That the sample is no theatre: what is changed changes the end.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use serde_json::json;
use sopwith_crds::{
    AgentRun,
    contract::cassette::Cassette,
    status::{FailureReason, Phase},
};
use sopwith_e2e::{
    fixture, kubectl,
    llm_server::{API_KEY, LlmServer},
    namespace::{Namespace, in_namespace},
    repository, sample,
};
use std::{ffi::OsStr, fs, net::IpAddr};

async fn run_of(namespace: &Namespace, objects: Vec<DynamicObject>) -> Result<AgentRun> {
    namespace.apply([sample::secret()?]).await?;
    namespace.apply(objects).await?;
    namespace.ended(sample::RUN, 300).await
}

#[tokio::test]
async fn one_changed_word_of_a_prompt_fails_the_run_with_a_readable_difference() -> Result<()> {
    in_namespace("prompt", async |namespace| {
        let mut objects = sample::objects()?;
        sample::change(
            &mut objects,
            "SopDefinition",
            "Write the product requirements document",
            "Write the product requirements pamphlet",
        )?;
        let run = run_of(&namespace, objects).await?;
        let failure = run
            .status
            .and_then(|status| status.failure)
            .context("it did not fail")?;
        ensure!(
            failure.reason == FailureReason::ProviderFailed,
            "{failure:?}"
        );
        ensure!(failure.step.as_deref() == Some("write-prd"), "{failure:?}");
        let shown = |mark: char, word: &str| {
            failure
                .message
                .lines()
                .any(|line| line.starts_with(mark) && line.contains(word))
        };
        ensure!(
            shown('-', "document") && shown('+', "pamphlet"),
            "no readable difference:\n{}",
            failure.message
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_assertion_turned_round_stops_the_line_for_good_and_the_demo_fails() -> Result<()> {
    in_namespace("assertion", async |namespace| {
        let folder = tempfile::tempdir()?;
        let sample = repository().join("config/samples/software-company");
        for file in ["sop.yaml", "kustomization.yaml"] {
            fs::copy(sample.join(file), folder.path().join(file))?;
        }
        // What is recorded is judged by the assertion as it is now, and the one repair that is recorded is the last.
        for (file, from, to) in [
            ("toolpolicy.yaml", "mode: strict", "mode: gatesOnly"),
            (
                "agentrun.yaml",
                "  runTests: true\n",
                "  runTests: true\n  parameters: {maxRepairs: \"1\"}\n",
            ),
        ] {
            let text = fs::read_to_string(sample.join(file))?;
            ensure!(text.contains(from), "{file} does not say {from}");
            fs::write(folder.path().join(file), text.replace(from, to))?;
        }
        let mut cassette = fixture::read(sample.join("cassette.yaml"))?;
        turn_one_assertion(&mut cassette)?;
        fs::write(
            folder.path().join("cassette.yaml"),
            serde_saphyr::to_string(&cassette[0])?,
        )?;
        let out = folder.path().join("out");
        let variables = [
            ("DEMO_SAMPLE", folder.path().as_os_str()),
            ("DEMO_NAMESPACE", OsStr::new(&namespace.name)),
            ("DEMO_OUT", out.as_os_str()),
        ];
        let demo = kubectl::run("bash", [repository().join("e2e/demo.sh")], &variables, "").await?;
        ensure!(demo.code == 1, "the demo took it: {}", demo.all());
        ensure!(
            demo.stdout.contains("GateFailed"),
            "the demo does not say why: {}",
            demo.all()
        );
        let run = namespace.ended(sample::RUN, 10).await?;
        let failure = run
            .status
            .and_then(|status| status.failure)
            .context("no failure")?;
        ensure!(failure.reason == FailureReason::GateFailed, "{failure:?}");
        ensure!(failure.step.as_deref() == Some("verify"), "{failure:?}");
        Ok(())
    })
    .await
}

/// Turns one assertion of the tests round that the second version of the code must pass.
fn turn_one_assertion(objects: &mut [DynamicObject]) -> Result<()> {
    let data = sample::of_kind(objects, "ConfigMap")?.data["data"]
        .as_object_mut()
        .context("no data")?;
    for text in data.values_mut() {
        let mut cassette: Cassette = serde_saphyr::from_str(text.as_str().context("no text")?)?;
        let second = cassette.interactions.iter_mut().find(|interaction| {
            let content = interaction.response.content.as_deref().unwrap_or_default();
            interaction.key.step == "verify"
                && interaction.key.attempt == 2
                && content.contains("assert ")
                && content.contains(" == ")
        });
        if let Some(interaction) = second {
            let content = interaction.response.content.take().context("no content")?;
            let at = content.find("assert ").context("no assertion")?;
            let (before, after) = content.split_at(at);
            interaction.response.content =
                Some(format!("{before}{}", after.replacen(" == ", " != ", 1)));
            *text = serde_saphyr::to_string(&cassette)?.into();
            return Ok(());
        }
    }
    anyhow::bail!("the cassette has no tests in the second round")
}

fn cassette(objects: &mut [DynamicObject]) -> Result<Cassette> {
    let data = sample::of_kind(objects, "ConfigMap")?.data["data"]
        .as_object()
        .context("no data")?
        .clone();
    let mut whole = Cassette::default();
    for text in data.values() {
        let part: Cassette = serde_saphyr::from_str(text.as_str().context("no text")?)?;
        whole.interactions.extend(part.interactions);
    }
    Ok(whole)
}

#[tokio::test]
async fn the_cassette_served_over_tls_and_sse_gives_the_same_result() -> Result<()> {
    in_namespace("tls", async |namespace| {
        let mut objects = sample::objects()?;
        let server =
            LlmServer::start(node_address(&namespace).await?, &cassette(&mut objects)?).await?;
        speak_to(&mut objects, &server)?;
        namespace.apply(peers(&server)?).await?;
        namespace.apply(objects).await?;
        let over_tls = namespace
            .ended_as(sample::RUN, Phase::Succeeded, 300)
            .await?;
        ensure!(
            server.answered() == 41,
            "{} requests reached the server",
            server.answered()
        );
        in_namespace("tls-replay", async |namespace| {
            let replayed = run_of(&namespace, sample::objects()?).await?;
            ensure!(
                sample::results(&replayed)? == sample::results(&over_tls)?,
                "replay and server gave different results"
            );
            Ok(())
        })
        .await
    })
    .await
}

fn speak_to(objects: &mut [DynamicObject], server: &LlmServer) -> Result<()> {
    let policy = &mut sample::of_kind(objects, "ToolPolicy")?.data;
    let endpoint = policy
        .pointer_mut("/spec/llm/0")
        .and_then(|endpoint| endpoint.as_object_mut())
        .context("no endpoint")?;
    endpoint.remove("replay");
    endpoint.insert("provider".into(), "openai".into());
    endpoint.insert("baseUrl".into(), server.base_url.clone().into());
    endpoint.insert(
        "caRef".into(),
        json!({ "name": "private-ca", "key": "ca.crt" }),
    );
    Ok(())
}

fn peers(server: &LlmServer) -> Result<Vec<DynamicObject>> {
    let mut secret = sample::secret()?;
    secret.data["stringData"]["api-key"] = API_KEY.into();
    let ca = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "private-ca" },
        "data": { "ca.crt": server.certificate }
    });
    Ok(vec![secret, serde_json::from_value(ca)?])
}

async fn node_address(namespace: &Namespace) -> Result<IpAddr> {
    let nodes = Api::<Node>::all(namespace.client.clone())
        .list(&ListParams::default())
        .await?;
    let status = nodes
        .items
        .into_iter()
        .next()
        .and_then(|node| node.status)
        .context("no node")?;
    let address = status
        .addresses
        .into_iter()
        .flatten()
        .find(|address| address.type_ == "InternalIP")
        .context("no address")?;
    Ok(address.address.parse()?)
}
