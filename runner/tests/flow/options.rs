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
