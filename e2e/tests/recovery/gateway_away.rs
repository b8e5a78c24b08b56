//! The operator, and the gateway in it, is away for a while: at half of a run, and at its end.

use crate::{
    SHARED,
    line::{begin, booked_once, pod, prepare, question, uid},
};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use sopwith_crds::status::Phase;
use sopwith_e2e::{
    host,
    namespace::{Namespace, bring_operator_back, in_namespace_with_harm, take_operator_away},
    sample,
};
use std::time::Duration;

/// At a command when the gateway goes, and still when it is back.
const THROUGH_HALF: &str = "through-half";
/// Asks the model while the gateway is away.
const ASKING: &str = "asking";
/// Ends while the gateway is away.
const AT_THE_END: &str = "at-the-end";
/// Ends, too, and its pod is deleted before the gateway is back.
const DELETED: &str = "deleted";
/// Never sees the gateway away.
const UNBROKEN: &str = "unbroken";

#[tokio::test]
async fn runs_go_on_without_the_gateway_and_wait_for_it_at_their_end() -> Result<()> {
    let _alone = SHARED.write().await;
    if !host::is_node() {
        eprintln!("not the local cluster: the processes of its pods cannot be seen");
        return Ok(());
    }
    in_namespace_with_harm("gateway-away", async |namespace| {
        let server = prepare(&namespace, [question(ASKING)]).await?;
        for (name, seconds) in [
            (THROUGH_HALF, 45),
            (ASKING, 0),
            (AT_THE_END, 8),
            (DELETED, 8),
        ] {
            begin(&namespace, name, seconds, |_| {}).await?;
        }
        begin(&namespace, UNBROKEN, 0, |_| {}).await?;
        let unbroken = namespace.ended_as(UNBROKEN, Phase::Succeeded, 120).await?;
        let mut commands = Vec::new();
        for name in [THROUGH_HALF, AT_THE_END, DELETED] {
            let pod = pod(&namespace, name, 1).await?;
            host::process_of(&uid(&pod), &["time.sleep"], 90).await?;
            commands.push(pod);
        }
        server.asked(&question(ASKING), 90).await?;
        let replicas = take_operator_away(&namespace.client).await?;
        let meanwhile = async {
            server.release(&question(ASKING));
            for pod in &commands[1..] {
                no_command_runs(pod).await?;
            }
            end_pod(&namespace, &commands[2]).await
        }
        .await;
        bring_operator_back(&namespace.client, replicas).await?;
        meanwhile?;
        namespace.operator_is_back().await?;
        let names = [THROUGH_HALF, ASKING, AT_THE_END, DELETED];
        let ended = names.map(|name| Box::pin(namespace.ended_as(name, Phase::Succeeded, 150)));
        let expected = sample::results(&unbroken)?["steps"].clone();
        for run in try_join_all(ended).await? {
            let name = run.name_any();
            let steps = sample::results(&run)?["steps"].clone();
            ensure!(steps == expected, "{name}: {steps}\n{expected}");
            let launch = run.status.as_ref().and_then(|status| status.launch);
            let launches = if name == DELETED { 2 } else { 1 };
            ensure!(launch == Some(launches), "{name}: launch {launch:?}");
            let times = server.times(&question(&name));
            ensure!(times == 1, "{name}: asked {times} times");
        }
        let used = booked_once(&namespace).await?;
        eprintln!("5 runs, {used} tokens booked once");
        Ok(())
    })
    .await
}

async fn no_command_runs(pod: &Pod) -> Result<()> {
    let ended = async {
        while !host::processes_of(&uid(pod), &["time.sleep"])?.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), ended);
    ended.await.context("the command does not end")?
}

/// Ends a pod as a drain does, and waits until it has gone: it had no gateway to report to, and must end in its grace period.
async fn end_pod(namespace: &Namespace, pod: &Pod) -> Result<()> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let pods = namespace.api::<Pod>();
    let (name, uid) = (pod.name_any(), uid(pod));
    pods.delete(&name, &params).await?;
    let gone = kube::runtime::wait::conditions::is_deleted(&uid);
    let gone = Box::pin(kube::runtime::wait::await_condition(pods, &name, gone));
    let gone = tokio::time::timeout(Duration::from_secs(60), gone);
    gone.await.context("the pod does not go")??;
    Ok(())
}
