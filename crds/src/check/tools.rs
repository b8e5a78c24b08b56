//! Tools: of a policy by themselves, and what roles and actions ask of them.

use super::{
    Found,
    pairing::of_work,
    policy::url_mistake,
    text::{glob_mistake, is_template, list},
};
use crate::{
    AgentRunSpec, SopDefinitionSpec, ToolPolicySpec,
    language::Templates,
    sop_definition::{Role, ToolCall},
    tool_policy::{McpServer, Tool, ToolCommand, called, granted, grants_something, wire_name},
};
use serde_json::Value;

/// Most functions that providers take with one question.
const MAX_FUNCTIONS: usize = 128;
/// Most characters of a tool's name.
const MAX_NAME: usize = 64;

/// The tools of a policy.
pub(super) fn policy(spec: &ToolPolicySpec, found: &mut Found) {
    found.repeated(
        "spec.tools",
        "tool",
        spec.tools.iter().map(|tool| tool.name.as_str()),
    );
    for tool in &spec.tools {
        check_tool(tool, found);
    }
    let names: Vec<String> = spec
        .tools
        .iter()
        .flat_map(|tool| {
            let functions = tool.include_functions.iter();
            let many = functions.map(|function| wire_name(&tool.name, Some(function)));
            let one = tool.mcp.is_none().then(|| tool.name.clone());
            many.chain(one).collect::<Vec<_>>()
        })
        .collect();
    let one_each = spec.tools.iter().filter(|tool| tool.mcp.is_none());
    for tool in one_each.filter(|tool| tool.name.contains("__")) {
        if names.iter().filter(|name| **name == tool.name).count() > 1 {
            found.add(
                format!("spec.tools[{}].name", tool.name),
                "is what models call a function of another tool, too; name it differently",
            );
        }
    }
}

fn check_tool(tool: &Tool, found: &mut Found) {
    let path = format!("spec.tools[{}]", tool.name);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if tool.name.is_empty() || tool.name.len() > MAX_NAME || !tool.name.chars().all(plain) {
        found.add(
            format!("{path}.name"),
            format!(
                "\"{}\" is no name that models can call; use at most {MAX_NAME} letters, digits, `_` and `-`",
                tool.name
            ),
        );
    }
    let kinds = usize::from(tool.builtin.is_some())
        + usize::from(tool.command.is_some())
        + usize::from(tool.mcp.is_some());
    if kinds != 1 {
        found.add(
            path.as_str(),
            format!("has {kinds} of builtin, command and mcp; it needs exactly one"),
        );
    }
    if let Some(command) = &tool.command {
        check_command(tool, &format!("{path}.command"), command, found);
    }
    if let Some(mcp) = &tool.mcp {
        check_mcp(tool, &path, mcp, found);
        return;
    }
    for (field, set) in [
        ("includeFunctions", !tool.include_functions.is_empty()),
        ("listDigest", tool.list_digest.is_some()),
        ("secretRef", tool.secret_ref.is_some()),
    ] {
        if set {
            found.add(
                format!("{path}.{field}"),
                "belongs to MCP servers; take it away",
            );
        }
    }
}

fn check_command(tool: &Tool, path: &str, command: &ToolCommand, found: &mut Found) {
    if tool
        .description
        .as_deref()
        .is_none_or(|text| text.trim().is_empty())
    {
        found.add(
            format!("spec.tools[{}].description", tool.name),
            "is not set, and a program has no documentation that models could be told; say what it does and when to use it",
        );
    }
    match command.argv.first() {
        Some(program) if is_template(program) => found.add(
            format!("{path}.argv[0]"),
            format!("\"{program}\" is a template, and a model would choose the program; write the program itself"),
        ),
        Some(program) if !program.trim().is_empty() => {}
        _ => found.add(format!("{path}.argv[0]"), "is empty; name a program"),
    }
    if command.image.trim().is_empty() {
        found.add(format!("{path}.image"), "is empty; name a workbench image");
    }
    for (index, pattern) in command.collect.iter().enumerate() {
        found.add_some(format!("{path}.collect[{index}]"), glob_mistake(pattern));
    }
    let properties = match &command.schema {
        None => Some(Vec::new()),
        Some(schema) => {
            found.add_some(format!("{path}.schema"), schema_mistake(schema));
            properties(schema)
        }
    };
    for (index, word) in command.argv.iter().enumerate() {
        found.add_some(
            format!("{path}.argv[{index}]"),
            word_mistake(word, properties.as_deref()),
        );
    }
}

fn schema_mistake(schema: &Value) -> Option<String> {
    if let Err(error) = jsonschema::validator_for(schema) {
        return Some(format!(
            "is not a JSON Schema: {error} (at \"{}\")",
            error.instance_path()
        ));
    }
    (schema.get("type").and_then(Value::as_str) != Some("object")).then(|| {
        "is not of type object; arguments have names: write {type: object, properties: {…}}"
            .to_owned()
    })
}

/// The names of the arguments, where a schema names them all.
fn properties(schema: &Value) -> Option<Vec<&str>> {
    let named = schema.get("properties")?.as_object()?;
    Some(named.keys().map(String::as_str).collect())
}

/// What is wrong with a word of a command, whose templates see the arguments alone.
fn word_mistake(word: &str, properties: Option<&[&str]>) -> Option<String> {
    let references = match Templates::empty().undeclared_variables_inline(word) {
        Ok(references) => references,
        Err(error) => {
            return Some(format!("\"{word}\" does not compile: {}", error.message));
        }
    };
    references.iter().find_map(|reference| {
        let (root, rest) = reference.split_once('.').unwrap_or((reference, ""));
        let name = rest.split('.').next().unwrap_or_default();
        if root != "arguments" {
            return Some(format!(
                "\"{word}\" names `{root}`; a tool's command sees `arguments` only"
            ));
        }
        let known = properties?;
        (!name.is_empty() && !known.contains(&name)).then(|| {
            format!(
                "\"{word}\" names the argument `{name}`, which the schema does not have; it has: {}",
                list(known.iter().copied())
            )
        })
    })
}

fn check_mcp(tool: &Tool, path: &str, mcp: &McpServer, found: &mut Found) {
    if mcp.url.is_some() == mcp.image.is_some() {
        found.add(format!("{path}.mcp"), "needs exactly one of url and image");
    }
    if let Some(url) = &mcp.url {
        found.add_some(format!("{path}.mcp.url"), url_mistake(url));
        if !mcp.argv.is_empty() {
            found.add(
                format!("{path}.mcp.argv"),
                "belongs to servers that run as a container (image); take it away",
            );
        }
    }
    if tool.include_functions.is_empty() {
        found.add(
            format!("{path}.includeFunctions"),
            "is empty, so that nothing could be called; name the functions of the server that roles may call",
        );
    }
    found.repeated(
        &format!("{path}.includeFunctions"),
        "function",
        tool.include_functions.iter().map(String::as_str),
    );
}

/// What roles are granted and actions call, against the tools that the policy has.
pub(super) fn pairing(
    run: &AgentRunSpec,
    sop: &SopDefinitionSpec,
    policy: &ToolPolicySpec,
    found: &mut Found,
) {
    for role in &sop.roles {
        for entry in &role.tools {
            if !grants_something(&policy.tools, entry) {
                found.add(
                    format!("sop:spec.roles[{}].tools[{entry}]", role.name),
                    not_there(&policy.tools, entry),
                );
            }
        }
        check_role(run, role, policy, found);
    }
    for step in &sop.steps {
        let role = step
            .role
            .as_ref()
            .and_then(|name| sop.roles.iter().find(|role| role.name == *name));
        for (path, work) in of_work(step) {
            if let Some(call) = &work.tool {
                check_call(&format!("sop:{path}.tool"), call, role, policy, found);
            }
        }
    }
}

/// Why an entry of a role's tools grants nothing.
fn not_there(tools: &[Tool], entry: &str) -> String {
    if let Some(tag) = entry.strip_prefix("tag:") {
        let tags = tools.iter().flat_map(|tool| &tool.tags);
        return format!(
            "no tool of the policy has the tag \"{tag}\"; its tags are: {}",
            list(tags.map(String::as_str))
        );
    }
    let tool = |name: &str| tools.iter().find(|tool| tool.name == name);
    if let Some((name, function)) = entry.split_once('/')
        && let Some(tool) = tool(name)
    {
        return format!(
            "the policy does not allow the function \"{function}\" of tool \"{name}\"; it allows: {}",
            list(tool.include_functions.iter().map(String::as_str))
        );
    }
    if let Some(tool) = tool(entry).filter(|tool| tool.mcp.is_some()) {
        return format!(
            "tool \"{entry}\" has several functions; the policy allows: {}; write {entry}/FUNCTION",
            list(tool.include_functions.iter().map(String::as_str))
        );
    }
    format!(
        "the policy does not allow tool \"{entry}\"; it allows: {}",
        list(tools.iter().map(|tool| tool.name.as_str()))
    )
}

fn check_role(run: &AgentRunSpec, role: &Role, policy: &ToolPolicySpec, found: &mut Found) {
    let granted = granted(&policy.tools, &role.tools);
    if granted.is_empty() {
        return;
    }
    let path = format!("sop:spec.roles[{}].tools", role.name);
    let functions: usize = granted.iter().map(|tool| tool.functions.len().max(1)).sum();
    if functions > MAX_FUNCTIONS {
        found.add(
            path.as_str(),
            format!(
                "grants {functions} functions, and models take at most {MAX_FUNCTIONS}; grant fewer"
            ),
        );
    }
    let first = || policy.llm.first()?.models.first().map(|model| &model.name);
    let asked = role.model.as_ref().or(run.model.as_ref());
    let Some(wanted) = asked.or_else(first) else {
        return;
    };
    let mut named = policy
        .llm
        .iter()
        .flat_map(|endpoint| &endpoint.models)
        .filter(|model| model.name == *wanted || model.aliases.contains(wanted))
        .peekable();
    if named.peek().is_some() && !named.any(|model| model.can("tools")) {
        found.add(
            path,
            format!("are tools, and no model \"{wanted}\" of the policy can call any; add tools to its capabilities, or name another model"),
        );
    }
}

fn check_call(
    path: &str,
    call: &ToolCall,
    role: Option<&Role>,
    policy: &ToolPolicySpec,
    found: &mut Found,
) {
    let Some((tool, function)) = called(&policy.tools, &call.name) else {
        found.add(format!("{path}.name"), not_there(&policy.tools, &call.name));
        return;
    };
    // What the step's role was not granted, the step does not do in its name. Without a role the policy alone decides.
    let allowed = role.is_none_or(|role| {
        granted(&policy.tools, &role.tools).iter().any(|granted| {
            granted.tool.name == tool.name
                && function.is_none_or(|function| granted.functions.contains(&function))
        })
    });
    if !allowed {
        let role = role.map_or("", |role| role.name.as_str());
        found.add(
            format!("{path}.name"),
            format!(
                "role \"{role}\" is not granted tool \"{}\"; add it to spec.roles[{role}].tools",
                call.name
            ),
        );
    }
    let builtin = tool.builtin.map(crate::tool_policy::Builtin::schema);
    let command = tool.command.as_ref();
    let none = serde_json::json!({"properties": {}});
    let schema = builtin.or_else(|| command.map(|command| command.schema.clone().unwrap_or(none)));
    if let Some(schema) = &schema {
        check_arguments(path, call, schema, found);
    }
}

/// The names of the arguments; their values are known when the call is made.
fn check_arguments(path: &str, call: &ToolCall, schema: &Value, found: &mut Found) {
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !call.arguments.contains_key(name) {
            found.add(
                format!("{path}.arguments[{name}]"),
                format!("is not set, and tool \"{}\" needs it", call.name),
            );
        }
    }
    let Some(known) = properties(schema) else {
        return;
    };
    for name in call.arguments.keys() {
        if !known.contains(&name.as_str()) {
            found.add(
                format!("{path}.arguments[{name}]"),
                format!(
                    "tool \"{}\" has no argument \"{name}\"; it has: {}",
                    call.name,
                    list(known.iter().copied())
                ),
            );
        }
    }
}
