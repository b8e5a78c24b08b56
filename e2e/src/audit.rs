//! The apiserver's audit log of the local cluster.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
};

/// Where the local cluster writes its audit log; none on a cluster that is not ours.
pub fn path() -> Option<PathBuf> {
    env::var_os("SOPWITH_AUDIT_LOG")
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// Every record in which a text occurs, the oldest first; the apiserver begins a new file when one has 100 MB.
pub fn records_with(text: &str) -> Result<Vec<Value>> {
    let path = path().context("no audit log: SOPWITH_AUDIT_LOG is not set (e2e/cluster/env.sh)")?;
    let folder = path.parent().context("a log without a folder")?;
    let stem = path
        .file_stem()
        .context("a log without a name")?
        .to_string_lossy();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let earlier = name.starts_with(&format!("{stem}-"));
        files.extend(earlier.then(|| folder.join(name)));
    }
    // Their names end with the time at which they were closed.
    files.sort();
    files.push(path);
    let mut records = Vec::new();
    for file in files {
        for line in BufReader::new(fs::File::open(file)?).lines() {
            let line = line?;
            if line.contains(text) {
                records.extend(serde_json::from_str::<Value>(&line).ok());
            }
        }
    }
    Ok(records)
}

/// Counts the writes that a user made to the objects of a namespace, by `verb resource[/subresource]`.
pub fn writes(user: &str, namespace: &str, resources: &[&str]) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for record in records_with(namespace)? {
        let field = |pointer: &str| {
            record
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let verb = field("/verb");
        let counted = field("/stage") == "ResponseComplete"
            && field("/user/username") == user
            && field("/objectRef/namespace") == namespace
            && resources.contains(&field("/objectRef/resource"))
            && ["create", "update", "patch", "delete"].contains(&verb);
        if counted {
            let subresource = field("/objectRef/subresource");
            let slash = if subresource.is_empty() { "" } else { "/" };
            *counts
                .entry(format!(
                    "{verb} {}{slash}{subresource}",
                    field("/objectRef/resource")
                ))
                .or_default() += 1;
        }
    }
    Ok(counts)
}
