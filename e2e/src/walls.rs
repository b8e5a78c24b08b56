//! What the tests of the walls share: their fixtures, and what a run left, as `kubectl sop pull` fetches it.

use crate::{fixture, kubectl, namespace::Namespace, repository};
use anyhow::{Context as _, Result};
use kube::api::DynamicObject;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Applies the procedures and the policy of `e2e/fixtures/walls`, as its kustomization says.
pub async fn prepare(namespace: &Namespace) -> Result<()> {
    let folder = repository().join("e2e/fixtures/walls");
    let folder = folder.to_string_lossy();
    let args = [
        "apply",
        "--server-side",
        "-n",
        &namespace.name,
        "-k",
        &folder,
    ];
    kubectl::kubectl(&args).await.map(drop)
}

/// The run of a fixture.
pub fn run(name: &str) -> Result<DynamicObject> {
    let file = format!("e2e/fixtures/walls/{name}-run.yaml");
    let runs = fixture::read(repository().join(file))?;
    runs.into_iter().next().context("no run")
}

/// What a run left.
#[derive(Debug)]
pub struct Left {
    folder: tempfile::TempDir,
    run: String,
}

impl Left {
    /// Fetches it.
    pub async fn of(namespace: &Namespace, run: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("out");
        let out = out.to_string_lossy();
        kubectl::kubectl(&["sop", "pull", run, "-n", &namespace.name, "--out", &out]).await?;
        Ok(Self {
            folder,
            run: run.to_owned(),
        })
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// A file of the project as text.
    pub fn text(&self, path: &str) -> Result<String> {
        let path = self.out().join(&self.run).join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Every file below a folder of the project, relative to it.
    pub fn files(&self, folder: &str) -> Result<BTreeSet<String>> {
        let top = self.out().join(&self.run).join(folder);
        let mut found = BTreeSet::new();
        walk(&top, &top, &mut found)?;
        Ok(found)
    }

    /// What was said for a cause (`step/action` or `step/action/gate`), in order.
    pub fn said(&self, cause: &str) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for line in fs::read_to_string(self.out().join("messages.jsonl"))?.lines() {
            let message: Value = serde_json::from_str(line)?;
            if message["cause"] == cause {
                said.push(message["content"].as_str().unwrap_or_default().to_owned());
            }
        }
        Ok(said)
    }
}

fn walk(top: &Path, folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(top, &entry.path(), found)?;
        } else {
            let path = entry
                .path()
                .strip_prefix(top)?
                .to_string_lossy()
                .into_owned();
            found.insert(path);
        }
    }
    Ok(())
}
