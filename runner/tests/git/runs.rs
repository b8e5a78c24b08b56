//! Whole runs on a repository: from the clone to the branch, killed and resumed, refused.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sopwith_crds::{
    contract::{
        plan::RunPlan,
        report::{LaunchStart, Outcome, StepEnd, What},
        snapshot::{Origin, Snapshot},
    },
    status::FailureReason,
};
use sopwith_runner::{
    gateway::LocalGateway,
    llm::{replay::Replay, transport::Places},
    local::{Flown, Inputs, fly},
};

use crate::server::{Https, PASSWORD, Repositories, Repository, Ssh, Trick, USER};

/// Reads a file of the project and writes beside it; a loop over what it read; a program.
const SOP: &str = r##"
apiVersion: sopwith.dev/v1alpha1
kind: SopDefinition
metadata: {name: notes}
spec:
  roles: [{name: editor}]
  parameters: [{name: path, default: docs/note.md}, {name: program, default: "true"}]
  templates:
    note: "{% if glob('README.md') %}{{ file('README.md') | trim }}{% else %}Nothing{% endif %}, and more\n"
    chapter: "# {{ item.title }}\n"
    script: "#!/bin/sh\necho changed\n"
  steps:
  - name: note
    role: editor
    actions:
    - {name: write, render: {template: note, path: "{{ parameters.path }}"}}
  - name: chapters
    needs: [note]
    actions:
    - name: each
      loop:
        forEach: '[{"path": "a.md", "title": "First: <one>"}, {"path": "b.md", "title": "Second"}]'
        actions:
        - {name: write, render: {template: chapter, path: "docs/{{ item.path }}"}}
  - name: look
    needs: [chapters]
    gates: [{name: there, kind: expression, expression: 'true'}]
  - name: work
    needs: [look]
    actions:
    - {name: touch, render: {template: script, path: bin/run}}
    - name: run
      command: {argv: [sh, -c, "{{ parameters.program }}"], image: "localhost/bench:1", collect: ["**"]}
"##;

fn policy(servers: &str) -> String {
    format!(
        "apiVersion: sopwith.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {{name: default}}\nspec:\n  commands: [{{argv: [sh]}}]\n  \
         images: [\"localhost/bench:*\"]\n{servers}"
    )
}

fn https_policy(server: &Https) -> String {
    policy(&format!(
        "  git:\n  - url: {}/team\n    secretRef: {{name: repo}}\n    caRef: {{name: trust, key: ca.crt}}\n    branches: [\"sopwith/*\", main]\n",
        server.url
    ))
}

fn run(url: &str, more: &str) -> String {
    format!(
        "apiVersion: sopwith.dev/v1alpha1\nkind: AgentRun\nmetadata: {{name: notes}}\nspec:\n  idea: notes\n  sopRef: {{name: notes}}\n  \
         project: {{source: {{git: {{url: \"{url}\"}}}}, deliver: {{git: {{branch: sopwith/notes}}}}}}\n{more}"
    )
}

/// Files of a run, and what is mounted into it.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new(policy: &str, run: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["repo", "trust"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for (name, text) in [
            ("sop.yaml", SOP),
            ("policy.yaml", policy),
            ("run.yaml", run),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn over_https(server: &Https, more: &str) -> Self {
        let stage = Self::new(
            &https_policy(server),
            &run(&format!("{}/team/game.git", server.url), more),
        );
        stage.set("repo/username", USER);
        stage.set("repo/password", PASSWORD);
        stage.set("trust/ca.crt", &server.authority);
        stage
    }

    fn set(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn plan(&self) -> Result<RunPlan, String> {
        let inputs = Inputs {
            sop: self.path("sop.yaml"),
            policy: self.path("policy.yaml"),
            run: self.path("run.yaml"),
            ..Inputs::default()
        };
        inputs.plan().map_err(|error| error.to_string())
    }

    async fn fly(&self, gateway: LocalGateway) -> Flown {
        let places = Places {
            secrets: self.0.path().into(),
            config: self.0.path().into(),
        };
        let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
        let replay = Arc::new(Replay::default());
        fly(self.plan().unwrap(), replay, &places, program, gateway).await
    }

    async fn flown(&self) -> Flown {
        self.fly(LocalGateway::default()).await
    }
}

fn game(repositories: &Repositories) -> (Repository, String) {
    let game = repositories.add("team/game.git");
    game.commit("main", &[("README.md", "100644", b"old\n")]);
    let other = "a".repeat(40);
    let head = game.commit(
        "main",
        &[
            ("README.md", "100644", b"A game\r\n"),
            ("bin/run", "100755", b"#!/bin/sh\n"),
            ("link", "120000", b"README.md"),
            ("lib", "160000", other.as_bytes()),
            (".github/workflows/ci.yml", "100644", b"on: push\n"),
        ],
    );
    (game, head)
}

fn events(flown: &Flown) -> Vec<What> {
    flown
        .gateway
        .events()
        .into_iter()
        .map(|event| event.what)
        .collect()
}

fn ends(flown: &Flown) -> Vec<StepEnd> {
    let ended = |what: What| match what {
        What::StepEnded { end } => Some(*end),
        _ => None,
    };
    events(flown).into_iter().filter_map(ended).collect()
}

fn failure(flown: &Flown) -> (FailureReason, String) {
    let failure = flown.end.failure.clone().expect("the run failed");
    (failure.reason, failure.message)
}

fn succeeded(flown: &Flown) {
    assert_eq!(
        flown.end.outcome,
        Outcome::Succeeded,
        "{:?}",
        flown.end.failure
    );
}

#[tokio::test]
async fn a_run_begins_from_a_commit_and_delivers_a_commit_for_each_step_that_changed_something() {
    let repositories = Repositories::new();
    let (game, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let flown = Stage::over_https(&server, "").flown().await;
    succeeded(&flown);

    let loaded = events(&flown).into_iter().find_map(|what| match what {
        What::ProjectLoaded {
            origin,
            files,
            left_out,
            ..
        } => Some((origin, files, left_out)),
        _ => None,
    });
    let origin = Origin::Git {
        url: format!("{}/team/game.git", server.url),
        commit: head.clone(),
        branch: Some("main".into()),
    };
    let left_out = "lib (submodule), link (symbolic link)".to_owned();
    assert_eq!(loaded, Some((origin, 3, left_out)));

    let commits: Vec<String> = ends(&flown)
        .into_iter()
        .map(|end| end.commit.unwrap())
        .collect();
    let [note, chapters, look, work] = commits.as_slice() else {
        panic!("{commits:?}");
    };
    assert_eq!(
        look, chapters,
        "a step that changes nothing makes no commit"
    );
    let log = game.git(&[
        "log",
        "--reverse",
        "--format=%H %P %an %s",
        "main..sopwith/notes",
    ]);
    let expected = format!(
        "{note} {head} editor note: every gate passed\n{chapters} {note} sopwith chapters: every gate passed\n{work} {chapters} sopwith work: every gate passed"
    );
    assert_eq!(log, expected);
    let message = game.git(&["log", "-1", "--format=%B", chapters]);
    let expected = "chapters: every gate passed\n\nSopwith-Run: local/notes\nSopwith-Run-Uid: local\nSopwith-Step: chapters\n\
                    Sopwith-Attempt: 1\nSopwith-Round: 1\nSopwith-Item: a.md\nSopwith-Task: First: <one>\nSopwith-Item: b.md\nSopwith-Task: Second";
    assert_eq!(message, expected);
    let changed = game.git(&["diff-tree", "-r", "main", "sopwith/notes"]);
    let changed: Vec<String> = changed
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {} {}", words[0], words[1], words[5])
        })
        .collect();
    // What may be executed stays so, and nothing else was touched.
    let expected = [
        ":100755 100755 bin/run",
        ":000000 100644 docs/a.md",
        ":000000 100644 docs/b.md",
        ":000000 100644 docs/note.md",
    ];
    assert_eq!(changed, expected);
    assert_eq!(
        game.git(&["show", "sopwith/notes:docs/note.md"]),
        "A game, and more"
    );
    assert_eq!(game.fsck(), "");
    let last = events(&flown)
        .into_iter()
        .rev()
        .find_map(|what| match what {
            What::Delivered { branch, commit, .. } => Some((branch, commit)),
            _ => None,
        });
    assert_eq!(last, Some(("sopwith/notes".into(), work.clone())));
    let told = format!("{:?}", flown.gateway.events());
    assert!(!told.contains(PASSWORD), "the password leaked");
}

#[tokio::test]
async fn a_run_works_over_ssh_too() {
    let repositories = Repositories::new();
    let (game, head) = game(&repositories);
    let server = Ssh::serve(&repositories).await;
    let entry = format!(
        "  git:\n  - url: {}\n    secretRef: {{name: repo}}\n    branches: [\"sopwith/*\"]\n",
        server.url
    );
    let stage = Stage::new(
        &policy(&entry),
        &run(&format!("{}/team/game.git", server.url), ""),
    );
    stage.set("repo/ssh-privatekey", &server.key);
    let flown = stage.flown().await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProjectUnavailable);
    assert!(
        message
            .contains("has no key known_hosts; ssh needs the keys ssh-privatekey and known_hosts"),
        "{message}"
    );
    stage.set("repo/known_hosts", &server.known_hosts);
    let flown = stage.flown().await;
    succeeded(&flown);
    assert_eq!(
        game.git(&["rev-list", "--count", &format!("{head}..sopwith/notes")]),
        "3"
    );
}

/// What the launch begins with that follows one which was killed after an event.
fn killed_after(story: &[What], last: impl Fn(&What) -> bool) -> LaunchStart {
    let mut snapshot = None;
    for what in story {
        match what {
            What::ProjectLoaded {
                snapshot: digest, ..
            } => snapshot = Some(digest.clone()),
            What::StepEnded { end } => snapshot = Some(end.snapshot.clone()),
            _ => {}
        }
        if last(what) {
            break;
        }
    }
    LaunchStart {
        snapshot: Some(snapshot.unwrap()),
        ..LaunchStart::default()
    }
}

#[tokio::test]
async fn a_launch_that_follows_a_killed_one_works_on_the_same_commit_though_the_branch_has_moved() {
    let repositories = Repositories::new();
    let (game, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let stage = Stage::over_https(&server, "  parameters: {program: \"exit 3\"}\n");
    let first = stage.flown().await;
    assert_eq!(failure(&first).0, FailureReason::GateFailed);
    assert_eq!(
        game.head("sopwith/notes"),
        None,
        "a run that fails pushes nothing"
    );
    // As if its first launch had been killed right after the clone, and people had gone on.
    game.commit("main", &[("README.md", "100644", b"Another game\n")]);
    let start = killed_after(&events(&first), |what| {
        matches!(what, What::ProjectLoaded { .. })
    });
    let before = server.calls().len();
    first.gateway.next_launch(start);
    let second = stage.fly(first.gateway.clone()).await;
    assert_eq!(failure(&second).0, FailureReason::GateFailed);
    assert_eq!(
        server.calls().len(),
        before,
        "the repository is not read again"
    );
    let snapshot: Snapshot = second.snapshot().unwrap();
    assert_eq!(snapshot.commits.base.unwrap().id, head);
    let note = &snapshot.tree["docs/note.md"];
    assert_eq!(
        second.gateway.blob(&note.digest).unwrap(),
        "A game, and more\n"
    );
}

#[tokio::test]
async fn a_run_that_is_killed_after_any_step_delivers_the_commits_that_it_had_made() {
    let repositories = Repositories::new();
    let (game, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let stage = Stage::over_https(&server, "");
    let whole = stage.flown().await;
    succeeded(&whole);
    let story = events(&whole);
    let mut made: Vec<String> = ends(&whole)
        .into_iter()
        .filter_map(|end| end.commit)
        .collect();
    made.dedup();
    for (step, kept) in [("note", 1), ("chapters", 2), ("look", 2), ("work", 3)] {
        game.git(&["update-ref", "-d", "refs/heads/sopwith/notes"]);
        let start = killed_after(
            &story,
            |what| matches!(what, What::StepEnded { end } if end.step == step),
        );
        whole.gateway.next_launch(start);
        let again = stage.fly(whole.gateway.clone()).await;
        succeeded(&again);
        let log = game.git(&["rev-list", "--reverse", &format!("{head}..sopwith/notes")]);
        let commits: Vec<&str> = log.lines().collect();
        assert_eq!(
            commits[..kept],
            made[..kept],
            "what was acknowledged stays: {step}"
        );
        assert_eq!(commits.len(), 3, "{step}");
    }
    // Killed after the push, before its report.
    let pushes = |server: &Https| {
        let calls = server.calls();
        calls
            .iter()
            .filter(|line| line.contains("POST") && line.contains("receive"))
            .count()
    };
    let before = pushes(&server);
    let start = killed_after(
        &story,
        |what| matches!(what, What::StepEnded { end } if end.step == "work"),
    );
    whole.gateway.next_launch(start);
    succeeded(&stage.fly(whole.gateway.clone()).await);
    assert_eq!(pushes(&server), before, "what is there is not pushed again");
}

#[tokio::test]
async fn a_branch_that_somebody_wrote_to_is_left_alone_and_nothing_is_lost() {
    let repositories = Repositories::new();
    let (game, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    game.git(&["branch", "sopwith/notes", "main"]);
    let other = game.commit("sopwith/notes", &[("other.txt", "100644", b"other\n")]);
    let stage = Stage::over_https(&server, "");
    let flown = stage.flown().await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::DeliveryFailed);
    let expected = format!(
        "the branch sopwith/notes is at {other}, and the run began from {head}: somebody wrote to it meanwhile"
    );
    assert!(
        message.contains(&expected) && message.contains("git fetch commits.bundle sopwith/notes"),
        "{message}"
    );
    assert_eq!(game.head("sopwith/notes"), Some(other));
    let out = stage.path("out");
    flown.write(&out).unwrap();
    let bundle = out.join("commits.bundle").display().to_string();
    game.git(&["fetch", "--quiet", &bundle, "sopwith/notes:rescued"]);
    assert_eq!(
        game.git(&["rev-list", "--count", &format!("{head}..rescued")]),
        "3"
    );
    assert_eq!(game.fsck(), "");
}

#[tokio::test]
async fn a_server_that_is_away_when_the_work_is_done_is_asked_again() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Https::serve(&repositories).await;
    server.play(
        "service=git-receive-pack",
        Trick::Status(502, String::new()),
    );
    server.play("POST /team/game.git/git-receive-pack", Trick::Cut(0));
    succeeded(&Stage::over_https(&server, "").flown().await);
    assert!(game.head("sopwith/notes").is_some());
}

#[tokio::test]
async fn what_may_not_be_delivered_fails_the_step_that_writes_it() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let written = |path: &str| format!("  parameters: {{path: {path}}}\n");
    let ran = |program: &str| format!("  parameters: {{program: \"{program}\"}}\n");
    let table = [
        (
            written(".github/workflows/new.yml"),
            1,
            ".github/workflows/new.yml",
        ),
        (written("docs/CODEOWNERS"), 1, "docs/CODEOWNERS"),
        (written(".gitmodules"), 1, ".gitmodules"),
        (
            written("lib/new.py"),
            1,
            "\"lib\" is a submodule in the repository and stays as it is",
        ),
        (
            written("link"),
            1,
            "\"link\" is a symbolic link in the repository and stays as it is",
        ),
        (
            ran("echo evil >> .github/workflows/ci.yml"),
            4,
            ".github/workflows/ci.yml",
        ),
        (
            ran("mkdir lib && echo x > lib/x.py"),
            4,
            "\"lib\" is a submodule",
        ),
    ];
    for (more, steps, expected) in table {
        let flown = Stage::over_https(&server, &more).flown().await;
        let (_, message) = failure(&flown);
        assert!(message.contains(expected), "{more}: {message}");
        assert_eq!(ends(&flown).len(), steps, "{more}");
        assert_eq!(game.head("sopwith/notes"), None, "{more}");
    }
    // What the policy allows by name passes, and a run that delivers nothing may write what it wants.
    let stage = Stage::over_https(&server, &written(".github/workflows/docs.yml"));
    stage.set(
        "policy.yaml",
        &format!(
            "{}  deliver: {{allowPaths: [.github/workflows/docs.yml]}}\n",
            https_policy(&server)
        ),
    );
    succeeded(&stage.flown().await);
    let stage = Stage::over_https(&server, &written(".github/workflows/new.yml"));
    let text = std::fs::read_to_string(stage.path("run.yaml")).unwrap();
    stage.set(
        "run.yaml",
        &text.replace(", deliver: {git: {branch: sopwith/notes}}", ""),
    );
    succeeded(&stage.flown().await);
}

#[tokio::test]
async fn what_the_policy_does_not_open_is_refused_before_anything_begins() {
    let repositories = Repositories::new();
    let server = Https::serve(&repositories).await;
    let stage = Stage::new(
        &policy(""),
        &run(&format!("{}/team/game.git", server.url), ""),
    );
    let message = stage.plan().unwrap_err();
    assert!(
        message.contains("PolicyDenied")
            && message.contains("Add an entry to spec.git of the policy"),
        "{message}"
    );
    let stage = Stage::new(
        &https_policy(&server),
        &run(&format!("{}/team/game.git", server.url), "").replace("sopwith/notes", "release"),
    );
    let message = stage.plan().unwrap_err();
    assert!(
        message.contains("does not allow writing branch \"release\""),
        "{message}"
    );
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_fails_the_run_with_the_remedy() {
    let repositories = Repositories::new();
    game(&repositories);
    let server = Https::serve(&repositories).await;
    let stage = Stage::over_https(&server, "");
    stage.set("repo/password", "wrong");
    let flown = stage.flown().await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProjectUnavailable);
    let url = format!("{}/team/game.git", server.url);
    assert!(
        message.starts_with(&format!("the project cannot be loaded from {url}: ")),
        "{message}"
    );
    assert!(
        message.contains("does not take the credential"),
        "{message}"
    );
    assert!(ends(&flown).is_empty());
}

#[tokio::test]
async fn an_empty_repository_receives_what_a_run_makes_of_nothing() {
    let repositories = Repositories::new();
    let empty = repositories.add("team/game.git");
    let server = Https::serve(&repositories).await;
    let stage = Stage::over_https(&server, "");
    succeeded(&stage.flown().await);
    let log = empty.git(&["log", "--reverse", "--format=%s", "sopwith/notes"]);
    assert_eq!(log.lines().count(), 3, "{log}");
    assert_eq!(
        empty.git(&["show", "sopwith/notes:docs/note.md"]),
        "Nothing, and more"
    );
}

#[tokio::test]
async fn the_commits_of_a_run_without_a_repository_begin_with_the_project_as_it_was() {
    let stage = Stage::new(
        &policy(""),
        "apiVersion: sopwith.dev/v1alpha1\nkind: AgentRun\nmetadata: {name: notes}\nspec: {idea: notes, sopRef: {name: notes}}\n",
    );
    let found = stage.path("found");
    std::fs::create_dir(&found).unwrap();
    std::fs::write(found.join("README.md"), "Hers\n").unwrap();
    let inputs = Inputs {
        sop: stage.path("sop.yaml"),
        policy: stage.path("policy.yaml"),
        run: stage.path("run.yaml"),
        project: Some(found),
        ..Inputs::default()
    };
    let gateway = LocalGateway::default();
    gateway.keep(inputs.project().unwrap().unwrap());
    let places = Places {
        secrets: "none".into(),
        config: "none".into(),
    };
    let program = Path::new(env!("CARGO_BIN_EXE_sopwith-runner"));
    let flown = fly(
        inputs.plan().unwrap(),
        Arc::new(Replay::default()),
        &places,
        program,
        gateway,
    )
    .await;
    succeeded(&flown);
    let out = stage.path("out");
    flown.write(&out).unwrap();
    let home = Repository {
        path: stage.path("."),
    };
    home.git(&["clone", "--quiet", "out/commits.bundle", "clone"]);
    let clone = Repository {
        path: stage.path("clone"),
    };
    let log = clone.git(&["log", "--reverse", "--format=%s"]);
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines[0].starts_with("the project as the run found it: upload sha256:"),
        "{log}"
    );
    assert_eq!(lines.len(), 4, "{log}");
    assert_eq!(
        clone.git(&["diff-tree", "-r", "--name-only", "HEAD~3", "HEAD~2"]),
        "docs/note.md"
    );
    assert_eq!(
        ends(&flown).pop().unwrap().commit,
        Some(clone.git(&["rev-parse", "HEAD"]))
    );
}
