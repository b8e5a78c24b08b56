//! Judges, compliance, measures, and the evidence that a policy trusts.

use super::{changed, told, yaml};
use rstest::rstest;

const SOP: &str = r"
roles: [{name: author, model: strong}, {name: other, model: fast}]
templates: {t: hi}
steps:
- name: a
  role: author
  raci: {responsible: [author], accountable: [author]}
  outputs: [{name: doc, path: doc.md}]
  actions: [{name: w, prompt: {template: t, writes: {artifact: doc}}}]
  gates:
  - name: long
    kind: expression
    expression: measures.words.last() > 1
    measures: [{name: words, value: artifacts.doc.text.size()}]
- name: b
  needs: [a]
  inputs: [{artifact: doc}]
  gates:
  - name: good
    kind: review
    review: {artifacts: [doc], criteria: [{name: x, question: Is it?}]}
  - name: sop
    kind: compliance
";
const POLICY: &str = r#"
llm:
- name: one
  provider: openai
  baseUrl: http://models.svc/v1
  models:
  - {name: big, aliases: [strong], inputPerMillion: "1", outputPerMillion: "1"}
  - {name: wise, aliases: [judge], inputPerMillion: "1", outputPerMillion: "1"}
  - {name: small, aliases: [fast], inputPerMillion: "1", outputPerMillion: "1"}
"#;
const RUN: &str = "sopRef: {name: s}\nidea: x\n";

fn check_yaml(text: &str) -> Vec<String> {
    told(&super::super::sop(&yaml(text)))
}

fn pairing(sop: &str, policy: &str) -> Vec<String> {
    told(&super::super::pairing(
        &yaml(RUN),
        &yaml(sop),
        &yaml(policy),
    ))
}

#[test]
fn judges_compliance_and_measures_are_understood() {
    assert_eq!(check_yaml(SOP), [""; 0]);
    assert_eq!(pairing(SOP, POLICY), [""; 0]);
}

#[rstest]
#[case(
    "artifacts: [doc], criteria",
    "criteria",
    "spec.steps[b].gates[good].review: shows nothing to its judges; name artifacts, or files"
)]
#[case(
    "artifacts: [doc], criteria",
    "files: ['{{ item.path }}'], criteria",
    "spec.steps[b].gates[good].review.files[{{ item.path }}]: there is no value `item` outside of a loop over a list; known here are: artifacts, attempt, findings, idea, incremental, inputs, layout, measures, options, parameters, project, recalled, round"
)]
#[case(
    "artifacts: [doc], criteria",
    "files: ['../x'], criteria",
    "spec.steps[b].gates[good].review.files[../x]: \"../x\" leaves the project with `..`; write it from the project's root"
)]
#[case(
    "[{name: x, question: Is it?}]",
    "[]",
    "spec.steps[b].gates[good].review.criteria: is empty; ask at least one question that is answered with yes or no"
)]
#[case(
    "[{name: x, question: Is it?}]",
    "[{name: x, question: A?}, {name: x, question: B?}]",
    "spec.steps[b].gates[good].review.criteria[x]: criterion `x` is there more than once; name them differently"
)]
#[case(
    "artifacts: [doc]",
    "artifacts: [doc], judges: 2, agree: 3",
    "spec.steps[b].gates[good].review.agree: 3 must agree, but 2 are asked; lower it, or ask more judges"
)]
#[case(
    "artifacts: [doc]",
    "artifacts: [doc], models: [wise, small], judges: 1",
    "spec.steps[b].gates[good].review.judges: 1 of 2 models are asked; name fewer models, or ask more judges"
)]
#[case(
    "kind: compliance",
    "kind: compliance\n    compliance: {steps: [b]}",
    "spec.steps[b].gates[sop].compliance.steps[b]: step `b` does not come before step `b`; name one that it needs, or add b to its needs"
)]
#[case(
    "responsible: [author]",
    "responsible: [team]",
    "spec.steps[a].raci.responsible: role `author` does the step, responsible is team: that cannot comply; add author, or change the step's role"
)]
#[case(
    "accountable: [author]",
    "accountable: [board]",
    "spec.steps[a].raci.accountable[board]: `board` is no role of the procedure, and nobody is asked to approve the step: that cannot comply; add a gate of kind approval"
)]
#[case(
    "measures.words.last()",
    "measures.lines.last()",
    "spec.steps[a].gates[long].expression: there is no measure `lines`; the gates of the procedure take: words"
)]
#[case(
    "value: artifacts.doc.text.size()",
    "value: artifacts.none.text.size()",
    "spec.steps[a].gates[long].measures[words].value: there is no artifact `none`; the outputs of the steps are: doc"
)]
#[case(
    "    kind: compliance",
    "    kind: compliance\n    measures: [{name: words, value: '1'}]",
    "spec.steps[].gates[].measures[words]: measure `words` is there more than once; name them differently"
)]
fn a_mistake_in_a_gate_is_told_with_its_place(
    #[case] from: &str,
    #[case] to: &str,
    #[case] expected: &str,
) {
    assert_eq!(check_yaml(&changed(SOP, from, to)), [expected]);
}

#[test]
fn a_measure_is_over_attempts_and_not_over_the_items_of_a_loop() {
    let gate = "gates: [{name: g, kind: expression, expression: 'true', measures: [{name: m, value: '1'}]}]";
    let action = format!(
        "actions: [{{name: l, loop: {{forEach: '[1]', actions: [{{name: i, render: {{template: t, path: f}}}}], {gate}}}}}, {{name: w,"
    );
    let found = check_yaml(&changed(SOP, "actions: [{name: w,", &action));
    assert_eq!(
        found,
        [
            "spec.steps[a].actions[l].loop.gates[g].measures[m]: is taken for each item of a loop, and its list would not be over attempts; put the gate on the loop's own action, or on the step"
        ]
    );
}

#[rstest]
#[case(
    "aliases: [judge]",
    "aliases: [jury]",
    "sop:spec.steps[b].gates[good].review.models[judge]: the policy has no model or alias \"judge\"; give a model that writes nothing in this procedure the alias judge"
)]
#[case(
    "aliases: [strong]",
    "aliases: [strong, judge]",
    "sop:spec.steps[b].gates[good].review.models[judge]: \"judge\" can be big, which also answers for role author (\"strong\"), whose work gate good judges; name a model that does not write it"
)]
// The next endpoint answers where the first does not.
#[case(
    "llm:\n",
    "llm:\n- name: zero\n  provider: groq\n  models: [{name: wise, aliases: [strong], inputPerMillion: '1', outputPerMillion: '1'}]\n",
    "sop:spec.steps[b].gates[good].review.models[judge]: \"judge\" can be wise, which also answers for role author (\"strong\"), whose work gate good judges; name a model that does not write it"
)]
// One deployment under two names.
#[case(
    "{name: big, aliases: [strong],",
    "{name: big, deployment: wise, aliases: [strong],",
    "sop:spec.steps[b].gates[good].review.models[judge]: \"judge\" can be wise, which also answers for role author (\"strong\"), whose work gate good judges; name a model that does not write it"
)]
fn nobody_judges_its_own_work(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    assert_eq!(pairing(SOP, &changed(POLICY, from, to)), [expected]);
}

#[test]
fn a_role_without_a_model_writes_with_the_runs() {
    let sop = changed(SOP, "name: author, model: strong", "name: author");
    let first = changed(
        POLICY,
        "  - {name: big",
        "  - {name: wise, inputPerMillion: '1', outputPerMillion: '1'}\n  - {name: big",
    );
    let first = changed(
        &first,
        "{name: wise, aliases: [judge],",
        "{name: sage, aliases: [judge],",
    );
    assert_eq!(pairing(&sop, &first), [""; 0]);
    let sop = changed(
        &sop,
        "artifacts: [doc], criteria",
        "artifacts: [doc], models: [wise], criteria",
    );
    assert_eq!(pairing(&sop, &first).len(), 1);
}

#[rstest]
#[case("evidence: {minimumTrust: external}\nrequiredGates: [review/good]\n", &[])]
#[case("evidence: {minimumTrust: external, gates: [review/*, expression/long]}\n", &[])]
#[case("evidence: {minimumTrust: inProcess, gates: [review/good]}\n",
    &["spec.evidence.minimumTrust: inProcess is what any evidence is; write external or human, or take evidence away"])]
#[case("evidence: {minimumTrust: external}\n",
    &["spec.evidence.gates: is not set, nor is requiredGates; name the gates, as kind/name or kind/*"])]
#[case("evidence: {minimumTrust: external}\nrequiredGates: [command/unit]\n",
    &["spec.evidence.gates[command/unit]: evidence of gates of kind command is inProcess at the most, but external is asked for; name gates of another kind"])]
#[case("evidence: {minimumTrust: human, gates: [review/good]}\n",
    &["spec.evidence.gates[review/good]: evidence of gates of kind review is external at the most, but human is asked for; name gates of kind approval"])]
#[case("evidence: {minimumTrust: human, gates: [sign]}\n",
    &["spec.evidence.gates[sign]: \"sign\" is not of the form kind/name or kind/*"])]
fn rules_on_evidence_can_be_met(#[case] rules: &str, #[case] expected: &[&str]) {
    let policy = format!("{POLICY}{rules}");
    assert_eq!(told(&super::super::policy(&yaml(&policy))), expected);
}

#[test]
fn a_procedure_meets_a_policys_rules_on_evidence() {
    let policy = format!(
        "{POLICY}evidence: {{minimumTrust: external, gates: [expression/long, schema/form]}}\n"
    );
    let sop = changed(
        SOP,
        "expression: measures.words.last() > 1",
        "expression: reports.unit.tests > 0",
    );
    assert_eq!(
        pairing(&sop, &policy),
        [
            "policy:spec.evidence.gates[schema/form]: the procedure has no gate schema/form; add it, or choose another procedure",
            "sop:spec.steps[a].gates[long].expression: looks at reports, which programs in a workbench have said, and the policy asks for evidence of gate expression/long that is external",
        ]
    );
}

#[test]
fn recording_from_a_difference_needs_somebody_to_ask() {
    let recorded = "llm:\n- name: tape\n  provider: replay\n  replay: {cassetteRef: {name: c}, mode: recordFromDifference}\n  models: [{name: big, aliases: [strong]}, {name: wise}]\n";
    let alone = told(&super::super::policy(&yaml(recorded)));
    let lacks = |model: &str| {
        format!(
            "spec.llm[tape].replay.mode: recordFromDifference asks the next endpoint what differs, and none behind it has \"{model}\"; add an endpoint that answers for it"
        )
    };
    assert_eq!(alone, [lacks("strong"), lacks("wise")]);
    let behind = POLICY.replacen("\nllm:\n", recorded, 1);
    assert_eq!(told(&super::super::policy(&yaml(&behind))), [""; 0]);
    let only_gates = recorded.replace("recordFromDifference", "gatesOnly");
    assert_eq!(told(&super::super::policy(&yaml(&only_gates))), [""; 0]);
}
