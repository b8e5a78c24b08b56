//! Incremental runs that are killed, recovered from, and delivered to a repository.

use sopwith_crds::{
    contract::{
        Digest,
        report::{LaunchStart, Outcome, What},
    },
    status::IdeaKind,
};
use sopwith_runner::gateway::LocalGateway;

use crate::{
    room::{BUG, REQUIREMENT, Room, Run, classify, key, text},
    server::{Https, PASSWORD, Repositories, USER},
    ways::{PRD, requirement},
};

/// The snapshots of a run in order.
fn snapshots(run: &Run) -> Vec<Digest> {
    let snapshot = |what| match what {
        What::ProjectLoaded { snapshot, .. } => Some(snapshot),
        What::StepEnded { end } => Some(end.snapshot),
        _ => None,
    };
    run.events().into_iter().filter_map(snapshot).collect()
}

#[tokio::test]
async fn a_launch_that_follows_a_lost_one_goes_the_way_that_was_chosen() {
    let (main, bat) = (text("def play(players):\n    pass"), text("@echo on"));
    let (shell, two) = (text("#!/bin/sh\necho two"), text("TWO = 2"));
    // Asked again, the model would say otherwise.
    let answers = [
        classify(BUG),
        ("prd", "write", "", 1, PRD),
        ("code", "files/write", "game/main.py", 1, &*main),
        ("code", "files/write", "game/run.bat", 1, &*bat),
        ("code", "files/write", "game/run.sh", 1, &*shell),
        ("code", "files/write", "game/two.py", 1, &*two),
    ];
    let whole = requirement(Room::new("Let two play.")).await;
    let snapshots = snapshots(&whole);
    assert_eq!(snapshots.len(), 4, "the project, and three steps");
    for snapshot in snapshots {
        let room = Room::new("Let two play.");
        whole.flown.gateway.next_launch(LaunchStart {
            snapshot: Some(snapshot.clone()),
            ..LaunchStart::default()
        });
        let resumed = room
            .fly_on(&answers, whole.flown.gateway.clone())
            .await
            .succeeded();
        assert_eq!(resumed.tree(), whole.tree(), "after {snapshot}");
        let classified = key("sopwith", "classify", "", 1);
        assert!(!resumed.asked().contains(&classified), "after {snapshot}");
    }
}

#[tokio::test]
async fn a_launch_that_was_lost_before_its_first_snapshot_classifies_again() {
    // The first launch ends where the second request, a repair, has no answer.
    let room = Room::new("Let two play.");
    let gateway = LocalGateway::default();
    let first = room
        .fly_on(&[classify(&text("neither"))], gateway.clone())
        .await;
    assert_eq!(first.flown.end.outcome, Outcome::Failed);
    assert_eq!(first.flown.end.snapshot, None);
    gateway.next_launch(LaunchStart::default());
    let done = text("Done.");
    let edit = r#"{tool_calls: [{name: edit, arguments: {path: game/main.py, old: "21", new: "20"}}], usage: {prompt_tokens: 50, completion_tokens: 10}}"#;
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, edit),
        ("mend", "mend", "", 2, &*done),
    ];
    let second = room.fly_on(&answers, gateway).await.succeeded();
    assert_eq!(second.classified()[0].kind, IdeaKind::Bug);
}

#[tokio::test]
async fn a_run_that_recovers_with_the_same_idea_is_not_classified_again() {
    let first = requirement(Room::new("Let two play.")).await;
    let recovering = |idea: &str| {
        let mut room = Room::new(idea);
        let out = room.path("first");
        first.flown.write(&out).unwrap();
        room.project = None;
        room.recover = Some((out, "prd".to_owned()));
        room
    };
    let (main, bat) = (text("def play(players):\n    pass"), text("@echo on"));
    let (shell, two) = (text("#!/bin/sh\necho two"), text("TWO = 2"));
    let answers = [
        classify(REQUIREMENT),
        ("code", "files/write", "game/main.py", 1, &*main),
        ("code", "files/write", "game/run.bat", 1, &*bat),
        ("code", "files/write", "game/run.sh", 1, &*shell),
        ("code", "files/write", "game/two.py", 1, &*two),
    ];
    for (idea, asked) in [("Let two play.", false), ("Let three play.", true)] {
        let room = recovering(idea);
        let run = room.fly(&answers).await.succeeded();
        let classify = key("sopwith", "classify", "", 1);
        assert_eq!(run.asked().contains(&classify), asked, "{idea}");
        assert_eq!(run.classified()[0].kind, IdeaKind::Requirement);
        assert_eq!(run.file("docs/requirement.txt"), Some(format!("{idea}\n")));
    }
    let other = recovering("Let two play.").run("  incremental: true\n", "");
    let refused = other.planned().unwrap_err();
    assert!(
        refused
            .contains("run:spec.incremental: is another than that of the run in spec.recoverFrom"),
        "{refused}"
    );
}

/// A run on the repository, begun from a branch and delivered to another.
fn on_repository(server: &Https, idea: &str, from: &str, to: &str) -> Room {
    let mut room = Room::new(idea);
    room.project = None;
    let git = format!(
        "  git:\n  - url: {}/team\n    secretRef: {{name: repo}}\n    caRef: {{name: trust, key: ca.crt}}\n    branches: [\"sopwith/*\"]\n",
        server.url
    );
    room.policy.push_str(&git);
    for (name, file, text) in [
        ("repo", "username", USER),
        ("repo", "password", PASSWORD),
        ("trust", "ca.crt", &server.authority),
    ] {
        let folder = room.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(file), text).unwrap();
    }
    let project = format!(
        "project: {{name: game, source: {{git: {{url: \"{}/team/game.git\", ref: {from}}}}}, deliver: {{git: {{branch: {to}}}}}}}",
        server.url
    );
    room.run("project: {name: game}", &project)
}

#[tokio::test]
async fn a_repository_gets_the_iteration_as_commits_and_shows_the_next_run_what_people_edited() {
    let repositories = Repositories::new();
    let game = repositories.add("team/game.git");
    let files = [
        (
            "game/main.py",
            "100644",
            &b"def play():\n    return 21\n"[..],
        ),
        ("game/run.bat", "100644", b"@echo off\r\n"),
        ("game/run.sh", "100755", b"#!/bin/sh\n"),
        ("logo.bin", "100644", b"\x00\xff\r\n"),
    ];
    game.commit("main", &files);
    let server = Https::serve(&repositories).await;
    let first = on_repository(&server, "Let two play.", "main", "sopwith/two");
    requirement(first).await;
    let changed = |from: &str, to: &str| game.git(&["diff-tree", "-r", "--name-only", from, to]);
    assert_eq!(
        changed("main", "sopwith/two"),
        ".dependencies.json\ndocs/prds/game.md\ndocs/requirement.txt\ngame/main.py\ngame/run.bat\ngame/run.sh\ngame/two.py\nresources/prd/game.json"
    );
    let mode = game.git(&["ls-tree", "sopwith/two", "game/run.sh"]);
    assert!(mode.starts_with("100755 "), "{mode}");

    // People go on from there.
    let show = |path: &str| game.git(&["show", &format!("sopwith/two:{path}")]) + "\n";
    let list = show(".dependencies.json");
    let edited = [
        (".dependencies.json", "100644", list.as_bytes()),
        ("docs/prds/game.md", "100644", b"# Two players, and a dog\n"),
        (
            "game/main.py",
            "100644",
            b"def play(players):\n    return 21\n",
        ),
        ("game/run.bat", "100644", b"@echo on\r\n"),
        ("game/run.sh", "100755", b"#!/bin/sh\necho two\n"),
        ("game/two.py", "100644", b"TWO = 2\n"),
        ("logo.bin", "100644", b"\x00\xff\r\n"),
        ("resources/prd/game.json", "100644", b"{}\n"),
    ];
    game.commit("main", &edited);
    let edit = r#"{tool_calls: [{name: edit, arguments: {path: game/main.py, old: "21", new: "20"}}], usage: {prompt_tokens: 50, completion_tokens: 10}}"#;
    let done = text("Done.");
    let answers = [
        classify(BUG),
        ("mend", "mend", "", 1, edit),
        ("mend", "mend", "", 2, &*done),
    ];
    let second = on_repository(&server, "It crashes.", "main", "sopwith/bug");
    let second = second.fly(&answers).await.succeeded();
    assert_eq!(
        second.edits(),
        (
            "docs/prds/game.md (changed), game/main.py (changed)".into(),
            "resources/prd/game.json (changed)".into()
        )
    );
    assert_eq!(
        changed("main", "sopwith/bug"),
        ".dependencies.json\ndocs/bugfix.txt\ndocs/code_summaries/mend.md\ngame/main.py"
    );
    assert_eq!(game.fsck(), "");
}

#[tokio::test]
async fn a_policy_that_denies_the_systems_own_files_is_seen_before_money_is_spent() {
    let repositories = Repositories::new();
    let game = repositories.add("team/game.git");
    game.commit("main", &[("game/main.py", "100644", b"x\n")]);
    let server = Https::serve(&repositories).await;
    let mut room = on_repository(&server, "It crashes.", "main", "sopwith/bug");
    room.policy += "  deliver: {denyPaths: ['docs/**']}\n";
    let run = room.fly(&[]).await;
    let (_, message) = run.failure();
    assert!(
        message.contains("an incremental run keeps a file there: the path \"docs/requirement.txt\" may not be delivered"),
        "{message}"
    );
    assert_eq!(run.used().llm_requests, 0);
}
