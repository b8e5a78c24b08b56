//! Fixtures: YAML that a user could apply, below `e2e/fixtures`.

use anyhow::{Context as _, Result};
use kube::api::DynamicObject;
use serde::Deserialize as _;
use std::{fs, path::Path};

/// Reads every object of a YAML file, in its order.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<DynamicObject>> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("parsing {}", path.display()))
}

/// Reads every object of a YAML text, in its order.
pub fn parse(text: &str) -> Result<Vec<DynamicObject>> {
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text)?;
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| Ok(DynamicObject::deserialize(document)?))
        .collect()
}
