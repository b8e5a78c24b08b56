//! Claims about the store, over a folder.

use super::{BatchKey, Put, RunMeta, Store, StoreError};
use bytes::Bytes;
use rstest::rstest;
use sopwith_crds::contract::{
    Digest, VERSION,
    report::{MAX_BLOB_BYTES, ReportBatch},
};
use tempfile::TempDir;

fn store() -> (Store, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap();
    (Store::open(url.as_str()).unwrap(), folder)
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
    let again = Store::open(url.as_str()).unwrap();
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
    let mut writer = store.blob_writer("run-1", &digest).await.unwrap();
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

#[rstest]
#[case("s3://bucket/prefix", "not supported yet")]
#[case("var/lib/sopwith", "file:///")]
#[case("file://host/share", "absolute path")]
fn a_url_that_cannot_be_opened_says_what_to_write(#[case] url: &str, #[case] expected: &str) {
    let error = Store::open(url).unwrap_err().to_string();
    assert!(
        error.contains(expected) && error.contains("file:///"),
        "{error}"
    );
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
}
