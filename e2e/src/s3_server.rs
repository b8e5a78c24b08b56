//! A real S3 server beside the cluster, over a folder: signatures, conditional writes and all.

use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

/// The one bucket.
pub const BUCKET: &str = "evidence";
/// Id of the one key.
pub const KEY_ID: &str = "e2e-key";
/// The key.
pub const KEY: &str = "e2e-9f3c27d1";

/// A server at work; it stops when dropped.
pub struct S3Server {
    /// Its URL.
    pub endpoint: String,
    folder: TempDir,
    _process: Child,
}

impl S3Server {
    /// Serves an empty bucket on an address that pods can reach.
    pub async fn start(address: IpAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().join("root");
        // A folder below the root is a bucket.
        fs::create_dir_all(root.join(BUCKET))?;
        let at = SocketAddr::new(
            address,
            TcpListener::bind((address, 0))?.local_addr()?.port(),
        );
        let log = fs::File::create(folder.path().join("log"))?;
        let mut process = Command::new("versitygw")
            .args(["--port", &at.to_string(), "--keep-alive", "--quiet"])
            .arg("posix")
            .arg(&root)
            .env("ROOT_ACCESS_KEY_ID", KEY_ID)
            .env("ROOT_SECRET_ACCESS_KEY", KEY)
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context(
                "starting versitygw: `make tools` builds it, e2e/cluster/env.sh puts it on PATH",
            )?;
        let listening = async {
            while TcpStream::connect(at).await.is_err() {
                if let Some(ended) = process.try_wait()? {
                    let log = fs::read_to_string(folder.path().join("log"))?;
                    bail!("versitygw ended with {ended}:\n{log}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(20), listening)
            .await
            .context("versitygw does not listen within 20 s")??;
        Ok(Self {
            endpoint: format!("http://{at}"),
            folder,
            _process: process,
        })
    }

    /// The folder in which it keeps the objects of the bucket.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("root").join(BUCKET)
    }

    /// What the chart is told to keep its evidence there, with the credentials in a Secret of this name.
    pub fn values(&self, secret: &str) -> Vec<String> {
        vec![
            format!("storage.url=s3://{BUCKET}/sopwith"),
            format!("storage.secretName={secret}"),
            format!("storage.s3.endpoint={}", self.endpoint),
            "storage.s3.pathStyle=true".to_owned(),
            "storage.s3.allowHttp=true".to_owned(),
        ]
    }
}
