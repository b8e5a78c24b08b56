use super::{super::*, changed, told, yaml};
use crate::sop_definition::Step;
use rstest::rstest;

/// A procedure without a mistake; each case changes one place of it.
const SOP: &str = r#"
parameters: [{name: language, default: Python}]
layout: {docs: docs, tests: tests}
templates:
  ask: "{{ idea }} {{ parameters.language }} {{ role.goal }}{% if findings %}{{ findings }}{% endif %}"
  code: "{% include 'ask' %} {{ item.path }} {{ artifacts.plan.json.files | length }}"
  doc: "{{ artifacts.plan.text }}{% for p in glob('*') %}{{ file(p) }}{% endfor %}"
schemas:
  plan: {type: object, properties: {files: {type: array}}}
roles:
- {name: planner, goal: plan, temperature: "0.5"}
- {name: coder, goal: code}
steps:
- name: plan
  role: planner
  prerequisite: size(idea) > 0
  outputs:
  - {name: plan, path: "{{ layout.docs }}/{{ project.name }}.json", schema: plan}
  - {name: document, path: docs/plan.md}
  actions:
  - {name: draft, prompt: {template: ask, schema: plan, writes: {artifact: plan}}}
  - {name: render, render: {template: doc, path: docs/plan.md}}
  gates:
  - {name: valid, kind: schema, schema: {artifact: plan}}
  - {name: complete, kind: sections, sections: {artifact: document, headings: [Goals]}}
- name: code
  role: coder
  needs: [plan]
  when: options.implement
  inputs: [{artifact: plan}]
  outputs: [{name: code, glob: "src/**/*.py"}]
  actions:
  - name: write
    loop:
      forEach: artifacts.plan.json.files
      actions:
      - {name: one, prompt: {template: code, writes: {path: "{{ item.path }}"}}}
- name: test
  needs: [code]
  inputs: [{artifact: code}]
  gates:
  - name: unit
    kind: command
    command:
      run: [{argv: [pytest, "{{ layout.tests }}"], image: "python:1"}]
      reports: [{name: junit, format: junit, path: out/junit.xml}]
      pass: exitCode == 0 && reports.junit.tests > 0
    onFailure: [{action: Retry}, {action: Backtrack, to: code}]
"#;

fn check_yaml(text: &str) -> Vec<String> {
    told(&super::super::sop(&yaml(text)))
}

#[test]
fn a_good_procedure_has_no_mistake() {
    assert_eq!(check_yaml(SOP), [""; 0]);
}

#[test]
fn people_may_decide_on_a_step_an_action_and_what_a_loop_left() {
    let asks = "{name: sign, kind: approval, approval: {artifacts: [plan], message: Go on?}, onFailure: [{action: Retry}]}";
    let on_step = SOP.replace(
        "- {name: complete,",
        &format!("- {asks}\n  - {{name: complete,"),
    );
    assert_eq!(check_yaml(&on_step), [""; 0]);
    let on_loop = SOP.replace(
        "  - name: write\n",
        &format!("  - name: write\n    gates: [{asks}]\n"),
    );
    assert_eq!(check_yaml(&on_loop), [""; 0]);
    let asked = SOP.replace(
        "onFailure: [{action: Retry},",
        "exhausted: Ask\n    onFailure: [{action: Retry},",
    );
    assert_eq!(check_yaml(&asked), [""; 0]);
}

#[test]
fn a_loop_may_go_over_nothing_until_something_holds_and_over_items_at_once() {
    let until = SOP.replace(
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
    let at_once = SOP.replace(
        "      forEach: artifacts.plan.json.files\n",
        "      forEach: artifacts.plan.json.files\n      parallel: 4\n      until: item.path == 'a' && pass == 2\n      max: \"-1\"\n      gates: [{name: ok, kind: expression, expression: item.path != '', onFailure: [{when: \"gate.findings != '' && retry < 2\", action: Retry, workspace: restore}]}]\n",
    );
    assert_eq!(check_yaml(&at_once), [""; 0]);
}

#[rstest]
// People.
#[case(
    "      - {name: one, prompt: {template: code, writes: {path: \"{{ item.path }}\"}}}",
    "      - {name: one, gates: [{name: sign, kind: approval}], prompt: {template: code, writes: {path: \"{{ item.path }}\"}}}",
    "spec.steps[code].actions[write].loop.actions[one].gates[sign].kind: approval cannot be asked for each item of a loop; put the gate on the loop's own action, or on the step"
)]
#[case(
    "      forEach: artifacts.plan.json.files",
    "      forEach: artifacts.plan.json.files\n      gates: [{name: ok, kind: expression, expression: 'true', exhausted: Ask}]",
    "spec.steps[code].actions[write].loop.gates[ok].exhausted: Ask cannot be used for each item of a loop; use Retry, Backtrack or Fail, or put the gate on the loop's own action"
)]
#[case(
    "  - {name: valid, kind: schema, schema: {artifact: plan}}",
    "  - {name: valid, kind: approval, onFailure: [{action: Ask}]}",
    "spec.steps[plan].gates[valid].onFailure[0].action: Ask would ask again what people have rejected; use Retry, Backtrack or Fail"
)]
// Loops.
#[case(
    "      forEach: artifacts.plan.json.files\n",
    "      until: 'false'\n",
    "spec.steps[code].actions[write].loop.actions[one].prompt.template: template `code`: there is no value `item` outside of a loop over a list; known here are: artifacts, attempt, findings, idea, inputs, layout, options, parameters, pass, project, retry, role, round"
)]
#[case(
    "      forEach: artifacts.plan.json.files",
    "      forEach: artifacts.plan.json.files\n      max: '3'",
    "spec.steps[code].actions[write].loop.max: bounds the passes until a condition holds; say which in until, or take it away"
)]
#[case(
    "      forEach: artifacts.plan.json.files",
    "      forEach: artifacts.plan.json.files\n      until: pass == 2\n      max: '101'",
    "spec.steps[code].actions[write].loop.max: \"101\" is not from 0 to 100; write -1 for as many as there can be, which are 100"
)]
#[case(
    "      forEach: artifacts.plan.json.files",
    "      forEach: artifacts.plan.json.files\n      as: pass",
    "spec.steps[code].actions[write].loop.as: `pass` hides the value of that name; choose another name"
)]
#[case(
    "      - {name: one, prompt: {template: code, writes: {path: \"{{ item.path }}\"}}}",
    "      - {name: one, prompt: {template: code, writes: {path: \"{{ item.path }}\"}}}\n      - {name: run, command: {argv: [a], image: i}}\n      parallel: 2",
    "spec.steps[code].actions[write].loop.actions[run].command: cannot run for several items at once; take parallel away, or run it after the loop, over what all items left"
)]
#[case(
    "      forEach: artifacts.plan.json.files",
    "      forEach: artifacts.plan.json.files\n      parallel: 2\n      gates: [{name: run, kind: command, command: {run: [{argv: [a], image: i}]}}]",
    "spec.steps[code].actions[write].loop.gates[run].command: cannot run for several items at once; take parallel away, or run it after the loop, over what all items left"
)]
// Rules.
#[case(
    "onFailure: [{action: Retry},",
    "onFailure: [{action: Fail, when: \"gate.found == ''\", workspace: restore},",
    "spec.steps[test].gates[unit].onFailure[0].when: there is no `gate.found`; gate has: findings, kind, name, observed, threshold"
)]
#[case(
    "onFailure: [{action: Retry},",
    "onFailure: [{action: Ask, when: 'true', workspace: keep},",
    "spec.steps[test].gates[unit].onFailure[0].workspace: belongs to the actions Retry and Backtrack, after which something is done again; take it away"
)]
#[case(
    "pass: exitCode == 0 &&",
    "pass: gate.name == '' && exitCode == 0 &&",
    "spec.steps[test].gates[unit].command.pass: there is no value `gate` but in the rules of a gate; known here are: artifacts, attempt, exitCode, findings, idea, inputs, layout, measures, options, parameters, project, reports, round"
)]
// The head.
#[case(
    "{name: language, default: Python}",
    "{name: language, default: Python, required: true}",
    "spec.parameters[language]: is required and has a default; take one of them away"
)]
#[case(
    "{name: language, default: Python}",
    "{name: language, default: Python}, {name: language}",
    "spec.parameters[language]: parameter `language` is there more than once; name them differently"
)]
#[case(
    "docs: docs,",
    "docs: /docs,",
    "spec.layout[docs]: \"/docs\" is not relative; write it from the project's root"
)]
#[case(
    "docs: docs,",
    "docs: ../docs,",
    "spec.layout[docs]: \"../docs\" leaves the project with `..`; write it from the project's root"
)]
#[case(
    "docs: docs,",
    "docs: \"{{ project.name }}/docs\",",
    "spec.layout[docs]: \"{{ project.name }}/docs\" is a template, but places are taken as they stand; write the place itself"
)]
#[case(
    "plan: {type: object,",
    "plan: {type: objekt,",
    "spec.schemas[plan]: is not a JSON Schema: \"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword (at \"/type\")"
)]
#[case(
    "temperature: \"0.5\"",
    "maxTurns: 3",
    "spec.roles[planner].maxTurns: bounds calls of tools and free reactions, and the role has neither; take it away, or grant the role tools"
)]
#[case(
    "temperature: \"0.5\"",
    "tools: [t], maxTurns: 1",
    "spec.roles[planner].maxTurns: 1 leaves no turn for a call of a tool, since the last one is for the answer; write at least 2, or take the role's tools away"
)]
#[case(
    "temperature: \"0.5\"",
    "temperature: \"2.5\"",
    "spec.roles[planner].temperature: \"2.5\" is not a number from \"0\" to \"2\"; write for example \"0.2\""
)]
#[case(
    "- {name: coder, goal: code}",
    "- {name: coder, goal: code}\n- {name: coder}",
    "spec.roles[coder]: role `coder` is there more than once; name them differently"
)]
// Templates.
#[case(
    "doc: \"{{ artifacts.plan.text }}{%",
    "doc: \"{{ artifacts.plan.text }{%",
    "spec.templates[doc]: line 1: unexpected `}`, expected end of variable block"
)]
#[case(
    "{% include 'ask' %}",
    "{% include 'asks' %}",
    "spec.templates[code]: includes the unknown template `asks`; known are: ask, code, doc"
)]
#[case(
    "files | length",
    "files | longness",
    "spec.templates[code]: line 1: there is no filter `longness`"
)]
#[case(
    "{% if findings %}",
    "{% if findings is full %}",
    "spec.templates[ask]: line 1: there is no test `full`"
)]
#[case(
    "{{ artifacts.plan.text }}",
    "{{ artifacts.plan.txt }}",
    "spec.steps[plan].actions[render].render.template: template `doc`: there is no `artifacts.plan.txt`; an artifact has: exists, json, paths, text"
)]
#[case(
    "{{ artifacts.plan.text }}",
    "{{ artifact.plan.text }}",
    "spec.steps[plan].actions[render].render.template: template `doc`: there is no value `artifact`; known here are: artifacts, attempt, findings, idea, inputs, layout, measures, messages, options, parameters, project, role, round"
)]
#[case(
    "{{ artifacts.plan.text }}",
    "{{ item }}",
    "spec.steps[plan].actions[render].render.template: template `doc`: there is no value `item` outside of a loop over a list; known here are: artifacts, attempt, findings, idea, inputs, layout, measures, messages, options, parameters, project, role, round"
)]
#[case(
    "{template: doc,",
    "{template: docs,",
    "spec.steps[plan].actions[render].render.template: there is no template `docs`; known are: ask, code, doc"
)]
#[case(
    "{template: code,",
    "{system: boss, template: code,",
    "spec.steps[code].actions[write].loop.actions[one].prompt.system: there is no template `boss`; known are: ask, code, doc"
)]
// Steps.
#[case(
    "role: coder",
    "role: coders",
    "spec.steps[code].role: there is no role `coders`; known are: coder, planner"
)]
#[case(
    "needs: [code]",
    "needs: [code, deploy]",
    "spec.steps[test].needs[deploy]: there is no step `deploy`; known are: code, plan, test"
)]
#[case(
    "  role: planner\n",
    "  role: planner\n  needs: [test]\n",
    "spec.steps[plan].needs: the steps need each other: plan → test → code → plan; take one of these needs away"
)]
#[case(
    "size(idea) > 0",
    "size(idea > 0",
    "spec.steps[plan].prerequisite: the expression does not compile: line 1, column 14: Syntax error: missing ')' at '<EOF>'"
)]
#[case(
    "when: options.implement",
    "when: options.implementation",
    "spec.steps[code].when: there is no `options.implementation`; options has: codeReview, environment, idea, implement, incremental, investment, maxAutoSummarizeCode, projectName, projectSource, promptSchema, recoverFrom, reqaFile, rounds, runTests"
)]
#[case(
    "when: options.implement",
    "when: role.boss",
    "spec.steps[code].when: there is no `role.boss`; role has: constraints, goal, name, profile"
)]
#[case(
    "when: options.implement",
    "when: parameters.style == ''",
    "spec.steps[code].when: there is no parameter `style`; declare it in spec.parameters, which has: language"
)]
#[case(
    "when: options.implement",
    "when: exitCode == 0",
    "spec.steps[code].when: there is no value `exitCode` outside of a gate that runs a command; known here are: artifacts, attempt, findings, idea, inputs, layout, measures, messages, options, parameters, project, role, round"
)]
#[case(
    "  needs: [code]\n",
    "  needs: [code]\n  when: role.name == ''\n",
    "spec.steps[test].when: there is no value `role` since step `test` has no role; known here are: artifacts, attempt, findings, idea, inputs, layout, measures, options, parameters, project, round"
)]
#[case(
    "inputs: [{artifact: plan}]",
    "inputs: [{artifact: plan}, {artifact: design}]",
    "spec.steps[code].inputs[design]: there is no artifact `design`; the outputs of the steps are: code, document, plan"
)]
#[case(
    "inputs: [{artifact: plan}]",
    "inputs: [{artifact: plan}, {artifact: code}]",
    "spec.steps[code].inputs[code]: artifact `code` is an output of the step itself; take it out of the inputs"
)]
#[case(
    "  role: planner\n",
    "  role: planner\n  inputs: [{artifact: code}]\n",
    "spec.steps[plan].inputs[code]: artifact `code` is made by step `code`, which step `plan` does not need; add code to its needs"
)]
// Artifacts.
#[case(
    "path: docs/plan.md}\n  actions",
    "path: docs/plan.md, glob: \"docs/*\"}\n  actions",
    "spec.steps[plan].outputs[document]: has path and glob; take one of them away"
)]
#[case(
    "{name: document, path: docs/plan.md}",
    "{name: document, path: docs/*.md}",
    "spec.steps[plan].outputs[document].path: \"docs/*.md\" is a pattern; name one file, or use glob"
)]
#[case(
    "{name: document, path: docs/plan.md}",
    "{name: document, path: docs/}",
    "spec.steps[plan].outputs[document].path: \"docs/\" names a folder; name a file in it"
)]
#[case(
    "{name: document, path: docs/plan.md}",
    "{name: document, path: \".git/config\"}",
    "spec.steps[plan].outputs[document].path: \".git/config\" is in .git, which nobody may write; choose another place"
)]
#[case(
    "{name: document, path: docs/plan.md}",
    "{name: document, path: \"{{ layout.dox }}/a.md\"}",
    "spec.steps[plan].outputs[document].path: there is no `layout.dox`; layout has: apiSpecAndTasks, bugfix, codePlanAndChange, codeSummaries, codeSummary, competitiveAnalysis, dataApiDesign, dependencies, docs, graphs, prd, prds, requirement, seqFlow, source, systemDesign, systemDesigns, tasks, testOutputs, tests, tmp"
)]
#[case(
    "{name: document, path: docs/plan.md}",
    "{name: document, path: \"{{ idea }}.md\"}",
    "spec.steps[plan].outputs[document].path: there is no value `idea`; known here are: inputs, layout, options, parameters, project"
)]
#[case(
    "schema: plan}\n",
    "schema: plans}\n",
    "spec.steps[plan].outputs[plan].schema: there is no schema `plans`; known are: plan"
)]
#[case(
    "glob: \"src/**/*.py\"",
    "glob: \"src/**/*.[py\"",
    "spec.steps[code].outputs[code].glob: \"src/**/*.[py\" opens a `[` that it does not close, or the reverse; balance them"
)]
#[case(
    "glob: \"src/**/*.py\"",
    "glob: \"src/**/*.py\", schema: plan",
    "spec.steps[code].outputs[code].schema: belongs to an artifact of one file; give the artifact a path instead of a glob"
)]
#[case(
    "[{name: code, glob: \"src/**/*.py\"}]",
    "[{name: code, glob: \"src/**/*.py\"}, {name: copy, path: docs/plan.md}]",
    "spec.steps[code].outputs[copy].path: artifact `document` of step `plan` has the path \"docs/plan.md\", too; give each its own"
)]
#[case(
    "[{name: code, glob: \"src/**/*.py\"}]",
    "[{name: code, glob: \"src/**/*.py\"}, {name: document, path: docs/x.md}]",
    "spec.steps[code].outputs[document]: step `plan` makes an artifact `document`, too; name them differently"
)]
// Actions.
#[case(
    "- {name: render, render: {template: doc, path: docs/plan.md}}",
    "- {name: render}",
    "spec.steps[plan].actions[render]: has 0 of prompt, command, tool, render and loop; it needs exactly one"
)]
#[case(
    "render: {template: doc, path: docs/plan.md}",
    "render: {template: doc, path: docs/plan.md}, tool: {name: x}",
    "spec.steps[plan].actions[render]: has 2 of prompt, command, tool, render and loop; it needs exactly one"
)]
#[case(
    "path: docs/plan.md}}",
    "path: /docs/plan.md}}",
    "spec.steps[plan].actions[render].render.path: \"/docs/plan.md\" is not relative; write it from the project's root"
)]
#[case(
    "- {name: render,",
    "- {name: draft,",
    "spec.steps[plan].actions[draft]: action `draft` is there more than once; name them differently"
)]
#[case(
    "writes: {artifact: plan}",
    "writes: {artifact: code}",
    "spec.steps[plan].actions[draft].prompt.writes.artifact: `code` is no output of step `plan`; its outputs are: document, plan"
)]
#[case(
    "writes: {path: \"{{ item.path }}\"}",
    "writes: {artifact: code}",
    "spec.steps[code].actions[write].loop.actions[one].prompt.writes.artifact: artifact `code` is a set of files (glob); write to a path or to files that it matches"
)]
#[case(
    "writes: {path: \"{{ item.path }}\"}",
    "writes: {}",
    "spec.steps[code].actions[write].loop.actions[one].prompt.writes: has 0 of artifact, path and files; it needs exactly one"
)]
#[case(
    "writes: {path: \"{{ item.path }}\"}",
    "writes: {files: [\"../*\"]}",
    "spec.steps[code].actions[write].loop.actions[one].prompt.writes.files[0]: \"../*\" leaves the project with `..`; write it from the project's root"
)]
#[case(
    "prompt: {template: ask, schema: plan,",
    "prompt: {template: ask, schema: plans,",
    "spec.steps[plan].actions[draft].prompt.schema: there is no schema `plans`; known are: plan"
)]
#[case(
    "      forEach: artifacts.plan.json.files\n",
    "",
    "spec.steps[code].actions[write].loop: has neither forEach nor until; say over what it goes, or when it ends"
)]
#[case(
    "      forEach: artifacts.plan.json.files\n",
    "      forEach: artifacts.plan.json.files\n      as: artifacts\n",
    "spec.steps[code].actions[write].loop.as: `artifacts` hides the value of that name; choose another name"
)]
#[case(
    "forEach: artifacts.plan.json.files",
    "forEach: artifacts.document.paths",
    "spec.steps[code].actions[write].loop.forEach: artifact `document` is not among the inputs of step `code`; add {artifact: document} to them"
)]
#[case(
    "forEach: artifacts.plan.json.files",
    "forEach: artifacts.code.json",
    "spec.steps[code].actions[write].loop.forEach: artifact `code` is a set of files and has no `json`; use `paths`, or file(path) in a template"
)]
// Gates.
#[case(
    "schema: {artifact: plan}}",
    "schema: {artifact: document}}",
    "spec.steps[plan].gates[valid].schema.schema: is not set, and artifact `document` has no schema of its own; name one"
)]
#[case(
    "schema: {artifact: plan}}",
    "schema: {artifact: plan, schema: plans}}",
    "spec.steps[plan].gates[valid].schema.schema: there is no schema `plans`; known are: plan"
)]
#[case(
    "sections: {artifact: document,",
    "sections: {artifact: documents,",
    "spec.steps[plan].gates[complete].sections.artifact: there is no artifact `documents`; the outputs of the steps are: code, document, plan"
)]
#[case(
    "headings: [Goals]",
    "headings: []",
    "spec.steps[plan].gates[complete].sections.headings: is empty; name the headings that must be there"
)]
#[case(
    "kind: sections, sections",
    "kind: expression, sections",
    "spec.steps[plan].gates[complete]: a gate of kind expression needs the field expression"
)]
#[case(
    "{name: complete, kind",
    "{name: valid, kind",
    "spec.steps[plan].gates[valid]: gate `valid` is there more than once; name them differently"
)]
#[case(
    "reports.junit.tests > 0",
    "reports.cov.lines > 0",
    "spec.steps[test].gates[unit].command.pass: there is no report `cov`; the commands of this step's gates leave: junit"
)]
#[case(
    "path: out/junit.xml",
    "path: /out/junit.xml",
    "spec.steps[test].gates[unit].command.reports[junit].path: \"/out/junit.xml\" is not relative; write it from the project's root"
)]
#[case(
    "argv: [pytest,",
    "argv: [\"{{ parameters.language }}\",",
    "spec.steps[test].gates[unit].command.run[0].argv[0]: \"{{ parameters.language }}\" is a template, but policies allow programs by name; write the program itself"
)]
#[case(
    "\"{{ layout.tests }}\"",
    "\"{{ layout.tests\"",
    "spec.steps[test].gates[unit].command.run[0].argv[1]: \"{{ layout.tests\" does not compile, line 1: unexpected end of input, expected end of variable block"
)]
#[case(
    "image: \"python:1\"}]",
    "image: \"python:1\"}, {argv: [ruff], image: \"ruff:1\"}]",
    "spec.steps[test].gates[unit].command.run: uses the images \"python:1\" and \"ruff:1\"; the programs of one gate share one tree, so use one image"
)]
#[case(
    "to: code}",
    "to: coding}",
    "spec.steps[test].gates[unit].onFailure[1].to: there is no step `coding`; known are: code, plan, test"
)]
#[case(
    "to: code}",
    "to: test}",
    "spec.steps[test].gates[unit].onFailure[1].to: `test` is the step itself; use the action Retry"
)]
#[case(
    ", to: code}",
    "}",
    "spec.steps[test].gates[unit].onFailure[1].to: is not set; name the step to go back to"
)]
#[case(
    "[{action: Retry},",
    "[{action: Retry, to: plan},",
    "spec.steps[test].gates[unit].onFailure[0].to: belongs to the action Backtrack only; take it away"
)]
#[case(
    "[{action: Retry},",
    "[{action: Fail},",
    "spec.steps[test].gates[unit].onFailure[1]: is never reached: rule 0 before it always applies; put it first, or give rule 0 a when"
)]
#[case(
    "[{action: Retry},",
    "[{action: Retry, when: \"reports.junit.failures < 3 &\"},",
    "spec.steps[test].gates[unit].onFailure[0].when: the expression does not compile: line 1, column 28: Syntax error: token recognition error at: '&'"
)]
#[case(
    "artifact: plan}}\n",
    "artifact: plan}, onFailure: [{action: Backtrack, to: code}]}\n",
    "spec.steps[plan].gates[valid].onFailure[0].to: step `code` does not come before step `plan`; name one that it needs, or add code to its needs"
)]
fn a_mistake_is_told_with_its_place(#[case] from: &str, #[case] to: &str, #[case] expected: &str) {
    let found = check_yaml(&changed(SOP, from, to));
    assert!(
        found.iter().any(|finding| finding == expected),
        "expected\n{expected}\nfound\n{}",
        found.join("\n")
    );
}

#[test]
fn a_canary_is_checked_like_what_it_stands_beside() {
    let canary = "image: \"python:1\"}]\n      canaries: [{name: c, path: ../c.py, template: canary, run: {argv: [\"{{ x }}\"], image: \"ruff:1\"}}]";
    let expected = [
        "path: \"../c.py\" leaves the project with `..`; write it from the project's root",
        "run.argv[0]: \"{{ x }}\" is a template, but policies allow programs by name; write the program itself",
        "run.argv[0]: there is no value `x`; known here are: artifacts, attempt, findings, idea, inputs, layout, measures, options, parameters, project, round",
        "run.image: \"ruff:1\" is no image of the programs that judge; a canary must be run as they are",
        "template: there is no template `canary`; known are: ask, code, doc",
    ];
    let expected = expected
        .map(|finding| format!("spec.steps[test].gates[unit].command.canaries[c].{finding}"));
    assert_eq!(
        check_yaml(&changed(SOP, "image: \"python:1\"}]", canary)),
        expected
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_places() {
    let text = changed(SOP, "to: code}", "to: nowhere}");
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
    let text = changed(SOP, "{template: doc,", "{template: far,");
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
            "spec.steps[plan].actions[render].render.template: template `far`: there is no value `nothing`; known here are: artifacts, attempt, findings, idea, inputs, layout, measures, messages, options, parameters, project, role, round",
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
