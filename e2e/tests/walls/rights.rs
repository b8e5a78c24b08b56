//! What the chart grants the operator beside what it was seen to use.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde_json::Value;
use sopwith_e2e::{OPERATOR_NAMESPACE, audit, namespace::in_namespace};
use std::collections::{BTreeMap, BTreeSet};

/// Name of the operator's ServiceAccount.
const ACCOUNT: &str = "sopwith-operator";

/// Needed although the tests need not make the operator use it, and why.
const UNUSED: &[(&str, &str)] = &[
    (
        "update agentruns.sopwith.dev/finalizers",
        "the apiserver asks for it, where OwnerReferencesPermissionEnforcement is on, when a Job is made that belongs to a run",
    ),
    (
        "update secrets",
        "the gateway's certificate is renewed after weeks",
    ),
    (
        "get agentruns.sopwith.dev",
        "the gateway asks for a run that its cache does not have yet",
    ),
];

/// A right: `verb resource.group[/subresource]`, and the names it is limited to.
type Rights = BTreeMap<String, BTreeSet<String>>;

#[tokio::test]
async fn the_operator_has_every_right_it_uses_and_uses_every_right_it_has() -> Result<()> {
    in_namespace("rights", async |namespace| {
        let rules = rules(&namespace.client).await?;
        nothing_dangerous(&rules)?;
        let granted = granted(&rules);
        let Some(used) = used()? else {
            eprintln!("rights: no audit log on this cluster; only the rules were looked at");
            return Ok(());
        };
        let excused = |right: &String| UNUSED.iter().any(|(known, _)| known == right);
        let idle: Vec<&String> = granted
            .keys()
            .filter(|right| !used.contains(*right) && !excused(right))
            .collect();
        let stale: Vec<_> = UNUSED
            .iter()
            .filter(|(right, _)| !granted.contains_key(*right))
            .collect();
        eprintln!(
            "rights: {} granted, {} of them used, {} excused",
            granted.len(),
            granted.keys().filter(|right| used.contains(*right)).count(),
            UNUSED.len()
        );
        ensure!(
            idle.is_empty(),
            "granted, but never used in the tests so far (run the whole of make e2e): {idle:#?}"
        );
        ensure!(stale.is_empty(), "excused without need: {stale:?}");
        let denied = denied(&used)?;
        ensure!(denied.is_empty(), "the operator was refused: {denied:#?}");
        Ok(())
    })
    .await
}

/// Every rule that is bound to the operator's account, wherever.
async fn rules(client: &Client) -> Result<Vec<PolicyRule>> {
    let all = ListParams::default();
    let ours = |subjects: &Option<Vec<Subject>>| {
        let mut subjects = subjects.iter().flatten();
        subjects.any(|s| s.name == ACCOUNT && s.namespace.as_deref() == Some(OPERATOR_NAMESPACE))
    };
    let mut references: Vec<(Option<String>, RoleRef)> = Vec::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone())
        .list(&all)
        .await?
    {
        if ours(&binding.subjects) {
            references.push((None, binding.role_ref));
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await? {
        if ours(&binding.subjects) {
            references.push((binding.namespace(), binding.role_ref));
        }
    }
    ensure!(
        references.len() >= 2,
        "the operator has hardly any role: {references:?}"
    );
    let mut rules = Vec::new();
    for (namespace, reference) in references {
        let found = if let ("Role", Some(namespace)) = (reference.kind.as_str(), namespace) {
            let roles: Api<Role> = Api::namespaced(client.clone(), &namespace);
            roles.get(&reference.name).await?.rules
        } else {
            let roles: Api<ClusterRole> = Api::all(client.clone());
            roles.get(&reference.name).await?.rules
        };
        rules.extend(found.into_iter().flatten());
    }
    Ok(rules)
}

fn nothing_dangerous(rules: &[PolicyRule]) -> Result<()> {
    for rule in rules {
        let groups = rule.api_groups.clone().unwrap_or_default();
        let resources = rule.resources.clone().unwrap_or_default();
        let every = [&groups, &resources, &rule.verbs];
        ensure!(
            every.into_iter().flatten().all(|word| !word.contains('*')),
            "a wildcard: {rule:?}"
        );
        for verb in ["impersonate", "bind", "escalate", "deletecollection"] {
            ensure!(!rule.verbs.iter().any(|v| v == verb), "{verb}: {rule:?}");
        }
        for resource in [
            "pods/exec",
            "pods/attach",
            "pods/portforward",
            "pods/ephemeralcontainers",
            "serviceaccounts/token",
            "nodes/proxy",
        ] {
            ensure!(
                !resources.iter().any(|r| r == resource),
                "{resource}: {rule:?}"
            );
        }
        let secrets = resources.iter().any(|r| r == "secrets");
        let reads = rule.verbs.iter().any(|v| v != "create");
        let named = rule.resource_names.iter().flatten().count() > 0;
        ensure!(
            !(secrets && reads) || named,
            "Secrets without a name: {rule:?}"
        );
        let lists = rule.verbs.iter().any(|v| v == "list" || v == "watch");
        ensure!(!(secrets && lists), "Secrets listed: {rule:?}");
    }
    Ok(())
}

fn right(verb: &str, resource: &str, group: &str) -> String {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if subresource.is_empty() { "" } else { "/" };
    format!("{verb} {resource}{dot}{group}{slash}{subresource}")
}

fn granted(rules: &[PolicyRule]) -> Rights {
    let mut granted = Rights::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    let names = granted.entry(right(verb, resource, group)).or_default();
                    names.extend(rule.resource_names.iter().flatten().cloned());
                }
            }
        }
    }
    granted
}

/// What the operator asked the apiserver for, and with what answer.
fn requests() -> Result<Option<Vec<(String, i64)>>> {
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{ACCOUNT}");
    if audit::path().is_none() {
        return Ok(None);
    }
    let mut requests = Vec::new();
    for record in audit::records_with(&user)? {
        let field = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        if field("/user/username") != Some(user.as_str()) {
            continue;
        }
        let (Some(verb), Some(resource)) = (field("/verb"), field("/objectRef/resource")) else {
            continue;
        };
        let resource = match field("/objectRef/subresource") {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource.to_owned(),
        };
        let group = field("/objectRef/apiGroup").unwrap_or_default();
        let code = record
            .pointer("/responseStatus/code")
            .and_then(Value::as_i64);
        requests.push((right(verb, &resource, group), code.unwrap_or(0)));
    }
    Ok(Some(requests))
}

fn used() -> Result<Option<BTreeSet<String>>> {
    let requests = requests()?;
    Ok(requests.map(|list| {
        let allowed = list.into_iter().filter(|(_, code)| *code != 403);
        allowed.map(|(right, _)| right).collect()
    }))
}

/// What the operator was refused and never allowed. Now and then it is refused what it may do: by an apiserver that has just
/// started, by a quota, in a namespace that is being deleted.
fn denied(used: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let requests = requests()?.context("no audit log")?;
    let refused = requests.into_iter().filter(|(_, code)| *code == 403);
    Ok(refused
        .map(|(right, _)| right)
        .filter(|right| !used.contains(right))
        .collect())
}
