use super::{changed, told, yaml};
use rstest::rstest;

const POLICY: &str = r#"
environments: [dev]
requiredGates: [command/unit, "schema/*"]
llm:
- name: main
  provider: openai
  secretRef: {name: keys, key: openai}
  models:
  - {name: big, aliases: [strong], contextWindow: 8000, maxOutputTokens: 1000, capabilities: [jsonSchema]}
  - {name: small, aliases: [fast]}
- name: tape
  provider: replay
  replay: {cassetteRef: {name: tape}}
  models: [{name: big}]
commands: [{argv: [python3, -m, pytest]}]
images: ["registry.example/python:*"]
"#;

const TOOLS: &str = r#"
tools:
- {name: read_file, builtin: read_file, tags: [project]}
- name: lint
  description: Lints files.
  timeoutSeconds: 30
  rateLimit: {perMinute: 10}
  maxCalls: 50
  command:
    image: registry.example/python:3
    argv: [ruff, check, --, "{{ arguments.path }}", "{{ arguments.more | join(' ') }}"]
    collect: [src/**]
    schema: {type: object, required: [path], properties: {path: {type: string}, more: {type: array}}}
- name: tracker
  critical: true
  includeFunctions: [find, create]
  secretRef: {name: tracker, key: token}
  listDigest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
  mcp: {url: "https://tracker.example/mcp", caRef: {name: ca, key: ca.crt}}
"#;

#[test]
fn good_tools_have_no_mistake() {
    let text = format!("{POLICY}{TOOLS}");
    assert_eq!(told(&super::super::policy(&yaml(&text))), [""; 0]);
}

#[test]
fn a_builtin_that_there_is_not_is_no_policy() {
    let read =
        serde_saphyr::from_str::<crate::ToolPolicySpec>("tools: [{name: t, builtin: shell}]");
    let error = read.unwrap_err().to_string();
    assert!(
        error.contains("shell") && error.contains("read_file"),
        "{error}"
    );
}

#[test]
fn a_good_policy_has_no_mistake() {
    assert_eq!(told(&super::super::policy(&yaml(POLICY))), [""; 0]);
}

/// Endpoints of each provider, as a user would write them.
#[rstest]
#[case("azure\n  baseUrl: https://r.openai.azure.com\n  apiVersion: 2024-10-21")]
#[case("azure\n  baseUrl: https://r.openai.azure.com/\n  apiVersion: 2025-04-01-preview")]
#[case("azure\n  baseUrl: https://r.openai.azure.com\n  apiVersion: preview")]
#[case("azure\n  baseUrl: https://r.openai.azure.com")]
#[case("groq")]
#[case("openai\n  baseUrl: http://vllm.models.svc:8000/v1")]
fn endpoints_of_each_provider_are_taken(#[case] provider: &str) {
    let text = changed(POLICY, "provider: openai", &format!("provider: {provider}"));
    assert_eq!(told(&super::super::policy(&yaml(&text))), [""; 0]);
    let none = super::super::not_supported_yet(
        &yaml("sopRef: {name: s}"),
        &yaml("roles: []\nsteps: []"),
        &yaml(&text),
    );
    assert!(
        !told(&none).iter().any(|finding| finding.contains("llm")),
        "{:?}",
        told(&none)
    );
}

#[test]
fn ollama_needs_no_key() {
    let text = r#"
llm:
- name: local
  provider: ollama
  baseUrl: http://ollama.models.svc:11434
  models: [{name: qwen3, aliases: [strong], contextWindow: 16384, inputPerMillion: "0", outputPerMillion: "0"}]
"#;
    assert_eq!(told(&super::super::policy(&yaml(text))), [""; 0]);
}

#[rstest]
#[case(
    "  replay: {cassetteRef: {name: tape}}\n",
    "",
    "spec.llm[tape]: an endpoint of provider replay needs the field replay, which names the cassette"
)]
#[case(
    "provider: replay",
    "provider: openai",
    "spec.llm[tape].replay: belongs to endpoints of provider replay; take it away, or change the provider"
)]
#[case(
    "  secretRef: {name: keys, key: openai}\n",
    "",
    "spec.llm[main].secretRef: is not set, and provider openai asks for a key; name a Secret and its key, or set baseUrl to a server that needs none"
)]
#[case(
    "provider: openai",
    "provider: azure",
    "spec.llm[main].baseUrl: is not set; an endpoint of provider azure needs its address, for example https://NAME.openai.azure.com"
)]
#[case(
    "provider: openai",
    "provider: ollama",
    "spec.llm[main].baseUrl: is not set; an endpoint of provider ollama needs its address, for example http://ollama.models.svc:11434"
)]
#[case(
    "provider: openai",
    "provider: ollama\n  baseUrl: http://ollama:11434",
    "spec.llm[main].models[small].contextWindow: is not set; Ollama reserves memory for as many tokens, so say how many, for example 16384"
)]
#[case(
    "provider: openai",
    "provider: ollama\n  baseUrl: http://ollama:11434/v1/",
    "spec.llm[main].baseUrl: ends with /v1, which is added by itself; write the address without it"
)]
#[case(
    "provider: openai",
    "provider: azure\n  baseUrl: https://r.openai.azure.com/openai/v1",
    "spec.llm[main].baseUrl: ends with /openai/v1, which is added by itself; write the address without it"
)]
#[case(
    "provider: openai",
    "provider: openai\n  baseUrl: https://host/v1/chat/completions",
    "spec.llm[main].baseUrl: ends with /chat/completions, which is added by itself; write the address without it"
)]
#[case(
    "provider: openai",
    "provider: azure\n  baseUrl: https://r.openai.azure.com\n  apiVersion: v1",
    "spec.llm[main].apiVersion: \"v1\" is no version; write a date, for example 2024-10-21 or 2025-04-01-preview, or leave it out for the v1 path"
)]
#[case(
    "provider: openai",
    "provider: openai\n  apiVersion: 2024-10-21",
    "spec.llm[main].apiVersion: belongs to endpoints of provider azure; take it away, or change the provider"
)]
#[case(
    "{name: small,",
    "{name: small, deployment: ours,",
    "spec.llm[main].models[small].deployment: belongs to endpoints of provider azure; take it away, or change the provider"
)]
#[case(
    "provider: openai",
    "provider: openai\n  baseUrl: ftp://x",
    "spec.llm[main].baseUrl: \"ftp://x\" is no address; begin it with https:// or http://"
)]
#[case(
    "provider: openai",
    "provider: openai\n  baseUrl: https://key@host/v1",
    "spec.llm[main].baseUrl: has a user or key before the host; put the key into a Secret and name it in secretRef"
)]
#[case(
    "provider: openai",
    "provider: openai\n  baseUrl: https://host/v1?key=x",
    "spec.llm[main].baseUrl: has a query or fragment; write the address only, keys belong into a Secret"
)]
#[case(
    "provider: openai",
    "provider: openai\n  baseUrl: https:///v1",
    "spec.llm[main].baseUrl: \"https:///v1\" has no host; write for example https://api.example.com/v1"
)]
#[case(
    "aliases: [fast]",
    "aliases: [strong]",
    "spec.llm[main].models[strong]: model or alias `strong` is there more than once; name them differently"
)]
#[case(
    "name: tape\n  provider",
    "name: main\n  provider",
    "spec.llm[main]: endpoint `main` is there more than once; name them differently"
)]
#[case(
    "[jsonSchema]",
    "[jsonschema]",
    "spec.llm[main].models[big].capabilities[jsonschema]: \"jsonschema\" is unknown; known are: jsonSchema, reasoning, streaming, tools"
)]
#[case(
    "contextWindow: 8000",
    "contextWindow: 1000",
    "spec.llm[main].models[big].maxOutputTokens: 1000 tokens of answer leave no room for a question in a context window of 1000; lower it, or set contextWindow"
)]
#[case(
    "models: [{name: big}]",
    "models: []",
    "spec.llm[tape].models: is empty; name the models that runs may use"
)]
#[case(
    "command/unit",
    "unit",
    "spec.requiredGates[unit]: \"unit\" is not of the form kind/name or kind/*"
)]
#[case(
    "command/unit",
    "commands/unit",
    "spec.requiredGates[commands/unit]: \"commands\" is no kind of gate; known are: approval, command, compliance, expression, review, schema, sections"
)]
#[case(
    "[python3, -m, pytest]",
    "[\"\"]",
    "spec.commands[0].argv: names no program; write the first words of the argument list, for example [pytest]"
)]
#[case(
    "[python3, -m, pytest]",
    "[\"{{ x }}\"]",
    "spec.commands[0].argv: \"{{ x }}\" is a template, but words are compared as they stand; write the word itself"
)]
#[case(
    "python:*",
    "my python",
    "spec.images[registry.example/my python]: \"registry.example/my python\" is no name of an image; write for example registry.example/team/python:*"
)]
#[case(
    "",
    "tools: [{name: t}]\n",
    "spec.tools[t]: has 0 of builtin, command and mcp; it needs exactly one"
)]
#[case(
    "",
    "tools: [{name: read.file, builtin: read_file}]\n",
    "spec.tools[read.file].name: \"read.file\" is no name that models can call; use at most 64 letters, digits, `_` and `-`"
)]
#[case(
    "",
    "tools: [{name: t, builtin: read_file}, {name: t, builtin: search}]\n",
    "spec.tools[t]: tool `t` is there more than once; name them differently"
)]
#[case(
    "",
    "tools: [{name: t__f, builtin: read_file}, {name: t, mcp: {url: 'https://x'}, includeFunctions: [f]}]\n",
    "spec.tools[t__f].name: is what models call a function of another tool, too; name it differently"
)]
#[case(
    "",
    "tools: [{name: t, builtin: read_file, includeFunctions: [f]}]\n",
    "spec.tools[t].includeFunctions: belongs to MCP servers; take it away"
)]
#[case(
    "",
    "tools: [{name: t, builtin: read_file, secretRef: {name: s, key: k}}]\n",
    "spec.tools[t].secretRef: belongs to MCP servers; take it away"
)]
#[case(
    "",
    "tools: [{name: t, command: {argv: [a], image: i}}]\n",
    "spec.tools[t].description: is not set, and a program has no documentation that models could be told; say what it does and when to use it"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: ['{{ arguments.x }}'], image: i}}]\n",
    "spec.tools[t].command.argv[0]: \"{{ arguments.x }}\" is a template, and a model would choose the program; write the program itself"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [''], image: i}}]\n",
    "spec.tools[t].command.argv[0]: is empty; name a program"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [a], image: ' '}}]\n",
    "spec.tools[t].command.image: is empty; name a workbench image"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [a, '{{ idea }}'], image: i}}]\n",
    "spec.tools[t].command.argv[1]: \"{{ idea }}\" names `idea`; a tool's command sees `arguments` only"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [a, '{{ arguments.x }}'], image: i, schema: {type: object, properties: {y: {}}}}}]\n",
    "spec.tools[t].command.argv[1]: \"{{ arguments.x }}\" names the argument `x`, which the schema does not have; it has: y"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [a, '{{ arguments.x'], image: i, schema: {type: object}}}]\n",
    "spec.tools[t].command.argv[1]: \"{{ arguments.x\" does not compile: unexpected end of input, expected end of variable block"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [a], image: i, schema: {type: string}}}]\n",
    "spec.tools[t].command.schema: is not of type object; arguments have names: write {type: object, properties: {…}}"
)]
#[case(
    "",
    "tools: [{name: t, description: d, command: {argv: [a], image: i, collect: [../x]}}]\n",
    "spec.tools[t].command.collect[0]: \"../x\" leaves the project with `..`; write it from the project's root"
)]
#[case(
    "",
    "tools: [{name: t, mcp: {url: 'https://x'}}]\n",
    "spec.tools[t].includeFunctions: is empty, so that nothing could be called; name the functions of the server that roles may call"
)]
#[case(
    "",
    "tools: [{name: t, mcp: {}, includeFunctions: [f]}]\n",
    "spec.tools[t].mcp: needs exactly one of url and image"
)]
#[case(
    "",
    "tools: [{name: t, mcp: {url: 'https://x', argv: [a]}, includeFunctions: [f]}]\n",
    "spec.tools[t].mcp.argv: belongs to servers that run as a container (image); take it away"
)]
#[case(
    "",
    "tools: [{name: t, mcp: {url: 'https://key@x'}, includeFunctions: [f]}]\n",
    "spec.tools[t].mcp.url: has a user or key before the host; put the key into a Secret and name it in secretRef"
)]
#[case(
    "",
    "egress: [{port: 1}]\n",
    "spec.egress[0]: needs exactly one of host and cidr"
)]
#[case(
    "",
    "redaction: {patterns: [{name: p, regex: \"(\"}]}\n",
    "spec.redaction.patterns[p].regex: \"(\" does not compile: unclosed group"
)]
#[case(
    "",
    "pod: {labels: {sopwith.dev/run: x}}\n",
    "spec.pod.labels[sopwith.dev/run]: \"sopwith.dev/run\" is the operator's own; choose another prefix"
)]
#[case(
    "",
    "git: [{url: 'git@github.com:acme/game.git'}]\n",
    "spec.git[0].url: \"…@github.com:acme/game.git\" is the short form of ssh; write ssh://git@HOST/PATH"
)]
#[case(
    "",
    "git: [{url: 'ssh://git@host/team'}]\n",
    "spec.git[0].secretRef: is not set, and ssh needs a key; name a Secret with the keys ssh-privatekey and known_hosts"
)]
#[case(
    "",
    "git: [{url: 'ssh://git@host/team', secretRef: {name: s}, caRef: {name: c, key: k}}]\n",
    "spec.git[0].caRef: belongs to https; the hosts of ssh are in known_hosts of the Secret"
)]
#[case(
    "",
    "git: [{url: 'https://host/team'}, {url: 'https://HOST/team/'}]\n",
    "spec.git[1].url: \"https://host/team\" is there more than once; make one entry of them"
)]
#[case(
    "",
    "git: [{url: 'https://host/team', branches: ['a{']}]\n",
    "spec.git[0].branches[a{]: \"a{\" is no pattern: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?); in it `*` stops at a slash and `**` does not"
)]
#[case(
    "",
    "deliver: {allowPaths: ['[']}\n",
    "spec.deliver.allowPaths[[]: \"[\" is no pattern: unclosed character class; missing ']'; in it `*` stops at a slash and `**` does not"
)]
fn a_mistake_is_told_with_its_place(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    let found = told(&super::super::policy(&yaml(&changed(POLICY, from, to))));
    assert!(
        found.iter().any(|finding| finding == expected),
        "expected\n{expected}\nfound\n{}",
        found.join("\n")
    );
}

#[test]
fn a_key_in_an_address_is_not_repeated() {
    let text = changed(
        POLICY,
        "provider: openai",
        "provider: openai\n  baseUrl: https://hunter2@host/v1",
    );
    assert!(
        !told(&super::super::policy(&yaml(&text)))
            .join("\n")
            .contains("hunter2")
    );
}
