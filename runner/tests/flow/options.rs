//! The options of a run, as procedures see them.

use crate::flight::{answers, flown, plan_or_mistakes, planned};

#[tokio::test]
async fn a_procedure_sees_every_option_of_the_run() {
    let sop = r#"roles: [{name: writer}]
templates:
  all: "{{ options | dictsort | map('join', '=') | join(';') }}"
steps:
- name: write
  role: writer
  outputs: [{name: out, path: out.txt}]
  actions: [{name: all, render: {template: all, path: out.txt}}]
  gates:
  - {name: seen, kind: expression, expression: "options.maxAutoSummarizeCode == 3 && options.rounds == 8 && !options.codeReview"}
"#;
    let run = "investment: \"1.5\"\nrounds: 6\ncodeReview: false\nrunTests: true\nimplement: false\nmaxAutoSummarizeCode: 3\nproject: {name: game}";
    let landed = flown(planned(sop, run), answers(&[])).await;
    assert!(landed.succeeded());
    assert_eq!(
        landed.files()["out.txt"],
        "codeReview=False;environment=dev;idea=a thing;implement=False;incremental=False;investment=1.50;\
         maxAutoSummarizeCode=3;projectName=game;projectSource=;promptSchema=json;recoverFrom=;reqaFile=;rounds=8;runTests=True\n"
    );
}

#[test]
fn the_checker_knows_the_options_that_the_engine_shows_and_no_others() {
    let plan = planned(
        "steps: [{name: a, gates: [{name: g, kind: expression, expression: 'true'}]}]",
        "",
    );
    let shown = sopwith_runner::context::base(&plan)["options"].clone();
    let mut names: Vec<&String> = shown.as_object().unwrap().keys().collect();
    names.sort();
    let sop = "steps: [{name: a, when: options.none, gates: [{name: g, kind: expression, expression: 'true'}]}]";
    let mistake = plan_or_mistakes(sop, "").unwrap_err();
    let (_, known) = mistake.split_once("options has: ").unwrap();
    let known: Vec<&str> = known.split(", ").collect();
    assert_eq!(names, known);
}

/// A small company: a design; code that may be reviewed; tests that may be run.
const COMPANY: &str = r#"roles: [{name: designer}, {name: engineer}]
templates: {design: "Design {{ idea }}.", code: "Write it.", review: "Review it.", tests: "1 test of {{ project.name }}"}
steps:
- name: design
  role: designer
  outputs: [{name: design, path: design.md}]
  actions: [{name: draw, prompt: {template: design, writes: {artifact: design}}}]
- name: code
  role: engineer
  needs: [design]
  when: options.implement
  inputs: [{artifact: design}]
  outputs: [{name: code, path: code.py}]
  actions:
  - {name: write, prompt: {template: code, writes: {artifact: code}}}
  - {name: review, when: options.codeReview, prompt: {template: review, writes: {path: review.md}}}
- name: verify
  role: engineer
  needs: [code]
  when: options.runTests && options.implement
  outputs: [{name: report, path: report.md}]
  actions: [{name: run, render: {template: tests, path: report.md}}]
"#;

#[tokio::test]
async fn implement_code_review_and_run_tests_decide_what_is_done() {
    for (run, asked, steps) in [
        // The defaults of MetaGPT: code that is reviewed, and no tests.
        ("", "draw write review", "design code"),
        ("codeReview: false", "draw write", "design code"),
        ("runTests: true", "draw write review", "design code verify"),
        (
            "{runTests: true, codeReview: false}",
            "draw write",
            "design code verify",
        ),
        ("{implement: false, runTests: true}", "draw", "design"),
    ] {
        let all = [
            ("design/draw", "A design"),
            ("code/write", "x = 1"),
            ("code/review", "Good"),
        ];
        let landed = flown(planned(COMPANY, run), answers(&all)).await;
        assert!(landed.succeeded(), "{run}");
        let done: Vec<String> = landed.ends().into_iter().map(|end| end.step).collect();
        assert_eq!(done.join(" "), steps, "{run}");
        let keys = landed.asked.filled();
        let mut actions: Vec<&str> = keys.keys().map(|key| key.action.as_str()).collect();
        actions.sort_by_key(|action| ["draw", "write", "review"].iter().position(|a| a == action));
        assert_eq!(actions.join(" "), asked, "{run}");
    }
}

#[tokio::test]
async fn the_projects_name_is_seen() {
    let run = "{runTests: true, codeReview: false, project: {name: game}}";
    let all = [("design/draw", "A design"), ("code/write", "x = 1")];
    let landed = flown(planned(COMPANY, run), answers(&all)).await;
    assert!(landed.succeeded());
    assert_eq!(landed.files()["report.md"], "1 test of game\n");
}
