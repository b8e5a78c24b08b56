//! The plan's ConfigMap, and whether a policy still allows a frozen plan.

use super::job::{labels, owner, plan_name};
use k8s_openapi::{
    ByteString, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use sopwith_crds::{
    AgentRun, SopDefinitionSpec, ToolPolicySpec,
    check::{self, Finding},
    contract::{
        Digest,
        plan::{CA_KEY, PLAN_KEY, RunPlan},
    },
    plan::{ReadPlanError, Rejection, decompress, digest},
    status::{FailureReason, PlanRef},
    tool_policy::Tool,
};

/// A ConfigMap that does not hold the plan it should.
#[derive(Debug, thiserror::Error)]
pub enum PlanLost {
    /// No such key.
    #[error("ConfigMap {0} has no key {PLAN_KEY}")]
    NoKey(String),
    /// Not readable.
    #[error("ConfigMap {0}: {1}")]
    Unreadable(String, ReadPlanError),
    /// Another plan than the one that was frozen.
    #[error(
        "ConfigMap {name} holds a plan with digest {found}, the run was planned with {expected}"
    )]
    Changed {
        /// The ConfigMap.
        name: String,
        /// What it holds.
        found: Digest,
        /// What it should hold.
        expected: String,
    },
    /// The ConfigMap is gone.
    #[error("ConfigMap {0} was deleted")]
    Gone(String),
}

/// A plan that is not in the cluster yet.
#[derive(Clone, Debug)]
pub struct PreparedPlan {
    /// The plan.
    pub plan: RunPlan,
    /// The same, gzipped.
    pub compressed: Vec<u8>,
}

/// The immutable ConfigMap that holds a plan, owned by its run.
pub fn config_map(run: &AgentRun, prepared: &PreparedPlan, authority: &str) -> ConfigMap {
    let name = run.metadata.name.as_deref().unwrap_or_default();
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(plan_name(name, &digest(&prepared.plan))),
            namespace: run.metadata.namespace.clone(),
            labels: Some(labels(name)),
            owner_references: Some(owner(run)),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        binary_data: Some([(PLAN_KEY.to_owned(), ByteString(prepared.compressed.clone()))].into()),
        data: Some([(CA_KEY.to_owned(), authority.to_owned())].into()),
    }
}

/// Whether a ConfigMap that was there already holds just what we would have put there. Its owner and labels say nothing: whoever
/// may write ConfigMaps in the namespace can write those.
pub fn holds(there: &ConfigMap, wanted: &ConfigMap) -> bool {
    let plan = |map: &ConfigMap| read(map, None).ok().map(|(reference, _)| reference.digest);
    plan(there).is_some() && plan(there) == plan(wanted) && there.data == wanted.data
}

/// Reads the plan back. `expected`: the digest that status shows, where it shows one.
pub fn read(
    config_map: &ConfigMap,
    expected: Option<&str>,
) -> Result<(PlanRef, RunPlan), PlanLost> {
    let name = config_map.metadata.name.clone().unwrap_or_default();
    let bytes = config_map
        .binary_data
        .as_ref()
        .and_then(|data| data.get(PLAN_KEY));
    let bytes = bytes.ok_or_else(|| PlanLost::NoKey(name.clone()))?;
    let plan = decompress(&bytes.0).map_err(|error| PlanLost::Unreadable(name.clone(), error))?;
    let found = digest(&plan);
    if let Some(expected) = expected.filter(|expected| *expected != found.as_str()) {
        return Err(PlanLost::Changed {
            name,
            found,
            expected: expected.to_owned(),
        });
    }
    let reference = PlanRef {
        config_map: name,
        digest: found.to_string(),
    };
    Ok((reference, plan))
}

/// A policy is live: what it no longer allows ends a run at its next launch.
pub fn still_allowed(
    run: &AgentRun,
    plan: &RunPlan,
    policy: &ToolPolicySpec,
) -> Result<(), Rejection> {
    let frozen = SopDefinitionSpec {
        layout: plan.layout.clone(),
        templates: plan.templates.clone(),
        schemas: plan.schemas.clone(),
        roles: plan.roles.clone(),
        steps: plan.steps.clone(),
        ..SopDefinitionSpec::default()
    };
    let mut findings = check::pairing(&run.spec, &frozen, policy);
    findings.extend(
        plan.tools
            .iter()
            .filter_map(|tool| changed_tool(tool, policy)),
    );
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    Err(Rejection {
        reason: FailureReason::PolicyDenied,
        message: format!(
            "the policy was narrowed since the run was planned:\n{}",
            lines.join("\n")
        ),
    })
}

/// What a run calls is what its plan says: a tool that has become another one since, or has gone, is not what the policy
/// allows. Descriptions and limits are those of the plan until the next run.
fn changed_tool(planned: &Tool, policy: &ToolPolicySpec) -> Option<Finding> {
    let finding = |message: &str| Finding {
        path: format!("policy:spec.tools[{}]", planned.name),
        message: message.to_owned(),
    };
    let Some(now) = policy.tools.iter().find(|tool| tool.name == planned.name) else {
        return Some(finding(
            "is no longer there; put it back, or start a new run",
        ));
    };
    let kind = |tool: &Tool| {
        let Tool {
            builtin,
            command,
            mcp,
            secret_ref,
            list_digest,
            ..
        } = tool.clone();
        (builtin, command, mcp, secret_ref, list_digest)
    };
    let functions = &planned.include_functions;
    let same = kind(planned) == kind(now)
        && functions
            .iter()
            .all(|function| now.include_functions.contains(function));
    (!same).then(|| {
        finding("is not the tool that the run was planned with; put it back, or start a new run")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use sopwith_crds::plan::compress;

    fn prepared() -> PreparedPlan {
        let plan = fixture::plan();
        PreparedPlan {
            compressed: compress(&plan).unwrap(),
            plan,
        }
    }

    #[test]
    fn the_plan_is_read_back_as_it_was_written() {
        let plan = fixture::plan();
        let map = config_map(&fixture::run(), &prepared(), "PEM");
        let (reference, found) = read(&map, Some(digest(&plan).as_str())).unwrap();
        assert_eq!(found, plan);
        let digits = &digest(&plan).to_string()["sha256:".len()..][..10];
        assert_eq!(reference.config_map, format!("blackjack-plan-{digits}"));
        assert_eq!(map.immutable, Some(true));
        assert_eq!(map.metadata.owner_references.unwrap()[0].kind, "AgentRun");
    }

    #[test]
    fn a_plan_that_somebody_else_put_there_is_not_taken_for_ours() {
        let wanted = config_map(&fixture::run(), &prepared(), "PEM");
        assert!(holds(&wanted, &wanted));
        let mut repacked = wanted.clone();
        let mut forged = fixture::plan();
        forged.run.name = "other".to_owned();
        let bytes = ByteString(compress(&forged).unwrap());
        repacked.binary_data = Some([(PLAN_KEY.to_owned(), bytes)].into());
        assert!(!holds(&repacked, &wanted));
        let other_authority = config_map(&fixture::run(), &prepared(), "another PEM");
        assert!(!holds(&other_authority, &wanted));
        assert!(!holds(&ConfigMap::default(), &wanted));
    }

    #[test]
    fn a_tool_that_became_another_or_went_ends_the_run_at_its_next_launch() {
        let tool = |text: &str| -> Tool { serde_saphyr::from_str(text).unwrap() };
        let planned = "{name: t, description: a, mcp: {url: 'https://a'}, includeFunctions: [f, g], maxCalls: 3, secretRef: {name: s, key: k}}";
        let changed = |from: &str, to: &str| planned.replace(from, to);
        for (now, refused) in [
            (planned.to_owned(), false),
            (changed("description: a", "description: b"), false),
            (changed("maxCalls: 3", "maxCalls: 2"), false),
            (changed("[f, g]", "[g, f, h]"), false),
            (changed("[f, g]", "[f]"), true),
            (changed("https://a", "https://b"), true),
            (changed("key: k", "key: l"), true),
            (changed("maxCalls: 3", "listDigest: x"), true),
            (changed("name: t,", "name: u,"), true),
        ] {
            let policy = ToolPolicySpec {
                tools: vec![tool(&now)],
                ..ToolPolicySpec::default()
            };
            let found = changed_tool(&tool(planned), &policy);
            assert_eq!(found.is_some(), refused, "{now}: {found:?}");
        }
    }

    #[test]
    fn another_plan_is_noticed() {
        let map = config_map(&fixture::run(), &prepared(), "PEM");
        assert!(matches!(
            read(&map, Some("sha256:0")),
            Err(PlanLost::Changed { .. })
        ));
        let empty = ConfigMap::default();
        assert!(matches!(read(&empty, None), Err(PlanLost::NoKey(_))));
    }
}
