//! Calls of the Kubernetes API, as a campaign of faults counts them.

use serde_json::Value;
use std::{collections::HashMap, fmt};

/// What a request asks of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `create`, `update`, `patch`, `delete`, `get`, `list` or `watch`.
    pub verb: &'static str,
    /// Plural of the kind, with the subresource after a slash: `agentruns/status`.
    pub resource: String,
    /// What it is about: the object's name, of an Event its reason and action. UIDs and what is generated are left out, so
    /// that the same call of another run reads the same.
    pub about: String,
    /// What its body says of where things stand, for people.
    pub says: String,
}

/// One of the calls that read the same: the `nth` of them, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// As in [`Call`].
    pub verb: &'static str,
    /// As in [`Call`].
    pub resource: String,
    /// As in [`Call`].
    pub about: String,
    /// Counted from 1.
    pub nth: u32,
}

/// Numbers calls that read the same.
#[derive(Debug, Default)]
pub struct Count(HashMap<(&'static str, String, String), u32>);

impl Call {
    /// Reads a request. `body` is empty where there is none.
    pub fn read(method: &str, path: &str, query: &str, body: &[u8]) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let prefix = if parts.first() == Some(&"api") { 2 } else { 3 };
        let mut rest = parts.get(prefix..).unwrap_or_default();
        if let ["namespaces", _, below @ ..] = rest
            && !below.is_empty()
        {
            rest = below;
        }
        let part = |n: usize| rest.get(n).copied().unwrap_or_default();
        let (plural, name, sub) = (part(0), part(1), part(2));
        let watched = query.split('&').any(|pair| pair.starts_with("watch=t"));
        let verb = match method {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ if watched => "watch",
            _ if name.is_empty() => "list",
            _ => "get",
        };
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let resource = match sub {
            "" => plural.to_owned(),
            sub => format!("{plural}/{sub}"),
        };
        Self {
            verb,
            about: about(plural, name, &body),
            says: says(&body),
            resource,
        }
    }
}

impl Key {
    /// Whether it may change something at the API server.
    pub fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
    }
}

impl Count {
    /// The key of a call, which is one more of its like.
    pub fn next(&mut self, call: &Call) -> Key {
        let like = (call.verb, call.resource.clone(), call.about.clone());
        let count = self.0.entry(like).or_default();
        *count += 1;
        Key {
            verb: call.verb,
            resource: call.resource.clone(),
            about: call.about.clone(),
            nth: *count,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.about.is_empty() {
            write!(f, " {}", self.about)?;
        }
        if self.nth > 1 {
            write!(f, " #{}", self.nth)?;
        }
        Ok(())
    }
}

fn about(plural: &str, name: &str, body: &Value) -> String {
    let text = |pointer: &str| {
        let value = body.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default()
    };
    if plural == "events" {
        return format!("{} {}", text("/reason"), text("/action"))
            .trim()
            .to_owned();
    }
    let name = if name.is_empty() {
        text("/metadata/name")
    } else {
        name
    };
    without_uids(name)
}

fn says(body: &Value) -> String {
    let status = &body["status"];
    let mut said = Vec::new();
    if let Some(phase) = status["phase"].as_str() {
        said.push(phase.to_owned());
    }
    for (field, word) in [
        ("launch", "launch"),
        ("progress", "progress"),
        ("running", "runs"),
    ] {
        match &status[field] {
            Value::Null => {}
            Value::String(text) => said.push(format!("{word} {text}")),
            other => said.push(format!("{word} {other}")),
        }
    }
    said.join(", ")
}

/// A name with every run of eight or more hexadecimal digits that is a part of it left out.
fn without_uids(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let generated = part.len() >= 8 && part.chars().all(|c| c.is_ascii_hexdigit());
        if generated { "UID" } else { part }
    });
    parts.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_the_audit_log_would_name_them() {
        fn read(
            method: &str,
            path: &str,
            query: &str,
            body: &str,
        ) -> (&'static str, String, String, String) {
            let call = Call::read(method, path, query, body.as_bytes());
            (call.verb, call.resource, call.about, call.says)
        }
        let said = |verb, resource: &str, about: &str, says: &str| {
            (verb, resource.into(), about.into(), says.into())
        };
        let runs = "/apis/sopwith.dev/v1alpha1/namespaces/team/agentruns";
        assert_eq!(
            read(
                "PATCH",
                &format!("{runs}/relay/status"),
                "fieldManager=x",
                r#"{"status":{"phase":"Pending","launch":1,"progress":"0/2"}}"#
            ),
            said(
                "patch",
                "agentruns/status",
                "relay",
                "Pending, launch 1, progress 0/2"
            )
        );
        assert_eq!(
            read(
                "POST",
                "/api/v1/namespaces/team/configmaps",
                "",
                r#"{"metadata":{"name":"relay-plan-0a1b2c3d"}}"#
            ),
            said("create", "configmaps", "relay-plan-UID", "")
        );
        assert_eq!(
            read(
                "POST",
                "/apis/events.k8s.io/v1/namespaces/team/events",
                "",
                r#"{"reason":"Launched","action":"Launch1","metadata":{"name":"relay.17"}}"#
            ),
            said("create", "events", "Launched Launch1", "")
        );
        assert_eq!(
            read(
                "POST",
                "/apis/authentication.k8s.io/v1/tokenreviews",
                "",
                "{}"
            ),
            said("create", "tokenreviews", "", "")
        );
        assert_eq!(
            read("GET", runs, "&watch=true&timeoutSeconds=290", ""),
            said("watch", "agentruns", "", "")
        );
        assert_eq!(
            read("GET", "/api/v1/namespaces/team", "", ""),
            said("get", "namespaces", "team", "")
        );
        assert_eq!(
            read("GET", "/api/v1/namespaces/team/pods", "limit=500", ""),
            said("list", "pods", "", "")
        );
    }

    #[test]
    fn calls_that_read_the_same_are_numbered() {
        let call = Call::read("POST", "/api/v1/namespaces/a/events", "", b"{}");
        let mut count = Count::default();
        assert_eq!(count.next(&call).nth, 1);
        assert_eq!(count.next(&call).to_string(), "create events #2");
    }
}
