use super::{told, yaml};
use rstest::rstest;

const RUN: &str = "sopRef: {name: s}\nidea: x\n";

#[rstest]
#[case("features: {x: false}", "spec.features[x]: is")]
#[case("runner: {queueName: q}", "spec.runner.queueName: is")]
fn of_a_run_is_not_supported_yet(#[case] text: &str, #[case] expected: &str) {
    let found = super::super::not_supported_yet(
        &yaml(&format!("{RUN}{text}")),
        &yaml("steps: []"),
        &yaml("{}"),
    );
    assert_eq!(
        told(&found),
        [format!("run:{expected} not supported yet; take it away")]
    );
}

#[rstest]
#[case(
    "steps: [{name: a, actions: [{name: x, command: {argv: [a], image: i, network: egress}}]}]",
    "spec.steps[a].actions[x].command.network: egress is"
)]
#[case(
    "steps: [{name: a, gates: [{name: g, kind: command, command: {run: [{argv: [a], image: i, network: loopback}]}}]}]",
    "spec.steps[a].gates[g].command.run[0].network: loopback is"
)]
fn of_a_procedure_is_not_supported_yet(#[case] text: &str, #[case] expected: &str) {
    let found = super::super::not_supported_yet(&yaml(RUN), &yaml(text), &yaml("{}"));
    assert_eq!(
        told(&found),
        [format!("sop:{expected} not supported yet; take it away")]
    );
}

#[rstest]
#[case("tools: [{name: t, mcp: {url: 'https://x'}}]", "spec.tools[t].mcp: is")]
#[case("packages: [{index: i}]", "spec.packages: is")]
#[case("egress: [{host: h}]", "spec.egress: is")]
#[case(
    "observability: {required: true}",
    "spec.observability.required: true is"
)]
#[case("budgets: {onExhausted: Pause}", "spec.budgets.onExhausted: Pause is")]
#[case("concurrency: {runs: 1}", "spec.concurrency.runs: is")]
#[case("redaction: {}", "spec.redaction: is")]
#[case("retention: {days: 1}", "spec.retention: is")]
#[case(
    "commands: [{argv: [a], network: loopback}]",
    "spec.commands[0].network: loopback is"
)]
fn of_a_policy_is_not_supported_yet(#[case] text: &str, #[case] expected: &str) {
    let found = super::super::not_supported_yet(&yaml(RUN), &yaml("steps: []"), &yaml(text));
    assert_eq!(
        told(&found),
        [format!("policy:{expected} not supported yet; take it away")]
    );
}

#[test]
fn what_is_supported_is_not_refused() {
    let run = "sopRef: {name: s}\nideaFrom: {configMapKeyRef: {name: c, key: k}}\ninputs: [{name: i, configMapKeyRef: {name: c, key: k}}]\nsuspend: true\ncancel: false\nttlSecondsAfterFinished: 1\nstartDeadlineSeconds: 1\ndeadlineSeconds: 1\nrequestedBy: me\nchangeRef: C1\nlongTermMemory: true\nincremental: true\nreqaFile: tests/a.py\nmaxAutoSummarizeCode: -1\nenvironment: staging\npromptSchema: markdown\nproject: {source: {git: {url: u}}, deliver: {git: {branch: b}}}\nrecoverFrom: {run: r, step: s}\nrunner: {nodeSelector: {a: b}}\n";
    let sop = "templatesFrom: [{configMap: c}]\nroles: [{name: r, reactMode: Free, memory: {window: 3}, tools: [t], maxTurns: 3}]\nsteps: [{name: a, onStuck: Restart, outputs: [{name: o, path: p, freeze: true}], actions: [{name: w, tool: {name: t, path: p}}, {name: x, loop: {forEach: 'l', parallel: 4, until: 'u', max: '3', actions: []}}], gates: [{name: g, kind: expression, expression: 'true', exhausted: Ask, onFailure: [{action: Retry, workspace: restore}, {action: Ask}]}, {name: h, kind: approval}]}]\n";
    let policy = "git: [{url: u}]\ndeliver: {denyPaths: [x]}\napprovals: {count: 2}\ntools: [{name: t, builtin: read_file, critical: true, timeoutSeconds: 3, rateLimit: {perMinute: 3}, maxCalls: 3}, {name: u, description: d, command: {argv: [a], image: i}}]\nllm: [{name: e, provider: openai, idleTimeoutSeconds: 3, rateLimit: {perMinute: 1}, models: []}]\nbudgets: {tokensPerDay: 1, costPerDay: '1', tokensPerRun: 1, costPerRun: '1', onExhausted: Fail}\nconcurrency: {llmRequests: 2}\nobservability: {required: false}\npod: {runtimeClassName: gvisor}\n";
    let found = super::super::not_supported_yet(&yaml(run), &yaml(sop), &yaml(policy));
    assert_eq!(told(&found), [""; 0]);
}
