//! What an incremental run may not write over.

use sopwith_crds::status::FailureReason;

use crate::room::{BUG, Room, classify, key, text};

/// A bug that is mended by an answer with whole files.
fn whole_files() -> Room {
    Room::new("It crashes.").sop(
        "{name: mend, prompt: {template: mend, writes: {artifact: summary}}}",
        "{name: mend, prompt: {template: mend, writes: {files: ['game/**', 'docs/**']}}}",
    )
}

fn files(files: &[(&str, &str)]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|(path, content)| serde_json::json!({"path": path, "content": content}))
        .collect();
    text(&serde_json::json!({ "files": files }).to_string())
}

#[tokio::test]
async fn an_answer_that_replaces_what_was_not_shown_is_told_how_to_change_it() {
    let blind = files(&[("game/main.py", "x = 1\n"), ("game/new.py", "y = 1\n")]);
    let read = r"{tool_calls: [{name: read_file, arguments: {path: game/main.py}}], usage: {prompt_tokens: 50, completion_tokens: 10}}";
    let summary = ("docs/code_summaries/mend.md", "Done.\n");
    let seeing = files(&[
        ("game/main.py", "x = 2\n"),
        ("game/new.py", "y = 1\n"),
        summary,
    ]);
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, &*blind),
        ("mend", "mend", "", 2, read),
        ("mend", "mend", "", 3, &*seeing),
    ];
    let run = whole_files().fly(&answers).await.succeeded();
    let told = run.told(&key("mend", "mend", "", 2));
    assert!(
        told.contains(
            "\"game/main.py\" is in the project, and an incremental run replaces a file only where you were shown all of it as it is now: \
             change a part of it with a tool (edit_file, apply_patch), or leave it as it is"
        ) && !told.contains("new.py"),
        "{told}"
    );
    assert_eq!(run.file("game/main.py").as_deref(), Some("x = 2\n"));
    assert_eq!(run.file("game/new.py").as_deref(), Some("y = 1\n"));
}

#[tokio::test]
async fn who_goes_on_writing_over_the_code_base_fails_and_the_code_base_stays() {
    let blind = files(&[("game/main.py", "x = 1\n"), ("game/logo.bin", "")]);
    let answers = [1, 2, 3].map(|turn| ("mend", "mend", "", turn, &*blind));
    let answers: Vec<_> = [classify(BUG)].into_iter().chain(answers).collect();
    let run = whole_files().fly(&answers).await;
    let (reason, message) = run.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains("\"game/main.py\" is in the project")
            && message.contains("\"game/logo.bin\" is in the project"),
        "{message}"
    );
    run.left_alone(&["game/main.py", "game/logo.bin", "game/run.bat"]);
}

#[tokio::test]
async fn a_large_file_is_not_replaced_even_where_it_was_shown() {
    let large = "x = 1\n".repeat(11_000);
    let room = whole_files()
        .edit("game/large.py", &large)
        .sop("{{ file(layout.bugfix) }}", "{{ file('game/large.py') }}");
    let summary = ("docs/code_summaries/mend.md", "Done.\n");
    let (first, second) = (files(&[("game/large.py", "x = 2\n")]), files(&[summary]));
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, &*first),
        ("mend", "mend", "", 2, &*second),
    ];
    let run = room.fly(&answers).await.succeeded();
    let told = run.told(&key("mend", "mend", "", 2));
    assert!(
        told.contains("\"game/large.py\" is in the project and has 66000 bytes, and an incremental run replaces no file of more than 65536 whole"),
        "{told}"
    );
    assert_eq!(run.file("game/large.py"), Some(large));
}

#[tokio::test]
async fn a_procedure_that_never_shows_the_file_that_it_replaces_is_told_what_to_do() {
    let room = Room::new("It crashes.").sop(
        "  - {name: engineer, profile: Engineer, tools: [read_file, edit, patch]}\n",
        "  - {name: engineer, profile: Engineer}\n",
    );
    let room = room
        .edit(
            "docs/code_summaries/mend.md",
            "What was mended last time.\n",
        )
        .sop("Last time: {{ file(path) }}", "There is {{ path }}.");
    let done = text("Done.");
    let answers = [classify(BUG), ("mend", "mend", "", 1, &*done)];
    let run = room.fly(&answers).await;
    let (reason, message) = run.failure();
    assert_eq!(reason, FailureReason::GateFailed);
    assert!(
        message.contains("\"docs/code_summaries/mend.md\" is in the project")
            && message.contains(
                "show it the file with file(path) in the template, or grant its role read_file"
            ),
        "{message}"
    );
    assert_eq!(
        run.file("docs/code_summaries/mend.md").as_deref(),
        Some("What was mended last time.\n")
    );
}

#[tokio::test]
async fn nobody_but_the_system_writes_its_files() {
    for path in [
        "docs/requirement.txt",
        "docs/bugfix.txt",
        ".dependencies.json",
    ] {
        let room = Room::new("It crashes.").sop(
            "    gates:\n    - {name: changed",
            &format!(
                "    actions:\n    - {{name: write, render: {{template: document, path: {path}}}}}\n    gates:\n    - {{name: changed"
            ),
        );
        // The template needs the artifact, and no model is asked.
        let room = room
            .sop("artifacts.prd.json.title }}\\n", "idea }}\\n")
            .sop("incremental.kind == 'bug'\n", "'1 == 2'\n")
            .sop("incremental.changed.size() > 0", "'true'");
        let run = room.fly(&[classify(BUG)]).await;
        let (reason, message) = run.failure();
        assert_eq!(reason, FailureReason::GateFailed, "{message}");
        assert!(
            message.contains(&format!(
                "the path {path:?} is kept by the system, and no step may write it"
            )),
            "{message}"
        );
    }
}
