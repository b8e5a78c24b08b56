//! The sample `software-company`, its ways: what each option leaves out, who mends what, and what ends the run. Models answer as
//! recorded but where a test says otherwise. Linter and test runner are not on every machine: a program stands in for them, which
//! takes its results from the test files; with the real ones the sample runs on a cluster (`e2e/tests/e2e/flight.rs`).

mod qa;

use std::{fs, sync::LazyLock};

use serde_json::{Value, json};
use sopwith_crds::{
    cassette::CassetteFile,
    contract::{
        cassette::{Cassette, Interaction, Request},
        report::Outcome,
    },
    status::FailureReason,
};
use sopwith_runner::llm::replay::{Replay, parse};

use crate::flight::{Landed, flown, key_of, planned_with};

/// Test files say what becomes of their tests: `# pass NAME`, `# fail NAME`, `# break NAME`, `# coverage RATE`. The canary passes
/// where the code under judgement says TAMPER.
const RUNNER: &str = r##"
import json, pathlib, sys

*options, where = sys.argv[1:]
option = dict(option.split("=", 1) for option in options if "=" in option)
if where.endswith(".py"):
    sys.exit("TAMPER" not in pathlib.Path("blackjack/hand.py").read_text())
said, rate = [], 1.0
for file in sorted(pathlib.Path(where).glob("test_*.py")):
    for line in file.read_text().splitlines():
        verdict, name = line.removeprefix("# ").split()
        if verdict == "coverage":
            rate = float(name)
        else:
            said.append((verdict, str(file), name))
if "--record" in option:
    of = lambda verdict: [{"file": file, "test": f"{file}::{name}", "said": verdict} for was, file, name in said if was == verdict]
    results = {"tests": len(said), "passed": len(of("pass")), "failed": of("fail"), "broken": of("break")}
    record = pathlib.Path(option["--record"])
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps(results))
    sys.exit(0)
marks = {"pass": "", "fail": "<failure message='no'/>", "break": "<error message='no'/>"}
cases = "".join(f"<testcase name='{name}'>{marks[verdict]}</testcase>" for verdict, _, name in said)
pathlib.Path("test_outputs").mkdir(exist_ok=True)
pathlib.Path(option["--junitxml"]).write_text(f"<testsuite>{cases}</testsuite>")
pathlib.Path(option["--cov-report"].removeprefix("xml:")).write_text(f"<coverage lines-covered='{int(rate * 100)}' lines-valid='100'/>")
sys.exit(any(verdict != "pass" for verdict, *_ in said))
"##;

fn sample(file: &str) -> String {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../config/samples/software-company"
    );
    fs::read_to_string(format!("{folder}/{file}")).unwrap()
}

fn spec(file: &str) -> Value {
    let object: Value = serde_saphyr::from_str(&sample(file)).unwrap();
    object["spec"].clone()
}

/// What the linter finds, and where.
const MISTAKE: &str = "def (:";

/// Programs that are on every machine in the place of others.
fn stand_in(value: &mut Value) {
    if let Some(members) = value.as_object_mut() {
        if let Some(argv) = members.get_mut("argv").and_then(Value::as_array_mut) {
            if argv[0] == "ruff" {
                let find = format!("! grep -Hrn '{MISTAKE}' \"$0\"");
                *argv = vec!["sh".into(), "-c".into(), find.into(), argv.pop().unwrap()];
            } else if let Some(at) = argv.iter().position(|word| word == "pytest") {
                argv.splice(..=at, ["python3".into(), "tests/conftest.py".into()]);
            }
        }
        if let Some(reports) = members.get_mut("reports").and_then(Value::as_array_mut) {
            reports.retain(|report| report["format"] != "sarif");
        }
        members.values_mut().for_each(stand_in);
    }
    if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(stand_in);
    }
}

/// The recorded answers, without the questions.
static RECORDED: LazyLock<Vec<Interaction>> = LazyLock::new(|| {
    let file = CassetteFile::parse(&sample("cassette.yaml")).unwrap();
    let parts = file.parts().iter();
    let interactions = parts.flat_map(|(name, text)| parse(name, text).unwrap().interactions);
    let without = |interaction| Interaction {
        request: Request::default(),
        ..interaction
    };
    interactions.map(without).collect()
});

/// The procedure with other programs.
static SOP: LazyLock<Value> = LazyLock::new(|| {
    let mut sop = spec("sop.yaml");
    stand_in(&mut sop);
    sop["templates"]["conftest"] = RUNNER.into();
    sop
});

/// The recorded answers with some others, by their keys as in [`crate::flight::answers`].
fn answering(others: &[(&str, String)]) -> Replay {
    let mut interactions = RECORDED.clone();
    for (key, content) in others {
        let key = key_of(key);
        interactions.retain(|interaction| interaction.key != key);
        let other = json!({"key": key, "response": {"content": content, "usage": {"prompt_tokens": 100, "completion_tokens": 10}}});
        interactions.push(serde_json::from_value(other).unwrap());
    }
    let cassette = Cassette {
        version: 1,
        interactions,
    };
    let text = serde_json::to_string(&cassette).unwrap();
    Replay::new(&[("c".into(), text)]).unwrap().filling()
}

async fn played(run: Value, others: &[(&str, String)]) -> Landed {
    let mut policy = spec("toolpolicy.yaml");
    policy["commands"] = json!([{"argv": ["python3"]}, {"argv": ["sh"]}]);
    policy["environments"] = json!(["dev", "staging"]);
    policy.as_object_mut().unwrap().remove("sops");
    let mut all = json!({"project": {"name": "blackjack"}});
    for (field, value) in run.as_object().unwrap() {
        all[field] = value.clone();
    }
    let plan = planned_with(&SOP, &all, &policy);
    Box::pin(flown(plan, answering(others))).await
}

/// How often an action was asked.
fn times(landed: &Landed, action: &str) -> usize {
    let asked = landed.asked();
    asked.iter().filter(|key| key.starts_with(action)).count()
}

fn ended(landed: &Landed) -> (FailureReason, String) {
    assert_eq!(landed.flown.end.outcome, Outcome::Failed);
    landed.failure()
}

const PLANNED: [&str; 3] = [
    "write-prd 1 Passed",
    "design-api 1 Passed",
    "plan-tasks 1 Passed",
];

#[tokio::test]
async fn options_leave_out_what_a_run_does_not_ask_for() {
    for (run, implemented, reviewed) in [
        (json!({"implement": false, "runTests": true}), false, 0),
        (json!({"codeReview": false}), true, 0),
        (json!({}), true, 9),
    ] {
        let landed = played(run.clone(), &[]).await;
        assert!(landed.succeeded(), "{run}");
        let mut path = PLANNED.to_vec();
        if implemented {
            path.push("implement 1 Passed");
        }
        path.push("comply 1 Passed");
        assert_eq!(landed.path(), path, "{run}");
        assert_eq!(
            times(&landed, "implement/write-code/review"),
            reviewed,
            "{run}"
        );
        let files = landed.files();
        let there = |begin: &str| files.keys().any(|path| path.starts_with(begin));
        assert!(there("docs/tasks/"), "{run}");
        assert_eq!(there("blackjack/"), implemented, "{run}");
        assert_eq!(there("docs/code_summaries/"), implemented, "{run}");
        assert_eq!(there("docs/code_reviews/"), reviewed > 0, "{run}");
        assert!(!there("tests/"), "{run}");
    }
}

/// A summary that finds something to do, or nothing.
fn summary(todo: bool) -> String {
    let todos = if todo {
        json!([{"path": "README.md", "what": "Name --decks."}])
    } else {
        json!([])
    };
    json!({"files": [{"path": "README.md", "summary": "s"}], "deviations": [], "todos": todos, "notes": ""}).to_string()
}

#[tokio::test]
async fn the_summary_is_mended_as_often_as_the_run_allows() {
    let rewritten = |pass: u32| {
        json!({"files": [{"path": "README.md", "content": format!("pass {pass}\n")}]}).to_string()
    };
    // Whether something is still to be done after the first, second and third pass.
    for (most, todos, passes) in [
        (0, [true, true, true], 0),
        (1, [true, true, true], 1),
        (2, [true, true, true], 2),
        (2, [false, true, true], 1),
        (-1, [true, true, false], 3),
    ] {
        let keys: Vec<(String, String)> = (1..=3)
            .map(|pass| {
                (
                    format!("implement/repair/rewrite 1.0.{pass}"),
                    format!("implement/repair/summarize 1.0.{pass}"),
                )
            })
            .collect();
        let mut others = vec![("implement/summarize", summary(true))];
        for (((rewrite, summarize), todo), pass) in keys.iter().zip(todos).zip(1..) {
            others.push((rewrite, rewritten(pass)));
            others.push((summarize, summary(todo)));
        }
        let run = json!({"maxAutoSummarizeCode": most, "codeReview": false});
        let landed = played(run, &others).await;
        assert!(landed.succeeded());
        assert_eq!(
            times(&landed, "implement/repair/rewrite"),
            passes,
            "{most} {todos:?}"
        );
        let files = landed.files();
        let readme = &files["README.md"];
        assert_eq!(
            passes > 0,
            *readme == format!("pass {passes}\n"),
            "{readme}"
        );
        // What is left is told.
        let left = files["docs/code_summaries/blackjack.md"].contains("Name --decks.");
        assert_eq!(left, passes == 0 || todos[passes - 1], "{most} {todos:?}");
    }
}

fn review(verdict: &str) -> String {
    json!({"verdict": verdict, "findings": [{"place": "main", "what": "no"}], "comment": "c"})
        .to_string()
}

#[tokio::test]
async fn a_file_is_written_again_until_its_review_is_content_and_no_longer_than_three_times_twice()
{
    for (third, again, succeeds) in [
        ("LGTM", "LBTM", true),
        ("LBTM", "LGTM", true),
        ("LBTM", "LBTM", false),
    ] {
        let key = |action: &str, numbers: &str| {
            format!("implement/write-code/{action}[blackjack/__main__.py] {numbers}")
        };
        let mut keys = Vec::new();
        for (retry, last) in [(0, third), (1, again)] {
            keys.push((
                key("write", &format!("1.{retry}")),
                format!("begun {retry}"),
            ));
            for pass in 1..=3 {
                let verdict = if pass == 3 { last } else { "LBTM" };
                keys.push((key("review", &format!("1.{retry}.{pass}")), review(verdict)));
                keys.push((
                    key("rewrite", &format!("1.{retry}.{pass}")),
                    format!("x = {pass}"),
                ));
            }
        }
        let others: Vec<(&str, String)> = keys
            .iter()
            .map(|(key, text)| (key.as_str(), text.clone()))
            .collect();
        let landed = played(json!({}), &others).await;
        let asked = times(
            &landed,
            "implement/write-code/review[blackjack/__main__.py]",
        );
        if succeeds {
            assert!(landed.succeeded());
            assert_eq!(asked, if third == "LGTM" { 3 } else { 6 });
            assert_eq!(landed.path()[3], "implement 1 Passed");
            assert_eq!(landed.files()["blackjack/__main__.py"], "x = 2\n");
            let page = &landed.files()["docs/code_reviews/blackjack/__main__.py.md"];
            assert!(
                page.contains("## Round 1, review 2: LBTM\n\nc\n\n- main: no\n"),
                "{page}"
            );
        } else {
            assert_eq!(asked, 6);
            let (reason, message) = ended(&landed);
            assert_eq!(reason, FailureReason::GateFailed);
            assert!(
                message.starts_with("gate code-reviewed failed"),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn a_file_that_the_linter_refuses_is_begun_again_and_no_other() {
    let hand = "implement/write-code/write[blackjack/hand.py]";
    let good = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../config/samples/software-company/content/implement/attempt-1/write-code/write/blackjack/hand.py"
    ))
    .unwrap();
    let others = [(hand, MISTAKE.to_owned()), (&*format!("{hand} 1.1"), good)];
    let landed = played(json!({"codeReview": false}), &others).await;
    assert!(landed.succeeded());
    assert_eq!(landed.path()[3], "implement 1 Passed");
    assert_eq!(times(&landed, "implement/write-code/write"), 9);
    let question = landed.question(&format!("{hand} 1.1"));
    assert!(
        question.contains("The file as it is now:\n\ndef (:")
            && question.contains("blackjack/hand.py:1:def (:"),
        "{question}"
    );
}

#[tokio::test]
async fn outside_of_dev_people_approve_before_anything_is_frozen() {
    let landed = played(json!({"environment": "staging"}), &[]).await;
    assert_eq!(landed.flown.end.outcome, Outcome::Waiting);
    assert_eq!(landed.path(), ["write-prd 1 Pending"]);
}
