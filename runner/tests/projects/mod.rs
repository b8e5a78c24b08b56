//! Runs that begin with an existing project.

mod recover;

use super::*;
use sopwith_crds::{
    archive,
    contract::{
        plan::Source,
        snapshot::{Origin, TreeEntry},
    },
};

/// The fixtures' plan, on the project that a run left.
fn upon(snapshot: &Digest) -> RunPlan {
    RunPlan {
        source: Some(Source::Run {
            name: "earlier".into(),
            uid: "uid-1".into(),
            snapshot: snapshot.clone(),
        }),
        ..plain()
    }
}

/// The snapshots that were made before any step.
fn loaded(flown: &Flown) -> Vec<(Origin, u32, Digest)> {
    let events = flown.gateway.events().into_iter();
    let loaded = events.filter_map(|event| match event.what {
        What::ProjectLoaded {
            origin,
            files,
            snapshot,
            ..
        } => Some((origin, files, snapshot)),
        _ => None,
    });
    loaded.collect()
}

/// What a run left, as a project to begin with, and its gateway.
async fn earlier() -> (Flown, Digest) {
    let (first, _) = flown(plain(), filling(), LocalGateway::default()).await;
    assert_eq!(first.end.outcome, Outcome::Succeeded);
    let snapshot = first.end.snapshot.clone().unwrap();
    first.gateway.next_launch(LaunchStart::default());
    (first, snapshot)
}

/// The files that a run began with.
fn base(flown: &Flown) -> Vec<TreeEntry> {
    let base = flown.snapshot().unwrap().base.unwrap();
    serde_json::from_slice(&flown.gateway.blob(&base.manifest).unwrap()).unwrap()
}

#[tokio::test]
async fn a_run_begins_with_what_an_earlier_one_left_and_knows_later_what_that_was() {
    let (first, left) = earlier().await;
    let files: Vec<TreeEntry> = first.snapshot().unwrap().tree.into_values().collect();
    let (second, _) = flown(upon(&left), filling(), first.gateway.clone()).await;
    assert_eq!(second.end.failure, None);
    let [(origin, count, snapshot)] = &loaded(&second)[..] else {
        panic!("{:?}", second.gateway.events());
    };
    let expected = Origin::Run {
        name: "earlier".into(),
        snapshot: left,
    };
    assert_eq!(*origin, expected);
    assert_eq!(*count as usize, files.len());
    assert_eq!(base(&second), files);

    // A launch that follows one which was lost in its first step does not load it again.
    second.gateway.next_launch(LaunchStart {
        snapshot: Some(snapshot.clone()),
        ..LaunchStart::default()
    });
    let (third, _) = flown(
        upon(&Digest::of("gone meanwhile")),
        filling(),
        second.gateway.clone(),
    )
    .await;
    assert_eq!(failure(&third).0, FailureReason::Internal, "another plan");
    let Origin::Run { snapshot: left, .. } = expected else {
        return;
    };
    let (third, _) = flown(upon(&left), filling(), second.gateway.clone()).await;
    assert_eq!(third.end.failure, None);
    assert_eq!(loaded(&third), []);
    assert_eq!(base(&third), files);
}

#[tokio::test]
async fn a_project_that_is_not_there_any_more_ends_the_run_and_names_it() {
    let (flown, _) = flown(
        upon(&Digest::of("swept")),
        filling(),
        LocalGateway::default(),
    )
    .await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProjectUnavailable);
    assert!(
        message.starts_with("the project cannot be loaded from run earlier: "),
        "{message}"
    );
}

/// A folder with a project, and a procedure that adds a file to it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("project/.gitignore", "*.log\n");
    write("project/app/a.py", "x = 1\r\n");
    write("project/app/a.log", "not this one");
    write(
        "sop.yaml",
        "apiVersion: sopwith.dev/v1alpha1\nkind: SopDefinition\nmetadata: {name: add}\nspec:\n  templates: {note: 'It has {{ glob(\"**/*.py\") | join }}.'}\n  steps:\n  - name: add\n    outputs: [{name: note, path: note.txt}]\n    actions: [{name: note, render: {template: note, path: note.txt}}]\n",
    );
    write(
        "policy.yaml",
        "apiVersion: sopwith.dev/v1alpha1\nkind: ToolPolicy\nmetadata: {name: default}\nspec: {}\n",
    );
    write(
        "run.yaml",
        "apiVersion: sopwith.dev/v1alpha1\nkind: AgentRun\nmetadata: {name: add}\nspec: {idea: a note, sopRef: {name: add}}\n",
    );
    folder
}

#[test]
fn a_local_run_begins_with_a_folder_as_git_would_add_it() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_sopwith-runner"))
        .arg("local")
        .args(["--sop".into(), path("sop.yaml")])
        .args(["--policy".into(), path("policy.yaml")])
        .args(["--run".into(), path("run.yaml")])
        .args(["--project".into(), path("project")])
        .args(["--out".into(), path("out")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("2 files from upload sha256:"), "{said}");
    let left = archive::folder::read(&path("out/project")).unwrap().files;
    let left: Vec<(&str, &[u8])> = left
        .iter()
        .map(|(path, file)| (path.as_str(), file.bytes.as_slice()))
        .collect();
    assert_eq!(
        left,
        [
            (".gitignore", b"*.log\n".as_slice()),
            ("app/a.py", b"x = 1\r\n"),
            ("note.txt", b"It has app/a.py.\n"),
        ]
    );
}

#[tokio::test]
async fn what_was_uploaded_must_be_a_project() {
    let gateway = LocalGateway::default();
    let digest = gateway.keep(b"no archive".as_slice().into());
    let plan = RunPlan {
        source: Some(Source::Upload { digest }),
        ..plain()
    };
    let (flown, _) = flown(plan, filling(), gateway).await;
    let (reason, message) = failure(&flown);
    assert_eq!(reason, FailureReason::ProjectUnavailable);
    assert!(
        message.contains("it is no gzipped tar archive"),
        "{message}"
    );
}
