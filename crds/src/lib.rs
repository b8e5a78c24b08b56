//! The API of Sopwith: its three kinds, the contracts between its processes, and the checker that all of them share.
//!
//! Everything here is pure: no client, no clock, and no file system but in [`archive::folder`].

// Clippy takes the keys of kube's `printcolumn` lists for repeated attributes.
#![allow(clippy::duplicated_attributes)]

pub mod agent_run;
pub mod archive;
pub mod cassette;
pub mod check;
pub mod conditions;
pub mod contract;
pub mod delivery;
pub mod language;
pub mod manifest;
pub mod memory;
pub mod money;
pub mod places;
pub mod plan;
pub mod repository;
pub mod sop_definition;
pub mod status;
pub mod tool_policy;

pub use agent_run::{AgentRun, AgentRunSpec};
pub use money::Money;
pub use sop_definition::{SopDefinition, SopDefinitionSpec};
pub use status::AgentRunStatus;
pub use tool_policy::{ToolPolicy, ToolPolicySpec};

/// The API group of all kinds.
pub const GROUP: &str = "sopwith.dev";
/// Label on every object made for a run: the name of the `AgentRun`.
pub const RUN_LABEL: &str = "sopwith.dev/run";
/// Label on every Job and pod of a run: the launch it belongs to.
pub const LAUNCH_LABEL: &str = "sopwith.dev/launch";
/// Annotation of a Job that was told to end since a step of its launch was stuck; says which, for people.
pub const STUCK_ANNOTATION: &str = "sopwith.dev/stuck";
/// Audience of the token with which a runner speaks to the gateway.
pub const GATEWAY_AUDIENCE: &str = "gateway.sopwith.dev";
/// Annotation on the `EndpointSlice` of the gateway's Service: its certificate authority (PEM).
pub const AUTHORITY_ANNOTATION: &str = "sopwith.dev/certificate-authority";
/// The name of the `ToolPolicy` that a run without `toolPolicyRef` uses.
pub const DEFAULT_POLICY: &str = "default";

/// What names of objects look like (RFC 1123 subdomains). A name with `/`, `?` or `..` could reach another object than the
/// kind and namespace around it say.
pub const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Whether a text can name an object, as `OBJECT_NAME` says; at most 253 characters.
pub fn is_object_name(name: &str) -> bool {
    let word = |part: &str| {
        let simple = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.bytes().all(|c| simple(c) || c == b'-')
            && part.bytes().next().is_some_and(simple)
            && part.bytes().next_back().is_some_and(simple)
    };
    name.len() <= 253 && name.split('.').all(word)
}

/// The keys of a list that is a map for server-side apply, for `extend` attributes.
pub(crate) fn keys(keys: &[&str]) -> serde_json::Value {
    keys.into()
}

/// Takes a type's own description out of its schema. Kubernetes inlines types, and the type's words would stand where
/// those of the field belong, with its default.
pub(crate) fn leave_description_to_fields(schema: &mut schemars::Schema) {
    schema.remove("description");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_or_several_with_dots_between() {
        for good in ["a", "default", "kube-root-ca.crt", "0", "a.b-c.d"] {
            assert!(is_object_name(good), "{good}");
        }
        let long = "a".repeat(254);
        let bad = [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "a-",
            "a.",
            "A",
            "a_b",
            "a/b",
            "../secrets/x",
            "a?watch=1",
            "a#b",
            "a%2fb",
            "ä",
            "a\n",
            &long,
        ];
        for bad in bad {
            assert!(!is_object_name(bad), "{bad}");
        }
        let pattern = regex::Regex::new(OBJECT_NAME);
        for name in [
            "a",
            "a.b-c.d",
            "",
            "a..b",
            "../secrets/x",
            "a/b",
            "-a",
            "a?b",
        ] {
            assert_eq!(
                pattern.as_ref().unwrap().is_match(name),
                is_object_name(name),
                "{name}"
            );
        }
    }
}
