//! The apiserver's audit log of the local cluster.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{collections::BTreeMap, env, fs, path::PathBuf};

/// Where the local cluster writes its audit log; none on a cluster that is not ours.
pub fn path() -> Option<PathBuf> {
    env::var_os("SOPWITH_AUDIT_LOG")
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// Every record of the log.
pub fn records() -> Result<Vec<Value>> {
    let path = path().context("no audit log: SOPWITH_AUDIT_LOG is not set (e2e/cluster/env.sh)")?;
    let text = fs::read_to_string(path)?;
    let records = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(records.collect())
}

/// Counts the writes that a user made to the objects of a namespace, by `verb resource[/subresource]`.
pub fn writes(user: &str, namespace: &str, resources: &[&str]) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for record in records()? {
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
