use super::{changed, told, yaml};
use rstest::rstest;

/// A role that picks its actions itself; each case changes one place.
const SOP: &str = r#"
templates: {read: "{{ idea }}", patch: "{{ findings }}"}
roles:
- {name: fixer, reactMode: Free, maxTurns: 6}
steps:
- name: fix
  role: fixer
  outputs: [{name: code, path: code.py}]
  actions:
  - {name: notes, description: Look closely., prompt: {template: read, writes: {path: notes.md}}}
  - name: patch
    when: artifacts.code.exists || attempt > 1
    prompt: {template: patch, writes: {artifact: code}}
    gates: [{name: small, kind: expression, expression: artifacts.code.text.size() < 99, onFailure: [{action: Retry}]}]
  gates:
  - {name: sign-off, kind: approval}
"#;

fn check(text: &str) -> Vec<String> {
    told(&super::super::sop(&yaml(text)))
}

#[test]
fn a_role_may_pick_its_actions_and_people_decide_on_what_came_of_it() {
    assert_eq!(check(SOP), [""; 0]);
}

#[test]
fn a_step_of_gates_may_have_such_a_role() {
    let text = format!(
        "{SOP}- {{name: look, role: fixer, gates: [{{name: g, kind: expression, expression: 'true'}}]}}\n"
    );
    assert_eq!(check(&text), [""; 0]);
}

#[rstest]
#[case(
    "maxTurns: 6",
    "maxTurns: 1",
    "spec.roles[fixer].maxTurns: 1 lets the role do one action, and it picks its actions itself (reactMode: Free); write at least 2, or use ByOrder"
)]
#[case(
    "  - {name: notes, description: Look closely., prompt: {template: read, writes: {path: notes.md}}}\n",
    "",
    "spec.steps[fix].actions: has one action, `patch`, and role `fixer` picks its actions itself (reactMode: Free); add another, or use ByOrder"
)]
#[case(
    "name: notes,",
    "name: done,",
    "spec.steps[fix].actions[done]: \"done\" is what the role says when nothing is left to do, since role `fixer` picks its actions itself (reactMode: Free); name the action differently"
)]
#[case(
    "name: notes,",
    "name: react,",
    "spec.steps[fix].actions[react]: \"react\" is the name of the question which action is next, since role `fixer` picks its actions itself (reactMode: Free); name the action differently"
)]
#[case(
    "{name: small, kind: expression, expression: artifacts.code.text.size() < 99, onFailure",
    "{name: small, kind: approval, onFailure",
    "spec.steps[fix].actions[patch].gates[small].kind: approval cannot be asked for between actions that the role picks itself (reactMode: Free); put the gate on the step"
)]
#[case(
    "{action: Retry}",
    "{action: Ask}",
    "spec.steps[fix].actions[patch].gates[small].onFailure[0].action: Ask cannot be used between actions that the role picks itself (reactMode: Free); use Retry, Backtrack or Fail, or put the gate on the step"
)]
#[case(
    "size() < 99,",
    "size() < 99, exhausted: Ask,",
    "spec.steps[fix].actions[patch].gates[small].exhausted: Ask cannot be used between actions that the role picks itself (reactMode: Free); use Retry, Backtrack or Fail, or put the gate on the step"
)]
fn a_mistake_is_told(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    assert_eq!(check(&changed(SOP, from, to)), [expected]);
    // By order all of it is allowed, but for what only bounds picks.
    let by_order = changed(
        &changed(SOP, from, to),
        "reactMode: Free",
        "reactMode: ByOrder",
    );
    let rest = check(&by_order);
    assert!(
        rest.iter()
            .all(|finding| finding.starts_with("spec.roles[fixer].maxTurns: bounds calls")),
        "{rest:?}"
    );
}

#[test]
fn a_step_of_programs_asks_a_model_where_its_role_picks() {
    let run = "sopRef: {name: s}\nidea: x\n";
    let policy = "commands: [{argv: [a]}]\nimages: [i]\n";
    let found = |mode: &str| {
        let sop = format!(
            "roles: [{{name: r, reactMode: {mode}}}]\nsteps: [{{name: a, role: r, actions: [{{name: x, command: {{argv: [a], image: i}}}}, {{name: y, command: {{argv: [a], image: i}}}}]}}]\n"
        );
        told(&super::super::pairing(
            &yaml(run),
            &yaml(&sop),
            &yaml(policy),
        ))
    };
    assert_eq!(found("ByOrder"), [""; 0]);
    assert_eq!(
        found("Free"),
        [
            "policy:spec.llm: is empty, and the procedure asks models; name an endpoint and its models"
        ]
    );
}
