//! Fetching and pushing over https and ssh.

use std::path::Path;

use gix_hash::ObjectId;
use sopwith_crds::{agent_run::KeyRef, contract::plan::Repository as Plan};
use sopwith_runner::{
    git::{
        Fault,
        history::{About, History, Made},
        pack,
        remote::{Pushed, Remote},
        source,
    },
    llm::transport::Places,
};

use crate::server::{Https, PASSWORD, Repositories, Repository, Ssh, Trick, USER, generated};

/// A folder with the Secret `repo` and the ConfigMap `trust`.
struct Mounts(tempfile::TempDir);

impl Mounts {
    fn new(secret: &[(&str, &str)], authority: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["repo", "trust"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mounts = Self(folder);
        for (key, text) in secret {
            mounts.set(key, text);
        }
        std::fs::write(mounts.0.path().join("trust/ca.crt"), authority).unwrap();
        mounts
    }

    fn set(&self, key: &str, text: &str) {
        std::fs::write(self.0.path().join("repo").join(key), text).unwrap();
    }

    fn places(&self) -> Places {
        Places {
            secrets: self.0.path().into(),
            config: self.0.path().into(),
        }
    }

    fn remote(&self, plan: &Plan) -> Remote {
        Remote::new(plan, &self.places())
    }
}

fn plan(url: &str, reference: Option<&str>) -> Plan {
    let ca_ref = url.starts_with("https").then(|| KeyRef {
        name: "trust".into(),
        key: "ca.crt".into(),
    });
    Plan {
        url: url.parse().unwrap(),
        reference: reference.map(str::to_owned),
        secret: Some("repo".into()),
        ca_ref,
        deliver: None,
    }
}

fn over_https(server: &Https) -> Mounts {
    Mounts::new(
        &[("username", USER), ("password", PASSWORD)],
        &server.authority,
    )
}

fn over_ssh(server: &Ssh) -> Mounts {
    Mounts::new(
        &[
            ("ssh-privatekey", &server.key),
            ("known_hosts", &server.known_hosts),
        ],
        "",
    )
}

/// A repository with two commits on main, a branch, and tags.
fn game(repositories: &Repositories) -> (Repository, String) {
    let game = repositories.add("team/game.git");
    game.commit("main", &[("README.md", "100644", b"old\n")]);
    let head = game.commit(
        "main",
        &[
            ("README.md", "100644", b"new\n"),
            ("bin/run", "100755", b"#!/bin/sh\n"),
        ],
    );
    game.commit("feature/x", &[("x.txt", "100644", b"x\n")]);
    game.git(&["tag", "-a", "-m", "a tag", "v1", "main~1"]);
    (game, head)
}

/// What is at a reference: the commit, and its files.
async fn fetched(remote: &Remote) -> Result<(String, Vec<String>), Fault> {
    let Some(fetched) = remote.fetch().await? else {
        return Ok(("none".into(), Vec::new()));
    };
    let (_, root) = source::commit(&fetched.objects, fetched.commit)?;
    let files = source::list(&fetched.objects, root)?.files;
    Ok((
        fetched.commit.to_string(),
        files.into_iter().map(|file| file.path).collect(),
    ))
}

async fn references_are_found(url: &str, mounts: &Mounts, game: &Repository) {
    let old = game.git(&["rev-parse", "main~1"]);
    let (main, x) = (game.head("main").unwrap(), game.head("feature/x").unwrap());
    let table: [(Option<&str>, &str, &[&str]); 7] = [
        (None, &main, &["README.md", "bin/run"]),
        (Some("main"), &main, &["README.md", "bin/run"]),
        (Some("refs/heads/main"), &main, &["README.md", "bin/run"]),
        (Some("feature/x"), &x, &["x.txt"]),
        (Some("v1"), &old, &["README.md"]),
        (Some("refs/tags/v1"), &old, &["README.md"]),
        (Some(&main), &main, &["README.md", "bin/run"]),
    ];
    for (reference, commit, files) in table {
        let found = fetched(&mounts.remote(&plan(url, reference)))
            .await
            .unwrap();
        assert_eq!(
            (found.0.as_str(), found.1),
            (commit, files.iter().map(ToString::to_string).collect()),
            "{reference:?}"
        );
    }
    let missing = |reference: &str| mounts.remote(&plan(url, Some(reference)));
    let fault = missing("release").fetch().await.unwrap_err();
    assert_eq!(
        fault,
        Fault::Missing(
            "there is no branch or tag \"release\"; it has the branches feature/x, main".into()
        )
    );
    let fault = missing(&old).fetch().await.unwrap_err().to_string();
    assert!(fault.contains("the server gives no others"), "{fault}");
    game.git(&["config", "uploadpack.allowReachableSHA1InWant", "true"]);
    assert_eq!(fetched(&missing(&old)).await.unwrap().0, old);
    game.git(&["branch", "v1", "main"]);
    let fault = missing("v1").fetch().await.unwrap_err().to_string();
    assert!(
        fault.contains("write refs/heads/v1 or refs/tags/v1"),
        "{fault}"
    );
}

#[tokio::test]
async fn branches_tags_and_commits_are_fetched_over_https() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    references_are_found(&format!("{}/team/game.git", server.url), &mounts, &game).await;
}

#[tokio::test]
async fn branches_tags_and_commits_are_fetched_over_ssh() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Ssh::serve(&repositories).await;
    let mounts = over_ssh(&server);
    references_are_found(&format!("{}/team/game.git", server.url), &mounts, &game).await;
}

#[tokio::test]
async fn only_the_commit_itself_is_fetched_without_its_history() {
    let repositories = Repositories::new();
    let (game, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    let remote = mounts.remote(&plan(&format!("{}/team/game.git", server.url), None));
    let fetched = remote.fetch().await.unwrap().unwrap();
    let old = ObjectId::from_hex(game.git(&["rev-parse", "main~1"]).as_bytes()).unwrap();
    assert_eq!(fetched.commit.to_string(), head);
    assert!(fetched.objects.get(&old).is_none());
    assert_eq!(
        (fetched.branch.as_deref(), fetched.objects.len()),
        (Some("main"), 5)
    );
}

#[tokio::test]
async fn an_empty_repository_has_nothing() {
    let repositories = Repositories::new();
    repositories.add("empty.git");
    let https = Https::serve(&repositories).await;
    let ssh = Ssh::serve(&repositories).await;
    for (url, mounts) in [(&https.url, over_https(&https)), (&ssh.url, over_ssh(&ssh))] {
        let remote = mounts.remote(&plan(&format!("{url}/empty.git"), None));
        assert!(remote.fetch().await.unwrap().is_none());
        let remote = mounts.remote(&plan(&format!("{url}/empty.git"), Some("main")));
        let fault = remote.fetch().await.unwrap_err().to_string();
        assert_eq!(
            fault,
            "there is no branch or tag \"main\"; it has no branches"
        );
    }
}

/// Two commits on top of what a remote has.
async fn made(remote: &Remote) -> (Option<ObjectId>, [Made; 2]) {
    let fetched = remote.fetch().await.unwrap();
    let (mut history, mut tree, base) = match &fetched {
        None => (History::new(), sopwith_runner::tree::Tree::default(), None),
        Some(fetched) => {
            let (_, root) = source::commit(&fetched.objects, fetched.commit).unwrap();
            let tree = source::list(&fetched.objects, root)
                .unwrap()
                .read(&fetched.objects)
                .unwrap();
            (
                History::at(&fetched.objects, fetched.commit).unwrap(),
                tree,
                Some(fetched.commit),
            )
        }
    };
    let mut step = |name: &str| {
        tree.write(&format!("src/{name}.py"), name.to_owned().into(), false)
            .unwrap();
        let about = About {
            role: "Engineer".into(),
            subject: name.to_owned(),
            seconds: 1_700_000_000,
            trailers: Vec::new(),
        };
        history.commit(&tree, &about).unwrap().unwrap()
    };
    (base, [step("one"), step("two")])
}

async fn pushed(
    remote: &Remote,
    branch: &str,
    base: Option<ObjectId>,
    made: &[Made],
) -> Result<Pushed, Fault> {
    let ids: Vec<ObjectId> = made.iter().map(|made| made.id).collect();
    let packs: Vec<Vec<u8>> = made.iter().map(|made| pack::write(&made.objects)).collect();
    let join = |first: usize| Ok(sopwith_crds::contract::commits::join(&packs[first..]).unwrap());
    remote.push(branch, base, &ids, join).await
}

async fn a_branch_receives_commits(url: &str, mounts: &Mounts, game: &Repository) {
    let remote = mounts.remote(&plan(&format!("{url}/team/game.git"), Some("main")));
    let before = game.head("main");
    let (base, commits) = made(&remote).await;
    // As if the launch had been killed after a part: the rest follows.
    assert_eq!(
        pushed(&remote, "sopwith/a", base, &commits[..1]).await,
        Ok(Pushed::Moved)
    );
    assert_eq!(
        pushed(&remote, "sopwith/a", base, &commits).await,
        Ok(Pushed::Moved)
    );
    assert_eq!(
        pushed(&remote, "sopwith/a", base, &commits).await,
        Ok(Pushed::There)
    );
    assert_eq!(game.head("sopwith/a"), Some(commits[1].id.to_string()));
    assert_eq!(game.git(&["rev-list", "--count", "main..sopwith/a"]), "2");
    assert_eq!(
        game.git(&["diff-tree", "-r", "--name-only", "main", "sopwith/a"]),
        "src/one.py\nsrc/two.py"
    );
    assert_eq!(game.fsck(), "");
    assert_eq!(game.head("main"), before);
    // A branch that is at the commit of the source moves on.
    game.git(&["branch", "sopwith/b", "main"]);
    assert_eq!(
        pushed(&remote, "sopwith/b", base, &commits).await,
        Ok(Pushed::Moved)
    );
    // One that somebody else wrote to stays as it is.
    let other = game.commit("sopwith/c", &[("other.txt", "100644", b"other\n")]);
    let fault = pushed(&remote, "sopwith/c", base, &commits)
        .await
        .unwrap_err();
    assert!(
        matches!(&fault, Fault::Refused(why) if why.contains(&other)),
        "{fault}"
    );
    assert_eq!(game.head("sopwith/c"), Some(other));
    // What a hook says is why.
    let hook = game.path.join("hooks/pre-receive");
    std::fs::write(
        &hook,
        "#!/bin/sh\necho no $(cat | cut -d' ' -f3) on Fridays >&2\nexit 1\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("/bin/true", game.path.join("hooks/post-receive")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, mode).unwrap();
    let fault = pushed(&remote, "sopwith/d", base, &commits)
        .await
        .unwrap_err();
    let said = "pre-receive hook declined; it says: no refs/heads/sopwith/d on Fridays";
    assert_eq!(fault, Fault::Refused(said.into()));
    assert_eq!(game.head("sopwith/d"), None);
}

#[tokio::test]
async fn a_branch_receives_commits_over_https_and_is_never_forced() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Https::serve(&repositories).await;
    a_branch_receives_commits(&server.url, &over_https(&server), &game).await;
}

#[tokio::test]
async fn a_branch_receives_commits_over_ssh_and_is_never_forced() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Ssh::serve(&repositories).await;
    a_branch_receives_commits(&server.url, &over_ssh(&server), &game).await;
}

#[tokio::test]
async fn an_empty_repository_receives_its_first_commits() {
    let repositories = Repositories::new();
    let empty = repositories.add("empty.git");
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    let remote = mounts.remote(&plan(&format!("{}/empty.git", server.url), None));
    let (base, commits) = made(&remote).await;
    assert_eq!(
        (base, pushed(&remote, "main", base, &commits).await),
        (None, Ok(Pushed::Moved))
    );
    assert_eq!(empty.git(&["log", "--format=%s", "main"]), "two\none");
}

#[tokio::test]
async fn a_push_that_nobody_heard_the_end_of_is_repeated_without_harm() {
    let repositories = Repositories::new();
    let (game, _) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    let remote = mounts.remote(&plan(&format!("{}/team/game.git", server.url), None));
    let (base, commits) = made(&remote).await;
    server.play("POST /team/game.git/git-receive-pack", Trick::Silent);
    assert_eq!(
        pushed(&remote, "sopwith/a", base, &commits).await,
        Ok(Pushed::There)
    );
    assert_eq!(game.head("sopwith/a"), Some(commits[1].id.to_string()));
}

#[tokio::test]
async fn a_server_that_is_ill_for_a_moment_is_asked_again() {
    let repositories = Repositories::new();
    let (_, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    let remote = mounts.remote(&plan(&format!("{}/team/game.git", server.url), None));
    server.play("GET", Trick::Status(503, String::new()));
    server.play("GET", Trick::Cut(200));
    server.play("POST", Trick::Cut(300));
    server.play("POST", Trick::Status(429, String::new()));
    assert_eq!(fetched(&remote).await.unwrap().0, head);
    assert!(server.calls().len() >= 6, "{:?}", server.calls());
}

#[tokio::test]
async fn what_a_web_server_refuses_is_told_with_a_remedy() {
    let repositories = Repositories::new();
    game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    let fetch = async |path: &str| {
        let remote = mounts.remote(&plan(&format!("{}/{path}", server.url), None));
        let fault = remote.fetch().await.unwrap_err().to_string();
        assert!(!fault.contains(PASSWORD), "{fault}");
        fault
    };
    let refused = fetch("team/none.git").await;
    assert!(
        refused.contains("there is no such repository") && refused.contains("HTTP 404"),
        "{refused}"
    );
    let table = [
        (403, String::new(), "may not read the repository (HTTP 403)"),
        (
            302,
            format!(
                "location: {}/moved.git/info/refs?service=git-upload-pack\r\n",
                server.url
            ),
            "/moved.git\" as the url, if it is right",
        ),
        (
            200,
            "content-type: text/html\r\n".to_owned(),
            "answers with content of type \"text/html\"",
        ),
        (
            200,
            "content-type: application/x-git-upload-pack-advertisement\r\n\r\n<html>".to_owned(),
            "not the protocol of Git",
        ),
        (418, String::new(), "the server refused: HTTP 418"),
    ];
    for (status, head, expected) in table {
        server.play("GET", Trick::Status(status, head));
        let said = fetch("team/game.git").await;
        assert!(said.contains(expected), "{said}");
    }
    mounts.set("password", "wrong");
    let said = fetch("team/game.git").await;
    assert!(
        said.contains("does not take the credential of the policy's Secret (HTTP 401)"),
        "{said}"
    );
    let anonymous = Plan {
        secret: None,
        ..plan(&format!("{}/team/game.git", server.url), None)
    };
    let said = mounts
        .remote(&anonymous)
        .fetch()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("asks for a credential (HTTP 401); name a Secret"),
        "{said}"
    );
}

#[tokio::test]
async fn a_token_and_a_password_without_a_user_are_sent_as_the_secret_has_them() {
    let repositories = Repositories::new();
    let (_, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = Mounts::new(&[("token", PASSWORD)], &server.authority);
    let remote = mounts.remote(&plan(&format!("{}/team/game.git", server.url), None));
    assert_eq!(fetched(&remote).await.unwrap().0, head);
    // The same way, once its Secret was renewed.
    mounts.set("token", "old");
    assert!(matches!(remote.fetch().await, Err(Fault::Credential(_))));
    mounts.set("token", PASSWORD);
    assert_eq!(fetched(&remote).await.unwrap().0, head);
}

#[tokio::test]
async fn a_certificate_is_checked_against_the_policys_authorities() {
    let repositories = Repositories::new();
    let (_, head) = game(&repositories);
    let server = Https::serve(&repositories).await;
    let mounts = over_https(&server);
    let url = format!("{}/team/game.git", server.url);
    assert_eq!(
        fetched(&mounts.remote(&plan(&url, None))).await.unwrap().0,
        head
    );
    std::fs::remove_file(mounts.0.path().join("trust/ca.crt")).unwrap();
    let said = mounts
        .remote(&plan(&url, None))
        .fetch()
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("caRef trust/ca.crt"), "{said}");
    let other = Https::serve(&repositories).await;
    std::fs::write(mounts.0.path().join("trust/ca.crt"), &other.authority).unwrap();
    let said = mounts
        .remote(&plan(&url, None))
        .fetch()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("the certificate of the server is not trusted"),
        "{said}"
    );
    assert_eq!(
        server.calls().len(),
        2,
        "nothing more was asked: {:?}",
        server.calls()
    );
}

#[tokio::test]
async fn a_host_that_is_not_known_is_not_spoken_to() {
    let repositories = Repositories::new();
    let (_, head) = game(&repositories);
    let server = Ssh::serve(&repositories).await;
    let url = format!("{}/team/game.git", server.url);
    let mounts = over_ssh(&server);
    let remote = mounts.remote(&plan(&url, None));
    let said = async |known: &str| {
        mounts.set("known_hosts", known);
        match fetched(&remote).await {
            Ok((commit, _)) => commit,
            Err(fault) => {
                assert!(matches!(fault, Fault::Credential(_)), "{fault}");
                fault.to_string()
            }
        }
    };
    let host = server.known_hosts.split(' ').next().unwrap();
    let (_, foreign) = generated(mounts.0.path(), "foreign");
    let foreign = format!("{host} {foreign}\n");
    let found = said(&foreign).await;
    assert!(
        found.contains("somebody else may answer in its place") && found.contains("SHA256:"),
        "{found}"
    );
    let found = said(&server.known_hosts.replace(host, "elsewhere")).await;
    assert!(
        found.contains("has no line for [127.0.0.1]:") && found.contains("ssh-keyscan -p"),
        "{found}"
    );
    let found = said(&format!("@revoked {}", server.known_hosts)).await;
    assert!(found.contains("line with a marker"), "{found}");
    assert_eq!(
        said(&format!(
            "# comment\n{}{}",
            foreign.replace(host, "other"),
            server.known_hosts
        ))
        .await,
        head
    );
    let path = mounts.0.path().join("repo/known_hosts");
    std::fs::write(&path, &server.known_hosts).unwrap();
    hash_names(&path);
    assert_eq!(said(&std::fs::read_to_string(&path).unwrap()).await, head);
    std::fs::remove_file(&path).unwrap();
    let fault = remote.fetch().await.unwrap_err().to_string();
    assert!(
        fault.contains("has no key known_hosts; ssh needs"),
        "{fault}"
    );
}

/// As `ssh-keygen -H` leaves a file: without the names of hosts.
fn hash_names(path: &Path) {
    let done = std::process::Command::new("ssh-keygen")
        .arg("-H")
        .arg("-f")
        .arg(path)
        .output()
        .unwrap();
    assert!(done.status.success());
    assert!(std::fs::read_to_string(path).unwrap().starts_with("|1|"));
}

#[tokio::test]
async fn what_an_ssh_server_refuses_is_told_with_a_remedy() {
    let repositories = Repositories::new();
    game(&repositories);
    let server = Ssh::serve(&repositories).await;
    let mounts = over_ssh(&server);
    let fetch = async |path: &str| {
        let remote = mounts.remote(&plan(&format!("{}/{path}", server.url), None));
        remote.fetch().await.unwrap_err().to_string()
    };
    let said = fetch("team/none.git").await;
    assert!(
        said.contains("the server says:")
            && said.contains("does not appear to be a git repository"),
        "{said}"
    );
    let (foreign, _) = generated(mounts.0.path(), "foreign");
    mounts.set("ssh-privatekey", &foreign);
    let said = fetch("team/game.git").await;
    assert!(
        said.contains("does not take the key of the policy's Secret"),
        "{said}"
    );
    mounts.set("ssh-privatekey", "no key at all");
    let said = fetch("team/game.git").await;
    assert!(
        said.contains("ssh-privatekey of the policy's Secret is not of a supported form"),
        "{said}"
    );
    let locked = mounts.0.path().join("foreign");
    let done = std::process::Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "secret", "-f"])
        .arg(&locked)
        .output()
        .unwrap();
    assert!(done.status.success());
    mounts.set("ssh-privatekey", &std::fs::read_to_string(locked).unwrap());
    let said = fetch("team/game.git").await;
    assert!(
        said.contains("is encrypted; take a key without a passphrase"),
        "{said}"
    );
}
