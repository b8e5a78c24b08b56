//! The controller of policies: checks them, counts their runs and shows what was used today.

use crate::{
    kinds::{Context, KindError, in_flight, judged},
    metrics::BudgetUsed,
    run::resolve::policy_name,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use kube::{ResourceExt, runtime::controller::Action};
use sopwith_crds::{
    AgentRunSpec, SopDefinitionSpec, ToolPolicy, ToolPolicySpec,
    check::{self, Finding},
    conditions,
    plan::revision,
    tool_policy::{Budgets, Today, ToolPolicyStatus},
};
use std::{sync::Arc, time::Duration};

const DAY_SECONDS: i64 = 86_400;

/// Every mistake in a policy, what this version does not support included.
pub fn findings(spec: &ToolPolicySpec) -> Vec<Finding> {
    let mut findings = check::policy(spec);
    let (run, sop) = (AgentRunSpec::default(), SopDefinitionSpec::default());
    findings.extend(check::not_supported_yet(&run, &sop, spec));
    findings
}

/// The larger of the used shares of the day's budgets; none where there is no budget of the day.
#[allow(clippy::cast_precision_loss)]
pub fn ratio(budgets: Option<&Budgets>, today: &Today) -> Option<f64> {
    let budgets = budgets?;
    let tokens = budgets
        .tokens_per_day
        .map(|most| today.tokens as f64 / most.max(1) as f64);
    let cost = budgets
        .cost_per_day
        .map(|most| match (today.cost.nanos(), most.nanos()) {
            (0, _) => 0.0,
            (_, 0) => 1.0,
            (used, most) => used as f64 / most as f64,
        });
    match (tokens, cost) {
        (Some(tokens), Some(cost)) => Some(tokens.max(cost)),
        (one, other) => one.or(other),
    }
}

/// How much of each policy's day budget is used.
pub fn budgets_used(context: &Context, now: Timestamp) -> Vec<BudgetUsed> {
    let policies = context.caches.policies.state();
    let used = policies.iter().filter_map(|policy| {
        let (namespace, name) = (policy.namespace()?, policy.name_any());
        let today = context.ledger.today(&namespace, &name, now);
        Some(BudgetUsed {
            ratio: ratio(policy.spec.budgets.as_ref(), &today)?,
            namespace,
            policy: name,
        })
    });
    used.collect()
}

/// The status of a policy.
pub fn status(
    policy: &ToolPolicy,
    mut today: Today,
    running: u32,
    now: Timestamp,
) -> ToolPolicyStatus {
    let previous = policy.status.clone().unwrap_or_default();
    today.ratio = ratio(policy.spec.budgets.as_ref(), &today).map(|ratio| format!("{ratio:.4}"));
    let models: usize = policy
        .spec
        .llm
        .iter()
        .map(|endpoint| endpoint.models.len())
        .sum();
    let ready = format!("{} endpoints, {models} models", policy.spec.llm.len());
    let said = judged("InvalidPolicy", &findings(&policy.spec), ready);
    let generation = policy.metadata.generation;
    ToolPolicyStatus {
        observed_generation: generation,
        conditions: conditions::set(&previous.conditions, said, generation, &Time(now)),
        revision: Some(revision(&policy.spec)),
        today: Some(today),
        running: Some(running),
    }
}

/// Checks a policy and writes what is new.
pub async fn reconcile(
    policy: Arc<ToolPolicy>,
    context: Arc<Context>,
) -> Result<Action, KindError> {
    let now = Timestamp::now();
    let (name, namespace) = (policy.name_any(), policy.namespace().unwrap_or_default());
    let running = in_flight(&context.caches, &namespace, |run| policy_name(run) == name);
    let today = context.ledger.today(&namespace, &name, now);
    let previous = policy.status.clone().unwrap_or_default();
    let next = status(&policy, today, running, now);
    let only_counts = ToolPolicyStatus {
        today: previous.today.clone(),
        running: previous.running,
        ..next.clone()
    } == previous;
    let wait = context
        .write(policy.as_ref(), &previous, &next, only_counts, now)
        .await?;
    if let Some(wait) = wait {
        return Ok(Action::requeue(wait));
    }
    Ok(Action::requeue(until_tomorrow(now)))
}

/// The counts of the day begin anew at midnight UTC.
fn until_tomorrow(now: Timestamp) -> Duration {
    let left = DAY_SECONDS - now.as_second().rem_euclid(DAY_SECONDS);
    Duration::try_from(SignedDuration::from_secs(left + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::no_budget(None, None, None)]
    #[case::tokens(Some(1000), None, Some(0.5))]
    #[case::money(None, Some("1.0"), Some(0.25))]
    #[case::the_larger(Some(10_000), Some("1.0"), Some(0.25))]
    #[case::nothing_allowed(None, Some("0"), Some(1.0))]
    fn the_used_share_of_a_day(
        #[case] tokens_per_day: Option<u64>,
        #[case] cost_per_day: Option<&str>,
        #[case] expected: Option<f64>,
    ) {
        let budgets = Budgets {
            tokens_per_day,
            cost_per_day: cost_per_day.map(|money| money.parse().unwrap()),
            ..Budgets::default()
        };
        let today = Today {
            tokens: 500,
            cost: "0.25".parse().unwrap(),
            ..Today::default()
        };
        assert_eq!(ratio(Some(&budgets), &today), expected);
    }

    #[test]
    fn a_policy_is_looked_at_again_just_after_midnight() {
        let now = Timestamp::from_second(86_400 * 3 - 10).unwrap();
        assert_eq!(until_tomorrow(now), Duration::from_secs(11));
    }
}
