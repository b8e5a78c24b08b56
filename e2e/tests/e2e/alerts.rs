//! The shipped alert on a hung step, with a real Prometheus that scrapes the operator.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use sopwith_crds::{AgentRun, conditions, status::Phase};
use sopwith_e2e::{
    OPERATOR_NAMESPACE,
    namespace::{Namespace, in_namespace},
    prometheus::Prometheus,
};

const ALERT: &str = "SopwithStepStuck";

#[tokio::test]
async fn the_stuck_step_alert_fires_for_a_hung_step_and_resolves() -> Result<()> {
    in_namespace("stuck", async |namespace| {
        let prometheus = Prometheus::start(&metrics_address(&namespace).await?)?;
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.apply_fixture("stuck/sop.yaml").await?;
        namespace.apply_fixture("stuck/run.yaml").await?;
        let stuck = namespace
            .until::<AgentRun>("hanging", 90, "condition StepStuck", |run| {
                run.status.as_ref().is_some_and(|status| {
                    conditions::is_true(&status.conditions, conditions::STEP_STUCK)
                })
            })
            .await?;
        let status = stuck.status.context("no status")?;
        let said =
            conditions::find(&status.conditions, conditions::STEP_STUCK).context("no condition")?;
        ensure!(
            said.message.contains("hang"),
            "the condition names the step: {}",
            said.message
        );
        let alert = prometheus
            .alert(ALERT, &namespace.name, true, 30)
            .await?
            .context("no alert")?;
        ensure!(
            alert["labels"]["step"] == "hang" && alert["labels"]["severity"] == "high",
            "{alert}"
        );
        ensure!(
            namespace
                .events()
                .await?
                .iter()
                .any(|(reason, _)| reason == "StepStuck"),
            "no Event StepStuck"
        );
        namespace.ended_as("hanging", Phase::Succeeded, 120).await?;
        prometheus.alert(ALERT, &namespace.name, false, 30).await?;
        Ok(())
    })
    .await
}

async fn metrics_address(namespace: &Namespace) -> Result<String> {
    let services: Api<Service> = Api::namespaced(namespace.client.clone(), OPERATOR_NAMESPACE);
    let spec = services
        .get("sopwith-metrics")
        .await?
        .spec
        .context("no spec")?;
    let port = spec
        .ports
        .into_iter()
        .flatten()
        .next()
        .context("no port")?
        .port;
    Ok(format!("{}:{port}", spec.cluster_ip.context("no address")?))
}
