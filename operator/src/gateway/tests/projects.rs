//! Claims about the projects that runs begin with: uploaded ones, and what earlier runs left.

use super::{
    calls::{blob, folder, refused},
    listener::Running,
};
use reqwest::{Method, Response, StatusCode};
use sopwith_crds::contract::{Digest, report::MAX_BLOB_BYTES};

const ARCHIVE: &[u8] = b"what may be an archive";

impl Running {
    async fn push(&self, token: &str, namespace: &str, digest: &Digest, body: Vec<u8>) -> Response {
        let url = self.url_of(
            &format!("namespaces/{namespace}"),
            &format!("uploads/{digest}"),
        );
        let request = self.client.request(Method::PUT, url).bearer_auth(token);
        request.body(body).send().await.unwrap()
    }
}

fn upload(digest: &Digest) -> String {
    format!("uploads/{digest}")
}

#[tokio::test]
async fn an_upload_is_read_by_the_runs_of_its_namespace_that_name_it_and_by_nobody_else() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let digest = Digest::of(ARCHIVE);
    for status in [StatusCode::CREATED, StatusCode::OK] {
        let pushed = gateway
            .push("user:ada", "demo", &digest, ARCHIVE.to_vec())
            .await;
        assert_eq!(pushed.status(), status);
    }
    let path = upload(&digest);
    let unnamed = gateway.get("pod:1", &path).await;
    let message = refused(unnamed, StatusCode::FORBIDDEN, "NotOfRun").await;
    assert!(message.contains("does not name sha256:"), "{message}");
    *gateway.launches.upload.lock().unwrap() = Some(digest.to_string());
    let read = gateway.get("pod:1", &path).await;
    assert_eq!(read.bytes().await.unwrap(), ARCHIVE);
    // Not people, who have the folder; not a launch of yesterday; nobody by the way of blobs.
    refused(
        gateway.get("user:ada", &path).await,
        StatusCode::FORBIDDEN,
        "NotARunner",
    )
    .await;
    let blob = gateway.get("pod:1", &blob(ARCHIVE)).await;
    refused(blob, StatusCode::NOT_FOUND, "BlobNotFound").await;
    *gateway.launches.newest.lock().unwrap() = 2;
    refused(
        gateway.get("pod:1", &path).await,
        StatusCode::CONFLICT,
        "LaunchSuperseded",
    )
    .await;
}

#[tokio::test]
async fn what_was_uploaded_into_another_namespace_is_not_there() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let digest = Digest::of(ARCHIVE);
    let mut writer = gateway.store.upload_writer("bank", &digest).unwrap();
    writer.write(ARCHIVE.into()).await.unwrap();
    writer.finish().await.unwrap();
    *gateway.launches.upload.lock().unwrap() = Some(digest.to_string());
    let read = gateway.get("pod:1", &upload(&digest)).await;
    refused(read, StatusCode::NOT_FOUND, "UploadNotFound").await;
}

#[tokio::test]
async fn only_those_who_may_upload_into_the_namespace_do_and_only_what_they_say() {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let digest = Digest::of(ARCHIVE);
    for (token, namespace, body, status, reason) in [
        (
            "user:eve",
            "demo",
            ARCHIVE,
            StatusCode::FORBIDDEN,
            "Forbidden",
        ),
        (
            "user:ada",
            "bank",
            ARCHIVE,
            StatusCode::FORBIDDEN,
            "Forbidden",
        ),
        ("pod:1", "demo", ARCHIVE, StatusCode::FORBIDDEN, "Forbidden"),
        (
            "nobody",
            "demo",
            ARCHIVE,
            StatusCode::UNAUTHORIZED,
            "Unauthenticated",
        ),
        (
            "user:ada",
            "demo%2F..%2Fdemo",
            ARCHIVE,
            StatusCode::FORBIDDEN,
            "Forbidden",
        ),
        (
            "user:ada",
            "demo",
            b"other",
            StatusCode::UNPROCESSABLE_ENTITY,
            "DigestMismatch",
        ),
    ] {
        let pushed = gateway.push(token, namespace, &digest, body.to_vec()).await;
        refused(pushed, status, reason).await;
    }
    let large = vec![0; MAX_BLOB_BYTES + 1];
    let pushed = gateway
        .push("user:ada", "demo", &Digest::of(&large), large)
        .await;
    refused(pushed, StatusCode::PAYLOAD_TOO_LARGE, "TooLarge").await;
    assert!(gateway.store.uploads().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_an_earlier_run_left_is_read_by_the_run_that_begins_with_it_and_is_its_own_from_then_on()
 {
    let folder = folder();
    let gateway = Running::start(&folder).await;
    let content = b"x = 1\n";
    let digest = Digest::of(content);
    gateway
        .store
        .put_blob("run-0", &digest, content.as_slice().into())
        .await
        .unwrap();
    let path = blob(content);
    refused(
        gateway.get("pod:1", &path).await,
        StatusCode::NOT_FOUND,
        "BlobNotFound",
    )
    .await;
    *gateway.launches.earlier.lock().unwrap() = Some("run-0".into());
    // A person who may read this run may not for that read the other.
    refused(
        gateway.get("user:ada", &path).await,
        StatusCode::NOT_FOUND,
        "BlobNotFound",
    )
    .await;
    let head = gateway.call(Method::HEAD, "pod:1", &path, Vec::new()).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(
        gateway.get("pod:1", &path).await.bytes().await.unwrap(),
        content.as_slice()
    );
    gateway.store.delete_run("run-0").await.unwrap();
    for token in ["pod:1", "user:ada"] {
        assert_eq!(
            gateway.get(token, &path).await.bytes().await.unwrap(),
            content.as_slice()
        );
    }
    let gone = gateway.get("pod:1", &blob(b"never")).await;
    refused(gone, StatusCode::NOT_FOUND, "BlobNotFound").await;
}
