use super::{super::pairing::image_matches, changed, told, yaml};
use rstest::rstest;

const RUN: &str = "sopRef: {name: s}\nidea: x\nmodel: strong\n";
const SOP: &str = r"
roles: [{name: r, model: fast}]
templates: {t: hi}
steps:
- name: a
  role: r
  actions: [{name: p, prompt: {template: t, writes: {path: f}}}]
  gates:
  - name: unit
    kind: command
    command: {run: [{argv: [pytest, -q], image: 'reg/py:3.11'}]}
";
const POLICY: &str = r#"
llm:
- name: main
  provider: replay
  replay: {cassetteRef: {name: c}}
  models:
  - {name: big, aliases: [strong, fast], inputPerMillion: "10", outputPerMillion: "0"}
sops: [{name: s}]
requiredGates: [command/unit]
commands: [{argv: [pytest]}]
images: ["reg/py:*"]
"#;

fn check(run: &str, sop: &str, policy: &str) -> Vec<String> {
    told(&super::super::pairing(
        &yaml(run),
        &yaml(sop),
        &yaml(policy),
    ))
}

#[test]
fn what_a_policy_allows_is_allowed() {
    assert_eq!(check(RUN, SOP, POLICY), [""; 0]);
}

#[rstest]
#[case("model: strong", "model: huge",
    &["run:spec.model: the policy has no model or alias \"huge\"; it has: big, fast, strong"])]
#[case("name: s}", "name: other}",
    &["run:spec.sopRef.name: the policy does not allow SOP \"other\"; it allows: s"])]
#[case("", "environment: staging\n",
    &["run:spec.environment: the policy does not allow runs in staging; it allows: dev"])]
#[case("", "environment: prod\n",
    &["policy:spec.llm[main].provider: replayed answers are not allowed in prod; name a real provider, or run in dev or staging",
      "run:spec.environment: the policy does not allow runs in prod; it allows: dev"])]
fn a_run_asks_for_too_much(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert_eq!(check(&changed(RUN, from, to), SOP, POLICY), expected);
}

#[rstest]
#[case("model: fast", "model: slow",
    &["sop:spec.roles[r].model: the policy has no model or alias \"slow\"; it has: big, fast, strong"])]
#[case("model: fast", "tools: [web]",
    &["sop:spec.roles[r].tools[web]: the policy does not allow tool \"web\"; it allows: none"])]
#[case("reg/py:3.11", "reg/evil/py:3.11",
    &["sop:spec.steps[a].gates[unit].command.run[0].image: the policy does not allow image \"reg/evil/py:3.11\"; it allows: reg/py:*"])]
#[case("[pytest, -q]", "[sh, -c, pytest]",
    &["sop:spec.steps[a].gates[unit].command.run[0].argv: the policy does not allow \"sh -c pytest\"; it allows what begins with: pytest"])]
#[case("[pytest, -q]", "[pytest], network: loopback",
    &["sop:spec.steps[a].gates[unit].command.run[0].network: the policy does not allow \"pytest\" the network access it asks for; lower it, or raise it in the policy"])]
#[case("'reg/py:3.11'}]", "'reg/py:3.11'}], canaries: [{name: c, path: p, template: t, run: {argv: [sh], image: 'reg/py:3.11'}}]",
    &["sop:spec.steps[a].gates[unit].command.canaries[c].run.argv: the policy does not allow \"sh\"; it allows what begins with: pytest"])]
#[case("name: unit", "name: units",
    &["policy:spec.requiredGates[command/unit]: the procedure has no gate command/unit; add it, or choose another procedure"])]
fn a_procedure_needs_too_much(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert_eq!(check(RUN, &changed(SOP, from, to), POLICY), expected);
}

#[rstest]
#[case(", outputPerMillion: \"0\"", "",
    &["policy:spec.llm[main].models[big].outputPerMillion: is not set, and the run's money is bounded; write the price in US dollars, \"0\" for a local model"])]
#[case("[\"reg/py:*\"]", "[]",
    &["sop:spec.steps[a].gates[unit].command.run[0].image: the policy does not allow image \"reg/py:3.11\"; it allows: none"])]
#[case("[{argv: [pytest]}]", "[{argv: [pytest, -x]}]",
    &["sop:spec.steps[a].gates[unit].command.run[0].argv: the policy does not allow \"pytest -q\"; it allows what begins with: pytest -x"])]
#[case("[command/unit]", "[command/unit, \"approval/*\"]",
    &["policy:spec.requiredGates[approval/*]: the procedure has no gate approval/*; add it, or choose another procedure"])]
fn a_policy_allows_too_little(#[case] from: &str, #[case] to: &str, #[case] expected: &[&str]) {
    assert_eq!(check(RUN, SOP, &changed(POLICY, from, to)), expected);
}

#[rstest]
#[case("https://host/team/game", "sopwith/a", "git: [{url: 'https://host/team', branches: ['sopwith/*']}]\n", &[])]
#[case("https://host/other", "sopwith/a", "git: [{url: 'https://host/team'}]\n",
    &["run:spec.project.source.git.url: the policy does not allow the repository \"https://host/other\"; it allows what begins with: https://host/team. Add an entry to spec.git of the policy, with the Secret that opens the repository, or name another repository"])]
#[case("https://host/team/game", "main", "",
    &["run:spec.project.source.git.url: the policy does not allow the repository \"https://host/team/game\"; it allows what begins with: none. Add an entry to spec.git of the policy, with the Secret that opens the repository, or name another repository"])]
#[case("https://host/team/game", "main", "git: [{url: 'https://host/team', branches: ['sopwith/*']}]\n",
    &["run:spec.project.deliver.git.branch: the policy does not allow writing branch \"main\" of \"https://host/team\"; it allows: sopwith/*. Name another branch, or add a pattern to branches of the policy's git entry"])]
#[case("https://host/team/game", "main", "git: [{url: 'https://host', branches: ['**']}, {url: 'https://host/team/game'}]\n",
    &["run:spec.project.deliver.git.branch: the policy does not allow writing branch \"main\" of \"https://host/team/game\"; it allows: none. Name another branch, or add a pattern to branches of the policy's git entry"])]
fn a_run_reads_and_writes_what_the_policy_opens(
    #[case] url: &str,
    #[case] branch: &str,
    #[case] git: &str,
    #[case] expected: &[&str],
) {
    let run = format!(
        "{RUN}project: {{source: {{git: {{url: '{url}'}}}}, deliver: {{git: {{branch: '{branch}'}}}}}}\n"
    );
    assert_eq!(check(&run, SOP, &format!("{POLICY}{git}")), expected);
}

#[rstest]
#[case(
    "approvals: {separationOfDuties: true}\n",
    "",
    "{name: yes, kind: approval}",
    true
)]
#[case(
    "approvals: {separationOfDuties: true}\n",
    "",
    "{name: yes, kind: expression, expression: 'true', exhausted: Ask}",
    true
)]
#[case(
    "approvals: {separationOfDuties: true}\n",
    "requestedBy: jane\n",
    "{name: yes, kind: approval}",
    false
)]
#[case(
    "approvals: {separationOfDuties: true}\n",
    "",
    "{name: yes, kind: expression, expression: 'true'}",
    false
)]
#[case("approvals: {count: 2}\n", "", "{name: yes, kind: approval}", false)]
fn who_approves_must_be_told_apart_from_who_requested(
    #[case] approvals: &str,
    #[case] requester: &str,
    #[case] gate: &str,
    #[case] refused: bool,
) {
    let sop = format!("{SOP}- {{name: z, gates: [{gate}]}}\n");
    let found = check(
        &format!("{RUN}{requester}"),
        &sop,
        &format!("{POLICY}{approvals}"),
    );
    let expected = "run:spec.requestedBy: is not set, and the policy separates who requests from who approves \
                    (spec.approvals.separationOfDuties); write your user name, as `kubectl auth whoami` shows it";
    let expected: Vec<&str> = refused.then_some(expected).into_iter().collect();
    assert_eq!(found, expected);
}

const TOOLS: &str = "
tools:
- {name: read, builtin: read_file, tags: [look]}
- {name: lint, description: d, tags: [look], command: {argv: [ruff, '{{ arguments.path }}'], image: i, schema: {type: object, required: [path], properties: {path: {}, fix: {}}}}}
- {name: tracker, includeFunctions: [find, create], mcp: {url: 'https://x'}}
";

/// What a role is granted and an action calls; and what is said of it.
#[rstest]
#[case("read, lint, tracker", "read, arguments: {path: x}", &[])]
#[case("'tag:look'", "lint, arguments: {path: x, fix: z}", &[])]
#[case("tracker/find", "tracker/find, arguments: {any: x}", &[])]
#[case("write", "", &["sop:spec.roles[r].tools[write]: the policy does not allow tool \"write\"; it allows: lint, read, tracker"])]
#[case("'tag:admin'", "", &["sop:spec.roles[r].tools[tag:admin]: no tool of the policy has the tag \"admin\"; its tags are: look"])]
#[case("tracker/drop", "", &["sop:spec.roles[r].tools[tracker/drop]: the policy does not allow the function \"drop\" of tool \"tracker\"; it allows: create, find"])]
#[case("read", "write", &["sop:spec.steps[a].actions[p].tool.name: the policy does not allow tool \"write\"; it allows: lint, read, tracker"])]
#[case("tracker", "tracker", &["sop:spec.steps[a].actions[p].tool.name: tool \"tracker\" has several functions; the policy allows: create, find; write tracker/FUNCTION"])]
#[case("read", "lint, arguments: {path: x}", &["sop:spec.steps[a].actions[p].tool.name: role \"r\" is not granted tool \"lint\"; add it to spec.roles[r].tools"])]
#[case("tracker/find", "tracker/create", &["sop:spec.steps[a].actions[p].tool.name: role \"r\" is not granted tool \"tracker/create\"; add it to spec.roles[r].tools"])]
#[case("read", "read, arguments: {file: x}", &[
    "sop:spec.steps[a].actions[p].tool.arguments[file]: tool \"read\" has no argument \"file\"; it has: from, lines, path",
    "sop:spec.steps[a].actions[p].tool.arguments[path]: is not set, and tool \"read\" needs it"])]
fn tools_are_granted_by_the_policy_and_by_the_role(
    #[case] granted: &str,
    #[case] call: &str,
    #[case] expected: &[&str],
) {
    let mut sop = changed(
        SOP,
        "model: fast",
        &format!("model: fast, tools: [{granted}]"),
    );
    if !call.is_empty() {
        sop = changed(
            &sop,
            "prompt: {template: t, writes: {path: f}}",
            &format!("tool: {{name: {call}}}"),
        );
    }
    assert_eq!(check(RUN, &sop, &format!("{POLICY}{TOOLS}")), expected);
}

#[test]
fn a_step_without_a_role_calls_what_the_policy_allows() {
    let call = |name: &str| {
        let sop = format!(
            "{SOP}- {{name: z, actions: [{{name: c, tool: {{name: {name}, arguments: {{path: x}}}}}}]}}\n"
        );
        check(RUN, &sop, &format!("{POLICY}{TOOLS}"))
    };
    assert_eq!(call("read"), [""; 0]);
    assert_eq!(
        call("write"),
        [
            "sop:spec.steps[z].actions[c].tool.name: the policy does not allow tool \"write\"; it allows: lint, read, tracker"
        ]
    );
}

#[test]
fn a_role_with_tools_needs_a_model_that_calls_them() {
    let sop = changed(SOP, "model: fast", "model: fast, tools: [read]");
    let policy = format!("{POLICY}{TOOLS}");
    let policy = |capabilities: &str| {
        changed(
            &policy,
            "aliases: [strong, fast]",
            &format!("aliases: [strong, fast], capabilities: [{capabilities}]"),
        )
    };
    assert_eq!(check(RUN, &sop, &policy("tools")), [""; 0]);
    assert_eq!(
        check(RUN, &sop, &policy("streaming")),
        [
            "sop:spec.roles[r].tools: are tools, and no model \"fast\" of the policy can call any; add tools to its capabilities, or name another model"
        ]
    );
}

#[test]
fn a_role_has_no_more_functions_than_models_take() {
    let functions: Vec<String> = (0..129).map(|number| format!("f{number}")).collect();
    let tools = format!(
        "\ntools: [{{name: big, includeFunctions: [{}], mcp: {{url: 'https://x'}}}}]\n",
        functions.join(", ")
    );
    let sop = changed(SOP, "model: fast", "model: fast, tools: [big]");
    assert_eq!(
        check(RUN, &sop, &format!("{POLICY}{tools}")),
        ["sop:spec.roles[r].tools: grants 129 functions, and models take at most 128; grant fewer"]
    );
}

#[test]
fn an_empty_policy_allows_nothing() {
    assert_eq!(
        check(RUN, SOP, "{}"),
        [
            "policy:spec.llm: is empty, and the procedure asks models; name an endpoint and its models",
            "sop:spec.steps[a].gates[unit].command.run[0].argv: the policy does not allow \"pytest -q\"; it allows what begins with: none",
            "sop:spec.steps[a].gates[unit].command.run[0].image: the policy does not allow image \"reg/py:3.11\"; it allows: none",
        ]
    );
}

#[test]
fn a_word_that_a_template_fills_in_matches_nothing() {
    let sop = changed(SOP, "[pytest, -q]", "[python3, '-{{ idea }}', pytest]");
    let policy = changed(
        POLICY,
        "[{argv: [pytest]}]",
        "[{argv: [python3, '-{{ idea }}']}]",
    );
    assert_eq!(check(RUN, &sop, &policy).len(), 1);
}

#[rstest]
#[case("reg/py:*", "reg/py:3", true)]
#[case("reg/py:*", "reg/py:", true)]
#[case("reg/py:*", "reg/py:3/x", false)]
#[case("reg/*", "reg/a/b", false)]
#[case("reg/*/b:*", "reg/a/b:1", true)]
#[case("reg/py:3", "reg/py:3", true)]
#[case("reg/py:3", "reg/py:31", false)]
#[case("*", "py", true)]
#[case("*py*", "apyb", true)]
#[case("", "py", false)]
fn a_star_stands_for_anything_but_a_slash(
    #[case] pattern: &str,
    #[case] image: &str,
    #[case] matches: bool,
) {
    assert_eq!(image_matches(pattern, image), matches);
}
