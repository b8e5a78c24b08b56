//! Decides from the policies and bindings in the cluster whether admission is enforced, and for which runs it was.

use crate::run::observe::Pending;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sopwith_crds::AgentRun;
use std::collections::BTreeMap;

/// Every policy that the operator asks for, by name, with its spec as the chart ships it.
pub const POLICIES: [(&str, &str); 5] = [
    (
        AGENT_RUNS,
        include_str!("../../../charts/sopwith/admission/agentruns.yaml"),
    ),
    (
        "sopwith-sopdefinitions",
        include_str!("../../../charts/sopwith/admission/sopdefinitions.yaml"),
    ),
    (
        "sopwith-status",
        include_str!("../../../charts/sopwith/admission/status.yaml"),
    ),
    (
        "sopwith-owned",
        include_str!("../../../charts/sopwith/admission/owned.yaml"),
    ),
    (
        "sopwith-tokens",
        include_str!("../../../charts/sopwith/admission/tokens.yaml"),
    ),
];

/// The policy that proves the names in a run.
const AGENT_RUNS: &str = "sopwith-agentruns";
/// The operator's account as the files of the chart name it.
const ACCOUNT: &str = "system:serviceaccount:sopwith-system:sopwith-operator";
/// API servers read policies once a second, and times have whole seconds: what is created so soon after a policy may have passed it by.
const TAKES_EFFECT_WITHIN: SignedDuration = SignedDuration::from_secs(2);
/// Longest piece of a value that a message shows.
const MAX_SHOWN: usize = 120;
/// The typed reason of a run that waits because of this.
pub const NOT_ENFORCED: &str = "AdmissionNotEnforced";

/// A policy or binding in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its spec.
    pub spec: Value,
    /// When it was created.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What is known of a policy and its binding, which has the same name. `Err` says why one cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The `ValidatingAdmissionPolicy`.
    pub policy: Result<Option<Found>, String>,
    /// The `ValidatingAdmissionPolicyBinding`.
    pub binding: Result<Option<Found>, String>,
}

/// Whether admission is enforced.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Every policy and binding is there and says what it should. Names in runs that are older than `since` were not proven.
    Enforced {
        /// When the proof of names took effect.
        since: Timestamp,
    },
    /// What is wrong, a line each.
    NotEnforced(Vec<String>),
    /// The operator was told to work without.
    Waived,
}

impl Standing {
    /// Whether names are proven at all.
    pub const fn is_enforced(&self) -> bool {
        matches!(self, Self::Enforced { .. })
    }

    /// Whether the names in this run, its decisions' included, can be believed; else why it waits.
    pub fn proves(&self, run: &AgentRun) -> Result<(), Pending> {
        let created = run.metadata.creation_timestamp.as_ref();
        let message = match self {
            Self::Waived => return Ok(()),
            Self::NotEnforced(wrong) => format!(
                "nobody proves who asks for runs and who decides: {}. Install the chart with admission.enabled=true, or set \
                 admission.insecure=true to do without",
                wrong.join("; ")
            ),
            Self::Enforced { since } => match created {
                Some(created) if created.0 >= *since => return Ok(()),
                _ => format!(
                    "the run was created before {since}, when the admission policy {AGENT_RUNS} took effect: nobody proved who asked \
                     for it and who decided on it. Create it again under another name, or set admission.insecure=true in the chart",
                ),
            },
        };
        Err(Pending {
            reason: NOT_ENFORCED,
            message,
        })
    }
}

/// Judges what is in the cluster. `account`: the user name of the operator itself.
pub fn judge(seen: &BTreeMap<&'static str, Seen>, account: &str) -> Standing {
    let mut wrong = Vec::new();
    for (name, text) in POLICIES {
        let Some(seen) = seen.get(name) else {
            wrong.push(format!("{name} was not looked for"));
            continue;
        };
        let kind = "ValidatingAdmissionPolicy";
        let expected = serde_saphyr::from_str(&text.replace(ACCOUNT, account)).unwrap_or_default();
        wrong.extend(fault(kind, name, &seen.policy, &expected));
        let kind = "ValidatingAdmissionPolicyBinding";
        let expected = json!({ "policyName": name, "validationActions": ["Deny"] });
        wrong.extend(fault(kind, name, &seen.binding, &expected));
    }
    let since = seen.get(AGENT_RUNS).and_then(|seen| {
        let (policy, binding) = (seen.policy.as_ref().ok()?, seen.binding.as_ref().ok()?);
        Some(policy.as_ref()?.created.max(binding.as_ref()?.created))
    });
    match since {
        Some(since) if wrong.is_empty() => Standing::Enforced {
            since: since + TAKES_EFFECT_WITHIN,
        },
        _ => Standing::NotEnforced(wrong),
    }
}

/// What is wrong with an object, if anything.
fn fault(
    kind: &str,
    name: &str,
    found: &Result<Option<Found>, String>,
    expected: &Value,
) -> Option<String> {
    let what = match found {
        Err(why) => format!("cannot be read: {why}"),
        Ok(None) => "not found".to_owned(),
        Ok(Some(found)) if found.deleting => "is being deleted".to_owned(),
        Ok(Some(found)) => difference("spec", expected, &found.spec)?,
    };
    Some(format!("{kind} {name} {what}"))
}

/// The first difference between two values, in words.
fn difference(path: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys = expected.keys().chain(found.keys());
            let none = Value::Null;
            keys.into_iter().find_map(|key| {
                let (expected, found) = (expected.get(key), found.get(key));
                let path = format!("{path}.{key}");
                difference(&path, expected.unwrap_or(&none), found.unwrap_or(&none))
            })
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let pairs = expected.iter().zip(found).enumerate();
            pairs.into_iter().find_map(|(at, (expected, found))| {
                difference(&format!("{path}[{at}]"), expected, found)
            })
        }
        _ if expected == found => None,
        _ => Some(format!(
            "differs from the chart's: {path} is {}, not {}",
            shown(found),
            shown(expected)
        )),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "not set".to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn object(spec: Value, second: i64) -> Found {
        Found {
            spec,
            created: at(second),
            deleting: false,
        }
    }

    fn as_shipped() -> BTreeMap<&'static str, Seen> {
        let all = POLICIES.into_iter().map(|(name, text)| {
            let seen = Seen {
                policy: Ok(Some(object(serde_saphyr::from_str(text).unwrap(), 100))),
                binding: Ok(Some(object(
                    json!({ "policyName": name, "validationActions": ["Deny"] }),
                    110,
                ))),
            };
            (name, seen)
        });
        all.collect()
    }

    fn spec(found: &mut Result<Option<Found>, String>) -> &mut Value {
        &mut found.as_mut().unwrap().as_mut().unwrap().spec
    }

    fn wrong(seen: &BTreeMap<&'static str, Seen>) -> String {
        match judge(seen, ACCOUNT) {
            Standing::NotEnforced(wrong) => wrong.join("\n"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_the_chart_ships_is_enforced_from_a_moment_after_the_younger_of_policy_and_binding() {
        let standing = judge(&as_shipped(), ACCOUNT);
        assert_eq!(standing, Standing::Enforced { since: at(112) });
    }

    #[test]
    fn the_status_belongs_to_the_operators_own_account() {
        let standing = judge(
            &as_shipped(),
            "system:serviceaccount:other:sopwith-operator",
        );
        let Standing::NotEnforced(wrong) = standing else {
            panic!("{standing:?}")
        };
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(
            wrong[0].contains(
                "sopwith-status differs from the chart's: spec.validations[0].expression"
            ),
            "{wrong:?}"
        );
    }

    #[rstest]
    #[case::fails_open("/failurePolicy", json!("Ignore"), "spec.failurePolicy is \"Ignore\", not \"Fail\"")]
    #[case::scoped("/matchConstraints/namespaceSelector", json!({"matchLabels": {"a": "b"}}), "namespaceSelector.matchLabels is {\"a\":\"b\"}, not not set")]
    #[case::excluded("/matchConstraints/excludeResourceRules", json!([{}]), "excludeResourceRules")]
    #[case::one_verb_less("/matchConstraints/resourceRules/0/operations", json!(["CREATE"]), "operations is [\"CREATE\"]")]
    #[case::conditional("/matchConditions", json!([{"name": "x", "expression": "false"}]), "spec.matchConditions")]
    #[case::with_parameters("/paramKind", json!({"kind": "ConfigMap"}), "spec.paramKind")]
    #[case::an_edited_expression("/validations/3/expression", json!("true"), "spec.validations[3].expression is \"true\"")]
    #[case::an_edited_variable("/variables/3/expression", json!("[]"), "spec.variables[3].expression is \"[]\"")]
    #[case::one_rule_less("/validations", json!([]), "spec.validations is []")]
    fn a_weakened_policy_is_noticed(#[case] path: &str, #[case] value: Value, #[case] words: &str) {
        let mut seen = as_shipped();
        let spec = spec(&mut seen.get_mut(AGENT_RUNS).unwrap().policy);
        let (parent, key) = path.rsplit_once('/').unwrap();
        match spec.pointer_mut(parent).unwrap() {
            Value::Object(fields) => {
                fields.insert(key.to_owned(), value);
            }
            other => panic!("{other}"),
        }
        let wrong = wrong(&seen);
        assert!(
            wrong.starts_with(
                "ValidatingAdmissionPolicy sopwith-agentruns differs from the chart's: "
            ) && wrong.contains(words),
            "{wrong}"
        );
    }

    #[rstest]
    #[case::only_warns(json!({"policyName": AGENT_RUNS, "validationActions": ["Warn"]}), "spec.validationActions[0] is \"Warn\", not \"Deny\"")]
    #[case::scoped(json!({"policyName": AGENT_RUNS, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {}}}), "spec.matchResources")]
    #[case::of_another(json!({"policyName": "mine", "validationActions": ["Deny"]}), "spec.policyName is \"mine\"")]
    #[case::with_parameters(json!({"policyName": AGENT_RUNS, "validationActions": ["Deny"], "paramRef": {"name": "x"}}), "spec.paramRef")]
    fn a_weakened_binding_is_noticed(#[case] changed: Value, #[case] words: &str) {
        let mut seen = as_shipped();
        *spec(&mut seen.get_mut(AGENT_RUNS).unwrap().binding) = changed;
        let wrong = wrong(&seen);
        assert!(
            wrong.contains("ValidatingAdmissionPolicyBinding sopwith-agentruns")
                && wrong.contains(words),
            "{wrong}"
        );
    }

    #[test]
    fn what_is_missing_going_or_unreadable_is_noticed_for_every_policy() {
        for (name, _) in POLICIES {
            let mut seen = as_shipped();
            seen.get_mut(name).unwrap().binding = Ok(None);
            assert_eq!(
                wrong(&seen),
                format!("ValidatingAdmissionPolicyBinding {name} not found")
            );
            seen = as_shipped();
            seen.get_mut(name).unwrap().policy = Err("forbidden".to_owned());
            assert_eq!(
                wrong(&seen),
                format!("ValidatingAdmissionPolicy {name} cannot be read: forbidden")
            );
            seen = as_shipped();
            if let Ok(Some(policy)) = &mut seen.get_mut(name).unwrap().policy {
                policy.deleting = true;
            }
            assert!(wrong(&seen).contains("is being deleted"));
            seen = as_shipped();
            seen.remove(name);
            assert_eq!(wrong(&seen), format!("{name} was not looked for"));
        }
    }

    #[rstest]
    #[case::older(111, false)]
    #[case::as_it_took_effect(112, true)]
    #[case::younger(113, true)]
    fn only_runs_made_under_the_policy_are_proven(#[case] second: i64, #[case] proven: bool) {
        let mut run = AgentRun::default();
        run.metadata.creation_timestamp = Some(Time(at(second)));
        let standing = judge(&as_shipped(), ACCOUNT);
        let proof = standing.proves(&run);
        assert_eq!(proof.is_ok(), proven, "{proof:?}");
        assert!(Standing::Waived.proves(&run).is_ok());
        let missing = judge(&BTreeMap::new(), ACCOUNT).proves(&run).unwrap_err();
        assert_eq!(missing.reason, "AdmissionNotEnforced");
        assert!(missing.message.contains("admission.insecure=true"));
    }
}
