//! Every mistake with its exact path and message: they are what people read in conditions and in `lint`.

mod gates;
mod pairing;
mod picks;
mod policy;
mod run;
mod sample;
mod sop;
mod unsupported;

use super::Finding;
use serde::de::DeserializeOwned;

/// A spec from YAML.
fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// `text` with one place changed, which must be there once; an empty `from` appends.
fn changed(text: &str, from: &str, to: &str) -> String {
    if from.is_empty() {
        return format!("{text}{to}");
    }
    assert_eq!(text.matches(from).count(), 1, "{from} in\n{text}");
    text.replace(from, to)
}

fn told(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}
