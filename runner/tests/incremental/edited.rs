//! What people edited between two runs.

use crate::{
    room::{BUG, Room, Run, classify, key, text},
    ways::{PRD, requirement},
};

const LOOK: &str = r#"{tool_calls: [{name: edit, arguments: {path: game/main.py, old: "pass", new: "return"}}], usage: {prompt_tokens: 50, completion_tokens: 10}}"#;

/// A bug that is mended with tools in `game/main.py`.
async fn mended(room: Room) -> Run {
    let done = text("Done.");
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, LOOK),
        ("mend", "mend", "", 2, &done),
    ];
    room.fly(&answers).await.succeeded()
}

/// The project of a run, edited by hand in every kind of place.
fn edited(left: &Run) -> Room {
    Room::over("It crashes.", left)
        .edit("game/two.py", "TWO = 'two'\n")
        .edit("docs/prds/own.md", "# By hand\n")
        .remove("README.md")
        .edit("resources/prd/game.json", "{\"title\": \"By hand\"}\n")
        .edit("tmp/notes", "of one run only\n")
}

#[tokio::test]
async fn nothing_is_told_where_nobody_edited_anything() {
    let first = requirement(Room::new("Let two play.")).await;
    let second = mended(Room::over("It crashes.", &first)).await;
    assert_eq!(second.edits(), (String::new(), String::new()));
    let said = second.message("sopwith/edits").content;
    assert_eq!(said, "nothing was edited by hand since the last run");
}

#[tokio::test]
async fn edits_are_inputs_where_people_may_edit_and_reported_where_steps_derive() {
    let first = requirement(Room::new("Let two play.")).await;
    let room = edited(&first).sop(
        "Mend this {{ incremental.kind }}",
        "{% for edit in incremental.derived %}Not to be used: {{ edit.path }} {{ edit.change }}. {% endfor %}Edited: {{ incremental.edited | map(attribute='path') | join(', ') }}; mend this {{ incremental.kind }}",
    );
    let second = mended(room).await;
    let by_people = "README.md (removed), docs/prds/own.md (added), game/two.py (changed)";
    let derived = "resources/prd/game.json (changed)";
    assert_eq!(second.edits(), (by_people.into(), derived.into()));
    assert_eq!(
        second.told(&key("mend", "mend", "", 1)),
        "Not to be used: resources/prd/game.json changed. Edited: README.md, docs/prds/own.md, game/two.py; mend this bug: It crashes."
    );
    let said = second.message("sopwith/edits").content;
    assert!(
        said.contains(
            "game/two.py changed: edited by hand, an input of this run\nresources/prd/game.json changed: edited by hand although it is derived"
        ),
        "{said}"
    );
    assert_eq!(
        second.file("game/two.py").as_deref(),
        Some("TWO = 'two'\n"),
        "an input is not written over"
    );
    // What it was made from is still known.
    assert_eq!(
        second.made_from("game/main.py"),
        ["resources/prd/game.json"]
    );
}

#[tokio::test]
async fn an_edited_derived_file_is_told_again_until_a_step_derives_it_anew() {
    let first = requirement(Room::new("Let two play.")).await;
    let second = mended(edited(&first)).await;
    let derived = |run: &Run| run.edits().1;
    assert_eq!(derived(&second), "resources/prd/game.json (changed)");
    let third = requirement(Room::over("Let three play.", &second)).await;
    assert_eq!(
        third.edits(),
        (String::new(), "resources/prd/game.json (changed)".into())
    );
    let fourth = Room::over("It crashes again.", &third);
    let fourth = mended(fourth).await;
    assert_eq!(fourth.edits(), (String::new(), String::new()));
}

#[tokio::test]
async fn a_list_that_somebody_edited_is_not_believed() {
    let first = requirement(Room::new("Let two play.")).await;
    let list = first.file(".dependencies.json").unwrap();
    let room = Room::over("It crashes.", &first)
        .edit("game/two.py", "TWO = 'two'\n")
        .edit(
            ".dependencies.json",
            &list.replacen("game/two.py", "game/ten.py", 1),
        );
    let second = mended(room).await;
    assert_eq!(
        second.edits(),
        (String::new(), ".dependencies.json (changed)".into())
    );
    // It is there again, and right.
    assert!(second.list().0.contains_key("game/two.py"));
}

#[tokio::test]
async fn a_run_that_is_not_incremental_keeps_a_list_that_is_there() {
    let first = requirement(Room::new("Let two play.")).await;
    let room = Room::over("Write it down.", &first)
        .run("  incremental: true\n", "")
        .sop(
            "expression: incremental.changed.size() > 0",
            "expression: 'true'",
        );
    let said = text("new = 1");
    let file = |path| ("code", "files/write", path, 1, said.as_str());
    let plain = [
        ("prd", "write", "", 1, PRD),
        file("game/main.py"),
        file("game/run.bat"),
        file("game/run.sh"),
        file("game/two.py"),
    ];
    // Nobody classifies its idea; the requirement of the earlier iteration is still there.
    let second = room.fly(&plain).await.succeeded();
    assert_eq!(second.classified(), []);
    let third = mended(Room::over("It crashes.", &second).edit("game/main.py", "pass\n")).await;
    assert_eq!(
        third.edits(),
        ("game/main.py (changed)".into(), String::new())
    );
}
