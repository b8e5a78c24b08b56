use super::{super::*, changed, told, yaml};
use crate::sop_definition::Step;
use rstest::rstest;

/// The page that tells authors what is wrong with a procedure.
const PAGE: &str = include_str!("../../../../docs/sop-mistakes.md");

/// The procedure of the page: it has no mistake, and each line of the tables changes one place of it.
fn good() -> String {
    let (_, rest) = PAGE.split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn check_yaml(text: &str) -> Vec<String> {
    told(&super::super::sop(&yaml(text)))
}

#[test]
fn a_good_procedure_has_no_mistake() {
    assert_eq!(check_yaml(&good()), [""; 0]);
}

#[test]
fn people_may_decide_on_a_step_an_action_and_what_a_loop_left() {
    let asks = "{name: sign, kind: approval, approval: {artifacts: [plan], message: Go on?}, onFailure: [{action: Retry}]}";
    let on_step = good().replace(
        "- {name: complete,",
        &format!("- {asks}\n  - {{name: complete,"),
    );
    assert_eq!(check_yaml(&on_step), [""; 0]);
    let on_loop = good().replace(
        "  - name: write\n",
        &format!("  - name: write\n    gates: [{asks}]\n"),
    );
    assert_eq!(check_yaml(&on_loop), [""; 0]);
    let asked = good().replace(
        "onFailure: [{action: Retry},",
        "exhausted: Ask\n    onFailure: [{action: Retry},",
    );
    assert_eq!(check_yaml(&asked), [""; 0]);
}

#[test]
fn a_loop_may_go_over_nothing_until_something_holds_and_over_items_at_once() {
    let until = good().replace(
        "      forEach: artifacts.plan.json.files\n",
        "      until: \"pass > 1 || retry == 0\"\n      max: options.maxAutoSummarizeCode\n",
    );
    let until = until
        .replace("{{ item.path }} {{ artifacts", "{{ pass }} {{ artifacts")
        .replace(
            "writes: {path: \"{{ item.path }}\"}",
            "writes: {path: a.py}",
        );
    assert_eq!(check_yaml(&until), [""; 0]);
    let at_once = good().replace(
        "      forEach: artifacts.plan.json.files\n",
        "      forEach: artifacts.plan.json.files\n      parallel: 4\n      until: item.path == 'a' && pass == 2\n      max: \"-1\"\n      gates: [{name: ok, kind: expression, expression: item.path != '', onFailure: [{when: \"gate.findings != '' && retry < 2\", action: Retry, workspace: restore}]}]\n",
    );
    assert_eq!(check_yaml(&at_once), [""; 0]);
}

/// A change of the procedure, and what its author is told: a line of the page's tables.
struct Mistake {
    from: String,
    to: String,
    told: String,
}

/// The lines of the tables of the page.
fn mistakes() -> Vec<Mistake> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells = row.replace("\\|", "\0");
        let mut cells = cells.split('|').map(|cell| {
            let text = cell.trim().trim_matches('`');
            let text = if text.contains('`') {
                text.trim()
            } else {
                text
            };
            text.replace('\0', "|").replace('·', " ").replace('⏎', "\n")
        });
        let mut next = || cells.next().unwrap_or_default();
        let _ = next();
        Mistake {
            from: next(),
            to: next(),
            told: next(),
        }
    })
    .collect()
}

#[test]
fn each_mistake_of_the_page_is_told_with_its_place() {
    let mistakes = mistakes();
    assert!(mistakes.len() > 80, "{}", mistakes.len());
    let wrong = mistakes.iter().filter_map(|mistake| {
        let found = check_yaml(&changed(&good(), &mistake.from, &mistake.to));
        let told = found.contains(&mistake.told);
        (!told).then(|| format!("expected\n{}\nfound\n{}", mistake.told, found.join("\n")))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_canary_is_checked_like_what_it_stands_beside() {
    let canary = "image: \"python:1\"}]\n      canaries: [{name: c, path: ../c.py, template: canary, run: {argv: [\"{{ x }}\"], image: \"ruff:1\"}}]";
    let expected = [
        "path: \"../c.py\" leaves the project with `..`; write it from the project's root",
        "run.argv[0]: \"{{ x }}\" is a template, but policies allow programs by name; write the program itself",
        "run.argv[0]: there is no value `x`; known here are: artifacts, attempt, findings, idea, incremental, inputs, layout, measures, options, parameters, project, recalled, round",
        "run.image: \"ruff:1\" is no image of the programs that judge; a canary must be run as they are",
        "template: there is no template `canary`; known are: ask, code, doc",
    ];
    let expected = expected
        .map(|finding| format!("spec.steps[test].gates[unit].command.canaries[c].{finding}"));
    assert_eq!(
        check_yaml(&changed(&good(), "image: \"python:1\"}]", canary)),
        expected
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_places() {
    let text = changed(&good(), "to: code}", "to: nowhere}");
    let text = changed(&text, "role: coder", "role: nobody");
    let text = changed(&text, "docs: docs,", "docs: /docs,");
    assert_eq!(
        check_yaml(&text),
        [
            "spec.layout[docs]: \"/docs\" is not relative; write it from the project's root",
            "spec.steps[code].role: there is no role `nobody`; known are: coder, planner",
            "spec.steps[test].gates[unit].onFailure[1].to: there is no step `nowhere`; known are: code, plan, test",
        ]
    );
}

#[rstest]
#[case(
    "steps: []",
    "spec.steps: has no steps; a procedure needs at least one"
)]
#[case(
    "steps: [{name: a}]",
    "spec.steps[a]: has neither actions nor gates; say what it does, or what it judges"
)]
#[case(
    "steps: [{name: a, needs: [a], gates: [{name: g, kind: expression, expression: 'true'}]}]",
    "spec.steps[a].needs: the steps need each other: a → a; take one of these needs away"
)]
#[case(
    "steps: [{name: a, actions: [{name: x, prompt: {template: t, writes: {path: f}}}]}]\ntemplates: {t: hi}",
    "spec.steps[a].actions[x].prompt: step `a` has no role that could answer; name one in its field role"
)]
#[case(
    "steps: [{name: a, outputs: [{name: o}], gates: [{name: g, kind: expression, expression: 'true'}]}]",
    "spec.steps[a].outputs[o]: has neither path nor glob; say which file or files it is"
)]
#[case(
    "steps: [{name: a, gates: [{name: g, kind: command, command: {run: []}}]}]",
    "spec.steps[a].gates[g].command.run: is empty; name a program to run"
)]
#[case(
    "steps: [{name: a, gates: [{name: g, kind: review, review: {artifacts: [x], criteria: [{name: c, question: q}]}}]}]",
    "spec.steps[a].gates[g].review.artifacts[x]: there is no artifact `x`; the outputs of the steps are: none"
)]
#[case(
    "steps: [{name: a, gates: [{name: g, kind: compliance, compliance: {steps: [b]}}]}]",
    "spec.steps[a].gates[g].compliance.steps[b]: there is no step `b`; known are: a"
)]
fn a_small_procedure_is_refused(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(check_yaml(text), [expected]);
}

#[test]
fn a_procedure_may_have_64_steps() {
    let steps = |count: usize| -> String {
        (0..count)
            .map(|i| {
                format!(
                    "- {{name: s{i}, gates: [{{name: g, kind: expression, expression: 'true'}}]}}\n"
                )
            })
            .collect::<Vec<_>>()
            .concat()
    };
    assert_eq!(check_yaml(&format!("steps:\n{}", steps(64))), [""; 0]);
    assert_eq!(
        check_yaml(&format!("steps:\n{}", steps(65))),
        ["spec.steps: has 65 steps, the most is 64; join steps or split the procedure"]
    );
}

#[test]
fn templates_of_config_maps_count() {
    let text = changed(&good(), "{template: doc,", "{template: far,");
    let text = format!("{text}templatesFrom: [{{configMap: more}}]\n");
    let spec = yaml(&text);
    assert_eq!(told(&super::super::sop(&spec)), [""; 0]);
    let good = BTreeMap::from([(
        String::from("far"),
        String::from("{{ artifacts.plan.text }}"),
    )]);
    assert_eq!(told(&sop_with(&spec, &good)), [""; 0]);
    assert_eq!(
        told(&sop_with(&spec, &BTreeMap::new())),
        [
            "spec.steps[plan].actions[render].render.template: there is no template `far`; known are: ask, code, doc"
        ]
    );
    let bad = BTreeMap::from([
        (String::from("far"), String::from("\n{{ nothing }}")),
        (String::from("ask"), String::from("x")),
    ]);
    assert_eq!(
        told(&sop_with(&spec, &bad)),
        [
            "spec.steps[plan].actions[render].render.template: template `far`: there is no value `nothing`; known here are: artifacts, attempt, findings, idea, incremental, inputs, layout, measures, messages, options, parameters, project, recalled, role, round",
            "spec.templates[ask]: a ConfigMap of templatesFrom has a template `ask`, too; rename one of them",
        ]
    );
}

fn steps(text: &str) -> Vec<Step> {
    text.split_whitespace()
        .map(|step| {
            let (name, needs) = step.split_once(':').unwrap_or((step, ""));
            Step {
                name: name.to_owned(),
                needs: needs
                    .split(',')
                    .filter(|need| !need.is_empty())
                    .map(str::to_owned)
                    .collect(),
                ..Step::default()
            }
        })
        .collect()
}

#[rstest]
#[case("a b c", "a b c")]
#[case("c:a b a", "b a c")]
#[case("d:b,c b:a c:a a", "a b c d")]
#[case("a:unknown b", "a b")]
#[case("", "")]
fn steps_run_after_what_they_need_and_else_as_declared(#[case] text: &str, #[case] expected: &str) {
    let steps = steps(text);
    let names: Vec<&str> = order(&steps)
        .unwrap()
        .into_iter()
        .map(|i| steps[i].name.as_str())
        .collect();
    assert_eq!(names.join(" "), expected);
}

#[rstest]
#[case("a:a", "a → a")]
#[case("a:b b:a", "a → b → a")]
#[case("x a:b b:c c:a", "a → b → c → a")]
#[case("d:a a:b b:a", "a → b → a")]
fn a_cycle_is_named(#[case] text: &str, #[case] expected: &str) {
    let finding = order(&steps(text)).unwrap_err();
    assert_eq!(finding.path, "spec.steps[a].needs");
    assert!(
        finding.message.contains(&format!(": {expected};")),
        "{finding}"
    );
}
