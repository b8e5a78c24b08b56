//! Which tools a role was granted. Default deny: what no entry of its `tools` names is not there for it.

use super::Tool;
use crate::contract::Digest;

/// What an entry of a role's `tools` begins with that names a tag.
const TAG: &str = "tag:";

/// A tool that a role may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted<'a> {
    /// The tool.
    pub tool: &'a Tool,
    /// Of a class-like tool, the functions that may be called, in the policy's order; else none.
    pub functions: Vec<&'a str>,
}

/// The tools of a policy that the entries grant, in the policy's order, each once.
///
/// An entry is the name of a tool, `NAME/FUNCTION` of a class-like one, or `tag:TAG` for every tool with the tag.
pub fn granted<'a>(tools: &'a [Tool], entries: &[String]) -> Vec<Granted<'a>> {
    tools
        .iter()
        .filter_map(|tool| {
            let functions: Vec<&str> = tool
                .include_functions
                .iter()
                .map(String::as_str)
                .filter(|function| entries.iter().any(|entry| covers(entry, tool, function)))
                .collect();
            let whole = tool.mcp.is_none() && entries.iter().any(|entry| names(entry, tool));
            (whole || !functions.is_empty()).then_some(Granted { tool, functions })
        })
        .collect()
}

/// Whether an entry grants anything of the policy.
pub fn grants_something(tools: &[Tool], entry: &str) -> bool {
    !granted(tools, std::slice::from_ref(&entry.to_owned())).is_empty()
}

/// Most characters of a function's name that the protocols of models take.
const MAX_WIRE_NAME: usize = 64;

/// What models call a tool, or a function of a class-like one. Letters, digits, `_` and `-`, at most 64.
pub fn wire_name(tool: &str, function: Option<&str>) -> String {
    let Some(function) = function else {
        return tool.to_owned();
    };
    let whole = format!("{tool}__{function}");
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if whole.len() <= MAX_WIRE_NAME && whole.chars().all(fits) {
        return whole;
    }
    // What was replaced or cut is told apart by a digest of all of it.
    let digest = Digest::of(&whole);
    let plain: String = whole
        .chars()
        .map(|c| if fits(c) { c } else { '_' })
        .take(MAX_WIRE_NAME - 9)
        .collect();
    format!("{plain}_{}", &digest.hex()[..8])
}

/// The tool that a name of a `tool` action stands for, and its function where it has several.
pub fn called<'a>(tools: &'a [Tool], name: &'a str) -> Option<(&'a Tool, Option<&'a str>)> {
    let of = |name: &str| tools.iter().find(|tool| tool.name == name);
    match name.split_once('/') {
        None => of(name)
            .filter(|tool| tool.mcp.is_none())
            .map(|tool| (tool, None)),
        Some((name, function)) => of(name)
            .filter(|tool| tool.include_functions.iter().any(|known| known == function))
            .map(|tool| (tool, Some(function))),
    }
}

fn names(entry: &str, tool: &Tool) -> bool {
    match entry.strip_prefix(TAG) {
        Some(tag) => tool.tags.iter().any(|known| known == tag),
        None => entry == tool.name,
    }
}

fn covers(entry: &str, tool: &Tool, function: &str) -> bool {
    names(entry, tool) || entry.split_once('/') == Some((tool.name.as_str(), function))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool_policy::{Builtin, McpServer};

    fn tools() -> Vec<Tool> {
        let text = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        vec![
            Tool {
                name: "read".into(),
                tags: text(&["project", "look"]),
                builtin: Some(Builtin::ReadFile),
                ..Tool::default()
            },
            Tool {
                name: "edit".into(),
                tags: text(&["project"]),
                builtin: Some(Builtin::EditFile),
                ..Tool::default()
            },
            Tool {
                name: "tracker".into(),
                tags: text(&["look"]),
                include_functions: text(&["find", "create"]),
                mcp: Some(McpServer::default()),
                ..Tool::default()
            },
            Tool {
                name: "empty".into(),
                tags: text(&["look"]),
                mcp: Some(McpServer::default()),
                ..Tool::default()
            },
        ]
    }

    /// A tool and its functions.
    type Expected = (&'static str, &'static [&'static str]);

    #[test]
    fn a_role_has_what_its_entries_name_and_nothing_else() {
        let tools = tools();
        let table: [(&[&str], &[Expected]); 9] = [
            (&[], &[]),
            (&["read"], &[("read", &[])]),
            (&["write"], &[]),
            (&["tag:project"], &[("read", &[]), ("edit", &[])]),
            (
                &["tag:look", "read"],
                &[("read", &[]), ("tracker", &["find", "create"])],
            ),
            (&["tracker/create"], &[("tracker", &["create"])]),
            (&["tracker/drop"], &[]),
            (&["empty"], &[]),
            (&["read/x"], &[]),
        ];
        for (entries, expected) in table {
            let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
            let found = granted(&tools, &entries);
            let found: Vec<(&str, &[&str])> = found
                .iter()
                .map(|granted| (granted.tool.name.as_str(), granted.functions.as_slice()))
                .collect();
            assert_eq!(found, expected, "{entries:?}");
        }
        assert!(grants_something(&tools, "tag:look"));
        assert!(!grants_something(&tools, "tag:x"));
    }

    #[test]
    fn a_function_has_a_name_that_models_can_call() {
        assert_eq!(wire_name("read", None), "read");
        assert_eq!(wire_name("tracker", Some("find")), "tracker__find");
        let odd = wire_name("tracker", Some("issues.find"));
        assert!(odd.starts_with("tracker__issues_find_"), "{odd}");
        assert_ne!(odd, wire_name("tracker", Some("issues/find")));
        let long = wire_name("tracker", Some(&"x".repeat(100)));
        assert_eq!(long.len(), MAX_WIRE_NAME);
        assert_ne!(long, wire_name("tracker", Some(&"x".repeat(101))));
    }

    #[test]
    fn an_action_names_a_tool_or_one_function_of_it() {
        let tools = tools();
        let name = |name: &'static str| {
            called(&tools, name).map(|(tool, function)| (tool.name.as_str(), function))
        };
        assert_eq!(name("read"), Some(("read", None)));
        assert_eq!(name("tracker/find"), Some(("tracker", Some("find"))));
        for other in ["tracker", "tracker/drop", "read/x", "x"] {
            assert_eq!(name(other), None, "{other}");
        }
    }
}
