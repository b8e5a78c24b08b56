//! A bug report and a requirement, each on its way through one procedure.

use sopwith_crds::{
    contract::{
        incremental::{Classified, EditsTold},
        report::What,
    },
    status::{FailureReason, IdeaKind},
};

use crate::room::{BUG, FILES, REQUIREMENT, Room, Run, classify, key, text};

const EDIT: &str = r#"{tool_calls: [{name: edit, arguments: {path: game/main.py, old: "21", new: "20"}}, {name: patch, arguments: {patch: "--- a/game/run.bat\n+++ b/game/run.bat\n@@ -1,2 +1,2 @@\n @echo off\n-python main.py\n+py main.py\n"}}], usage: {prompt_tokens: 50, completion_tokens: 10}}"#;

pub(crate) async fn bug() -> Run {
    let done = text("Twenty now.");
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, EDIT),
        ("mend", "mend", "", 2, &done),
    ];
    Room::new("It plays to 21 and should not.")
        .fly(&answers)
        .await
        .succeeded()
}

#[tokio::test]
async fn a_bug_report_skips_what_requirements_go_through_and_is_mended_with_tools() {
    let run = bug().await;
    let expected = Classified {
        kind: IdeaKind::Bug,
        reason: "It crashes.".into(),
        path: "docs/bugfix.txt".into(),
        edited: EditsTold::default(),
        derived: EditsTold::default(),
    };
    assert_eq!(run.classified(), [expected]);
    assert_eq!(run.skipped(), ["prd", "code"]);
    assert_eq!(
        run.file("docs/bugfix.txt").as_deref(),
        Some("It plays to 21 and should not.\n")
    );
    assert_eq!(run.entry("docs/requirement.txt"), None);
    assert_eq!(
        run.told(&key("mend", "mend", "", 1)),
        "Mend this bug: It plays to 21 and should not."
    );
    // Patched in its parts, the rest as it was to the byte.
    assert_eq!(
        run.file("game/main.py").as_deref(),
        Some("def play():\n    return 20\n")
    );
    assert_eq!(
        run.file("game/run.bat").as_deref(),
        Some("@echo off\r\npy main.py\r\n")
    );
    run.left_alone(&["game/run.sh", "game/logo.bin", "README.md"]);
    let paths: Vec<String> = run.tree().into_iter().map(|entry| entry.path).collect();
    let mut expected: Vec<&str> = FILES.into_iter().map(|(path, ..)| path).collect();
    expected.extend([".dependencies.json", "docs/code_summaries/mend.md"]);
    expected.sort_unstable();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn the_classification_is_counted_recorded_and_in_the_trace() {
    let run = bug().await;
    let used = run.used();
    assert_eq!((used.llm_requests, used.total_tokens), (3, 100 + 60 + 20));
    let message = run.message("sopwith/classify");
    assert_eq!((message.number, message.sender.as_str()), (1, "sopwith"));
    assert_eq!(message.content, "bug: It crashes.");
    assert_eq!(message.wrote, ["docs/bugfix.txt"]);
    assert_eq!((message.input_tokens, message.output_tokens), (90, 10));
    assert!(
        run.message("sopwith/edits").content.contains("not known"),
        "no run left a list"
    );
    let recorded = run.flown.recorded().unwrap().concat();
    assert_eq!(recorded[0].key, key("sopwith", "classify", "", 1));
    let reported = run.events().into_iter().any(
        |what| matches!(what, What::LlmRequest { step, status, .. } if step == "sopwith" && status == "ok"),
    );
    assert!(reported, "{:?}", run.events());
}

pub(crate) const PRD: &str = r#"{content: '{"title": "Two players", "files": [{"path": "game/main.py"}, {"path": "game/run.bat"}, {"path": "game/run.sh"}, {"path": "game/two.py", "needs": ["game/main.py"]}]}', usage: {prompt_tokens: 10, completion_tokens: 10}}"#;

pub(crate) async fn requirement(room: Room) -> Run {
    let (main, bat) = (text("def play(players):\n    pass"), text("@echo on"));
    let (shell, two) = (text("#!/bin/sh\necho two"), text("TWO = 2"));
    let answers = [
        classify(REQUIREMENT),
        ("prd", "write", "", 1, PRD),
        ("code", "files/write", "game/main.py", 1, &main),
        ("code", "files/write", "game/run.bat", 1, &bat),
        ("code", "files/write", "game/run.sh", 1, &shell),
        ("code", "files/write", "game/two.py", 1, &two),
    ];
    room.fly(&answers).await.succeeded()
}

#[tokio::test]
async fn a_requirement_goes_the_whole_way_and_what_is_written_anew_keeps_its_form() {
    let run = requirement(Room::new("Let two play.")).await;
    assert_eq!(run.skipped(), ["mend"]);
    assert_eq!(run.classified()[0].kind, IdeaKind::Requirement);
    assert_eq!(
        run.file("docs/requirement.txt").as_deref(),
        Some("Let two play.\n")
    );
    assert_eq!(run.entry("docs/bugfix.txt"), None, "an earlier iteration's");
    assert_eq!(
        run.told(&key("prd", "write", "", 1)),
        "The new requirement: Let two play.\n\nEdited by hand:"
    );
    assert_eq!(
        run.file("docs/prds/game.md").as_deref(),
        Some("# Two players\n")
    );
    assert_eq!(run.file("game/run.bat").as_deref(), Some("@echo on\r\n"));
    let shell = run.entry("game/run.sh").unwrap();
    assert!(shell.executable);
    assert!(!run.entry("game/two.py").unwrap().executable);
    run.left_alone(&["game/logo.bin", "README.md"]);
}

#[tokio::test]
async fn the_list_says_which_file_was_made_from_which() {
    let run = requirement(Room::new("Let two play.")).await;
    let prd = "resources/prd/game.json";
    assert_eq!(run.made_from("docs/prds/game.md"), [prd]);
    assert_eq!(run.made_from("game/main.py"), [prd]);
    assert_eq!(run.made_from("game/two.py"), ["game/main.py", prd]);
    assert_eq!(run.made_from("README.md"), [""; 0]);
    let listed: Vec<String> = run.list().0.into_keys().collect();
    let others = [".dependencies.json", "docs/requirement.txt"];
    let mut expected: Vec<String> = run.tree().into_iter().map(|entry| entry.path).collect();
    expected.retain(|path| !others.contains(&path.as_str()));
    assert_eq!(listed, expected);
    // Each snapshot has the list of its own files.
    let ends = run.events().into_iter().filter_map(|what| match what {
        What::StepEnded { end } => Some(end.snapshot),
        _ => None,
    });
    let first = ends.into_iter().next().unwrap();
    let first = run.flown.gateway.snapshot(&first).unwrap();
    let list = first.tree.get(".dependencies.json");
    let list = run.flown.gateway.blob(&list.unwrap().digest).unwrap();
    let list = String::from_utf8(list.to_vec()).unwrap();
    assert!(list.contains(prd) && !list.contains("two.py"), "{list}");
}

#[tokio::test]
async fn items_at_once_are_guarded_and_listed_as_one_after_the_other() {
    let at_once = "forEach: artifacts.prd.json.files\n        parallel: 4";
    let room = Room::new("Let two play.").sop("forEach: artifacts.prd.json.files", at_once);
    let run = requirement(room).await;
    let one_by_one = requirement(Room::new("Let two play.")).await;
    assert_eq!(run.tree(), one_by_one.tree());
    let blind = Room::new("Let two play.")
        .sop("forEach: artifacts.prd.json.files", at_once)
        .sop("{{ file(item.path) }}", "{{ item.path }}");
    let said = text("new = 1");
    let file = |path| ("code", "files/write", path, 1, said.as_str());
    let answers = [
        classify(REQUIREMENT),
        ("prd", "write", "", 1, PRD),
        file("game/main.py"),
        file("game/run.bat"),
        file("game/run.sh"),
        file("game/two.py"),
    ];
    let run = blind.fly(&answers).await;
    let (reason, message) = run.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains("\"game/main.py\" is in the project"),
        "{message}"
    );
    run.left_alone(&["game/main.py", "game/run.bat", "game/run.sh"]);
}

#[tokio::test]
async fn a_frozen_set_of_files_does_not_freeze_what_the_system_keeps() {
    let room = Room::new("Let two play.").sop(
        "- {name: prd, path: \"{{ layout.prd }}/game.json\", schema: prd}",
        "- {name: prd, path: \"{{ layout.prd }}/game.json\", schema: prd}\n    - {name: lists, glob: \"*.json\", freeze: true}",
    );
    let run = requirement(room).await;
    assert!(run.list().0.contains_key("game/two.py"));
}

#[tokio::test]
async fn an_answer_that_is_neither_is_asked_for_again_and_ends_the_run_at_last() {
    let room = Room::new("Let two play.");
    let wrong = text("A requirement, I think.");
    let again = "{\"kind\": \"chore\", \"reason\": \"\"}";
    let again = text(again);
    let answers = [
        classify(&wrong),
        ("sopwith", "classify", "", 2, &again),
        ("sopwith", "classify", "", 3, &wrong),
    ];
    let run = room.fly(&answers).await;
    let (reason, message) = run.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains(
            "sopwith/classify attempt 1 turn 3 is not what was asked for after 2 repairs"
        ),
        "{message}"
    );
    let told = run.told(&key("sopwith", "classify", "", 2));
    assert!(told.starts_with("Your answer is not what was asked for"));
    assert_eq!(run.used().llm_requests, 3);
    assert_eq!(run.flown.end.snapshot, None);
}

#[test]
fn a_run_that_has_no_project_to_work_on_is_refused() {
    let mut room = Room::new("Let two play.");
    room.project = None;
    let refused = room.planned().unwrap_err();
    assert!(
        refused.contains("run:spec.incremental: is true, and there is no project to work on"),
        "{refused}"
    );
    let room = Room::new("x").run("incremental: true", "reqaFile: game/main.py");
    let refused = room.planned().unwrap_err();
    assert!(
        refused.contains("run:spec.reqaFile: belongs to incremental runs"),
        "{refused}"
    );
}

#[tokio::test]
async fn the_file_of_qa_is_one_of_the_project_and_seen_as_an_option() {
    let with = |file: &str| {
        let more = format!("incremental: true\n  reqaFile: {file}");
        Room::new("Test it anew.")
            .run("incremental: true", &more)
            .sop("{{ file(layout.bugfix) }}", "{{ options.reqaFile }}")
    };
    let run = with("game/none.py").fly(&[]).await;
    let (reason, message) = run.failure();
    assert_eq!(reason, FailureReason::ProjectUnavailable);
    assert!(
        message.contains("spec.reqaFile is \"game/none.py\", and the project from upload sha256:"),
        "{message}"
    );
    assert_eq!(run.used().llm_requests, 0, "before money is spent");
    let done = text("Done.");
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, EDIT),
        ("mend", "mend", "", 2, &done),
    ];
    let run = with("game/main.py").fly(&answers).await.succeeded();
    assert_eq!(
        run.told(&key("mend", "mend", "", 1)),
        "Mend this bug: game/main.py"
    );
}
