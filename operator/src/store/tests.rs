//! Claims about the store, over a folder.

use super::{BatchKey, Put, RunMeta, S3Options, Store, StoreError};
use crate::leader::Leadership;
use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use object_store::path::Path;
use rstest::rstest;
use sopwith_crds::contract::{
    Digest, VERSION,
    memory::{Fact, Facts},
    report::{MAX_BLOB_BYTES, ReportBatch},
};
use sopwith_crds::memory::MAX_RUNS;
use tempfile::TempDir;

fn store() -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    (
        Store::open(url.as_str(), &S3Options::default()).unwrap(),
        folder,
    )
}

fn key(launch: u32, pod: &str, sequence: u64) -> BatchKey {
    BatchKey {
        run_uid: "run-1".into(),
        launch,
        pod_uid: pod.into(),
        sequence,
    }
}

fn batch(sequence: u64) -> Bytes {
    let batch = ReportBatch {
        version: VERSION,
        sequence,
        ..ReportBatch::default()
    };
    serde_json::to_vec(&batch).unwrap().into()
}

#[tokio::test]
async fn a_number_takes_one_batch_only() {
    let (store, _folder) = store();
    let put = async |bytes| store.put_batch(&key(1, "a", 1), bytes).await.unwrap();
    assert_eq!(put(batch(1)).await, Put::Stored);
    assert_eq!(put(batch(1)).await, Put::Already);
    assert_eq!(put(batch(2)).await, Put::Conflict);
    let kept = store.batches("run-1").await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].batch.sequence, 1);
}

#[tokio::test]
async fn batches_come_back_in_order_after_a_restart() {
    let (store, folder) = store();
    for (launch, pod, sequence) in [
        (2, "b", 1),
        (1, "a", 2),
        (1, "a", 1),
        (10, "c", 1),
        (1, "a", 10),
    ] {
        store
            .put_batch(&key(launch, pod, sequence), batch(sequence))
            .await
            .unwrap();
    }
    drop(store);
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    let again = Store::open(url.as_str(), &S3Options::default()).unwrap();
    let order: Vec<_> = again.batches("run-1").await.unwrap();
    let order: Vec<_> = order
        .iter()
        .map(|b| (b.launch, b.pod_uid.as_str(), b.batch.sequence))
        .collect();
    assert_eq!(
        order,
        [
            (1, "a", 1),
            (1, "a", 2),
            (1, "a", 10),
            (2, "b", 1),
            (10, "c", 1)
        ]
    );
    assert!(again.batches("run-2").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_blob_is_readable_only_under_the_digest_of_its_content() {
    let (store, _folder) = store();
    let content = Bytes::from_static(b"def main(): ...\n");
    let digest = Digest::of(&content);
    let other = Digest::of(b"something else");
    assert_eq!(store.has_blob("run-1", &digest).await.unwrap(), None);
    for _ in 0..2 {
        store
            .put_blob("run-1", &digest, content.clone())
            .await
            .unwrap();
    }
    assert_eq!(store.has_blob("run-1", &digest).await.unwrap(), Some(16));
    assert_eq!(
        store.get_blob("run-1", &digest).await.unwrap(),
        Some(content.clone())
    );
    assert_eq!(store.get_blob("run-2", &digest).await.unwrap(), None);

    let refused = store.put_blob("run-1", &other, content).await.unwrap_err();
    assert!(matches!(refused, StoreError::Digest { actual, .. } if actual == digest));
    assert_eq!(store.has_blob("run-1", &other).await.unwrap(), None);
}

#[tokio::test]
async fn an_empty_blob_can_be_kept() {
    let (store, _folder) = store();
    let digest = Digest::of([]);
    store
        .put_blob("run-1", &digest, Bytes::new())
        .await
        .unwrap();
    assert_eq!(
        store.get_blob("run-1", &digest).await.unwrap(),
        Some(Bytes::new())
    );
}

#[tokio::test]
async fn a_blob_that_is_too_large_is_refused_before_it_is_kept() {
    let (store, _folder) = store();
    let digest = Digest::of([]);
    let mut writer = store.blob_writer("run-1", &digest).unwrap();
    let piece = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..MAX_BLOB_BYTES / piece.len() {
        writer.write(piece.clone()).await.unwrap();
    }
    let refused = writer.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooLarge { .. }));
    writer.abort().await;
    assert_eq!(store.has_blob("run-1", &digest).await.unwrap(), None);
}

#[tokio::test]
async fn damage_is_noticed_and_named() {
    let (store, folder) = store();
    let content = Bytes::from_static(b"evidence");
    let digest = Digest::of(&content);
    store.put_blob("run-1", &digest, content).await.unwrap();
    let path = format!("runs/run-1/blobs/{}", digest.hex());
    std::fs::write(folder.path().join(&path), b"evidense").unwrap();
    let error = store.get_blob("run-1", &digest).await.unwrap_err();
    assert!(error.to_string().contains(&path), "{error}");
}

#[tokio::test]
async fn deleting_a_run_leaves_others_alone() {
    let (store, folder) = store();
    let digest = Digest::of(b"x");
    for uid in ["run-1", "run-2"] {
        let meta = RunMeta {
            uid: uid.into(),
            ..RunMeta::default()
        };
        store.put_meta(&meta).await.unwrap();
        store.put_meta(&meta).await.unwrap();
        store
            .put_blob(uid, &digest, Bytes::from_static(b"x"))
            .await
            .unwrap();
    }
    for _ in 0..2 {
        store.delete_run("run-1").await.unwrap();
    }
    assert_eq!(store.has_blob("run-1", &digest).await.unwrap(), None);
    assert_eq!(store.has_blob("run-2", &digest).await.unwrap(), Some(1));
    assert!(!folder.path().join("runs/run-1").exists());
}

#[tokio::test]
async fn a_store_that_writes_over_what_it_must_keep_is_found_out() {
    let (folder, _kept) = store();
    let memory = Store::in_memory();
    for store in [&folder, &memory] {
        // Also at the second start.
        for _ in 0..2 {
            store.ask().await.unwrap();
        }
    }
}

#[test]
fn an_answer_of_a_store_is_told_without_the_request_that_it_repeats() {
    let answer = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature does not match.</Message><AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId></Error>";
    let error = StoreError::Backend(object_store::Error::Generic {
        store: "S3",
        source: answer.into(),
    });
    assert_eq!(
        error.to_string(),
        "the artifact store failed: Generic S3 error: Server returned non-2xx status code: 403 Forbidden: SignatureDoesNotMatch: The request signature does not match."
    );
}

#[tokio::test]
async fn an_object_is_written_over_the_version_that_is_known_only() {
    let store = Store::in_memory();
    let path = Path::from("entry");
    let write = async |text: &'static str, known| {
        let bytes = Bytes::from_static(text.as_bytes());
        store.write_over(&path, bytes, known).await.unwrap()
    };
    let first = write("1", None).await;
    assert!(first.is_some());
    assert_eq!(write("again", None).await, None);
    let second = write("2", first.clone()).await;
    assert!(second.is_some());
    assert_eq!(write("late", first).await, None);
    let (bytes, version) = store.read_version(&path).await.unwrap().unwrap();
    assert_eq!((bytes, Some(version)), (Bytes::from_static(b"2"), second));
}

#[tokio::test]
async fn who_is_not_the_leader_writes_nothing_and_reads_on() {
    let (plain, _folder) = store();
    plain.put_batch(&key(1, "a", 1), batch(1)).await.unwrap();
    let leadership = Leadership::always();
    let store = plain.fenced(leadership.clone());
    let content = Bytes::from_static(b"x");
    let digest = Digest::of(&content);
    let mut begun = store.blob_writer("run-1", &digest).unwrap();
    begun.write(content.clone()).await.unwrap();
    leadership.end();
    let meta = RunMeta {
        uid: "run-1".into(),
        ..RunMeta::default()
    };
    let refused = [
        begun.finish().await,
        store.put_batch(&key(1, "a", 2), batch(2)).await.map(|_| ()),
        store.put_blob("run-1", &digest, content).await,
        store.put_meta(&meta).await,
        store.delete_run("run-1").await,
        store.put_facts(&facts("shop", "game", "run-1", "x")).await,
        store
            .write_over(&Path::from("entry"), Bytes::new(), None)
            .await
            .map(|_| ()),
    ];
    for refused in refused {
        assert!(
            matches!(refused, Err(StoreError::NotLeader(_))),
            "{refused:?}"
        );
    }
    assert_eq!(store.has_blob("run-1", &digest).await.unwrap(), None);
    assert_eq!(store.meta("run-1").await.unwrap(), None);
    assert_eq!(store.batches("run-1").await.unwrap().len(), 1);
}

fn facts(namespace: &str, project: &str, uid: &str, text: &str) -> Facts {
    Facts {
        version: VERSION,
        namespace: namespace.into(),
        project: project.into(),
        run: "a-run".into(),
        uid: uid.into(),
        at: Timestamp::UNIX_EPOCH,
        facts: vec![Fact {
            text: text.into(),
            ..Fact::default()
        }],
    }
}

#[tokio::test]
async fn what_runs_leave_is_kept_once_and_only_for_their_project_and_namespace() {
    let (store, folder) = store();
    let put = async |facts: Facts| store.put_facts(&facts).await.unwrap();
    put(facts("shop", "game", "run-1", "first")).await;
    // An operator that was killed does it again.
    put(facts("shop", "game", "run-1", "again")).await;
    put(facts("shop", "game", "run-2", "second")).await;
    put(facts("shop", "game-2", "run-3", "of another project")).await;
    put(facts("bank", "game", "run-4", "of another namespace")).await;
    let kept = async |namespace: &str, project: &str| {
        let kept = store.facts(namespace, project).await.unwrap();
        let mut texts: Vec<String> = kept
            .into_iter()
            .flat_map(|facts| facts.facts)
            .map(|fact| fact.text)
            .collect();
        texts.sort();
        texts
    };
    assert_eq!(kept("shop", "game").await, ["first", "second"]);
    assert_eq!(kept("bank", "game").await, ["of another namespace"]);
    assert_eq!(kept("bank", "none").await, [""; 0]);
    // What says that it is of another place was not put there by us.
    let forged = serde_json::to_vec(&facts("bank", "game", "x", "forged")).unwrap();
    std::fs::write(folder.path().join("memory/shop/game/x.json"), forged).unwrap();
    std::fs::write(folder.path().join("memory/shop/game/y.json"), "{").unwrap();
    assert_eq!(kept("shop", "game").await, ["first", "second"]);
}

#[tokio::test]
async fn of_a_project_the_newest_runs_are_kept() {
    let (store, folder) = store();
    for n in 0..MAX_RUNS {
        let uid = format!("run-{n:03}");
        store
            .put_facts(&facts("shop", "game", &uid, "x"))
            .await
            .unwrap();
        let path = folder.path().join(format!("memory/shop/game/{uid}.json"));
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 + n as u64);
        file.set_modified(at).unwrap();
    }
    store
        .put_facts(&facts("shop", "game", "newest", "x"))
        .await
        .unwrap();
    let kept = store.facts("shop", "game").await.unwrap();
    let uids: Vec<&str> = kept.iter().map(|facts| facts.uid.as_str()).collect();
    assert_eq!(uids.len(), MAX_RUNS);
    assert_eq!((uids[0], uids[1]), ("newest", "run-063"));
    assert!(!uids.contains(&"run-000") && uids.contains(&"run-001"));
    let all = store.kept_facts().await.unwrap();
    assert_eq!(all.len(), MAX_RUNS);
    for _ in 0..2 {
        store.delete_facts(&all[0]).await.unwrap();
    }
    assert_eq!(store.kept_facts().await.unwrap().len(), MAX_RUNS - 1);
}

#[rstest]
#[case("..")]
#[case(".")]
#[case("")]
#[case("a/b")]
#[case("a%2fb")]
#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused(#[case] uid: &str) {
    let (store, _folder) = store();
    let error = store.batches(uid).await.unwrap_err();
    assert!(matches!(error, StoreError::Key(_)), "{error}");
    for facts in [
        facts(uid, "game", "run-1", "x"),
        facts("shop", uid, "run-1", "x"),
        facts("shop", "game", uid, "x"),
    ] {
        let error = store.put_facts(&facts).await.unwrap_err();
        assert!(matches!(error, StoreError::Key(_)), "{error}");
    }
}
