//! Writes of status: only what changed, and only over what was read.

use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use std::fmt::Debug;

/// Name under which fields are owned.
pub const FIELD_MANAGER: &str = "sopwith-operator";

/// Writes a status as a merge patch that holds only what differs. Refused with 409 where the object has changed since it
/// was read.
pub async fn status<K, S>(
    api: &Api<K>,
    object: &K,
    previous: &S,
    next: &S,
) -> Result<K, kube::Error>
where
    K: Resource + DeserializeOwned + Clone + Debug,
    S: Serialize,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    let difference = difference(
        &serde_json::to_value(previous).map_err(kube::Error::SerdeError)?,
        &serde_json::to_value(next).map_err(kube::Error::SerdeError)?,
    );
    let patch = json!({
        "metadata": {"resourceVersion": object.meta().resource_version},
        "status": difference,
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(name, &params, &Patch::Merge(patch)).await
}

/// The JSON merge patch (RFC 7396) that makes `next` of `previous`.
fn difference(previous: &Value, next: &Value) -> Value {
    let (Value::Object(previous), Value::Object(next)) = (previous, next) else {
        return next.clone();
    };
    let gone = previous
        .keys()
        .filter(|key| !next.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let new = next
        .iter()
        .filter_map(|(key, value)| match previous.get(key) {
            Some(before) if before == value => None,
            Some(before) => Some((key.clone(), difference(before, value))),
            None => Some((key.clone(), value.clone())),
        });
    Value::Object(gone.chain(new).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::same(json!({"a": 1}), json!({"a": 1}), json!({}))]
    #[case::new(json!({}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}))]
    #[case::gone(json!({"a": 1, "b": 2}), json!({"b": 2}), json!({"a": null}))]
    #[case::nested(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3}}), json!({"a": {"b": 3, "c": null}}))]
    #[case::lists_are_replaced(json!({"a": [1, 2]}), json!({"a": [2]}), json!({"a": [2]}))]
    fn a_patch_holds_what_differs(
        #[case] previous: Value,
        #[case] next: Value,
        #[case] expected: Value,
    ) {
        assert_eq!(difference(&previous, &next), expected);
    }
}
