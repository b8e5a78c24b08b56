//! The controller of procedures: checks them and counts their runs.

use crate::{
    kinds::{Context, KindError, in_flight, judged},
    run::resolve::{self, Unresolved},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{ResourceExt, runtime::controller::Action};
use sopwith_crds::{
    AgentRunSpec, SopDefinition, SopDefinitionSpec, ToolPolicySpec,
    check::{self, Finding},
    conditions::{self, Said},
    plan::revision,
    sop_definition::SopDefinitionStatus,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How soon a ConfigMap of the user is looked for again: they are not watched.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Every mistake in a procedure, what this version does not support included.
pub fn findings(spec: &SopDefinitionSpec, templates: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut findings = check::sop_with(spec, templates);
    let (run, policy) = (AgentRunSpec::default(), ToolPolicySpec::default());
    findings.extend(check::not_supported_yet(&run, spec, &policy));
    findings
}

/// The status of a procedure.
pub fn status(
    sop: &SopDefinition,
    said: Vec<Said>,
    runs: u32,
    now: Timestamp,
) -> SopDefinitionStatus {
    let previous = sop.status.clone().unwrap_or_default();
    let count = |length: usize| u32::try_from(length).ok();
    SopDefinitionStatus {
        observed_generation: sop.metadata.generation,
        conditions: conditions::set(
            &previous.conditions,
            said,
            sop.metadata.generation,
            &Time(now),
        ),
        revision: Some(revision(&sop.spec)),
        steps: count(sop.spec.steps.len()),
        roles: count(sop.spec.roles.len()),
        runs_in_flight: Some(runs),
    }
}

/// Checks a procedure and writes what is new.
pub async fn reconcile(
    sop: Arc<SopDefinition>,
    context: Arc<Context>,
) -> Result<Action, KindError> {
    let now = Timestamp::now();
    let (name, namespace) = (sop.name_any(), sop.namespace().unwrap_or_default());
    let templates = resolve::templates(&sop.spec, &context.client, &namespace).await;
    let mut look = None;
    let said = match templates {
        Ok(templates) => {
            let ready = format!(
                "{} steps, {} roles",
                sop.spec.steps.len(),
                sop.spec.roles.len()
            );
            judged("InvalidSop", &findings(&sop.spec, &templates), ready)
        }
        Err(Unresolved::Missing(pending)) => {
            look = Some(LOOK_AGAIN);
            vec![
                Said::no(conditions::READY, pending.reason, &pending.message),
                Said::yes(conditions::RECONCILING, pending.reason, pending.message),
            ]
        }
        Err(Unresolved::Kube(source)) => {
            return Err(KindError {
                what: "read templates",
                source,
            });
        }
    };
    let runs = in_flight(&context.caches, &namespace, |run| {
        run.spec.sop_ref.name == name
    });
    let previous = sop.status.clone().unwrap_or_default();
    let next = status(&sop, said, runs, now);
    let only_counts = SopDefinitionStatus {
        runs_in_flight: previous.runs_in_flight,
        ..next.clone()
    } == previous;
    let wait = context
        .write(sop.as_ref(), &previous, &next, only_counts, now)
        .await?;
    if let Some(wait) = wait {
        return Ok(Action::requeue(wait));
    }
    Ok(look.map_or_else(Action::await_change, Action::requeue))
}
