//! What is read of git's own packs, and what git says to packs and commits that are written here.

use bytes::Bytes;
use gix_hash::ObjectId;
use gix_object::Kind;
use sopwith_crds::contract::commits::{BaseCommit, Commits, StepCommit, bundle, join};
use sopwith_runner::{
    git::{
        Fault,
        history::{About, History, skeleton},
        object::Objects,
        pack::{self, Limits, PackError},
        source,
    },
    tree::Tree,
};

use crate::server::{File, Repositories, Repository};

const LIMITS: Limits = Limits {
    objects: 10_000,
    each: 1 << 20,
    total: 16 << 20,
};

/// All objects of a branch, as git packs them.
fn packed(repository: &Repository, options: &[&str]) -> Vec<u8> {
    let list = repository.git(&["rev-list", "--objects", "--all"]);
    let mut args = vec!["pack-objects", "--stdout", "--quiet"];
    args.extend(options);
    let pack = raw(repository, &args, list.as_bytes());
    assert!(pack.starts_with(b"PACK"));
    pack
}

fn raw(repository: &Repository, args: &[&str], input: &[u8]) -> Vec<u8> {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };
    let mut git = Command::new("git")
        .args(args)
        .current_dir(&repository.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(input).unwrap();
    let done = git.wait_with_output().unwrap();
    assert!(done.status.success());
    done.stdout
}

fn id(text: &str) -> ObjectId {
    ObjectId::from_hex(text.as_bytes()).unwrap()
}

/// Versions of a long file: git packs them as deltas of each other.
fn versions(repositories: &Repositories, many: u32) -> (Repository, String) {
    let repository = repositories.add("game.git");
    let mut head = String::new();
    for version in 0..many {
        let lines =
            (0..60 * many).map(|n| format!("line {n} of {}\n", n.wrapping_mul(2_654_435_761)));
        let mut text = lines.collect::<Vec<_>>().concat();
        text.insert_str(
            usize::try_from(version * 97).unwrap(),
            &format!("version {version}\n"),
        );
        let files: Vec<File<'_>> = vec![
            ("src/long.txt", "100644", text.as_bytes()),
            ("run.sh", "100755", b"#!/bin/sh\n"),
        ];
        head = repository.commit("main", &files);
    }
    repository.git(&["tag", "-a", "-m", "a tag", "v1", &head]);
    (repository, head)
}

#[test]
fn packs_of_git_with_deltas_of_both_kinds_are_read_whole() {
    let repositories = Repositories::new();
    let (repository, head) = versions(&repositories, 30);
    let count = repository
        .git(&["rev-list", "--objects", "--all"])
        .lines()
        .count();
    let by_offset = packed(&repository, &["--delta-base-offset", "--depth=50"]);
    let by_id = packed(&repository, &["--depth=50"]);
    let plain = packed(&repository, &["--depth=0"]);
    assert!(
        by_id.len() * 3 < plain.len(),
        "{} {}: there are deltas",
        by_id.len(),
        plain.len()
    );
    let objects = pack::read(&plain, LIMITS).unwrap();
    assert_eq!(objects.len(), count);
    assert_eq!(pack::read(&by_offset, LIMITS).unwrap(), objects);
    assert_eq!(pack::read(&by_id, LIMITS).unwrap(), objects);
    for (id, object) in objects.iter() {
        let kind = object.kind.to_string();
        assert_eq!(
            raw(&repository, &["cat-file", &kind, &id.to_string()], b""),
            object.bytes,
            "{id}"
        );
    }
    // By way of the tag.
    let tag = id(&repository.git(&["rev-parse", "refs/tags/v1"]));
    assert_eq!(source::commit(&objects, tag).unwrap().0, id(&head));
}

#[test]
fn deltas_that_come_before_their_base_are_read() {
    let repositories = Repositories::new();
    let (repository, _) = versions(&repositories, 12);
    let by_id = packed(&repository, &["--depth=50"]);
    let whole = pack::read(&by_id, LIMITS).unwrap();
    // The entries in the opposite order, by the offsets that git's index of the pack has.
    let stem = repository.path.join("reversed");
    std::fs::write(stem.with_extension("pack"), &by_id).unwrap();
    let path = stem.with_extension("pack").display().to_string();
    repository.git(&["index-pack", &path]);
    let listed = repository.git(&["verify-pack", "-v", &path]);
    let mut offsets: Vec<usize> = listed
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let known = ["commit", "tree", "blob", "tag"].contains(words.get(1)?);
            known.then(|| words[4].parse().unwrap())
        })
        .collect();
    offsets.sort_unstable();
    let end = by_id.len() - 20;
    let mut reversed = by_id[..12].to_vec();
    for (index, offset) in offsets.iter().enumerate().rev() {
        let next = offsets.get(index + 1).copied().unwrap_or(end);
        reversed.extend_from_slice(&by_id[*offset..next]);
    }
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    hasher.update(&reversed);
    reversed.extend_from_slice(hasher.try_finalize().unwrap().as_bytes());
    assert_eq!(pack::read(&reversed, LIMITS).unwrap(), whole);
}

#[test]
fn a_damaged_or_oversized_pack_is_refused_wherever_it_is_damaged() {
    let repositories = Repositories::new();
    let (repository, _) = versions(&repositories, 8);
    let pack = packed(&repository, &["--delta-base-offset"]);
    let objects = pack::read(&pack, LIMITS).unwrap();
    for end in [0, 11, 31, 32, pack.len() / 2, pack.len() - 1] {
        let error = pack::read(&pack[..end], LIMITS).unwrap_err();
        assert!(matches!(error, PackError::Damaged(_)), "{end}: {error}");
    }
    // With a checksum that is right again, so that the reading itself is tried.
    for at in (12..pack.len() - 20).step_by(131) {
        let mut bad = pack[..pack.len() - 20].to_vec();
        bad[at] ^= 0x55;
        let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
        hasher.update(&bad);
        bad.extend_from_slice(hasher.try_finalize().unwrap().as_bytes());
        if let Ok(other) = pack::read(&bad, LIMITS) {
            assert_ne!(other, objects, "a changed byte at {at} changes nothing");
        }
    }
    let tight = |limits: Limits, word: &str| {
        let error = pack::read(&pack, limits)
            .map(|objects| objects.len())
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    };
    tight(
        Limits {
            objects: 5,
            ..LIMITS
        },
        "5 are the most of a project",
    );
    tight(
        Limits {
            each: 1000,
            ..LIMITS
        },
        "1000 are the most of a file",
    );
    tight(
        Limits {
            total: 50_000,
            ..LIMITS
        },
        "more than 50000 bytes together",
    );
}

#[test]
fn only_regular_files_become_a_project_and_the_rest_is_named() {
    let repositories = Repositories::new();
    let repository = repositories.add("game.git");
    let other = "a".repeat(40);
    let files: Vec<File<'_>> = vec![
        ("README.md", "100644", b"hello\n"),
        ("bin/run", "100755", b"#!/bin/sh\n"),
        ("link", "120000", b"/etc/passwd"),
        ("vendor/lib", "160000", other.as_bytes()),
        ("odd\tname", "100644", b"x"),
        ("a/b/c/deep.txt", "100644", b"\0binary\xff"),
    ];
    // The list of an index cannot have a tab in a name.
    let files: Vec<File<'_>> = files
        .into_iter()
        .filter(|(path, ..)| !path.contains('\t'))
        .collect();
    let head = repository.commit("main", &files);
    let objects = pack::read(&packed(&repository, &[]), LIMITS).unwrap();
    let (_, root) = source::commit(&objects, id(&head)).unwrap();
    let listing = source::list(&objects, root).unwrap();
    let tree = listing.read(&objects).unwrap();
    let found: Vec<(&str, bool)> = tree
        .iter()
        .map(|(path, file)| (path, file.executable))
        .collect();
    assert_eq!(
        found,
        [
            ("README.md", false),
            ("a/b/c/deep.txt", false),
            ("bin/run", true)
        ]
    );
    assert_eq!(
        source::left_out(&listing.kept),
        "link (symbolic link), vendor/lib (submodule)"
    );
}

#[test]
fn a_tree_that_git_would_not_make_is_refused() {
    let repositories = Repositories::new();
    let repository = repositories.add("game.git");
    let blob = repository.git_with(&["hash-object", "-w", "--stdin"], b"x");
    let raw_id: Vec<u8> = (0..20)
        .map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let entry = |name: &[u8]| [b"100644 ", name, b"\0", &raw_id].concat();
    let tree = |names: &[&[u8]]| -> Vec<u8> { names.iter().flat_map(|name| entry(name)).collect() };
    let read = |bytes: Vec<u8>| {
        let mut objects = Objects::default();
        let id = sopwith_runner::git::object::id_of(Kind::Tree, &bytes).unwrap();
        let bytes = Bytes::from(bytes);
        objects.insert(
            id,
            sopwith_runner::git::object::Object {
                kind: Kind::Tree,
                bytes,
            },
        );
        source::list(&objects, id)
    };
    assert_eq!(read(tree(&[b"a", b"b"])).unwrap().files.len(), 2);
    for bad in [
        &[&b"b"[..], b"a"][..],
        &[b"a", b"a"],
        &[b"a/b"],
        &[b""],
        &[b"../x"],
    ] {
        assert!(
            matches!(read(tree(bad)), Err(Fault::Protocol(_))),
            "{bad:?}"
        );
    }
    // Names that a project cannot have stay in the repository.
    let kept = read(tree(&[b"..", b".git", b"\xff"])).unwrap();
    assert_eq!((kept.files.len(), kept.kept.len()), (0, 3));
}

#[test]
fn trees_that_name_each_other_too_often_are_given_up() {
    let mut objects = Objects::default();
    let mut below: Option<ObjectId> = None;
    // Thirty folders of thirty names each: 30^30 files, and the same few bytes.
    for _ in 0..30 {
        let mut bytes = Vec::new();
        for name in 10..40 {
            match below {
                Some(id) => {
                    bytes.extend([format!("40000 {name}\0").as_bytes(), id.as_bytes()].concat());
                }
                None => bytes.extend([format!("100644 {name}\0").as_bytes(), &[7; 20]].concat()),
            }
        }
        let id = sopwith_runner::git::object::id_of(Kind::Tree, &bytes).unwrap();
        let bytes = Bytes::from(bytes);
        objects.insert(
            id,
            sopwith_runner::git::object::Object {
                kind: Kind::Tree,
                bytes,
            },
        );
        below = Some(id);
    }
    assert!(matches!(
        source::list(&objects, below.unwrap()),
        Err(Fault::TooMuch(_))
    ));
}

fn about(step: &str) -> About {
    About {
        role: "Lead Engineer <x>".into(),
        seconds: 1_700_000_100,
        subject: format!("{step}: wrote\nthings"),
        trailers: vec![
            ("Sopwith-Run", "team/game".into()),
            ("Sopwith-Step", step.into()),
        ],
    }
}

fn written(tree: &mut Tree, path: &str, text: &[u8]) {
    tree.write(path, Bytes::copy_from_slice(text), false)
        .unwrap();
}

#[test]
fn commits_keep_what_nobody_touched_and_git_finds_nothing_wrong_with_them() {
    let repositories = Repositories::new();
    let repository = repositories.add("game.git");
    let other = "a".repeat(40);
    let head = repository.commit(
        "main",
        &[
            ("README.md", "100644", b"hello\n"),
            ("bin/run", "100755", b"#!/bin/sh\n"),
            ("docs/link", "120000", b"../README.md"),
            ("docs/a.md", "100644", b"a\n"),
            ("old/only.txt", "100644", b"gone\n"),
            ("vendor/lib", "160000", other.as_bytes()),
        ],
    );
    let objects = pack::read(&packed(&repository, &[]), LIMITS).unwrap();
    let (_, root) = source::commit(&objects, id(&head)).unwrap();
    let mut tree = source::list(&objects, root)
        .unwrap()
        .read(&objects)
        .unwrap();
    // As after a resume: only commit and folders are at hand.
    let bones = pack::read(
        &pack::write(&skeleton(&objects, id(&head)).unwrap()),
        LIMITS,
    )
    .unwrap();
    assert!(bones.iter().all(|(_, object)| object.kind != Kind::Blob));
    let mut history = History::at(&bones, id(&head)).unwrap();
    assert_eq!(
        history.commit(&tree, &about("none")).unwrap(),
        None,
        "nothing changed"
    );

    written(&mut tree, "docs/a.md", b"changed\n");
    written(&mut tree, "src/new/game.py", b"print()\n");
    tree.remove("old/only.txt");
    let first = history.commit(&tree, &about("write")).unwrap().unwrap();
    written(&mut tree, "old", b"a file where a folder was\n");
    tree.write("bin/run", Bytes::from_static(b"#!/bin/sh\n"), false)
        .unwrap();
    let second = history.commit(&tree, &about("polish")).unwrap().unwrap();
    assert_eq!(history.head(), Some(second.id));

    let packs = [pack::write(&first.objects), pack::write(&second.objects)];
    let joined = join(&packs).unwrap();
    repository.git_with(&["index-pack", "--stdin", "--strict"], &joined);
    repository.git(&["update-ref", "refs/heads/sopwith", &second.id.to_string()]);
    assert_eq!(repository.fsck(), "");
    let log = repository.git(&[
        "log",
        "--reverse",
        "--format=%H|%P|%an|%ae|%cn|%aI|%s|%(trailers:only,unfold,separator=%x2C)",
        "main..sopwith",
    ]);
    let expected = format!(
        "{first}|{head}|Lead Engineer x|lead-engineer--x-@sopwith.invalid|sopwith|2023-11-14T22:15:00+00:00|write: wrote things|Sopwith-Run: team/game,Sopwith-Step: write\n\
         {second}|{first}|Lead Engineer x|lead-engineer--x-@sopwith.invalid|sopwith|2023-11-14T22:15:00+00:00|polish: wrote things|Sopwith-Run: team/game,Sopwith-Step: polish",
        first = first.id,
        second = second.id,
    );
    assert_eq!(log, expected);
    let changed = repository.git(&["diff-tree", "-r", "--name-status", "main", "sopwith"]);
    assert_eq!(
        changed,
        "M\tbin/run\nM\tdocs/a.md\nA\told\nD\told/only.txt\nA\tsrc/new/game.py"
    );
    let kept = repository.git(&["ls-tree", "sopwith", "docs/link", "vendor/lib", "README.md"]);
    assert_eq!(
        kept,
        repository.git(&["ls-tree", "main", "docs/link", "vendor/lib", "README.md"])
    );
}

#[test]
fn a_mode_that_git_no_longer_writes_stays_as_it_is() {
    let repositories = Repositories::new();
    let repository = repositories.add("game.git");
    let blob = repository.git_with(&["hash-object", "-w", "--stdin"], b"x");
    let raw_id: Vec<u8> = (0..20)
        .map(|n| u8::from_str_radix(&blob[2 * n..2 * n + 2], 16).unwrap())
        .collect();
    let bytes = [b"100664 a\0", &raw_id[..], b"100644 b\0", &raw_id[..]].concat();
    let tree_id = repository.git_with(
        &["hash-object", "-w", "-t", "tree", "--stdin", "--literally"],
        &bytes,
    );
    let head = repository.git(&["commit-tree", "-m", "old", &tree_id]);
    repository.git(&["update-ref", "refs/heads/main", &head]);
    let objects = pack::read(&packed(&repository, &[]), LIMITS).unwrap();
    let mut history = History::at(&objects, id(&head)).unwrap();
    let mut tree = source::list(&objects, id(&tree_id))
        .unwrap()
        .read(&objects)
        .unwrap();
    written(&mut tree, "b", b"y");
    let made = history.commit(&tree, &about("write")).unwrap().unwrap();
    repository.git_with(&["unpack-objects", "-q"], &pack::write(&made.objects));
    let tree = raw(
        &repository,
        &["cat-file", "tree", &format!("{}^{{tree}}", made.id)],
        b"",
    );
    assert!(tree.starts_with(b"100664 a\0"), "{tree:?}");
}

#[test]
fn a_commit_has_the_same_id_each_time_it_is_built() {
    let build = || {
        let mut history = History::new();
        let mut tree = Tree::default();
        written(&mut tree, "a/b", b"x");
        history.commit(&tree, &about("write")).unwrap().unwrap()
    };
    assert_eq!(build(), build());
}

#[test]
fn a_link_or_submodule_is_never_replaced() {
    let repositories = Repositories::new();
    let repository = repositories.add("game.git");
    let other = "a".repeat(40);
    let head = repository.commit(
        "main",
        &[
            ("docs/link", "120000", b"x"),
            ("lib", "160000", other.as_bytes()),
            ("a", "100644", b"a"),
        ],
    );
    let objects = pack::read(&packed(&repository, &[]), LIMITS).unwrap();
    let mut history = History::at(&objects, id(&head)).unwrap();
    let kept: Vec<&str> = history
        .kept()
        .iter()
        .map(|kept| kept.path.as_str())
        .collect();
    assert_eq!(kept, ["docs/link", "lib"]);
    let mut tree = Tree::default();
    written(&mut tree, "a", b"a");
    written(&mut tree, "lib/x.py", b"x");
    let fault = history
        .commit(&tree, &about("write"))
        .unwrap_err()
        .to_string();
    assert!(fault.contains("lib (submodule)"), "{fault}");
}

#[test]
fn a_bundle_is_cloned_and_fetched_by_git() {
    let repositories = Repositories::new();
    let mut history = History::new();
    let mut tree = Tree::default();
    written(&mut tree, "game.py", b"print(1)\n");
    let first = history.commit(&tree, &about("write")).unwrap().unwrap();
    written(&mut tree, "game.py", b"print(2)\n");
    let second = history.commit(&tree, &about("polish")).unwrap().unwrap();
    let digest = sopwith_crds::contract::Digest::of("");
    let step = |made: &sopwith_runner::git::history::Made| StepCommit {
        id: made.id.to_string(),
        step: "s".into(),
        attempt: 1,
        pack: digest.clone(),
    };
    let mut commits = Commits {
        made: vec![step(&first), step(&second)],
        ..Commits::default()
    };
    let packs = [pack::write(&first.objects), pack::write(&second.objects)];
    let path = repositories.root().join("run.bundle");
    std::fs::write(&path, bundle(&commits, "game", &packs).unwrap().unwrap()).unwrap();
    let from = path.display().to_string();
    let home = Repository {
        path: repositories.root().to_owned(),
    };
    home.git(&["clone", "--quiet", &from, "clone"]);
    let clone = Repository {
        path: repositories.root().join("clone"),
    };
    assert_eq!(
        clone.git(&["log", "--format=%H"]),
        format!("{}\n{}", second.id, first.id)
    );
    assert_eq!(
        std::fs::read_to_string(clone.path.join("game.py")).unwrap(),
        "print(2)\n"
    );

    // On top of a commit that the reader has.
    commits.base = Some(BaseCommit {
        id: first.id.to_string(),
        skeleton: digest.clone(),
    });
    commits.made.remove(0);
    std::fs::write(
        &path,
        bundle(&commits, "game", &packs[1..]).unwrap().unwrap(),
    )
    .unwrap();
    let there = repositories.add("there.git");
    there.git_with(&["unpack-objects", "-q"], &packs[0]);
    there.git(&["update-ref", "refs/heads/main", &first.id.to_string()]);
    there.git(&["fetch", "--quiet", &from, "sopwith/game:sopwith/game"]);
    assert_eq!(there.head("sopwith/game"), Some(second.id.to_string()));
    assert_eq!(
        bundle::<Vec<u8>>(&Commits::default(), "game", &[]).unwrap(),
        None
    );
    assert!(bundle(&commits, "game", &[b"PACK"]).is_err());
}
